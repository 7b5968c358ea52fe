"""Read the code cells of a notebook or script, and parse what is Python in them. Nothing is run."""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from airflow_provider_osai.api.errors import OsaiContractError
from airflow_provider_osai.learning.json_limits import load_bounded, read_bounded

__all__ = ["MAX_CODE", "CodeCell", "parse_cell", "read_cells"]

MAX_BYTES: Final = 32 * 2**20
"""Maximum size of a notebook."""
MAX_DEPTH: Final = 200
"""Maximum depth of a notebook's JSON; outputs may contain plots."""
MAX_CELL: Final = 2**18
"""Maximum characters of a cell; parsing a hostile one of this size takes seconds."""
MAX_CODE: Final = 2**21
"""Maximum characters of all cells of a notebook."""
MAX_REPAIRS: Final = 10
"""Maximum number of invalid lines that are left out of a cell before it is skipped."""

_SCRIPT_CELL: Final = re.compile(r"^(?=# ?%%|# In ?\[|# COMMAND -{5,})", re.MULTILINE)
"""Where Jupytext, Spyder, VS Code, nbconvert and Databricks begin a cell of a script."""
_NOT_PYTHON: Final = re.compile(
    r"""
    [%!?] .*                          # magic, shell command, help
    | [\w.]+\?{1,2}                   # help
    | [\w.,\ ]+=\s*[%!] .*            # x = !ls
    | (\$|>>>|\.\.\.)\ .*             # prompt
    | (pip|conda|cd|ls|cat|curl|wget)\s+[^=(\s] .*  # automatic magic
    | (print|exec)\s+[^\s(=.,\[].*    # statement of Python 2
    """,
    re.VERBOSE,
)
MAX_LINE: Final = 2_000
"""Maximum characters of a line that is compared with these."""
_PYTHON_MAGIC: Final = re.compile(r"\s*%%(time|timeit|capture|prun|python3?|px)\b")
"""Cell magics whose cell is Python all the same."""


@dataclass(frozen=True, slots=True)
class CodeCell:
    """A cell with code.

    :param number: from 1, counting cells of all kinds; 0 in a script, whose lines are counted from its beginning.
    :param text: the source code.
    :param first_line: the number of its first line.
    """

    number: int
    text: str
    first_line: int = 1


def read_cells(path: Path) -> Iterator[CodeCell]:
    """Yield the code cells of a notebook (nbformat 3 and 4) or of a Python script.

    :raises OsaiContractError: if the file cannot be read, is not a notebook, or is larger than 32 MiB.
    """
    if path.suffix.lower() == ".py":
        yield from _script_cells(read_bounded(path, MAX_BYTES).decode("utf-8-sig", "replace"))
        return
    document = load_bounded(path, MAX_BYTES, MAX_DEPTH)
    cells = _cells(document)
    if cells is None:
        raise OsaiContractError(f"{str(path)!a}: not a Jupyter notebook; it has no 'cells' or 'worksheets'")
    for number, cell in enumerate(cells, start=1):
        if isinstance(cell, dict) and cell.get("cell_type") == "code":
            source = cell.get("source", cell.get("input"))
            lines = source if isinstance(source, list) else [source]
            yield CodeCell(number, "".join(line for line in lines if isinstance(line, str)))


def _cells(document: Any) -> list[Any] | None:
    if not isinstance(document, dict):
        return None
    if isinstance(document.get("cells"), list):
        return list(document["cells"])
    worksheets = document.get("worksheets")  # nbformat 3
    if not isinstance(worksheets, list):
        return None
    lists = [sheet.get("cells") for sheet in worksheets if isinstance(sheet, dict)]
    return [cell for cells in lists if isinstance(cells, list) for cell in cells]


def _script_cells(text: str) -> Iterator[CodeCell]:
    line = 1
    for part in _SCRIPT_CELL.split(text):
        yield CodeCell(0, part, line)
        line += part.count("\n")


def parse_cell(text: str) -> tuple[ast.Module | None, int]:
    """Return the parsed cell, and the number of lines that were left out; ``None`` if it cannot be parsed.

    Left out are magics, shell commands and statements of Python 2, and then up to ten lines with other errors.
    """
    if len(text) > MAX_CELL:
        return None, 0
    lines = [line.replace("\f", " ") for line in re.split(r"\r\n?|\n", text.replace("\0", " "))]
    first = next((line for line in lines if line.strip()), "")
    if first.lstrip().startswith("%%") and not _PYTHON_MAGIC.match(first):
        return None, 0
    tree, wrong = _parse(lines)
    skipped = 0
    if tree is None:
        for number, line in enumerate(lines):
            if len(line) <= MAX_LINE and _NOT_PYTHON.fullmatch(line.strip()):
                skipped += 1
                lines[number] = _empty(line)
        tree, wrong = _parse(lines)
    for _ in range(MAX_REPAIRS):
        if tree is not None or wrong is None or not 0 < wrong <= len(lines) or not _code(lines[wrong - 1]):
            break
        skipped += 1
        lines[wrong - 1] = _empty(lines[wrong - 1])
        tree, wrong = _parse(lines)
    return (tree, skipped) if tree is not None and (_has_code(lines) or not skipped) else (None, 0)


def _parse(lines: list[str]) -> tuple[ast.Module | None, int | None]:
    """Return the tree, or the line of the error, if it is known."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # such as an invalid escape sequence
        try:
            return ast.parse("\n".join(lines)), None
        except SyntaxError as error:
            return None, error.lineno
        except (RecursionError, MemoryError, ValueError):  # nested too deeply, or a lone surrogate
            return None, None


def _empty(line: str) -> str:
    """Return a statement that does nothing, since a block must not become empty."""
    return line[: len(line) - len(line.lstrip())] + "pass"


def _code(line: str) -> str:
    return "" if line.strip() == "pass" else line.strip()


def _has_code(lines: list[str]) -> bool:
    return any(_code(line) and not line.lstrip().startswith("#") for line in lines)
