"""Read the calls of a vendor's notebook as exchanges, so that they are learned from like those of a recording.

What the code reads from a response becomes a response that has a value of its own there; a later call that has the
variable in its path or body then has this value.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from airflow_provider_osai.api.json_paths import json_path
from airflow_provider_osai.learning.notebooks.stated_calls import Notebook, Variable
from airflow_provider_osai.learning.recording import FILE, Exchange

__all__ = ["stated_exchanges"]

PLACEHOLDER: Final = re.compile(r"{(\w+)}")
NO_ADDRESS: Final = re.compile(r"{\w+}/?")
"""A path that the code takes from a response."""


def stated_exchanges(notebook: Notebook, base: str) -> list[Exchange]:
    """Return an exchange for each call with a known path.

    :param base: path of the API's base address, which is taken off.
    """
    values: dict[str, str] = {}
    exchanges: list[Exchange] = []
    for number, call in enumerate(notebook.calls):
        if NO_ADDRESS.fullmatch(call.path):
            continue
        for variable in call.response_reads:
            values[variable] = f"stated-{number}-{len(values)}"
        path = call.path.removeprefix(base) if call.base_known or call.path.startswith(f"{base}/") else call.path
        segments = tuple(_filled(part, values) for part in path.split("/") if part)
        body = _value(call.body, values) if call.body is not None else None
        encoding = "json" if body is not None else None
        if call.form or call.files:
            body = {**_value(call.form, values), **dict.fromkeys(call.files, FILE)}
            encoding = "multipart" if call.files else "form"
        exchanges.append(
            Exchange(
                # The first "#" ends the name of the recording.
                source=re.sub(r" (?=cell|line)", "#", call.source, count=1),
                method=call.method,
                path=segments,
                query=tuple((name, str(_value(value, values))) for name, value in call.query.items()),
                request_headers={},
                encoding=encoding,
                body=body,
                status=200,
                response_headers={},
                response=_response(call.response_reads, values),
                form="json",
                time=float(number),
            )
        )
    return exchanges


def _filled(text: str, values: Mapping[str, str]) -> str:
    return PLACEHOLDER.sub(lambda match: values.get(match[1], match[1]), text)


def _value(value: Any, values: Mapping[str, str]) -> Any:
    """Return a value with the values of variables in it."""
    if isinstance(value, Variable):
        return values.get(value.name, value.name)
    if isinstance(value, str):
        return _filled(value, values)
    if isinstance(value, Mapping):
        return {_filled(str(name), values): _value(each, values) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_value(each, values) for each in value]
    return value


def _response(reads: Mapping[str, str], values: Mapping[str, str]) -> Any:
    """Return a response that has a value wherever the code reads one."""
    document: Any = {}
    for variable, path in sorted(reads.items(), key=lambda item: item[1]):
        place = json_path(path.replace("[*]", "[0]"))
        if place.steps:
            document = place.put(document, values[variable])
    return document
