"""The client shared by all triggers of an event loop that use the same connection."""

from __future__ import annotations

import asyncio
import gc
import json
import time

import pytest

from airflow_provider_osai.api.errors import OsaiArgumentError
from airflow_provider_osai.hooks import shared_client
from airflow_provider_osai.hooks.background_tasks import running_tasks
from airflow_provider_osai.hooks.osai import OsaiHook
from airflow_provider_osai.hooks.shared_client import acquire_shared_client, release_shared_client
from airflow_provider_osai.triggers.job import OsaiJobTrigger
from tests.conftest import CANARY
from tests.waiting import async_until


@pytest.fixture
def train(sandbox, connection):
    """Submit simulated trainings, and return their ids."""
    from airflow_provider_osai.api.requests import TrainingRequest

    def submit(count: int, timing: str = "reads", **script: object) -> list[str]:
        sandbox.control.script("training", timing, **script)
        with OsaiHook().get_conn() as client:
            dataset = client.send(client.calls.create_dataset("d"))
            request = TrainingRequest(dataset_ids=[dataset.id], model_name="m")
            return [client.send(client.calls.submit_job(request, f"r{n}")).id for n in range(count)]

    return submit


def trigger_for(job_id: str, conn_id: str = "osai_default") -> OsaiJobTrigger:
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


def test_triggers_of_one_loop_share_a_sign_in_and_list_requests(sandbox, train):
    jobs = train(30, reads=3)
    sandbox.state.accounts.expire_all()
    before = counts(sandbox)

    async def main():
        return await asyncio.gather(*[events(trigger_for(job)) for job in jobs])

    results = asyncio.run(main())
    assert [(event["job_id"], event["state"]) for (event,) in results] == [(job, "succeeded") for job in jobs]
    after = counts(sandbox)
    assert after["auth.sign_in"] - before["auth.sign_in"] == 1
    assert after.get("training.get", 0) == before.get("training.get", 0)
    assert after["training.list"] <= 30


def test_last_release_closes_the_client_and_the_next_acquire_creates_a_new_one(sandbox, connection):

    async def main():
        first, second = await asyncio.gather(acquire_shared_client(OsaiHook()), acquire_shared_client(OsaiHook()))
        assert first is second
        await release_shared_client(first)
        assert (await second.client.send(second.client.calls.get_user())).id
        await release_shared_client(second)
        with pytest.raises(RuntimeError, match="closed"):
            await second.client.send(second.client.calls.get_user())
        third = await acquire_shared_client(OsaiHook())
        assert third is not first
        assert (await third.client.send(third.client.calls.get_user())).id
        await release_shared_client(third)

    asyncio.run(main())


def test_cancelled_release_still_closes_the_client(sandbox, connection):
    """Airflow may cancel a trigger repeatedly."""

    async def main():
        shared = await acquire_shared_client(OsaiHook())
        release = asyncio.create_task(release_shared_client(shared))
        await asyncio.sleep(0)
        release.cancel()
        with pytest.raises(asyncio.CancelledError):
            await release
        await asyncio.gather(*running_tasks)
        with pytest.raises(RuntimeError, match="closed"):
            await shared.client.send(shared.client.calls.get_user())

    asyncio.run(main())


def test_event_loops_share_no_client_and_are_garbage_collected(sandbox, connection):
    """A client belongs to the event loop on which it was created."""

    async def main():
        shared = await acquire_shared_client(OsaiHook())
        assert (await shared.client.send(shared.client.calls.get_user())).id
        await release_shared_client(shared)
        return shared

    before = len(shared_client._slots)
    assert asyncio.run(main()) is not asyncio.run(main())
    gc.collect()
    assert len(shared_client._slots) <= before


def test_connections_share_no_client(sandbox, connection, monkeypatch):
    other = {"conn_type": "osai", "password": CANARY, "extra": {"base_url": sandbox.base_url}}
    monkeypatch.setenv("AIRFLOW_CONN_OSAI_OTHER", json.dumps(other))

    async def main():
        first = await acquire_shared_client(OsaiHook())
        second = await acquire_shared_client(OsaiHook("osai_other"))
        assert first is not second
        await release_shared_client(first)
        await release_shared_client(second)

    asyncio.run(main())


def test_changed_connection_gets_a_new_client_for_later_callers(sandbox, connection, monkeypatch):
    """Earlier callers keep the old client until they release it."""

    async def main():
        old = await acquire_shared_client(OsaiHook())
        connection(timeout=7)
        assert await acquire_shared_client(OsaiHook()) is old  # its settings are still cached
        monkeypatch.setattr(shared_client, "CACHE_TTL", -1.0)
        new = await acquire_shared_client(OsaiHook())
        assert new is not old
        assert (new.client.settings.timeout, old.client.settings.timeout) == (7.0, 30.0)
        assert await acquire_shared_client(OsaiHook()) is new
        await release_shared_client(new)
        assert (await old.client.send(old.client.calls.get_user())).id
        for shared in (old, old, new):
            await release_shared_client(shared)

    asyncio.run(main())


def test_connection_is_read_again_after_a_failed_acquire(sandbox, connection):

    async def main():
        connection(region="mars", base_url=None)
        with pytest.raises(OsaiArgumentError):
            await acquire_shared_client(OsaiHook())
        connection()
        await release_shared_client(await acquire_shared_client(OsaiHook()))

    asyncio.run(main())


def test_concurrent_kills_share_one_sign_in(sandbox, train, monkeypatch):
    """A user marks a whole run as failed."""
    from airflow_provider_osai.triggers import cancellation

    async def state(_ti):
        return "failed"

    monkeypatch.setattr(cancellation, "task_state", state)
    jobs = train(20, reads=10**6)
    sandbox.state.accounts.expire_all()
    before = counts(sandbox)["auth.sign_in"]

    async def main():
        triggers = [trigger_for(job) for job in jobs]
        tasks = [asyncio.create_task(events(trigger)) for trigger in triggers]
        await async_until(lambda: {job["state"] for job in sandbox.control.record()["jobs"]}, {"running"})
        assert counts(sandbox)["auth.sign_in"] - before == 1
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, *[trigger.on_kill() for trigger in triggers], return_exceptions=True)

    asyncio.run(main())
    assert [job["state"] for job in sandbox.control.record()["jobs"]] == ["cancelled"] * 20
    assert counts(sandbox)["auth.sign_in"] - before <= 2  # the triggers' client may have been closed before
