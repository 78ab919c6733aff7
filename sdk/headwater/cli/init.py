"""`headwater init`: a new project from a template, which works as it is."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from importlib.metadata import version
from importlib.resources import as_file, files
from pathlib import Path
from typing import Annotated

import typer
from headwater_protocol.errors import RequestError

from headwater.cli.deploy import PrintJsonOption  # noqa: TC001 - typer reads annotations at run time
from headwater.cli.deployment import fail, output_for, surroundings_of, usage

_FILLED_IN = {"_README.md": "README.md", "_pyproject.toml": "pyproject.toml", "_gitignore": ".gitignore"}
"""Files of the template whose names would mean something where it lies, and what they are called in a project."""
_LEFT_OUT = shutil.ignore_patterns("__pycache__", "__init__.py", *_FILLED_IN)

FolderArgument = Annotated[
    Path, typer.Argument(help="Folder of the project; it is made, or is empty.", metavar="DIR")
]


def init(context: typer.Context, folder: FolderArgument, as_json: PrintJsonOption = False) -> None:
    """Make a new project: a table, functions over it, a test, a README. Nothing that is there is changed."""
    output = output_for(as_json=as_json)
    target = surroundings_of(context).folder / folder
    name = project_name(target)
    if not name:
        raise usage(
            RequestError(f"{folder}: a project's name has letters or digits in it; choose another folder")
        )
    try:
        made = make_project(target, name)
    except RequestError as error:
        fail(output, error)
    except OSError as error:
        fail(output, RequestError(f"{error.filename or target}: {error.strerror}"))
    if as_json:
        output.value({"folder": str(target), "files": made})
        return
    output.say(f"made {target}: {', '.join(made)}", style="green")
    output.say(f"next: cd {shlex.quote(str(folder))} && headwater dev functions/")


def project_name(folder: Path) -> str:
    """Return the name for a project in a folder, as packages may be called; empty where there is none."""
    return re.sub(r"[^a-z0-9]+", "-", folder.resolve().name.lower()).strip("-")


def make_project(folder: Path, name: str) -> list[str]:
    """Write a project.

    Args:
        folder: Where to; it must be empty, but for a repository, or not be there.
        name: What it is called.

    Returns:
        The files, relative to the folder, in order.

    Raises:
        RequestError: There is something at that place already.
    """
    if folder.exists() and (not folder.is_dir() or any(path.name != ".git" for path in folder.iterdir())):
        raise RequestError(f"{folder} is there already and not empty; choose another folder")
    values = {
        "name": name,
        "version": version("headwater"),
        "python": ".".join(map(str, sys.version_info[:2])),
    }
    with as_file(files("headwater") / "template") as template:
        shutil.copytree(template, folder, ignore=_LEFT_OUT, dirs_exist_ok=True)
        (folder / "functions" / "__init__.py").touch()
        for source, destination in _FILLED_IN.items():
            text = (template / source).read_text(encoding="utf-8")
            (folder / destination).write_text(text.format_map(values), encoding="utf-8")
        made = [path.relative_to(template) for path in template.rglob("*") if path.is_file()]
    names = {_FILLED_IN.get(str(path), str(path)) for path in made if "__pycache__" not in path.parts}
    return sorted(names)
