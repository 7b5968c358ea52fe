"""The two drivers run one flow alike."""

from __future__ import annotations

import asyncio

import pytest

from airflow_provider_osai.jobs.flow import Sleep, arun, run


def drive_sync(flow, send, sleep):
    return run(flow, send, sleep)


def drive_async(flow, send, sleep):
    async def asend(call):
        return send(call)

    async def asleep(seconds):
        return sleep(seconds)

    return asyncio.run(arun(flow, asend, asleep))


both = pytest.mark.parametrize("drive", [drive_sync, drive_async])


@both
def test_a_flow_is_sent_the_answers_and_its_value_returned(drive):
    """Calls go to the sender, sleeps to the sleeper."""
    slept = []

    def flow():
        first = yield "call-1"
        yield Sleep(3)
        second = yield "call-2"
        return [first, second]

    assert drive(flow(), str.upper, slept.append) == ["CALL-1", "CALL-2"]
    assert slept == [3]


@both
def test_an_error_is_thrown_into_the_flow_where_it_can_be_handled(drive):
    """As if the flow had sent the call itself."""

    def flow():
        try:
            yield "bad"
        except ValueError as error:
            answer = yield f"handled {error}"
        return answer

    def send(call):
        if call == "bad":
            raise ValueError("boom")
        return call

    assert drive(flow(), send, None) == "handled boom"


@both
def test_an_interrupt_lets_the_flow_put_things_in_order_and_goes_on(drive):
    """An upload is finished before a kill ends the task."""
    sent = []

    def flow():
        try:
            yield "work"
        finally:
            yield "tidy"

    def send(call):
        sent.append(call)
        if call == "work":
            raise SystemExit(1)

    with pytest.raises(SystemExit):
        drive(flow(), send, None)
    assert sent == ["work", "tidy"]


def test_a_cancellation_passes_through_and_is_not_swallowed():
    """The triggerer tells apart why it cancels by the error that comes out."""
    seen = []

    def flow():
        try:
            yield Sleep(60)
        except asyncio.CancelledError:
            seen.append("flow")
            raise

    async def main():
        task = asyncio.create_task(arun(flow(), None))
        await asyncio.sleep(0)
        task.cancel("why")
        with pytest.raises(asyncio.CancelledError, match="why"):
            await task

    asyncio.run(main())
    assert seen == ["flow"]
