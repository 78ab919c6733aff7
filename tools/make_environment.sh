#!/bin/sh
# Makes the virtual environment of `make setup`, or says in one line what the machine lacks.
# In shell: this must also run, and explain itself, where Python is too old for the project.
set -eu
python=$1
folder=$2

fail() {
    echo "setup: $1" >&2
    exit 1
}

version='import sys; print("%d.%d.%d" % sys.version_info[:3])'
recent='import sys; sys.exit(sys.version_info < (3, 11))'
ask='make PYTHON=/path/to/python3.11'

command -v "$python" >/dev/null || fail "there is no '$python' here; install Python 3.11 or later, or name one: $ask"
"$python" -c "$recent" ||
    fail "Headwater needs Python 3.11 or later, '$python' is $("$python" -c "$version"); name another: $ask"
"$python" -c 'import ensurepip, venv' 2>/dev/null ||
    fail "'$python' has no venv module; on Debian and Ubuntu: apt install python3-venv"

if [ -x "$folder/bin/python" ] && "$folder/bin/python" -c "$recent" 2>/dev/null; then
    exit 0
fi
echo "setup: making $folder with Python $("$python" -c "$version")"
rm -rf "$folder"
"$python" -m venv "$folder"
