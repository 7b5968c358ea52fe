"""A form in few pieces."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_osai.api.gathering import PIECE, Gathered


class Stream(httpx.SyncByteStream):
    def __init__(self, parts):
        self.parts = parts

    def __iter__(self):
        yield from self.parts


@given(st.lists(st.sampled_from([b"", b"x", b"y" * 1000, b"z" * (PIECE - 1), b"w" * (PIECE + 1)]), max_size=8))
def test_it_is_the_same_bytes_in_large_pieces_each_time(parts):
    """Whoever sends them, and also when they are sent again."""
    gathered = Gathered(Stream(parts))
    pieces = list(gathered)
    assert b"".join(pieces) == b"".join(parts)
    assert all(len(piece) >= PIECE for piece in pieces[:-1])
    assert list(gathered) == pieces

    async def awaited():
        return [piece async for piece in gathered]

    assert asyncio.run(awaited()) == pieces


@pytest.mark.parametrize("size", [100, 3 * PIECE])
def test_a_form_is_sent_with_its_length(size):
    """As httpx has reckoned it."""
    request = httpx.Request("POST", "http://x", data={"a": "b"}, files={"file": ("f", b"x" * size)})
    request.stream = Gathered(request.stream)
    assert sum(map(len, request.stream)) == int(request.headers["content-length"])
