"""Log lines that Airflow's log viewer folds into one, and tables in them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from airflow_provider_osai.api.errors import sanitize_server_text

__all__ = ["MAX_CELL", "group_lines", "table_lines"]

MAX_CELL: Final = 100
"""Maximum characters of a cell of a table."""


def group_lines(title: str, lines: Iterable[str]) -> Iterator[str]:
    """Yield the lines of a group: its begin with the title, *lines*, and its end.

    Log each by itself, one right after the other: the viewer hides the lines that begin and end a group.

    :param title: what is shown while the group is folded; sanitized here.
    :param lines: printable lines; text of others is sanitized by the caller.
    """
    yield f"::group::{sanitize_server_text(title)}"
    yield from lines
    yield "::endgroup::"


def table_lines(rows: Iterable[Iterable[str]]) -> list[str]:
    """Return the rows of a table as lines with aligned columns.

    :param rows: rows of the same number of cells. A cell is sanitized and shortened to :data:`MAX_CELL` characters.
    """
    cells = [[sanitize_server_text(cell, MAX_CELL) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in cells]
