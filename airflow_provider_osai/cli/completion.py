"""Shell completion: commands, options and their values, without importing Airflow or the commands."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import NoReturn

import argcomplete
from argcomplete.completers import FilesCompleter, SuppressCompleter

from airflow_provider_osai.cli.parsers import COMMANDS, PROG, parser_for

__all__ = ["complete"]


def complete() -> NoReturn:
    """Write the completions of the command line that the shell passes in ``COMP_LINE``, and exit."""
    parser = argparse.ArgumentParser(prog=PROG)
    commands = parser.add_subparsers()
    words = os.environ.get("COMP_LINE", "").split()
    for name, command in COMMANDS.items():
        added = commands.add_parser(name, help=command.help)
        if name in words:  # the options of other commands are not needed
            parser_for(name, added)
    _complete_files(parser)
    argcomplete.autocomplete(parser, always_complete_options="long", default_completer=SuppressCompleter())
    sys.exit(1)


def _complete_files(parser: argparse.ArgumentParser) -> None:
    """Complete the names of files for the options that take one, and for nothing else, such as ids."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for subparser in action.choices.values():
                _complete_files(subparser)
        elif action.type is Path or action.metavar == "FOLDER":
            action.completer = FilesCompleter()  # type: ignore[attr-defined]  # read by argcomplete
