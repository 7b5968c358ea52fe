"""Limits of one request: total timeout, response size, and no blocking of the event loop."""

from __future__ import annotations

import asyncio
import functools
import gzip
import itertools
import json
import random
import threading
import time
import zlib

import pytest

from airflow_provider_osai.api.calls import Call, FilePart
from airflow_provider_osai.api.client import PARSE_IN_THREAD_ABOVE, AsyncOsaiClient
from airflow_provider_osai.api.decoding import CHUNK
from airflow_provider_osai.api.errors import OsaiAuthError, OsaiContractError, OsaiRequestError, OsaiUnreachable
from airflow_provider_osai.api.limits import OBJECT_LIMIT
from airflow_provider_osai.api.models import JobKind
from airflow_provider_osai.api.transport import MAX_ERROR_BODY
from tests.conftest import settings_for
from tests.raw_server import RESET, RawServer, document, http

JOB = {"id": 7, "status": "succeeded"}
ENDLESS = http(length=10**12)


@pytest.fixture
def send_to(sender):
    """Send a call to a server that returns *responses* in turn; *extra* are extras of the connection."""
    servers = []

    def send(*responses, call=None, clock=time.monotonic, retry_budget=0, **extra):
        script = iter(responses)
        servers.append(RawServer(lambda _: next(script)).__enter__())
        client = sender(settings_for(servers[-1].base_url, **extra), retry_budget=retry_budget, clock=clock)
        return client.send(call or client.client.calls.get_job(JobKind.TRAINING, "7"))[0]

    yield send
    for server in servers:
        server.__exit__()


@pytest.fixture
def no_backoff(mocker):
    mocker.patch("httpx_retries.retry.time.sleep")
    mocker.patch("httpx_retries.retry.asyncio.sleep", mocker.AsyncMock())


class FakeClock:
    """A clock that the server advances."""

    now = 0.0

    def __call__(self):
        return self.now

    def advance(self, seconds, *chunks):
        """Yield the chunks, and advance the clock by *seconds* before each."""
        for chunk in chunks:
            self.now += seconds
            yield chunk


def drip(clock):
    """An endless body, one byte every ten seconds."""
    return itertools.chain([ENDLESS], clock.advance(10, *itertools.repeat(b" ", 100_000)))


def test_slow_response_is_aborted_after_four_times_the_timeout(send_to):
    """Although each byte arrives in time."""
    clock = FakeClock()
    with pytest.raises(OsaiUnreachable, match="GET /Trainings/7 .*not complete after 120 s") as caught:
        send_to(drip(clock), clock=clock)
    assert (caught.value.may_have_been_processed, clock.now >= 120) == (True, True)


def test_connection_is_closed_after_the_total_timeout(send_to):
    """Also if the timeout expires before the body begins."""
    for delay in (0, 1000):
        clock = FakeClock()
        closed = threading.Event()

        def dripping(clock=clock, closed=closed, delay=delay):
            try:
                yield from clock.advance(delay, ENDLESS)
                yield from clock.advance(10, *itertools.repeat(b" ", 1_000_000))
            finally:
                closed.set()

        with pytest.raises(OsaiUnreachable, match="not complete"):
            send_to(dripping(), clock=clock)
        assert closed.wait(20)


def test_request_that_exceeded_a_limit_is_not_retried(send_to):
    clock = FakeClock()
    with pytest.raises(OsaiUnreachable, match="not complete"):
        send_to(drip(clock), [document(JOB)], clock=clock, retry_budget=60)


def test_complete_response_in_time_is_accepted(send_to):
    clock = FakeClock()
    chunks = [bytes([byte]) for byte in document(JOB)]
    assert send_to(clock.advance(0.5, *chunks), clock=clock).state == "succeeded"


@pytest.mark.usefixtures("no_backoff")
def test_each_attempt_has_its_own_total_timeout(send_to):
    """The backoff between attempts does not count."""
    clock = FakeClock()
    busy = [clock.advance(100, http(b"busy", 503)) for _ in range(5)]
    assert send_to(*busy, [document(JOB)], clock=clock, retry_budget=60).id == "7"
    assert clock.now == 500


def test_upload_of_a_file_does_not_count(send_to, tmp_path):
    """The response is limited nevertheless."""
    clock = FakeClock()
    path = tmp_path / "image.png"
    path.write_bytes(b"x" * 1000)
    files = {"file": FilePart("image.png", lambda: path.open("rb"))}
    upload = Call("upload.image", "POST", "/Datasets/1/Images", lambda answer: answer, body={}, files=files)
    assert send_to(clock.advance(1000, document({"id": "i"})), call=upload, clock=clock) == {"id": "i"}
    with pytest.raises(OsaiUnreachable, match="not complete"):
        send_to(drip(clock), call=upload, clock=clock)


def test_slow_headers_do_not_block_an_event_loop(monkeypatch):
    """The blocking client cannot detect them, as its docstring says."""
    monkeypatch.setattr("airflow_provider_osai.api.client.TOTAL_TIMEOUT_FACTOR", 0.04)

    def dripping():
        yield b"HTTP/1.1 200 OK\r\n"
        for number in itertools.count():
            time.sleep(0.02)
            yield f"X-{number}: y\r\n".encode()

    async def send(base_url):
        async with await AsyncOsaiClient.open(settings_for(base_url, timeout=10), retry_budget=0) as client:
            await client.send(client.calls.get_user())

    with RawServer(lambda _: dripping()) as server, pytest.raises(OsaiUnreachable, match=r"not complete after 0\.4 s"):
        asyncio.run(send(server.base_url))


def test_external_cancellation_is_propagated():
    """Also during the body."""
    begun = threading.Event()
    finished = threading.Event()

    def silent():
        yield ENDLESS
        begun.set()
        finished.wait(10)

    async def send(base_url):
        async with await AsyncOsaiClient.open(settings_for(base_url), retry_budget=0) as client:
            task = asyncio.create_task(client.send(client.calls.get_user()))
            await asyncio.to_thread(begun.wait, 10)
            await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await client.send(client.calls.get_user())

    with RawServer(lambda _: silent()) as server:
        asyncio.run(send(server.base_url))
        finished.set()


def test_endless_response_is_aborted(send_to):
    with pytest.raises(OsaiUnreachable, match="GET /Trainings/7 .*training.get is longer than 1 MiB") as caught:
        send_to(itertools.chain([ENDLESS], itertools.repeat(b" " * 2**20, 64)))
    assert caught.value.may_have_been_processed


def test_compressed_response_beyond_the_limit_is_aborted(send_to):
    """A small body can decompress to gigabytes."""
    compressed = gzip.compress(b" " * (OBJECT_LIMIT.size + 1), compresslevel=1)
    with pytest.raises(OsaiUnreachable, match="GET /Trainings/7 .*training.get is longer than 1 MiB"):
        send_to([http(compressed, Content_Encoding="gzip")])


def test_compressed_response_is_decompressed(send_to):
    assert send_to([http(gzip.compress(json.dumps(JOB).encode()), Content_Encoding="gzip")]).id == "7"


@functools.cache
def nested(layers, size=OBJECT_LIMIT.size):
    """Spaces, compressed *layers* times."""
    packed = b" " * size
    for _ in range(layers):
        packed = gzip.compress(packed, compresslevel=1)
    return packed


NESTED = {
    "one header": {"Content_Encoding": "gzip, gzip"},
    "two headers": {"Content_Encoding": "gzip\r\nContent-Encoding: gzip"},
    "with identity": {"Content_Encoding": "identity, gzip\r\nContent-encoding: GZIP"},
    "mixed": {"Content_Encoding": "deflate,gzip"},
    "not asked for": {"Content_Encoding": "br"},
    "unknown": {"Content_Encoding": "aes\x7f\xe9" + "x" * 5000},
}


@pytest.fixture
def decompressed(monkeypatch):
    """The sizes of all chunks that zlib decompresses."""
    sizes = []
    decompressobj = zlib.decompressobj

    class Counting:
        def __init__(self, *args):
            self._decompressor = decompressobj(*args)

        def decompress(self, *args):
            sizes.append(len(out := self._decompressor.decompress(*args)))
            return out

        def flush(self, *args):
            sizes.append(len(out := self._decompressor.flush(*args)))
            return out

        def __getattr__(self, name):
            return getattr(self._decompressor, name)

    monkeypatch.setattr("zlib.decompressobj", Counting)
    return sizes


@pytest.mark.parametrize("headers", NESTED.values(), ids=NESTED)
def test_unsupported_or_nested_content_encoding_is_not_decompressed(send_to, decompressed, headers):
    """Nested codings multiply; repeated headers are combined."""
    with pytest.raises(OsaiUnreachable, match="Content-Encoding '.*must be one of: gzip, deflate") as caught:
        send_to([http(nested(2), **headers)])
    assert (decompressed, len(str(caught.value)) < 1000) == ([], True)


@pytest.mark.parametrize("headers", NESTED.values(), ids=NESTED)
@pytest.mark.parametrize(
    ("status", "error"), [(404, OsaiRequestError), (503, OsaiUnreachable), (302, OsaiContractError)]
)
def test_status_counts_although_the_body_has_an_unsupported_coding(send_to, decompressed, status, error, headers):
    with pytest.raises(error) as caught:
        send_to([http(nested(2), status, Location="https://login.example.com/", **headers)])
    assert decompressed == []
    if status == 404:
        assert "body not read: Content-Encoding" in caught.value.text


def test_401_with_an_unsupported_coding_renews_the_jwt(send_to, decompressed):
    rejected = [http(nested(2), 401, Content_Encoding="gzip, gzip")]
    assert send_to(rejected, [document(JOB)]).id == "7"
    assert decompressed == []


@pytest.mark.parametrize("status", [200, 404])
def test_no_more_than_the_limit_is_decompressed(send_to, decompressed, status):
    """64 KiB of gzip hold 64 MiB of spaces."""
    with pytest.raises((OsaiUnreachable, OsaiRequestError)):
        send_to([http(nested(1, 2 * OBJECT_LIMIT.size), status, Content_Encoding="gzip")])
    assert sum(decompressed) <= (OBJECT_LIMIT.size if status == 200 else MAX_ERROR_BODY) + CHUNK
    assert max(decompressed) <= CHUNK


def raw_deflate(data):
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return compressor.compress(data) + compressor.flush()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("coding", "compress"),
    [("gzip", gzip.compress), (" GZip ,", gzip.compress), ("deflate", zlib.compress), ("deflate", raw_deflate)],
)
@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, 3 * CHUNK])
def test_compressed_response_is_decompressed_correctly_however_it_is_split(send_to, coding, compress, size):
    text = json.dumps(noise := "".join(map(chr, random.Random(size).choices(range(32, 127), k=size))))
    response = http(compress(text.encode()), Content_Encoding=coding)
    start = response.index(b"\r\n\r\n") + 4
    chunks = [response[:start], *(bytes([byte]) for byte in response[start : start + 30]), response[start + 30 :]]
    assert send_to(chunks, call=Call("odd", "GET", "/Odd", lambda answer: answer)) == noise


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
@pytest.mark.parametrize(
    ("corrupt", "message"),
    [
        (lambda data: data[:-6], "is incomplete"),
        (lambda data: data[:1], "is incomplete"),
        (lambda data: data + data, "continues after its end"),
        (lambda data: data[:10] + b"\xff" * 40, "corrupt|is incomplete"),
        (lambda data: b"\x00\xff" + data, "corrupt|continues"),
    ],
)
def test_incomplete_or_corrupt_compressed_response_is_an_error(send_to, coding, corrupt, message):
    compressed = {"gzip": gzip.compress, "deflate": zlib.compress}[coding](json.dumps(JOB).encode())
    with pytest.raises(OsaiUnreachable, match=message):
        send_to([http(corrupt(compressed), Content_Encoding=coding)])


def test_endless_compressed_response_without_content_is_aborted(send_to):
    compressor = zlib.compressobj(wbits=zlib.MAX_WBITS | 16)
    endless = compressor.compress(b"[") + compressor.flush(zlib.Z_FULL_FLUSH)
    empty = b"\x00\x00\x00\xff\xff" * 2**16  # stored blocks without content
    head = http(length=10**12, Content_Encoding="gzip")
    with pytest.raises(OsaiUnreachable, match="longer than"):
        send_to(itertools.chain([head, endless], itertools.repeat(empty, 200)))


def test_only_the_beginning_of_an_error_response_is_read(send_to):
    with pytest.raises(OsaiRequestError, match=r"with 400: no{50}") as caught:
        send_to(
            itertools.chain([http(b"n" + b"o" * MAX_ERROR_BODY, 400, length=10**12)], itertools.repeat(b"o" * 2**16))
        )
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("body", "headers", "shown"),
    [
        (bytes(range(256)) * 100, {}, "25600 bytes that are not text"),
        (b"\xff\xfe\xfd" * 1000, {}, "3000 bytes that are not text"),
        (b"red \x1b[31m and\r\n  more", {}, "red [31m and more"),
        ("schön".encode("latin-1"), {"Content_Type": "text/plain; charset=latin-1"}, "schön"),
        (b"plain", {"Content_Type": "text/plain; charset=zlib"}, "plain"),
        (b"plain", {"Content_Type": "text/plain; charset=undefined"}, "plain"),
        (b"", {"Content_Type": ""}, "no reason given"),
    ],
)
def test_text_of_an_error_response_is_sanitized(send_to, body, headers, shown):
    with pytest.raises(OsaiRequestError) as caught:
        send_to([http(body, 400, **headers)])
    assert str(caught.value).endswith(f"with 400: {shown}")


@pytest.mark.parametrize("location", ["http://[::1", "https://user:secret@login.example.com/", ""])
def test_redirect_to_an_invalid_url_or_with_credentials_is_an_osai_error(send_to, location):
    """The credentials are not shown."""
    with pytest.raises((OsaiContractError, OsaiUnreachable)) as caught:
        send_to([http(b"", 302, Location=location)])
    assert "secret" not in str(caught.value)


@pytest.mark.usefixtures("no_backoff")
@pytest.mark.parametrize(
    "value",
    [
        "-5",
        "9" * 400,
        "Wed, 21 Oct 99999999999999999999 07:28:00 GMT",
        "Wed, 21 Oct 2015 07:28:00 +99999999999999999999",
        "soon",
        "1e3",
    ],
)
def test_invalid_retry_after_is_ignored_or_capped(send_to, value):
    busy = [http(b"", 503, Retry_After=value)]
    assert send_to(busy, [document(JOB)], retry_budget=60).id == "7"
    with pytest.raises(OsaiUnreachable) as caught:
        send_to(busy)
    assert (caught.value.retry_after or 0) <= 60


@pytest.mark.usefixtures("no_backoff")
def test_incomplete_response_is_retried(send_to):
    half = [http(b'{"id": 7', length=100), RESET]
    assert send_to(half, half, [document(JOB)], retry_budget=60).id == "7"


@pytest.mark.parametrize("token", [b"x" * 20_000, b"\xff\xfe"])
def test_sign_in_without_a_token_is_an_auth_error(sender, token):

    class Odd(RawServer):
        def _exchange(self, connection):
            connection.recv(65536)
            connection.sendall(http(token, Content_Type="text/plain; charset=zlib"))

    with Odd(lambda _: []) as server:
        client = sender(settings_for(server.base_url), retry_budget=0)
        with pytest.raises(OsaiAuthError, match="not a token"):
            client.send(client.client.calls.get_user())


def test_too_deeply_nested_json_is_an_error(send_to):
    with pytest.raises(OsaiUnreachable, match="instead of JSON"):
        send_to([http(b"[" * 50_000 + b"]" * 50_000)])


@pytest.mark.parametrize(("size", "off_loop"), [(10, False), (PARSE_IN_THREAD_ABOVE, True)])
def test_large_response_is_parsed_in_a_thread(send_to, request, size, off_loop):
    call = Call("odd", "GET", "/Odd", lambda answer: threading.current_thread() is threading.main_thread())
    is_awaiting = "Awaiting" in request.node.name
    assert send_to([document("x" * size)], call=call) is not (off_loop and is_awaiting)
