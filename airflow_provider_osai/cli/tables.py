"""Tables and lists of facts: with lines and colors on a terminal, as aligned plain text elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_osai.api.text import parse_time
from airflow_provider_osai.cli.output import one_line

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

__all__ = ["EMPTY", "console", "plain_table", "write_facts", "write_table"]

EMPTY: Final = "-"
"""A cell without a value, so that each line has the same number of columns."""
TIMES: Final = ("CREATED", "UPDATED", "SINCE")
"""Columns of ISO 8601 times, which a terminal shows in UTC without fractions of a second."""
GAP: Final = 3
"""Columns of a terminal between two columns."""
STYLES: Final[Mapping[str, str]] = {
    "succeeded": "green",
    "cancelled": "yellow",
    "ended": "green",
    "failed": "red",
    "not tried": "red",
    "running": "cyan",
    "queued": "blue",
    "requested": "yellow",
    "unknown": "magenta",
}
"""Colors of states and of what became of a job."""


def console(*, stderr: bool = False) -> Console:
    """Return a terminal; it obeys ``NO_COLOR``, ``TERM`` and ``COLUMNS``."""
    # Not at the top: plain output does not need it.
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, markup=False, emoji=False)


def plain_table(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as lines of text with aligned columns."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "".join("  ".join(map(str.ljust, row, widths)).rstrip() + "\n" for row in rows)


def write_table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a table to the standard output.

    Elsewhere than on a terminal, columns are separated by two or more spaces, the first line is the header, and empty
    cells are ``-``. A terminal shows no column without values, times to the second, and one line for each value if a
    cell of the table would wrap.
    """
    cells = [[_cell(value) for value in row] for row in rows]
    if not sys.stdout.isatty():
        sys.stdout.write(plain_table([header, *cells]))
        return
    from rich import box
    from rich.cells import cell_len
    from rich.table import Table

    for row in cells:
        row[:] = [_short_time(text) if name in TIMES else text for name, text in zip(header, row, strict=True)]
    terminal = console()
    filled = [number for number in range(len(header)) if not cells or any(row[number] != EMPTY for row in cells)]
    widths = {
        number: max(cell_len(text) for text in (header[number], *(row[number] for row in cells))) for number in filled
    }
    if cells and sum(widths.values()) + GAP * (len(filled) - 1) > terminal.width:
        for row in cells:
            terminal.print(_facts((header[number].lower(), row[number]) for number in filled))
            terminal.print()
        return
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold")
    for number in filled:
        table.add_column(header[number], no_wrap=True)
    for row in cells:
        table.add_row(*(_styled(row[number]) for number in filled))
    terminal.print(table)


def write_facts(facts: Mapping[str, Any]) -> None:
    """Write names and values to the standard output, one on each line; those without a value are left out."""
    rows = [(name, _cell(value)) for name, value in facts.items() if value not in (None, "", {}, [])]
    if not sys.stdout.isatty():
        sys.stdout.write(plain_table(rows))
        return
    console().print(_facts(rows))


def _facts(rows: Iterable[tuple[str, str]]) -> Table:
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, _styled(value))
    return table


def _styled(text: str) -> Text:
    from rich.text import Text

    return Text(text, style=STYLES.get(text, ""))


def _short_time(text: str) -> str:
    """Return an ISO 8601 time as ``2026-11-28 15:20:53`` in UTC, and other text as it is."""
    seconds = parse_time(text)
    return text if seconds is None else f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}"


def _cell(value: Any) -> str:
    """Return a value as printable text on one line."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = "" if value is None else one_line(str(value))
    return text or EMPTY
