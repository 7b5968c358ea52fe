"""What one exchange may take: so much time, so many bytes, and never the event loop."""

from __future__ import annotations

import asyncio
import gzip
import itertools
import json
import threading
import time

import pytest

from airflow_provider_osai.api.bounds import MAX_ANSWER, MAX_REFUSAL
from airflow_provider_osai.api.calls import Call, FilePart
from airflow_provider_osai.api.client import OFF_LOOP, AsyncOsaiClient
from airflow_provider_osai.api.errors import OsaiAuthError, OsaiContractError, OsaiRequestError, OsaiUnreachable
from airflow_provider_osai.api.models import JobKind
from tests.conftest import settings_for
from tests.raw import RESET, RawServer, document, http

JOB = {"id": 7, "status": "succeeded"}
ENDLESS = http(length=10**12)


@pytest.fixture
def answered(sender):
    """Send a call to a server that gives these answers in turn; *extra* goes into the connection."""
    servers = []

    def send(*answers, call=None, clock=time.monotonic, patience=0, **extra):
        script = iter(answers)
        servers.append(RawServer(lambda _: next(script)).__enter__())
        one = sender(settings_for(servers[-1].base_url, **extra), patience=patience, clock=clock)
        return one.send(call or one.client.calls.get_job(JobKind.TRAINING, "7"))[0]

    yield send
    for server in servers:
        server.__exit__()


@pytest.fixture
def hasty(mocker):
    """Retries wait no time."""
    mocker.patch("httpx_retries.retry.time.sleep")
    mocker.patch("httpx_retries.retry.asyncio.sleep", mocker.AsyncMock())


class Leaping:
    """A clock that a server moves."""

    now = 0.0

    def __call__(self):
        return self.now

    def leap(self, seconds, *pieces):
        """Yield the pieces, with *seconds* before each."""
        for piece in pieces:
            self.now += seconds
            yield piece


def drip(clock):
    """A body that never ends, a byte in ten seconds."""
    return itertools.chain([ENDLESS], clock.leap(10, *itertools.repeat(b" ", 100_000)))


def test_an_answer_that_drips_is_given_up_after_four_times_the_timeout(answered):
    """Although each byte comes in time."""
    clock = Leaping()
    with pytest.raises(OsaiUnreachable, match="GET /Trainings/7 .*not complete after 120 s") as caught:
        answered(drip(clock), clock=clock)
    assert (caught.value.sent, clock.now >= 120) == (True, True)


def test_a_connection_whose_bound_broke_is_closed(answered):
    """The server is told that nobody listens any more; also if the time was over before the body began."""
    for leap in (0, 1000):
        clock, gone = Leaping(), threading.Event()

        def dripping(clock=clock, gone=gone, leap=leap):
            try:
                yield from clock.leap(leap, ENDLESS)
                yield from clock.leap(10, *itertools.repeat(b" ", 1_000_000))
            finally:
                gone.set()

        with pytest.raises(OsaiUnreachable, match="not complete"):
            answered(dripping(), clock=clock)
        assert gone.wait(20)


def test_what_broke_a_bound_is_not_asked_for_again(answered):
    """It would drip for each of the retries."""
    clock = Leaping()
    with pytest.raises(OsaiUnreachable, match="not complete"):
        answered(drip(clock), [document(JOB)], clock=clock, patience=60)


def test_a_whole_answer_in_time_is_taken(answered):
    """A byte at a time too."""
    clock = Leaping()
    pieces = [bytes([one]) for one in document(JOB)]
    assert answered(clock.leap(0.5, *pieces), clock=clock).state == "succeeded"


@pytest.mark.usefixtures("hasty")
def test_each_attempt_has_a_bound_of_its_own(answered):
    """What the retries wait in between does not count."""
    clock = Leaping()
    busy = [clock.leap(100, http(b"busy", 503)) for _ in range(5)]
    assert answered(*busy, [document(JOB)], clock=clock, patience=60).id == "7"
    assert clock.now == 500


def test_the_sending_of_a_file_is_not_counted(answered, tmp_path):
    """A slow line may need long for it; the answer is bounded all the same."""
    clock = Leaping()
    path = tmp_path / "image.png"
    path.write_bytes(b"x" * 1000)
    files = {"file": FilePart("image.png", lambda: path.open("rb"))}
    upload = Call("upload.image", "POST", "/Datasets/1/Images", lambda answer: answer, body={}, files=files)
    assert answered(clock.leap(1000, document({"id": "i"})), call=upload, clock=clock) == {"id": "i"}
    with pytest.raises(OsaiUnreachable, match="not complete"):
        answered(drip(clock), call=upload, clock=clock)


def test_headers_that_drip_do_not_hold_an_event_loop_for_ever():
    """The blocking sender cannot see them; its docstring says so."""

    def dripping():
        yield b"HTTP/1.1 200 OK\r\n"
        for number in itertools.count():
            time.sleep(0.02)
            yield f"X-{number}: y\r\n".encode()

    async def ask(base_url):
        async with await AsyncOsaiClient.open(settings_for(base_url, timeout=0.1), patience=0) as client:
            await client.send(client.calls.me())

    with RawServer(lambda _: dripping()) as server, pytest.raises(OsaiUnreachable, match=r"not complete after 0\.4 s"):
        asyncio.run(ask(server.base_url))


def test_a_cancellation_from_outside_is_no_bound_that_broke():
    """It goes through as what it is, amid the body too."""
    begun, over = threading.Event(), threading.Event()

    def silent():
        yield ENDLESS
        begun.set()
        over.wait(10)

    async def ask(base_url):
        async with await AsyncOsaiClient.open(settings_for(base_url), patience=0) as client:
            task = asyncio.create_task(client.send(client.calls.me()))
            await asyncio.to_thread(begun.wait, 10)
            await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await client.send(client.calls.me())

    with RawServer(lambda _: silent()) as server:
        asyncio.run(ask(server.base_url))
        over.set()


def test_an_answer_that_never_ends_is_not_read_to_the_end(answered):
    """The memory is ours."""
    with pytest.raises(OsaiUnreachable, match="longer than 32 MiB") as caught:
        answered(itertools.chain([ENDLESS], itertools.repeat(b" " * 2**20, 64)))
    assert caught.value.sent


def test_an_answer_that_unfolds_beyond_the_bound_is_not_kept(answered):
    """A small file can hold gigabytes of blanks."""
    packed = gzip.compress(b" " * (MAX_ANSWER + 1), compresslevel=1)
    with pytest.raises(OsaiUnreachable, match="longer than 32 MiB"):
        answered([http(packed, Content_Encoding="gzip")])


def test_a_packed_answer_is_unfolded(answered):
    """As servers do by right."""
    assert answered([http(gzip.compress(json.dumps(JOB).encode()), Content_Encoding="gzip")]).id == "7"


def test_of_a_refusal_only_the_beginning_is_read(answered):
    """It says all there is to say, and its status counts."""
    with pytest.raises(OsaiRequestError, match=r"with 400: no{50}") as caught:
        answered(itertools.chain([http(b"n" + b"o" * MAX_REFUSAL, 400, length=10**12)], itertools.repeat(b"o" * 2**16)))
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("body", "headers", "shown"),
    [
        (bytes(range(256)) * 100, {}, "25600 bytes that are no text"),
        (b"\xff\xfe\xfd" * 1000, {}, "3000 bytes that are no text"),
        (b"red \x1b[31m and\r\n  more", {}, "red [31m and more"),
        ("schön".encode("latin-1"), {"Content_Type": "text/plain; charset=latin-1"}, "schön"),
        (b"plain", {"Content_Type": "text/plain; charset=zlib"}, "plain"),
        (b"plain", {"Content_Type": "text/plain; charset=undefined"}, "plain"),
        (b"", {"Content_Type": ""}, "no reason given"),
    ],
)
def test_whatever_a_refusal_holds_can_be_shown(answered, body, headers, shown):
    """One line, no control characters, and no trust in what the server calls it."""
    with pytest.raises(OsaiRequestError) as caught:
        answered([http(body, 400, **headers)])
    assert str(caught.value).endswith(f"with 400: {shown}")


@pytest.mark.parametrize("where", ["http://[::1", "https://user:secret@login.example.com/", ""])
def test_whatever_a_redirect_points_to_it_is_an_answer(answered, where):
    """An address that is none; one with a login, which is not shown."""
    with pytest.raises((OsaiContractError, OsaiUnreachable)) as caught:
        answered([http(b"", 302, Location=where)])
    assert "secret" not in str(caught.value)


@pytest.mark.usefixtures("hasty")
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
def test_a_retry_after_that_is_no_time_is_ignored(answered, value):
    """Or capped; it never ends the call."""
    busy = [http(b"", 503, Retry_After=value)]
    assert answered(busy, [document(JOB)], patience=60).id == "7"
    with pytest.raises(OsaiUnreachable) as caught:
        answered(busy)
    assert (caught.value.retry_after or 0) <= 60


@pytest.mark.usefixtures("hasty")
def test_a_body_that_breaks_off_is_asked_for_again(answered):
    """A read does no harm."""
    half = [http(b'{"id": 7', length=100), RESET]
    assert answered(half, half, [document(JOB)], patience=60).id == "7"


@pytest.mark.parametrize("token", [b"x" * 20_000, b"\xff\xfe"])
def test_a_sign_in_that_answers_no_token_says_so(sender, token):
    """Nothing is sent with it."""

    class Odd(RawServer):
        def _exchange(self, connection):
            connection.recv(65536)
            connection.sendall(http(token, Content_Type="text/plain; charset=zlib"))

    with Odd(lambda _: []) as server:
        one = sender(settings_for(server.base_url), patience=0)
        with pytest.raises(OsaiAuthError, match="no token"):
            one.send(one.client.calls.me())


def test_json_that_is_too_deep_is_no_answer(answered):
    """Python gives up on it; we say what came."""
    with pytest.raises(OsaiUnreachable, match="no JSON"):
        answered([http(b"[" * 200_000 + b"]" * 200_000)])


@pytest.mark.parametrize(("size", "off_loop"), [(10, False), (OFF_LOOP, True)])
def test_a_big_answer_is_read_off_the_loop(answered, request, size, off_loop):
    """A small one needs no thread, and the blocking sender has no loop to hold."""
    call = Call("odd", "GET", "/Odd", lambda answer: threading.current_thread() is threading.main_thread())
    is_awaiting = "Awaiting" in request.node.name
    assert answered([document("x" * size)], call=call) is not (off_loop and is_awaiting)
