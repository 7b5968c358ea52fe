"""Whatever a server puts on the wire, a wait ends in a named result, in both drivers, and never late.

Real: sockets, both senders, the flow and its drivers. Virtual: the time that passes, in sleeps, retries and drips.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_osai.api.client import AsyncOsaiClient, OsaiClient
from airflow_provider_osai.api.errors import (
    OsaiAuthError,
    OsaiContractError,
    OsaiError,
    OsaiJobCancelled,
    OsaiJobFailed,
    OsaiJobLost,
    OsaiJobTimeout,
    OsaiRequestError,
    OsaiUnreachable,
)
from airflow_provider_osai.api.models import Job, JobKind, JobState
from airflow_provider_osai.api.transport import MAX_ERROR_BODY
from airflow_provider_osai.jobs.flow import arun, run
from airflow_provider_osai.jobs.lifecycle import WaitOptions, get_job, raise_for_state, wait
from airflow_provider_osai.jobs.polling import PollSchedule
from tests.conftest import settings_for
from tests.raw_server import RESET, RawServer, document, http

NAMED = (
    OsaiAuthError,
    OsaiContractError,
    OsaiJobCancelled,
    OsaiJobFailed,
    OsaiJobLost,
    OsaiJobTimeout,
    OsaiRequestError,
)
"""The results of a wait, besides a job that succeeded."""
TIMEOUT = 30.0
BOUND = 4 * TIMEOUT
LIMIT = 1500.0
"""Seconds from the start to the deadline."""
HUGE = (b" " * 2**20,) * 64


@dataclass(frozen=True)
class Answer:
    """What the server does once.

    :param pieces: what it sends.
    :param word: the status word, if this is a whole answer that shows a job.
    :param drips: whether it sends a byte now and then, without end.
    """

    pieces: tuple[bytes, ...]
    word: object = None
    drips: bool = False
    is_huge: bool = False


def shown(word: object, status: int = 200, **fields: object) -> Answer:
    return Answer((document({"id": "7", "status": word, **fields}, status),), word)


def other(*pieces: bytes) -> Answer:
    return Answer(pieces)


def refused(status: int, body: bytes = b"no", **headers: str) -> Answer:
    return other(http(body, status, **headers))


ODD_TIMES = ("0", "7", "-5", "1e9", "soon", "9" * 400, "", "\x7f", "Wed, 21 Oct 2099 07:28:00 GMT", "1 Jan 0001",
             "Wed, 21 Oct 99999999999999999999 07:28:00 GMT", "Wed, 21 Oct 2015 07:28:00 +99999999999999")  # fmt: skip
ODD_JSON = ([], [{"id": "7", "status": "succeeded"}], "succeeded", 7, 1e300, None, True, {}, {"status": "succeeded"},
            {"id": None, "status": "succeeded"}, {"id": {"a": 1}, "status": "succeeded"}, {"id": "", "status": "done"},
            {"items": []}, {"\ud800": "\udfff", "id": "\ud800"}, {"x" * 100_000: 1})  # fmt: skip
DONE = json.dumps({"id": "7", "status": "succeeded"}).encode()
FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "progress": st.sampled_from([0, 0.5, 0.95, 1, -1, 7, "half", None, [], float("nan"), float("inf")]),
        "result": st.sampled_from([None, [], "x", {"modelId": 5}, {"metrics": {"a": [1]}}, {"metrics": 5}]),
        "message": st.sampled_from([None, "", "disk full", "x" * 100_000, {"a": 1}, "\ud800"]),
        "history": st.sampled_from([None, [{}], [5], "x", [{"epoch": "one"}]]),
        "createdAt": st.sampled_from([None, "now", 5, {}]),
    },
)
ENDS = ("SUCCEEDED", "success", "failed", "error", "Cancelled", "aborted")
ODD_WORDS = (
    "Pondering",
    "x" * 100_000,
    "",
    None,
    5,
    True,
    ["succeeded"],
    {"a": "succeeded"},
    "not succeeded",
    "\ud800",
)
WORDS = st.sampled_from(["queued", "Running", *ENDS, *ODD_WORDS])
BREAKS = [
    other(RESET),
    other(b""),
    other(http(DONE[:9], length=len(DONE)), RESET),
    other(http(DONE, length=len(DONE) + 5)),
    other(http(DONE, length=len(DONE) - 1)),
    other(http(DONE).replace(b"Content-Length: ", b"Content-Length: -")),
    other(http(DONE).replace(b"Content-Length: ", b"Content-Length: x")),
    other(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n" + DONE),
    other(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 50_000),
    other(b"SSH-2.0-OpenSSH_9.6\r\n\r\n"),
]
BODIES = [
    other(http(DONE[:-1])),
    other(http(b"")),
    other(http(b"", 204)),
    other(http(b"<html><h1>Please wait</h1></html>", Content_Type="text/html")),
    other(http(b"\xff\xfe\x00" + DONE)),
    other(http(b"[" * 100_000 + b"]" * 100_000)),
    other(http(b'{"id": ' + b"9" * 10_000 + b"}")),
    other(http(DONE, Content_Encoding="gzip")),
    other(http(DONE[:-1] + b', "progress": NaN, "result": Infinity, "message": 1e999, "status": "running"}')),
    Answer((http(length=10**12),), is_huge=True),
    Answer((http(length=10**12),), drips=True),
    Answer((http(length=10**12, status=404),), drips=True),
]
REFUSALS = [
    *(refused(status) for status in (400, 401, 403, 404, 408, 409, 410, 418, 425, 429, 500, 501, 502, 503, 504)),
    *(refused(429, Retry_After=value) for value in ODD_TIMES),
    *(refused(503, Retry_After=value) for value in ODD_TIMES),
    refused(302, Location="http://[::1"),
    refused(302, Location="https://login.example.com/"),
    refused(404, b"\x00\xff" * MAX_ERROR_BODY),
    refused(410, b"gone", Content_Type="text/plain; charset=zlib"),
    Answer((http(length=10**12, status=400),), is_huge=True),
]
ODD = [other(document(value)) for value in ODD_JSON]
EVERY = [*BREAKS, *BODIES, *REFUSALS, *ODD]
answers = (
    st.builds(lambda word, fields: shown(word, **fields), WORDS, FIELDS)
    | st.sampled_from(BREAKS)
    | st.sampled_from(BODIES)
    | st.sampled_from(REFUSALS)
    | st.sampled_from(ODD)
    | st.builds(refused, st.integers(200, 599), st.binary(max_size=200))
)
lasting = st.sampled_from([shown("running"), refused(503), refused(404), refused(401), other(RESET), other(http(b""))])


@dataclass
class World:
    """A server with a script, and the time, which passes only in sleeps, retries and drips."""

    script: list[Answer] = field(default_factory=list)
    last: Answer = field(default_factory=lambda: shown("running"))
    played: list[Answer] = field(default_factory=list)
    now: float = 0.0
    tick: float = 0.0

    def answer(self, _: str) -> Iterable[bytes]:
        """Give the next answer."""
        one = self.script[len(self.played)] if len(self.played) < len(self.script) else self.last
        self.played.append(one)
        return itertools.chain(one.pieces, HUGE if one.is_huge else (), self._drips() if one.drips else ())

    def _drips(self) -> Iterable[bytes]:
        while True:
            self.tick += 1.0  # of the clock that bounds an exchange
            yield b" "

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    async def asleep(self, seconds: float) -> None:
        self.now += seconds

    def after(self, seen: int) -> None:
        """Count what the answers since then took: a drip as much as an exchange may take."""
        self.now += BOUND * sum(one.drips for one in self.played[seen:])


class Stage(RawServer):
    """Plays the world of the moment."""

    def __init__(self) -> None:
        self.world = World()
        super().__init__(self._play)

    def _play(self, asked: str) -> Iterable[bytes]:
        return self.world.answer(asked)


@pytest.fixture(scope="module")
def stage():
    """A server with a new script for each run."""

    with Stage() as made:
        yield made


def ended(drive: Callable[[], Job]) -> str:
    """Return the name of a wait's result. Any other exception is the finding."""
    try:
        job = raise_for_state(drive())
    except NAMED as error:
        ended_by: OsaiError = error
    else:
        assert job.state is JobState.SUCCEEDED
        return "succeeded"
    assert len(str(ended_by).encode()) < 20_000  # it can be shown, and written down
    return type(ended_by).__name__


def blocking(stage, flow, retry_budget: float) -> str:
    world = stage.world
    with OsaiClient(
        settings_for(stage.base_url, timeout=TIMEOUT), retry_budget=retry_budget, clock=lambda: world.tick
    ) as client:

        def send(call):
            seen = len(world.played)
            try:
                return client.send(call)
            finally:
                world.after(seen)

        return ended(lambda: run(flow(client.calls), send, world.sleep))


def awaiting(stage, flow, retry_budget: float) -> str:
    world = stage.world

    async def drive():
        given = settings_for(stage.base_url, timeout=TIMEOUT)
        async with AsyncOsaiClient(given, False, retry_budget=retry_budget, clock=lambda: world.tick) as client:

            async def send(call):
                seen = len(world.played)
                try:
                    return await client.send(call)
                finally:
                    world.after(seen)

            return await arun(flow(client.calls), send, world.asleep)

    return ended(lambda: asyncio.run(drive()))


def check(stage, script: list[Answer], last: Answer, retry_budget: float = 0.0, waiting=wait) -> str:
    """Wait in both drivers, assert what must hold, and return how it ended."""
    ends = []
    for drive in (blocking, awaiting):
        stage.world = world = World(script, last)
        watch = WaitOptions(
            0.0,
            LIMIT,
            PollSchedule(120.0, random_factor=lambda: 0.5),
            unreachable_timeout=600.0,
            clock=lambda w=world: w.now,
        )
        random.seed(0)  # of the retries' jitter
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("httpx_retries.retry.time.sleep", world.sleep)
            patch.setattr("httpx_retries.retry.asyncio.sleep", world.asleep)
            end = drive(stage, lambda calls, w=watch: waiting(calls, JobKind.TRAINING, "7", w), retry_budget)
        if end == "succeeded":
            assert str(world.played[-1].word).lower() in ("succeeded", "success")
        assert world.now <= LIMIT + BOUND + 2 * retry_budget  # a request, and once more with a new JWT
        ends.append((end, len(world.played)))
    assert ends[0] == ends[1]
    return end


@pytest.mark.parametrize("number", range(len(EVERY)))
def test_each_answer_alone_is_borne_or_named(stage, number):
    """Then the job is seen to have succeeded: unless the answer ended the wait by name, so does the wait."""
    for retry_budget in (0.0, 60.0):
        end = check(stage, [EVERY[number]], shown("succeeded"), retry_budget)
        assert end in ("succeeded", "OsaiContractError", "OsaiRequestError")


@pytest.mark.slow
@settings(max_examples=60)
@given(st.lists(answers, max_size=8), lasting, st.sampled_from([0.0, 60.0]))
def test_any_answers_end_in_a_named_result_and_success_only_by_its_word(stage, script, last, retry_budget):
    """Both drivers agree, and the deadline is exceeded by at most one request."""
    check(stage, script, last, retry_budget)


def gullible(calls, kind, job_id, watch):
    """Take a word that nobody knows for the end."""
    job = yield from get_job(calls, kind, job_id)
    return job.model_copy(update={"state": JobState.SUCCEEDED}) if job.state is JobState.UNKNOWN else job


def late(calls, kind, job_id, watch):
    """Look at the deadline only every hour."""
    return (yield from wait(calls, kind, job_id, replace(watch, deadline=watch.deadline + 3600)))


def blind(calls, kind, job_id, watch):
    """Let out what only a look is made to explain."""
    return (yield calls.get_job(kind, job_id))


@pytest.mark.parametrize(
    ("waiting", "last"), [(gullible, shown("Pondering")), (late, shown("running")), (blind, other(RESET))]
)
def test_the_property_can_fail(stage, waiting, last):
    """By a success that nobody said, by lateness, and by an error without a name."""
    with pytest.raises((AssertionError, OsaiUnreachable)):
        check(stage, [], last, waiting=waiting)
