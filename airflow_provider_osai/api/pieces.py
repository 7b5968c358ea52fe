"""An answer that is read as it comes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

__all__ = ["STEADY", "Stream"]

STEADY = 64 * 2**10
"""Bytes that count as progress; a stream that brings less within its time, or before it breaks, stands still."""


@dataclass(frozen=True, slots=True)
class Stream:
    """A successful answer whose body has not been read.

    :param status: 200 to 299.
    :param headers: by their names in lower case.
    :param pieces: the body, as it comes and as it is packed; reading it may raise what breaks connections.
    """

    status: int
    headers: Mapping[str, str]
    pieces: Iterator[bytes]
