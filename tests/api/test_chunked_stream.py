"""Coalescing a multipart body into large chunks."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_osai.api.transport import CHUNK_SIZE, ChunkedStream


class Stream(httpx.SyncByteStream):
    def __init__(self, parts):
        self.parts = parts

    def __iter__(self):
        yield from self.parts


@given(
    st.lists(st.sampled_from([b"", b"x", b"y" * 1000, b"z" * (CHUNK_SIZE - 1), b"w" * (CHUNK_SIZE + 1)]), max_size=8)
)
def test_content_is_unchanged_in_large_chunks_on_each_iteration(parts):
    chunked = ChunkedStream(Stream(parts))
    chunks = list(chunked)
    assert b"".join(chunks) == b"".join(parts)
    assert all(len(chunk) >= CHUNK_SIZE for chunk in chunks[:-1])
    assert list(chunked) == chunks

    async def collect():
        return [chunk async for chunk in chunked]

    assert asyncio.run(collect()) == chunks


@pytest.mark.parametrize("size", [100, 3 * CHUNK_SIZE])
def test_content_length_of_a_form_is_correct(size):
    request = httpx.Request("POST", "http://x", data={"a": "b"}, files={"file": ("f", b"x" * size)})
    request.stream = ChunkedStream(request.stream)
    assert sum(map(len, request.stream)) == int(request.headers["content-length"])
