"""The batch poller: which jobs share a request, how often each is polled, and how failures are isolated."""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_osai.api.calls import OsaiApi
from airflow_provider_osai.api.contract import Contract
from airflow_provider_osai.api.errors import (
    OsaiAuthError,
    OsaiContractError,
    OsaiError,
    OsaiJobLost,
    OsaiJobTimeout,
    OsaiRequestError,
    OsaiUnreachable,
)
from airflow_provider_osai.api.models import Job, JobKind
from airflow_provider_osai.api.overrides import apply_overrides
from airflow_provider_osai.jobs.batch_poller import (
    MAX_BATCH_SIZE,
    MAX_CONCURRENT_GETS,
    MAX_CONCURRENT_LISTS,
    BatchPoller,
)
from airflow_provider_osai.jobs.flow import Sleep, arun
from airflow_provider_osai.jobs.lifecycle import WaitOptions, wait
from airflow_provider_osai.jobs.polling import PollSchedule
from tests.jobs.conftest import job
from tests.jobs.fake_loop import run_with_fake_time

TRAINING = JobKind.TRAINING
NO_LIST = {f"{kind}.list": None for kind in JobKind}


def now() -> float:
    return asyncio.get_running_loop().time()


@dataclass
class Api:
    """An API in memory: every request takes 50 ms, and a job ends at its time.

    ``fault`` is called with each call and may return an error to raise.
    """

    ends: dict[str, float] = field(default_factory=dict)
    hidden: set[str] = field(default_factory=set)
    fault: Callable[[Any], Exception | None] = lambda call: None
    requests: list[tuple[float, str, tuple[str, ...]]] = field(default_factory=list)
    max_in_flight: int = 0
    in_flight: int = 0

    async def send(self, call):
        verb = call.name.partition(".")[2]
        assert verb != "list" or call.query["ids"], "a list request without ids would return all jobs"
        ids = tuple(call.query["ids"].split(",")) if verb == "list" else call.subject
        self.requests.append((now(), call.name, ids))
        self.in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self.in_flight)
        try:
            await asyncio.sleep(0.05)
        finally:
            self.in_flight -= 1
        if error := self.fault(call):
            raise error
        kind = JobKind(call.name.partition(".")[0])
        if verb == "list":
            return [self._job(kind, one) for one in ids if one in self.ends and one not in self.hidden]
        if ids[0] not in self.ends:
            raise OsaiRequestError(404, "GET", call.path, "")
        return self._job(kind, ids[0])

    def _job(self, kind: JobKind, job_id: str) -> Job:
        return job("succeeded" if now() >= self.ends[job_id] else "running", id=job_id, kind=kind)

    def counts(self) -> Counter[str]:
        return Counter(name for _, name, _ in self.requests)

    def busiest_second(self, since: float) -> int:
        return max(Counter(int(at) for at, _, _ in self.requests if at >= since).values(), default=0)


class Harness:
    """Runs wait flows for jobs of one API through one batch poller."""

    def __init__(self, api: Api, contract: Any = None) -> None:
        self.api = api
        self.calls = OsaiApi(apply_overrides(Contract(), contract))
        self.poller = BatchPoller(self.calls, api.send)

    def start(self, job_id: str, *, lasts: float = 1e9, kind: JobKind = TRAINING, age: float = 3600.0, **options: Any):
        """Wait for a job that takes *lasts* more seconds and was submitted *age* seconds ago."""
        self.api.ends.setdefault(job_id, now() + lasts)
        defaults = {"since": now() - age, "schedule": PollSchedule(10.0), "clock": asyncio.get_running_loop().time}
        flow = wait(self.calls, kind, job_id, WaitOptions(**defaults | options))
        return asyncio.ensure_future(self.poller.run(flow))

    async def start_many(self, count: int, **options: Any) -> list[asyncio.Future[Job]]:
        """Start *count* waits, spread over ten seconds."""
        started = []
        for number in range(count):
            started.append(self.start(str(number), **options))
            await asyncio.sleep(10 / count)
        return started


async def cancel_all(tasks) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


class TestList:
    """An API that lists jobs by their ids."""

    def test_each_flow_gets_its_own_job(self):
        async def scene():
            harness = Harness(Api())
            jobs = await asyncio.gather(*[harness.start(str(n), lasts=n % 37) for n in range(250)])
            assert [job.id for job in jobs] == [str(n) for n in range(250)]
            assert {job.state for job in jobs} == {"succeeded"}
            assert set(harness.api.counts()) == {"training.list"}
            await harness.poller.aclose()

        run_with_fake_time(scene())

    def test_flows_that_start_together_share_list_requests(self):
        async def scene():
            harness = Harness(Api())
            await asyncio.gather(*[harness.start(str(n), lasts=0) for n in range(250)])
            assert sorted(len(ids) for _, _, ids in harness.api.requests) == [50, MAX_BATCH_SIZE, MAX_BATCH_SIZE]
            await harness.poller.aclose()

        run_with_fake_time(scene())

    @pytest.mark.slow
    @pytest.mark.parametrize("count", [40, 1000, 3000])
    def test_list_requests_are_full_in_the_long_run(self, count):
        """A hundredth of the requests that single polls would need, plus at most a fifth."""

        async def scene():
            harness = Harness(Api())
            tasks = await harness.start_many(count)
            await asyncio.sleep(100)
            before = len(harness.api.requests)
            await asyncio.sleep(600)
            polls = Counter(one for _, _, ids in harness.api.requests[before:] for one in ids)
            assert 45 <= min(polls.values()) <= max(polls.values()) <= 75  # each about every ten seconds
            list_requests = len(harness.api.requests) - before
            assert list_requests <= max(1.2 * polls.total() / MAX_BATCH_SIZE, 1200)  # few jobs: at most two a second
            assert harness.api.max_in_flight <= MAX_CONCURRENT_LISTS
            await cancel_all(tasks)
            await harness.poller.aclose()

        run_with_fake_time(scene())

    def test_a_new_job_is_polled_more_often_than_an_old_one(self):
        """Its batch does not include old jobs that are not nearly due."""

        async def scene():
            harness = Harness(Api())
            tasks = [harness.start("new", age=0), *[harness.start(f"old {n}") for n in range(20)]]
            await asyncio.sleep(12)
            polls = Counter(one for _, _, ids in harness.api.requests for one in ids)
            assert polls["new"] >= 5
            assert all(polls[f"old {n}"] <= 3 for n in range(20))
            await cancel_all(tasks)
            await harness.poller.aclose()

        run_with_fake_time(scene())

    def test_each_kind_has_list_requests_of_its_own(self):
        async def scene():
            harness = Harness(Api())
            await asyncio.gather(harness.start("1", lasts=5), harness.start("2", lasts=5, kind=JobKind.CONVERSION))
            assert set(harness.api.counts()) == {"training.list", "conversion.list"}
            assert all(ids == ("1" if "training" in name else "2",) for _, name, ids in harness.api.requests)
            await harness.poller.aclose()

        run_with_fake_time(scene())

    def test_two_flows_may_wait_for_the_same_job(self):
        """That of an operator and that of a sensor, for instance."""

        async def scene():
            harness = Harness(Api())
            both = await asyncio.gather(harness.start("1", lasts=5), harness.start("1", lasts=5))
            assert [job.id for job in both] == ["1", "1"]
            await harness.poller.aclose()

        run_with_fake_time(scene())

    def test_a_job_missing_from_a_list_is_polled_by_its_id(self):
        """It counts as lost only if OSAI returns 404 for its id."""

        async def scene():
            harness = Harness(Api(hidden={"unlisted"}))
            jobs = await asyncio.gather(harness.start("unlisted", lasts=20), harness.start("other", lasts=20))
            assert [job.state for job in jobs] == ["succeeded", "succeeded"]
            assert {ids for _, name, ids in harness.api.requests if name == "training.get"} == {("unlisted",)}
            gone = harness.start("gone", age=0)
            del harness.api.ends["gone"]
            with pytest.raises(OsaiJobLost):
                await gone
            await harness.poller.aclose()

        run_with_fake_time(scene())


@pytest.fixture
def repeatable_random():
    """Seed the random pauses, so that a bound on them holds in each run or in none."""
    state = random.getstate()
    yield random.seed
    random.setstate(state)


class TestGet:
    """An API that cannot list jobs."""

    @pytest.mark.slow
    @pytest.mark.parametrize("seed", range(3))
    def test_jobs_are_polled_one_by_one_spread_out_and_with_limited_concurrency(self, seed, repeatable_random):
        """Although all waits started at the same time."""
        repeatable_random(seed)

        async def scene():
            harness = Harness(Api(), NO_LIST)
            tasks = [harness.start(str(n)) for n in range(1000)]
            await asyncio.sleep(400)
            assert set(harness.api.counts()) == {"training.get"}
            assert harness.api.max_in_flight <= MAX_CONCURRENT_GETS
            assert harness.api.busiest_second(since=now() - 100) <= 150  # a hundred on average
            await cancel_all(tasks)
            await harness.poller.aclose()

        run_with_fake_time(scene())

    @pytest.mark.parametrize(
        "refusal",
        [
            *[OsaiRequestError(status, "GET", "/Trainings", "no") for status in (400, 403, 404, 405, 414, 501)],
            OsaiContractError("the response holds no list"),
            OsaiUnreachable("a web page", status=200),
        ],
        ids=repr,
    )
    def test_after_a_list_request_failed_jobs_are_polled_one_by_one(self, refusal):
        """The first failure is enough, whatever its form."""

        async def scene():
            harness = Harness(Api(fault=lambda call: refusal if call.name == "training.list" else None))
            jobs = await asyncio.gather(*[harness.start(str(n), lasts=45) for n in range(150)])
            assert {job.state for job in jobs} == {"succeeded"}
            assert harness.api.counts()["training.list"] <= MAX_CONCURRENT_LISTS  # those in flight
            await harness.poller.aclose()

        run_with_fake_time(scene())


TOO_LARGE = OsaiUnreachable("the response is larger than 4 MiB", status=200, too_large=True)


class TestTooLarge:
    """Jobs have such long histories that a list of many exceeds the maximum response size."""

    def test_batches_shrink_after_a_response_was_too_large(self):
        """No job waits for the batch to shrink, and batches stay as large as possible."""

        async def scene():
            api = Api(fault=lambda call: TOO_LARGE if call.name == "training.list" and ids_of(call) > 30 else None)
            harness = Harness(api)
            tasks = [harness.start(str(n), lasts=1000) for n in range(300)]
            await asyncio.sleep(500)
            before = len(api.requests)
            jobs = await asyncio.gather(*tasks)
            assert {job.state for job in jobs} == {"succeeded"}
            later = [len(ids) for _, name, ids in api.requests[before:] if name == "training.list"]
            assert len([ids for _, name, ids in api.requests[before:] if name == "training.get"]) < len(later) * 10
            assert sum(later) / len(later) > 10
            await harness.poller.aclose()

        def ids_of(call):
            return len(call.query["ids"].split(","))

        run_with_fake_time(scene())

    def test_after_lists_were_always_too_large_jobs_are_polled_one_by_one(self):
        """An API may list everything, whatever the request."""

        async def scene():
            harness = Harness(Api(fault=lambda call: TOO_LARGE if call.name == "training.list" else None))
            jobs = await asyncio.gather(*[harness.start(str(n), lasts=200) for n in range(150)])
            assert {job.state for job in jobs} == {"succeeded"}
            assert harness.api.counts()["training.list"] <= 4 * MAX_CONCURRENT_LISTS
            await harness.poller.aclose()

        run_with_fake_time(scene())

    @pytest.mark.parametrize("contract", [None, NO_LIST], ids=["list", "get"])
    def test_a_job_whose_response_is_too_large_does_not_affect_others(self, contract):
        """OSAI is reachable; only that job cannot be read."""

        async def scene():
            is_affected = lambda call: "7" in (call.query.get("ids", "").split(",") + list(call.subject))
            harness = Harness(Api(fault=lambda call: TOO_LARGE if is_affected(call) else None), contract)
            tasks = [harness.start(str(n), lasts=100, unreachable_timeout=600.0) for n in range(20)]
            done = await asyncio.gather(*tasks, return_exceptions=True)
            assert isinstance(done[7], OsaiJobLost)
            assert {job.state for number, job in enumerate(done) if number != 7} == {"succeeded"}
            polled_at = [at for at, _, ids in harness.api.requests if "8" in ids]
            assert max(later - earlier for earlier, later in itertools.pairwise(polled_at)) < 15
            await harness.poller.aclose()

        run_with_fake_time(scene())


class TestOutage:
    """OSAI does not answer, or sends ``Retry-After``."""

    def test_retry_after_pauses_all_flows_and_they_resume_spread_out(self):
        """Including the flows that did not receive it."""

        async def scene():
            harness = Harness(Api(), NO_LIST)
            tasks = await harness.start_many(300)
            until = now() + 40
            error = OsaiUnreachable("slow down", may_have_been_processed=False, status=429, retry_after=40.0)
            harness.api.fault = lambda call: error if now() < until - 0.1 else None
            await asyncio.sleep(1)
            received = now()
            await asyncio.sleep(38)
            assert not [at for at, _, _ in harness.api.requests if received < at < until - 0.5]
            await asyncio.sleep(60)
            seen = {one for at, _, ids in harness.api.requests if at >= until for one in ids}
            assert len(seen) == 300
            assert harness.api.busiest_second(since=until) <= 120  # not all three hundred at once
            await cancel_all(tasks)
            await harness.poller.aclose()

        run_with_fake_time(scene())

    @pytest.mark.parametrize("contract", [None, NO_LIST], ids=["list", "get"])
    @pytest.mark.parametrize(
        "error", [OsaiUnreachable("down"), OsaiUnreachable("503", status=503), OsaiAuthError("token?")], ids=repr
    )
    def test_during_an_outage_few_requests_are_sent(self, error, contract):
        """OSAI may be starting up, or may count failed sign-ins."""

        async def scene():
            harness = Harness(Api(), contract)
            tasks = await harness.start_many(1000)
            begin = now()
            harness.api.fault = lambda call: error if now() < begin + 300 else None
            await asyncio.sleep(300)
            assert sum(at > begin for at, _, _ in harness.api.requests) <= 300
            await asyncio.sleep(60)
            seen = {one for at, _, ids in harness.api.requests if at > begin + 300 for one in ids}
            assert len(seen) == 1000
            assert not [task for task in tasks if task.done()]
            await cancel_all(tasks)
            await harness.poller.aclose()

        run_with_fake_time(scene())

    def test_deadline_and_unreachable_timeout_hold_while_the_circuit_breaker_is_open(self):
        async def scene():
            harness = Harness(Api(fault=lambda call: OsaiUnreachable("slow down", status=429, retry_after=60.0)))
            begin = now()
            late = harness.start("late", deadline=begin + 100)
            lost = harness.start("lost", unreachable_timeout=200.0, age=0)
            with pytest.raises(OsaiJobTimeout):
                await late
            assert now() - begin < 175
            with pytest.raises(OsaiJobLost):
                await lost
            assert now() - begin < 280
            await harness.poller.aclose()

        run_with_fake_time(scene())


class TestIsolation:
    """One flow does not affect another."""

    def test_a_cancelled_flow_is_closed_and_the_others_go_on(self):
        """Its job is not polled any more."""

        async def scene():
            harness = Harness(Api())
            closed = []

            def closing(flow):
                try:
                    return (yield from flow)
                finally:
                    closed.append(now())

            flow = closing(wait(harness.calls, TRAINING, "1", WaitOptions(since=now(), schedule=PollSchedule(10.0))))
            harness.api.ends["1"] = 1e12
            cancelled, other = asyncio.ensure_future(harness.poller.run(flow)), harness.start("2", lasts=60)
            await asyncio.sleep(5.013)
            cancelled.cancel()
            with pytest.raises(asyncio.CancelledError):
                await cancelled
            assert closed == [now()]
            assert (await other).id == "2"
            assert not [ids for at, _, ids in harness.api.requests if at > closed[0] and "1" in ids]
            await harness.poller.aclose()

        run_with_fake_time(scene())

    def test_an_error_in_a_callback_ends_only_its_own_flow(self):
        async def scene():
            harness = Harness(Api())

            def on_poll(job, pause):
                raise ZeroDivisionError

            failing, other = harness.start("1", on_poll=on_poll), harness.start("2", lasts=60)
            with pytest.raises(ZeroDivisionError):
                await failing
            assert (await other).id == "2"
            await harness.poller.aclose()

        run_with_fake_time(scene())

    def test_an_unexpected_error_reaches_every_flow_of_the_batch(self):
        """Otherwise they would wait forever."""

        async def scene():
            harness = Harness(Api(fault=lambda call: ZeroDivisionError()))
            tasks = [harness.start(str(n)) for n in range(3)]
            results = await asyncio.gather(*tasks, return_exceptions=True)
            assert [type(result) for result in results] == [ZeroDivisionError] * 3
            await harness.poller.aclose()

        run_with_fake_time(scene())

    def test_a_flow_runs_in_the_context_of_its_caller(self):
        """Airflow assigns log lines to tasks by the context."""
        caller = contextvars.ContextVar("caller")

        async def scene():
            harness = Harness(Api())
            seen = set()

            async def wait_for(name):
                caller.set(name)
                await harness.start(name, lasts=30, on_poll=lambda job, pause: seen.add((job.id, caller.get())))

            await asyncio.gather(*[asyncio.create_task(wait_for(name)) for name in "abc"])
            assert seen == {("a", "a"), ("b", "b"), ("c", "c")}
            await harness.poller.aclose()

        run_with_fake_time(scene())

    def test_steps_other_than_polls_are_run_too(self):
        """A sleep, or a call that cannot be batched."""

        async def scene():
            harness = Harness(Api(ends={"7": 0.0}))

            def flow():
                yield Sleep(3)
                with pytest.raises(OsaiRequestError):
                    yield harness.calls.cancel_job(TRAINING, "no such job")
                return (yield harness.calls.get_job(TRAINING, "7"))

            assert (await harness.poller.run(flow())).id == "7"
            await harness.poller.aclose()

        run_with_fake_time(scene())


SPANS = st.floats(0, 300)
ERRORS = st.sampled_from(
    [
        OsaiUnreachable("down"),
        OsaiUnreachable("500", status=500),
        OsaiUnreachable("slow down", status=429, retry_after=7.0),
        OsaiAuthError("token?"),
        OsaiRequestError(404, "GET", "/", ""),
    ]
)


@pytest.mark.slow
@given(
    durations=st.lists(SPANS, min_size=1, max_size=30),
    outages=st.lists(st.tuples(SPANS, SPANS, ERRORS), max_size=3),
    can_list=st.booleans(),
    deadline=st.none() | st.floats(1, 300),
)
def test_each_flow_ends_as_if_it_had_been_driven_alone(durations, outages, can_list, deadline):
    """Whatever outages OSAI has: the same result, unless job end and deadline are less than a minute apart."""

    async def scene(batched):
        begin = now()
        api = Api(fault=lambda call: next((e for at, last, e in outages if at <= now() - begin < at + last), None))
        harness = Harness(api, None if can_list else NO_LIST)

        async def run(number, duration):
            api.ends[str(number)] = begin + duration
            options = WaitOptions(
                since=begin,
                deadline=deadline and begin + deadline,
                schedule=PollSchedule(10.0),
                clock=asyncio.get_running_loop().time,
            )
            flow = wait(harness.calls, TRAINING, str(number), options)
            result = harness.poller.run(flow) if batched else arun(flow, api.send)
            try:
                return (await result).state
            except OsaiError as error:
                return type(error)

        results = await asyncio.gather(*[run(number, duration) for number, duration in enumerate(durations)])
        await harness.poller.aclose()
        return results

    batched, alone = run_with_fake_time(scene(True)), run_with_fake_time(scene(False))
    for duration, result, expected in zip(durations, batched, alone, strict=True):
        close_call = deadline is not None and abs(duration - deadline) < 60
        assert result == expected or close_call or outages
        assert result in ("succeeded", OsaiJobTimeout, OsaiJobLost, OsaiAuthError)


def test_a_call_without_a_subject_is_sent_by_itself():
    """Alone and beside others; a list request without ids is never sent."""

    def flow(harness, job_id, *, is_single):
        call = harness.calls.get_job(TRAINING, job_id)
        for _ in range(3):
            seen = yield replace(call, subject=()) if is_single else call
            yield Sleep(10.0)
        return seen

    async def scene():
        api = Api()
        harness = Harness(api)
        api.ends |= {"1": 1e9, "2": 1e9}

        async def send(call):
            return job("running", id="1") if not call.subject and call.name == "training.get" else await api.send(call)

        harness.poller = BatchPoller(harness.calls, send)
        alone = await harness.poller.run(flow(harness, "1", is_single=True))
        both = await asyncio.gather(
            harness.poller.run(flow(harness, "1", is_single=True)),
            harness.poller.run(flow(harness, "2", is_single=False)),
        )
        assert [seen.id for seen in (alone, *both)] == ["1", "1", "2"]
        assert api.counts() == {"training.list": 3}
        await harness.poller.aclose()

    run_with_fake_time(scene())
