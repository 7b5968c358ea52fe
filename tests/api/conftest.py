"""Both clients behind one interface, so that each rule is tested with both."""

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
    """Sends all calls concurrently with :class:`AsyncOsaiClient`, on its own event loop."""

    def __init__(self, settings, **options):
        self.runner = asyncio.Runner()
        self.client = self.runner.run(AsyncOsaiClient.open(settings, **options))

    def send(self, *calls):
        async def send_all():
            return await asyncio.gather(*(self.client.send(call) for call in calls))

        return self.runner.run(send_all())

    def close(self):
        self.runner.run(self.client.aclose())
        self.runner.close()  # also ends tasks of a response that was not read completely


@pytest.fixture(params=[Blocking, Awaiting])
def sender(request):
    """Return a factory of clients, which are closed after the test."""
    senders = []

    def make(settings, **options):
        senders.append(request.param(settings, **options))
        return senders[-1]

    yield make
    for sender in senders:
        sender.close()
