"""What triggers have in common: one client, one sign-in, one loader by event loop and connection."""

from __future__ import annotations

import asyncio
import gc
import json
import time

import pytest

from airflow_provider_osai.api.errors import OsaiArgumentError
from airflow_provider_osai.hooks.osai import OsaiHook
from airflow_provider_osai.triggers import sharing
from airflow_provider_osai.triggers.job import OsaiJobTrigger
from airflow_provider_osai.triggers.sharing import join, leave
from tests.conftest import CANARY


@pytest.fixture
def train(sandbox, connection):
    """Submit so many trainings that the sandbox pretends to do; their ids."""
    from airflow_provider_osai.api.requests import TrainingRequest

    def submit(count: int, timing: str = "reads", **script: object) -> list[str]:
        sandbox.control.script("training", timing, **script)
        with OsaiHook().get_conn() as client:
            dataset = client.send(client.calls.create_dataset("d"))
            request = TrainingRequest(dataset_ids=[dataset.id], model_name="m")
            return [client.send(client.calls.submit_job(request, f"r{n}")).id for n in range(count)]

    return submit


def waiting(job_id: str, conn_id: str = "osai_default") -> OsaiJobTrigger:
    return OsaiJobTrigger(
        osai_conn_id=conn_id,
        kind="training",
        job_id=job_id,
        since=time.time(),
        poll_interval=0.1,
        deadline=time.time() + 60,
    )


async def events(trigger: OsaiJobTrigger) -> list[dict]:
    return [event.payload async for event in trigger.run()]


def counts(sandbox) -> dict[str, int]:
    return sandbox.control.record()["counts"]


def test_triggers_of_one_loop_share_a_sign_in_and_their_lists(sandbox, train):
    """Not one of each for every trigger, as elsewhere."""
    jobs = train(30, reads=3)
    sandbox.state.accounts.expire_all()
    before = counts(sandbox)

    async def main():
        return await asyncio.gather(*[events(waiting(job)) for job in jobs])

    told = asyncio.run(main())
    assert [(event["job_id"], event["state"]) for (event,) in told] == [(job, "succeeded") for job in jobs]
    after = counts(sandbox)
    assert after["auth.sign_in"] - before["auth.sign_in"] == 1
    assert after.get("training.get", 0) == before.get("training.get", 0)
    assert after["training.list"] <= 30


def test_what_is_shared_is_one_and_ends_with_the_last(sandbox, connection):
    """Who comes after that begins anew."""

    async def main():
        first, second = await asyncio.gather(join(OsaiHook()), join(OsaiHook()))
        assert first is second
        await leave(first)
        assert (await second.client.send(second.client.calls.me())).id
        await leave(second)
        with pytest.raises(RuntimeError, match="closed"):
            await second.client.send(second.client.calls.me())
        third = await join(OsaiHook())
        assert third is not first
        assert (await third.client.send(third.client.calls.me())).id
        await leave(third)

    asyncio.run(main())


def test_the_last_one_may_be_cancelled_while_it_leaves(sandbox, connection):
    """The closing goes on without it; Airflow cancels a trigger again and again."""

    async def main():
        shared = await join(OsaiHook())
        leaving = asyncio.create_task(leave(shared))
        await asyncio.sleep(0)
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        await asyncio.gather(*sharing._closing)
        with pytest.raises(RuntimeError, match="closed"):
            await shared.client.send(shared.client.calls.me())

    asyncio.run(main())


def test_loops_share_nothing_and_leave_nothing(sandbox, connection):
    """A client belongs to the loop that it was made on; a loop that is gone must not hold one."""

    async def main():
        shared = await join(OsaiHook())
        assert (await shared.client.send(shared.client.calls.me())).id
        await leave(shared)
        return shared

    before = len(sharing._places)
    assert asyncio.run(main()) is not asyncio.run(main())
    gc.collect()
    assert len(sharing._places) <= before


def test_connections_share_nothing(sandbox, connection, monkeypatch):
    """Two accounts, or two regions."""
    other = {"conn_type": "osai", "password": CANARY, "extra": {"base_url": sandbox.base_url}}
    monkeypatch.setenv("AIRFLOW_CONN_OSAI_OTHER", json.dumps(other))

    async def main():
        one, two = await join(OsaiHook()), await join(OsaiHook("osai_other"))
        assert one is not two
        await leave(one)
        await leave(two)

    asyncio.run(main())


def test_a_connection_that_changes_is_read_again(sandbox, connection, monkeypatch):
    """Those who wait go on as they are; who comes now uses what is there now, soon."""

    async def main():
        old = await join(OsaiHook())
        connection(timeout=7)
        assert await join(OsaiHook()) is old  # it was read a moment ago
        monkeypatch.setattr(sharing, "FRESH", -1.0)
        new = await join(OsaiHook())
        assert new is not old
        assert (new.client.settings.timeout, old.client.settings.timeout) == (7.0, 30.0)
        assert await join(OsaiHook()) is new
        await leave(new)
        assert (await old.client.send(old.client.calls.me())).id
        for shared in (old, old, new):
            await leave(shared)

    asyncio.run(main())


def test_a_connection_that_cannot_be_read_hurts_only_who_asked(sandbox, connection):
    """The next one tries again."""

    async def main():
        connection(region="mars", base_url=None)
        with pytest.raises(OsaiArgumentError):
            await join(OsaiHook())
        connection()
        await leave(await join(OsaiHook()))

    asyncio.run(main())


def test_many_kills_need_one_sign_in(sandbox, train, monkeypatch):
    """A user marks a whole run failed: its triggers must not storm the sign-in."""
    from airflow_provider_osai.triggers import kill

    async def state(_ti):
        return "failed"

    monkeypatch.setattr(kill, "task_state", state)
    jobs = train(20, reads=10**6)
    sandbox.state.accounts.expire_all()
    before = counts(sandbox)["auth.sign_in"]

    async def main():
        triggers = [waiting(job) for job in jobs]
        tasks = [asyncio.create_task(events(trigger)) for trigger in triggers]
        await asyncio.sleep(1)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, *[trigger.on_kill() for trigger in triggers], return_exceptions=True)

    asyncio.run(main())
    assert [job["state"] for job in sandbox.control.record()["jobs"]] == ["cancelled"] * 20
    assert counts(sandbox)["auth.sign_in"] - before <= 2
