"""The calls that a notebook or script states: what is sent where, and what is read from the response."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

__all__ = ["MAX_NAME", "Notebook", "StatedCall", "Variable"]

MAX_NAME: Final = 60
"""Maximum characters of a variable's name."""


@dataclass(frozen=True, slots=True)
class Variable:
    """A value that the code does not state: a parameter, a value of a response, or a secret."""

    name: str

    @classmethod
    def of(cls, text: str) -> Variable:
        """Return the variable named after *text*, which may be any."""
        return cls(re.sub(r"\W+", "_", text[: 2 * MAX_NAME]).strip("_")[:MAX_NAME] or "value")


@dataclass(frozen=True, slots=True)
class StatedCall:
    """One HTTP call in source code, without any secret that was recognized.

    In *query*, *body* and *form*, a value that the code does not state is a :class:`Variable`; in a text or key that is
    stated in part, ``{name}`` stands for it. A value that is sent as JSON text (``json.dumps``) is given as the value.

    :param method: the HTTP method, in capitals.
    :param path: with ``{name}`` for each variable, without the query; only ``{name}`` if the whole address is one.
    :param base_known: whether the path begins at the server's root; otherwise it begins below a variable.
    :param query: of the address and of ``params``.
    :param body: the JSON body; a :class:`Variable` if it is something else, such as a file; ``None`` if there is none.
    :param form: the fields of a form.
    :param files: the names of the form's fields with files; ``{name}`` if the code does not state them.
    :param headers: the names of the headers, also of the session's.
    :param source: the file, cell and line; the cells of all kinds are counted from 1.
    :param response_reads: what the code reads from the response's JSON: from variable to path, as in contract
        documents. ``@`` is the document itself, ``[*]`` each item of a list.
    :param origin: scheme, host and port, if stated.
    """

    method: str
    path: str
    base_known: bool
    query: Mapping[str, Any] = field(default_factory=dict)
    body: Any = None
    form: Mapping[str, Any] = field(default_factory=dict)
    files: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()
    source: str = ""
    response_reads: Mapping[str, str] = field(default_factory=dict)
    origin: str = ""


@dataclass(frozen=True, slots=True)
class Notebook:
    """What was read from a notebook or script.

    :param calls: in the order in which the code makes them; those of functions that it never calls are last.
    :param words: words that the code compares a field or variable with, by its name: ``{"status": {"Completed"}}``.
        Numbers are included for names that contain status, state, stage or phase.
    :param skipped_cells: the number of cells that could not be parsed.
    :param skipped_lines: the number of lines that were left out of other cells, such as magics and shell commands.
    """

    calls: tuple[StatedCall, ...] = ()
    words: Mapping[str, frozenset[str]] = field(default_factory=dict)
    skipped_cells: int = 0
    skipped_lines: int = 0
