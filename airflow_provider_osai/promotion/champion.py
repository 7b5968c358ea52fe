"""Determine the champion from the log of promotions: the events of its asset, oldest first.

Each promotion names the champion it replaces. A promotion whose champion has already been replaced by another one is
ignored: an optimistic lock on an append-only log. An event that names no champion to replace, such as a manual
rollback, always counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from airflow_provider_osai.promotion.decision import ModelScore

__all__ = ["Champion", "Run", "current_champion", "promotion_extra"]

ANY_CHAMPION: Final = "?"
"""The default of ``replaces`` in an event without that field: it replaces any champion."""


@dataclass(frozen=True, slots=True)
class Run:
    """The Dag run of a promotion; ``after`` is its ``run_after`` or logical date."""

    dag_id: str
    run_id: str
    after: datetime | None = None

    def is_before(self, other: Run) -> bool:
        """Return whether this is an earlier run of the same Dag."""
        if self.dag_id != other.dag_id or self.run_id == other.run_id:
            return False
        return self.after is not None and other.after is not None and self.after < other.after


@dataclass(frozen=True, slots=True)
class Champion:
    """The current champion, and the run that promoted it if known."""

    model: ModelScore
    run: Run | None = None

    def promoted_by(self) -> str:
        """Return a phrase that names the run that promoted it, for messages."""
        if self.run is None:
            return "promoted by an event that names no run, for instance a manual one"
        after = f" of {self.run.after.isoformat()}" if self.run.after else ""
        return f"promoted by run {self.run.run_id} of Dag {self.run.dag_id}{after}"


class _Run(BaseModel):
    dag_id: str
    run_id: str
    after: datetime | None = None


class _Promotion(BaseModel):
    """The fields read from an event's extra; other fields are ignored."""

    model_config = ConfigDict(extra="ignore", coerce_numbers_to_str=True, protected_namespaces=(), defer_build=True)

    model_id: str = Field(min_length=1)
    metrics: dict[str, Any] = Field(default_factory=dict)
    measured_on: str | None = None
    replaces: str | None = ANY_CHAMPION
    run: _Run | None = None


def current_champion(extras: Iterable[Mapping[str, Any] | None]) -> Champion | None:
    """Return the champion at the end of the log, or ``None``.

    :param extras: the extras of the asset's events, oldest first. Events without a ``model_id`` are ignored. If the
        beginning of the log is missing, the first promotion in it counts.
    """
    champion: Champion | None = None
    for extra in extras:
        try:
            event = _Promotion.model_validate(extra)
        except ValidationError:
            continue
        if champion is None or event.replaces in (ANY_CHAMPION, champion.model.model_id):
            run = Run(event.run.dag_id, event.run.run_id, event.run.after) if event.run else None
            score = ModelScore(event.model_id, event.metrics, event.measured_on, "its promotion's event")
            champion = Champion(score, run)
    return champion


def promotion_extra(decision: Mapping[str, Any], replaced: Champion | None, run: Run) -> dict[str, Any]:
    """Return the extra of a promotion's asset event, as plain JSON.

    :param decision: the result of ``Decision.to_dict()``.
    """
    return {
        **decision["candidate"],
        "replaces": replaced.model.model_id if replaced else None,
        "run": {"dag_id": run.dag_id, "run_id": run.run_id, "after": run.after.isoformat() if run.after else None},
        "decision": dict(decision),
    }
