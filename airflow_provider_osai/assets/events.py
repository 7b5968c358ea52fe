"""The events of OSAI's assets: what a task says in them, and what it reads of those before."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_osai.assets.uris import is_osai

if TYPE_CHECKING:
    from airflow.sdk import Asset, BaseOperator, Context

__all__ = ["announce", "extras", "keep_silent", "last_extra"]

MOST: Final = 100
"""Events that are read of an asset, its last ones."""


def announce(task: BaseOperator, context: Context, extra: Mapping[str, Any]) -> None:
    """Put *extra* on the event of each OSAI asset among the outlets of *task*, which runs.

    Airflow makes the events when the task has succeeded, and only then.
    """
    for asset in task.outlets:
        if is_osai(asset):
            context["outlet_events"][asset].extra.update(extra)


def keep_silent(task: BaseOperator, which: Callable[[Any], bool] = is_osai) -> None:
    """Have Airflow make no event of these assets when *task*, which runs, succeeds: nothing has become of them.

    :param which: says of an outlet whether it is one of them; default: all of OSAI's.
    """
    task.outlets = [outlet for outlet in task.outlets if not which(outlet)]


def extras(context: Context, asset: Asset) -> list[dict[str, Any]]:
    """Return what the asset's events say, the last hundred, oldest first.

    :param asset: one of the running task's inlets.
    """
    events = context["inlet_events"][asset]
    if hasattr(events, "limit"):  # Airflow 3.2
        return [dict(event.extra or {}) for event in events.ascending(ascending=False).limit(MOST)][::-1]
    return [dict(event.extra or {}) for event in events][-MOST:]


def last_extra(context: Context, asset: Asset) -> dict[str, Any] | None:
    """Return what the asset's last event says, or ``None`` if there is none.

    :param asset: one of the running task's inlets.
    """
    told = extras(context, asset)
    return told[-1] if told else None
