"""Maximum size of a response, by operation: bytes and JSON values.

A limit in bytes bounds the memory, not the time. Python decodes JSON without releasing the GIL, so decoding blocks the
event loop even in another thread, and 1 MiB of ``[[[]]]`` takes thirty times as long as 1 MiB of text. Therefore the
values are counted before decoding.
"""

from __future__ import annotations

import json
from typing import Any, Final, NamedTuple

from airflow_provider_osai.api.text import storable

__all__ = ["FULL_LIST_LIMIT", "LIST_LIMIT", "OBJECT_LIMIT", "Limit", "TooManyValues", "decode_json"]


class Limit(NamedTuple):
    """The maximum size of a response.

    :param size: bytes, decompressed.
    :param values: JSON values, counted as in :func:`decode_json`.
    """

    size: int
    values: int


OBJECT_LIMIT: Final = Limit(2**20, 100_000)
"""A response with one object; a job with 10,000 epochs fits."""
LIST_LIMIT: Final = Limit(4 * 2**20, 200_000)
"""A response with a list, and the maximum on an event loop."""
FULL_LIST_LIMIT: Final = Limit(32 * 2**20, 2_500_000)
"""A list of all objects, accepted by the blocking client only."""


class TooManyValues(Exception):
    """A JSON document has more values than its limit."""


def decode_json(content: bytes, max_values: int) -> Any:
    """Return the JSON document in *content*, with unstorable text replaced (see :func:`.storable`).

    :param max_values: the maximum number of values, estimated before decoding by counting commas and opening brackets,
        including those in strings; the estimate is never too low.
    :raises TooManyValues: if there are more.
    :raises ValueError: if the content is not valid JSON.
    :raises RecursionError: if it is nested too deeply.
    """
    if sum(content.count(sign) for sign in (b",", b"[", b"{")) > max_values:
        raise TooManyValues
    document = json.loads(content)
    # Only these bytes can yield surrogates or NUL: escapes, surrogates in UTF-8, and encodings of two or four bytes.
    return storable(document) if any(sign in content for sign in (b"\\u", b"\xed", b"\0")) else document
