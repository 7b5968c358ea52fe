"""Both senders behind one face, so that each rule is tested on both."""

from __future__ import annotations

import asyncio

import pytest

from airflow_provider_osai.api.client import AsyncOsaiClient, OsaiClient


class Blocking:
    """Sends with :class:`OsaiClient`."""

    def __init__(self, settings, **options):
        self.client = OsaiClient(settings, **options)

    def send(self, *calls):
        return [self.client.send(call) for call in calls]

    def close(self):
        self.client.close()


class Awaiting:
    """Sends with :class:`AsyncOsaiClient`, all calls at once, on a loop of its own."""

    def __init__(self, settings, **options):
        self.runner = asyncio.Runner()
        self.client = self.runner.run(AsyncOsaiClient.open(settings, **options))

    def send(self, *calls):
        async def all_at_once():
            return await asyncio.gather(*(self.client.send(call) for call in calls))

        return self.runner.run(all_at_once())

    def close(self):
        self.runner.run(self.client.aclose())
        self.runner.close()  # ends also what still runs of an answer that was not read to its end


@pytest.fixture(params=[Blocking, Awaiting])
def sender(request):
    """Make a sender for settings; it is closed at the end."""
    made = []

    def make(settings, **options):
        made.append(request.param(settings, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()
