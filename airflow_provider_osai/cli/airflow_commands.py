"""The commands of ``osai-airflow`` as ``airflow osai``, for Airflow 3.2 and newer.

Every ``airflow`` process imports this module and calls :func:`get_osai_cli_commands`. Airflow 3.1 does not read the
provider's ``cli``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_osai.cli.parsers import COMMANDS, parser_for

if TYPE_CHECKING:
    from airflow.cli.cli_config import Arg, CLICommand

__all__ = ["get_osai_cli_commands"]

HELP: Final = "Work with OSAI: check a connection, jobs, models, datasets"


def get_osai_cli_commands() -> list[CLICommand]:
    """Return the group ``osai``. Airflow calls this by the provider's metadata."""
    from airflow.cli.cli_config import GroupCommand

    commands = [_command(name, command.help, parser_for(name), (name,)) for name, command in COMMANDS.items()]
    return [GroupCommand(name="osai", help=HELP, subcommands=commands)]


def _command(name: str, text: str, parser: argparse.ArgumentParser, path: tuple[str, ...]) -> CLICommand:
    """Return the command, or the group of commands, of a parser."""
    from airflow.cli.cli_config import ActionCommand, GroupCommand

    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            helps = {choice.dest: choice.help or "" for choice in action._choices_actions}
            subcommands = [_command(each, helps[each], sub, (*path, each)) for each, sub in action.choices.items()]
            return GroupCommand(name=name, help=text, subcommands=subcommands)
    args = [_arg(action) for action in parser._actions if not isinstance(action, argparse._HelpAction)]
    return ActionCommand(
        name=name,
        help=text,
        description=parser.description,
        epilog=parser.epilog,
        func=_runner(path),
        args=args,
    )


def _arg(action: argparse.Action) -> Arg:
    """Return an option or argument in Airflow's form."""
    from airflow.cli.cli_config import Arg

    options: dict[str, Any] = {"help": action.help, "default": action.default}
    if isinstance(action, argparse._StoreTrueAction):
        options["action"] = "store_true"
    else:
        if isinstance(action, argparse._AppendAction):
            options["action"] = "append"
        options |= {"nargs": action.nargs, "type": action.type, "choices": action.choices, "metavar": action.metavar}
    if action.option_strings:
        options |= {"required": action.required, "dest": action.dest}
    return Arg(tuple(action.option_strings) or (action.dest,), **options)


def _runner(path: tuple[str, ...]) -> Callable[[argparse.Namespace], None]:
    """Return the function that Airflow calls with the parsed options."""

    def run(options: argparse.Namespace) -> None:
        from airflow_provider_osai.cli import run_command

        options.command = path[1] if len(path) > 1 else None
        sys.exit(run_command(path[0], options))

    run.__name__ = "_".join(("osai", *path))
    return run
