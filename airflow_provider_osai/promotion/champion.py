"""Who the champion is, by the log of promotions: the events of its asset, oldest first.

Each promotion names the champion that it was decided against. One that was decided against a champion whom another had
replaced meanwhile counts for nothing: a comparison that a log of events, which is only ever added to, makes possible
without a lock. An event that names none (a person's, for instance to roll back) always counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from airflow_provider_osai.promotion.decision import Contender

__all__ = ["Champion", "Run", "champion_of", "extra_of"]

UNNAMED: Final = "?"
"""Stands for the champion that an event without the word ``replaces`` was decided against: whoever it was."""


@dataclass(frozen=True, slots=True)
class Run:
    """Which run promoted, and its place in time."""

    dag_id: str
    run_id: str
    after: datetime | None = None

    def is_before(self, other: Run) -> bool:
        """Whether this is an earlier run of the same Dag."""
        if self.dag_id != other.dag_id or self.run_id == other.run_id:
            return False
        return self.after is not None and other.after is not None and self.after < other.after


@dataclass(frozen=True, slots=True)
class Champion:
    """The model that stands, and the run that promoted it, if one did."""

    model: Contender
    run: Run | None = None


class _Run(BaseModel):
    dag_id: str
    run_id: str
    after: datetime | None = None


class _Promotion(BaseModel):
    """What we read of an event's extra. Other fields may be there."""

    model_config = ConfigDict(extra="ignore", coerce_numbers_to_str=True, protected_namespaces=(), defer_build=True)

    model_id: str = Field(min_length=1)
    metrics: dict[str, Any] = Field(default_factory=dict)
    measured_on: str | None = None
    replaces: str | None = UNNAMED
    run: _Run | None = None


def champion_of(extras: Iterable[Mapping[str, Any] | None]) -> Champion | None:
    """Return who stands at the end of the log, or ``None``.

    :param extras: of the asset's events, oldest first. What names no model is no promotion. If the log begins later
        than the first promotion, its first one counts.
    """
    stands: Champion | None = None
    for extra in extras:
        try:
            told = _Promotion.model_validate(extra)
        except ValidationError:
            continue
        if stands is None or told.replaces in (UNNAMED, stands.model.model_id):
            run = Run(told.run.dag_id, told.run.run_id, told.run.after) if told.run else None
            stands = Champion(Contender(told.model_id, told.metrics, told.measured_on), run)
    return stands


def extra_of(decision: Mapping[str, Any], replaced: Champion | None, run: Run) -> dict[str, Any]:
    """Return the extra of the event that a promotion makes: plain JSON.

    :param decision: as ``Decision.told`` tells it.
    """
    return {
        **decision["candidate"],
        "replaces": replaced.model.model_id if replaced else None,
        "run": {"dag_id": run.dag_id, "run_id": run.run_id, "after": run.after.isoformat() if run.after else None},
        "decision": dict(decision),
    }
