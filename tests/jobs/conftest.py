"""Drives flows by hand: no server, no clock but the one that sleeps move."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from airflow_provider_osai.api.calls import Calls
from airflow_provider_osai.api.contract import Contract
from airflow_provider_osai.api.models import Job, JobKind
from airflow_provider_osai.api.rebinding import rebind
from airflow_provider_osai.jobs.flow import Sleep, run


@dataclass
class Play:
    """A clock, and answers that are given in turn; the last one goes on for ever."""

    now: float = 1000.0
    answers: dict[str, list[Any]] = field(default_factory=dict)
    sent: list[str] = field(default_factory=list)
    slept: list[float] = field(default_factory=list)

    def clock(self) -> float:
        return self.now

    def send(self, call):
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
def play():
    return Play()


@pytest.fixture
def calls():
    return Calls()


@pytest.fixture
def poor_calls():
    """Calls to an API that can neither list nor cancel."""
    return Calls(rebind(Contract(), {"training.list": None, "training.cancel": None}))


__all__ = ["Play", "Sleep", "job"]
