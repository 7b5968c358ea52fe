"""The tables of options on docs/reference/cli.md, from the parsers: ``python -m tests.cli.reference`` rewrites them."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from airflow_provider_osai.cli.parsers import COMMANDS, PROG, parser_for

PAGE = Path(__file__).parents[2] / "docs/reference/cli.md"
SECTION = re.compile(r"(?<=<!-- options: made by tests/cli/reference.py -->\n).*?(?=<!-- end -->)", re.DOTALL)


def leaves(parser, path):
    """Yield each command that can be run, with its parser and what its group says of it."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            helps = {choice.dest: choice.help for choice in action._choices_actions}
            for name, sub in action.choices.items():
                yield f"{path} {name}", sub, helps[name]
            return
    yield path, parser, COMMANDS[path].help


def commands():
    """Yield each command that can be run."""
    for name in COMMANDS:
        yield from leaves(parser_for(name), name)


def markdown():
    lines = []
    for path, parser, text in commands():
        lines += ["", f"### {path}", "", f"{text[0].upper()}{text[1:]}.", ""]
        rows = [row(parser, action) for action in parser._actions if not isinstance(action, argparse._HelpAction)]
        if path == "jobs orphans":
            rows = ["The options are those of [orphans](#orphans)."]
        elif rows:
            rows = ["| argument | meaning |", "|---|---|", *rows]
        else:
            rows = [f"`{PROG} {path}` has no options."]
        lines += rows
    return "\n".join([*lines, "", ""])


def row(parser, action):
    names = ", ".join(f"`{name}`" for name in action.option_strings) or f"`{action.metavar or action.dest}`"
    choices = "|".join(action.choices) if action.choices else action.dest.upper()
    value = action.metavar or (choices if action.option_strings and action.nargs != 0 else "")
    value = f" `{value}`" if action.option_strings and value else ""
    text = parser._get_formatter()._expand_help(action).replace("|", "\\|")
    return f"| {names}{value.replace('|', chr(92) + '|')} | {text} |"


if __name__ == "__main__":
    PAGE.write_text(SECTION.sub(lambda _: markdown(), PAGE.read_text()))
