"""A client without a server, whose clock moves only when it sleeps."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from airflow_provider_osai.api.calls import OsaiApi
from airflow_provider_osai.api.contract import Contract
from airflow_provider_osai.api.models import Job, JobKind
from airflow_provider_osai.api.overrides import apply_overrides
from airflow_provider_osai.jobs.flow import Sleep, run


@dataclass
class FakeClient:
    """Answers each operation from a script, whose last answer repeats; ``run`` drives a flow with it."""

    calls: OsaiApi = field(default_factory=OsaiApi)
    now: float = 1000.0
    answers: dict[str, list[Any]] = field(default_factory=dict)
    sent: list[str] = field(default_factory=list)
    slept: list[float] = field(default_factory=list)

    def clock(self) -> float:
        return self.now

    def __getattr__(self, verb):
        call = getattr(self.calls, verb)
        return lambda *args, **options: self.send(call(*args, **options))

    def send(self, call, *, retry=True):
        self.sent.append(call.name)
        script = self.answers[call.name]
        answer = script.pop(0) if len(script) > 1 else script[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.now += seconds

    def run(self, flow):
        return run(flow, self.send, self.sleep)


def job(word: str, **fields: Any) -> Job:
    """A training job 7 whose status word is *word*."""
    state = Contract().state(word)
    return Job.model_validate({"id": "7", "kind": JobKind.TRAINING, "state": state, "status": word, **fields})


@pytest.fixture
def client():
    return FakeClient()


@pytest.fixture
def calls():
    return OsaiApi()


@pytest.fixture
def poor_client():
    """A client of an API that can neither list nor cancel."""
    return FakeClient(OsaiApi(apply_overrides(Contract(), {"training.list": None, "training.cancel": None})))


__all__ = ["FakeClient", "Sleep", "job"]
