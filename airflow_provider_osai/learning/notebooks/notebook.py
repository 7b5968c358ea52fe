"""Read the HTTP calls that a vendor's notebook or script states. The code is parsed, but neither run nor imported."""

from __future__ import annotations

from pathlib import Path

from airflow_provider_osai.api.errors import sanitize_server_text
from airflow_provider_osai.learning.notebooks.code_cells import MAX_CODE, parse_cell, read_cells
from airflow_provider_osai.learning.notebooks.code_reader import CodeReader
from airflow_provider_osai.learning.notebooks.code_values import CallRecord
from airflow_provider_osai.learning.notebooks.secret_text import SecretValues
from airflow_provider_osai.learning.notebooks.stated_calls import Notebook, StatedCall, Variable

__all__ = ["Notebook", "StatedCall", "Variable", "read_notebook"]


def read_notebook(path: Path) -> Notebook:
    """Return the calls in a Jupyter notebook (``.ipynb``, nbformat 3 and 4) or a Python script (``.py``).

    Followed are constants, f-strings and other ways to put texts together, dicts and lists, the notebook's functions
    and classes, ``requests`` and ``httpx``, in the order of the cells. Outputs and text cells are not read.
    Secrets, e-mail addresses and ids are replaced by variables. A cell with more than 256 Ki characters is skipped, and
    so is what follows the first 2 Mi characters of code.

    :raises OsaiContractError: if the file cannot be read, is no notebook, or is too large.
    """
    reader = CodeReader(sanitize_server_text(path.name, 100))
    skipped_cells = skipped_lines = size = 0
    for cell in read_cells(path):
        size += len(cell.text)
        tree, skipped = parse_cell(cell.text) if size <= MAX_CODE else (None, 0)
        skipped_lines += skipped
        if tree is None:
            skipped_cells += 1
            continue
        try:
            reader.read(tree, f"cell {cell.number} " if cell.number else "", cell.first_line)
        except RecursionError:
            skipped_cells += 1
    reader.read_uncalled()
    secrets = reader.secrets
    words = {
        name: frozenset(word for word in words if not secrets.is_secret(word))
        for name, words in reader.words.items()
        if not secrets.is_secret(name)
    }
    return Notebook(
        calls=tuple(_finish(call, secrets) for call in reader.calls),
        words={name: kept for name, kept in words.items() if kept},
        skipped_cells=skipped_cells,
        skipped_lines=skipped_lines,
    )


def _finish(call: CallRecord, secrets: SecretValues) -> StatedCall:
    """Return a call without secrets."""
    address = call.address
    return StatedCall(
        method=call.method,
        path=secrets.clean_path(address.path),
        base_known=address.base_known,
        query=secrets.clean(call.query),
        body=secrets.clean(call.body),
        form=secrets.clean(call.form),
        files=tuple(secrets.clean_name(name) for name in call.files),
        headers=tuple(secrets.clean_name(name) for name in call.headers),
        source=call.source,
        response_reads={secrets.clean_name(name): secrets.clean_name(path) for name, path in call.reads.items()},
        origin="" if secrets.is_secret(address.origin) else address.origin,
    )
