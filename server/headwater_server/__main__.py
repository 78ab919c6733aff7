"""The daemon's command line: parse, load settings, run, exit code."""

from __future__ import annotations

import argparse
import os
import resource
import sys
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import orjson
import uvloop
from headwater_config.flags import add_flags, given_flags
from headwater_config.load import Loaded, SettingsError, find_file, load
from headwater_protocol.errors import HeadwaterError
from headwater_storage.environment import real_environment

from headwater_server.app import Daemon, open_engine
from headwater_server.functions.zygote_process import worker_environment, zygote_starter
from headwater_server.garbage import spare_collections
from headwater_server.lifecycle import (
    EXIT_CODES,
    ExitCode,
    exit_code_of_start,
    ignore_signals,
    run,
    stop_signals,
)
from headwater_server.observe.logs import install
from headwater_server.options import trace_options, webhook_of

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code."""
    chosen = _parser().parse_args(arguments)
    try:
        loaded = load(given_flags(chosen), os.environ, find_file(Path.cwd(), os.environ, chosen.config))
    except (SettingsError, OSError) as error:
        sys.stderr.write(f"headwater: {error}\n")
        return ExitCode.USAGE
    match chosen.command:
        case "serve":
            return _serve(loaded)
        case "config":
            return _config(loaded, as_json=chosen.json)
        case "doctor":
            if chosen.accept_loss and not chosen.repair:
                sys.stderr.write("headwater: --accept-loss needs --repair\n")
                return ExitCode.USAGE
            from headwater_server import doctor  # what it needs is not in the memory of daemons

            repaired = (
                doctor.repaired(loaded.settings, accept_loss=chosen.accept_loss) if chosen.repair else True
            )
            return (
                doctor.examined(loaded.settings, as_json=chosen.json) if repaired else ExitCode.CANNOT_START
            )
    raise AssertionError(chosen.command)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="headwater", description="Headwater's daemon.")
    parser.add_argument("--version", action="version", version=version("headwater"))
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text, codes in (
        ("serve", "Run the daemon.", EXIT_CODES),
        ("config", "Print every setting with its value and where it came from.", None),
        (
            "doctor",
            "Verify a stopped data directory, without writing anything in it.",
            "0 no findings; 1 findings, or it cannot be looked at or repaired; 2 wrong flags or settings",
        ),
    ):
        command = commands.add_parser(
            name, help=text, description=text, epilog=f"Exit codes: {codes}." if codes else None
        )
        command.add_argument(
            "--config", type=Path, metavar="FILE", help="settings file (default: headwater.toml)"
        )
        if name != "serve":
            command.add_argument("--json", action="store_true", help="print JSON")
        if name == "doctor":
            command.add_argument("--repair", action="store_true", help="build a damaged store anew")
            command.add_argument(
                "--accept-loss", action="store_true", help="repair although something cannot be restored"
            )
        add_flags(command)
    return parser


def _serve(loaded: Loaded) -> int:
    # Workers are told where it is, and their working directory is another.
    settings = replace(loaded.settings, data=loaded.settings.data.absolute())
    install(settings.log_format, settings.log_level)
    _, files_max = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files_max, files_max))  # a connection is an open file

    async def serve() -> ExitCode:
        stop = stop_signals()  # before the recovery: it takes a while, and is finished then
        environment = real_environment()
        try:
            webhook = webhook_of(settings, os.environ)  # before anything is opened: they may be refused
            traces = trace_options(settings, os.environ)
            engine = open_engine(settings, environment)
            start_workers = zygote_starter(worker_environment(os.environ))
            daemon = Daemon(settings, environment, engine, start_workers, webhook, traces)
            spare_collections()
            return await run(daemon, stop, drain_limit_s=settings.drain_limit_s)
        finally:
            environment.executor.close()
            ignore_signals()

    try:
        return uvloop.run(serve())
    except HeadwaterError as error:
        sys.stderr.write(f"headwater: {error.code}: {error.message}\n")
        return exit_code_of_start(error)
    except OSError as error:
        sys.stderr.write(f"headwater: {error}\n")
    except KeyboardInterrupt:  # it came before `stop_signals`
        return ExitCode.STOPPED
    return ExitCode.CANNOT_START


def _config(loaded: Loaded, *, as_json: bool) -> int:
    rows = {
        name: {"value": getattr(loaded.settings, name), "origin": origin}
        for name, origin in loaded.origins.items()
    }
    if as_json:
        sys.stdout.write(orjson.dumps(rows, default=str).decode() + "\n")
        return ExitCode.STOPPED
    width = max(map(len, rows))
    for name, row in rows.items():
        sys.stdout.write(f"{name:<{width}}  {row['value']!s:<24}  {row['origin']}\n")
    return ExitCode.STOPPED


if __name__ == "__main__":
    sys.exit(main())
