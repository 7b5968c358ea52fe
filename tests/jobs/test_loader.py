"""Many flows on one loop: who is asked for with whom, how often, and what becomes of each when something breaks."""

from __future__ import annotations

import asyncio
import contextvars
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_osai.api.calls import Calls
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
from airflow_provider_osai.api.rebinding import rebind
from airflow_provider_osai.jobs.flow import Sleep, arun
from airflow_provider_osai.jobs.lifecycle import Watch, wait
from airflow_provider_osai.jobs.line import AT_ONCE, MOST, SINGLY_AT_ONCE
from airflow_provider_osai.jobs.loader import Loader
from airflow_provider_osai.jobs.pace import Pace
from tests.jobs.clockwork import play
from tests.jobs.conftest import job

TRAINING = JobKind.TRAINING
NO_LIST = {f"{kind}.list": None for kind in JobKind}


def now() -> float:
    return asyncio.get_running_loop().time()


@dataclass
class Api:
    """An API in memory: every request takes 50 ms, and a job ends at its time.

    ``broken`` is asked before each request and may return an error; it is given the call.
    """

    ends: dict[str, float] = field(default_factory=dict)
    hidden: set[str] = field(default_factory=set)
    broken: Callable[[Any], Exception | None] = lambda call: None
    asked: list[tuple[float, str, tuple[str, ...]]] = field(default_factory=list)
    most_at_once: int = 0
    at_once: int = 0

    async def send(self, call):
        verb = call.name.partition(".")[2]
        assert verb != "list" or call.query["ids"], "this asks for all jobs of the world"
        ids = tuple(call.query["ids"].split(",")) if verb == "list" else call.subject
        self.asked.append((now(), call.name, ids))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await asyncio.sleep(0.05)
        finally:
            self.at_once -= 1
        if error := self.broken(call):
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
        return Counter(name for _, name, _ in self.asked)

    def busiest_second(self, since: float) -> int:
        return max(Counter(int(at) for at, _, _ in self.asked if at >= since).values(), default=0)


class Waiting:
    """Flows that wait for jobs of one API through one loader."""

    def __init__(self, api: Api, contract: Any = None) -> None:
        self.api = api
        self.calls = Calls(rebind(Contract(), contract))
        self.loader = Loader(self.calls, api.send)

    def start(self, job_id: str, *, lasts: float = 1e9, kind: JobKind = TRAINING, age: float = 3600.0, **how: Any):
        """Wait for a job that lasts so many seconds; an old one, unless *age* says otherwise."""
        self.api.ends.setdefault(job_id, now() + lasts)
        how = {"since": now() - age, "pace": Pace(10.0), "clock": asyncio.get_running_loop().time} | how
        return asyncio.ensure_future(self.loader.run(wait(self.calls, kind, job_id, Watch(**how))))

    async def start_many(self, count: int, **how: Any) -> list[asyncio.Future[Job]]:
        """Start one after the other, over ten seconds."""
        started = []
        for number in range(count):
            started.append(self.start(str(number), **how))
            await asyncio.sleep(10 / count)
        return started


async def end(tasks) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


class TestTogether:
    """An API that lists jobs by their ids."""

    def test_each_flow_gets_its_own_job(self):
        """However many are asked for with it."""

        async def scene():
            waiting = Waiting(Api())
            jobs = await asyncio.gather(*[waiting.start(str(n), lasts=n % 37) for n in range(250)])
            assert [job.id for job in jobs] == [str(n) for n in range(250)]
            assert {job.state for job in jobs} == {"succeeded"}
            assert set(waiting.api.counts()) == {"training.list"}
            await waiting.loader.aclose()

        play(scene())

    def test_flows_that_start_together_are_asked_for_together(self):
        """At most a hundred in one request."""

        async def scene():
            waiting = Waiting(Api())
            await asyncio.gather(*[waiting.start(str(n), lasts=0) for n in range(250)])
            assert sorted(len(ids) for _, _, ids in waiting.api.asked) == [50, MOST, MOST]
            await waiting.loader.aclose()

        play(scene())

    @pytest.mark.parametrize("count", [40, 1000, 3000])
    def test_lists_are_full_in_the_long_run(self, count):
        """A hundredth of the requests that asking one by one would need, and a fifth on top at the most."""

        async def scene():
            waiting = Waiting(Api())
            tasks = await waiting.start_many(count)
            await asyncio.sleep(100)
            before = len(waiting.api.asked)
            await asyncio.sleep(600)
            looks = Counter(one for _, _, ids in waiting.api.asked[before:] for one in ids)
            assert 45 <= min(looks.values()) <= max(looks.values()) <= 75  # each about every ten seconds
            lists = len(waiting.api.asked) - before
            assert lists <= max(1.2 * looks.total() / MOST, 1200)  # few jobs: at most two lists a second
            assert waiting.api.most_at_once <= AT_ONCE
            await end(tasks)
            await waiting.loader.aclose()

        play(scene())

    def test_a_young_job_is_looked_at_more_often_than_an_old_one(self):
        """Its list takes no old ones along that are not nearly due."""

        async def scene():
            waiting = Waiting(Api())
            tasks = [waiting.start("young", age=0), *[waiting.start(f"old {n}") for n in range(20)]]
            await asyncio.sleep(12)
            looks = Counter(one for _, _, ids in waiting.api.asked for one in ids)
            assert looks["young"] >= 5
            assert all(looks[f"old {n}"] <= 3 for n in range(20))
            await end(tasks)
            await waiting.loader.aclose()

        play(scene())

    def test_kinds_are_asked_for_apart(self):
        """They are different endpoints."""

        async def scene():
            waiting = Waiting(Api())
            await asyncio.gather(waiting.start("1", lasts=5), waiting.start("2", lasts=5, kind=JobKind.CONVERSION))
            assert set(waiting.api.counts()) == {"training.list", "conversion.list"}
            assert all(ids == ("1" if "training" in name else "2",) for _, name, ids in waiting.api.asked)
            await waiting.loader.aclose()

        play(scene())

    def test_two_flows_may_wait_for_the_same_job(self):
        """An operator's and a sensor's."""

        async def scene():
            waiting = Waiting(Api())
            both = await asyncio.gather(waiting.start("1", lasts=5), waiting.start("1", lasts=5))
            assert [job.id for job in both] == ["1", "1"]
            await waiting.loader.aclose()

        play(scene())

    def test_a_job_that_a_list_leaves_out_is_asked_for_by_itself(self):
        """It counts as lost only if OSAI says so."""

        async def scene():
            waiting = Waiting(Api(hidden={"shy"}))
            jobs = await asyncio.gather(waiting.start("shy", lasts=20), waiting.start("other", lasts=20))
            assert [job.state for job in jobs] == ["succeeded", "succeeded"]
            assert {ids for _, name, ids in waiting.api.asked if name == "training.get"} == {("shy",)}
            gone = waiting.start("gone", age=0)
            del waiting.api.ends["gone"]
            with pytest.raises(OsaiJobLost):
                await gone
            await waiting.loader.aclose()

        play(scene())


class TestSingly:
    """An API that cannot list."""

    def test_every_job_is_asked_for_by_itself_spread_and_not_too_many_at_once(self):
        """Although all began at the same time; after a while there is no herd any more."""

        async def scene():
            waiting = Waiting(Api(), NO_LIST)
            tasks = [waiting.start(str(n)) for n in range(1000)]
            await asyncio.sleep(400)
            assert set(waiting.api.counts()) == {"training.get"}
            assert waiting.api.most_at_once <= SINGLY_AT_ONCE
            assert waiting.api.busiest_second(since=now() - 100) <= 150  # a hundred on average
            await end(tasks)
            await waiting.loader.aclose()

        play(scene())

    @pytest.mark.parametrize(
        "refusal",
        [
            *[OsaiRequestError(status, "GET", "/Trainings", "no") for status in (400, 403, 404, 405, 414, 501)],
            OsaiContractError("the answer holds no list"),
            OsaiUnreachable("a page for people", status=200),
        ],
        ids=repr,
    )
    def test_an_api_that_turns_out_not_to_list_is_not_asked_to_again(self, refusal):
        """The first refusal is enough, whatever form it takes."""

        async def scene():
            waiting = Waiting(Api(broken=lambda call: refusal if call.name == "training.list" else None))
            jobs = await asyncio.gather(*[waiting.start(str(n), lasts=45) for n in range(150)])
            assert {job.state for job in jobs} == {"succeeded"}
            assert waiting.api.counts()["training.list"] <= AT_ONCE  # those that were on their way
            await waiting.loader.aclose()

        play(scene())


class TestOutage:
    """OSAI does not answer, or asks for silence."""

    def test_retry_after_holds_for_everybody_and_the_herd_comes_back_spread(self):
        """For those who have not been told, too."""

        async def scene():
            waiting = Waiting(Api(), NO_LIST)
            tasks = await waiting.start_many(300)
            until = now() + 40
            error = OsaiUnreachable("slow down", sent=False, status=429, retry_after=40.0)
            waiting.api.broken = lambda call: error if now() < until - 0.1 else None
            await asyncio.sleep(1)
            told = now()
            await asyncio.sleep(38)
            assert not [at for at, _, _ in waiting.api.asked if told < at < until - 0.5]
            await asyncio.sleep(60)
            seen = {one for at, _, ids in waiting.api.asked if at >= until for one in ids}
            assert len(seen) == 300
            assert waiting.api.busiest_second(since=until) <= 120  # not all three hundred at once
            await end(tasks)
            await waiting.loader.aclose()

        play(scene())

    @pytest.mark.parametrize("contract", [None, NO_LIST], ids=["together", "singly"])
    @pytest.mark.parametrize(
        "error", [OsaiUnreachable("down"), OsaiUnreachable("503", status=503), OsaiAuthError("token?")], ids=repr
    )
    def test_an_outage_is_borne_with_few_requests(self, error, contract):
        """A server that comes up again, or one that counts failed sign-ins, is left in peace."""

        async def scene():
            waiting = Waiting(Api(), contract)
            tasks = await waiting.start_many(1000)
            begin = now()
            waiting.api.broken = lambda call: error if now() < begin + 300 else None
            await asyncio.sleep(300)
            assert sum(at > begin for at, _, _ in waiting.api.asked) <= 300
            await asyncio.sleep(60)
            seen = {one for at, _, ids in waiting.api.asked if at > begin + 300 for one in ids}
            assert len(seen) == 1000
            assert not [task for task in tasks if task.done()]
            await end(tasks)
            await waiting.loader.aclose()

        play(scene())

    def test_a_wait_knows_its_limits_while_nobody_may_ask(self):
        """Its deadline, and how long OSAI may be out of sight."""

        async def scene():
            waiting = Waiting(Api(broken=lambda call: OsaiUnreachable("slow down", status=429, retry_after=60.0)))
            begin = now()
            late = waiting.start("late", deadline=begin + 100)
            lost = waiting.start("lost", max_unreachable=200.0, age=0)
            with pytest.raises(OsaiJobTimeout):
                await late
            assert now() - begin < 175
            with pytest.raises(OsaiJobLost):
                await lost
            assert now() - begin < 280
            await waiting.loader.aclose()

        play(scene())


class TestAlone:
    """What one flow does, or what is done to it, is no other's business."""

    def test_one_that_is_cancelled_leaves_the_others_waiting(self):
        """Its flow is closed where it is, and its job asked for no more."""

        async def scene():
            waiting = Waiting(Api())
            closed = []

            def watched(flow):
                try:
                    return (yield from flow)
                finally:
                    closed.append(now())

            flow = watched(wait(waiting.calls, TRAINING, "1", Watch(since=now(), pace=Pace(10.0))))
            waiting.api.ends["1"] = 1e12
            mine, other = asyncio.ensure_future(waiting.loader.run(flow)), waiting.start("2", lasts=60)
            await asyncio.sleep(5.013)
            mine.cancel()
            with pytest.raises(asyncio.CancelledError):
                await mine
            assert closed == [now()]
            assert (await other).id == "2"
            assert not [ids for at, _, ids in waiting.api.asked if at > closed[0] and "1" in ids]
            await waiting.loader.aclose()

        play(scene())

    def test_one_that_breaks_leaves_the_others_waiting(self):
        """Its error goes to who runs it."""

        async def scene():
            waiting = Waiting(Api())

            def observe(job, pause):
                raise ZeroDivisionError

            broken, other = waiting.start("1", observe=observe), waiting.start("2", lasts=60)
            with pytest.raises(ZeroDivisionError):
                await broken
            assert (await other).id == "2"
            await waiting.loader.aclose()

        play(scene())

    def test_an_error_that_nobody_thought_of_reaches_everybody(self):
        """Better an error than a wait for ever."""

        async def scene():
            waiting = Waiting(Api(broken=lambda call: ZeroDivisionError()))
            tasks = [waiting.start(str(n)) for n in range(3)]
            ends = await asyncio.gather(*tasks, return_exceptions=True)
            assert [type(end) for end in ends] == [ZeroDivisionError] * 3
            await waiting.loader.aclose()

        play(scene())

    def test_a_flow_runs_in_the_context_of_who_waits_for_it(self):
        """Airflow tells by it whose log a line belongs to."""
        mine = contextvars.ContextVar("mine")

        async def scene():
            waiting = Waiting(Api())
            seen = set()

            async def one(name):
                mine.set(name)
                await waiting.start(name, lasts=30, observe=lambda job, pause: seen.add((job.id, mine.get())))

            await asyncio.gather(*[asyncio.create_task(one(name)) for name in "abc"])
            assert seen == {("a", "a"), ("b", "b"), ("c", "c")}
            await waiting.loader.aclose()

        play(scene())

    def test_other_flows_are_driven_too(self):
        """Whatever they want before or instead of a job."""

        async def scene():
            waiting = Waiting(Api(ends={"7": 0.0}))

            def flow():
                yield Sleep(3)
                with pytest.raises(OsaiRequestError):
                    yield waiting.calls.cancel_job(TRAINING, "no such job")
                return (yield waiting.calls.get_job(TRAINING, "7"))

            assert (await waiting.loader.run(flow())).id == "7"
            await waiting.loader.aclose()

        play(scene())


SPANS = st.floats(0, 300)
TROUBLES = st.sampled_from(
    [
        OsaiUnreachable("down"),
        OsaiUnreachable("500", status=500),
        OsaiUnreachable("slow down", status=429, retry_after=7.0),
        OsaiAuthError("token?"),
        OsaiRequestError(404, "GET", "/", ""),
    ]
)


@given(
    lives=st.lists(SPANS, min_size=1, max_size=30),
    troubles=st.lists(st.tuples(SPANS, SPANS, TROUBLES), max_size=3),
    lists=st.booleans(),
    deadline=st.none() | st.floats(1, 300),
)
def test_it_ends_as_if_each_had_been_driven_alone(lives, troubles, lists, deadline):
    """Whatever happens to OSAI meanwhile: the same end, unless it hung on a minute."""

    async def scene(together):
        begin = now()
        api = Api(broken=lambda call: next((e for at, last, e in troubles if at <= now() - begin < at + last), None))
        waiting = Waiting(api, None if lists else NO_LIST)

        async def one(number, life):
            api.ends[str(number)] = begin + life
            watch = Watch(
                since=begin,
                deadline=deadline and begin + deadline,
                pace=Pace(10.0),
                clock=asyncio.get_running_loop().time,
            )
            flow = wait(waiting.calls, TRAINING, str(number), watch)
            run = waiting.loader.run(flow) if together else arun(flow, api.send)
            try:
                return (await run).state
            except OsaiError as error:
                return type(error)

        ends = await asyncio.gather(*[one(number, life) for number, life in enumerate(lives)])
        await waiting.loader.aclose()
        return ends

    together, alone = play(scene(True)), play(scene(False))
    for life, mine, theirs in zip(lives, together, alone, strict=True):
        close_call = deadline is not None and abs(life - deadline) < 60
        assert mine == theirs or close_call or troubles
        assert mine in ("succeeded", OsaiJobTimeout, OsaiJobLost, OsaiAuthError)
