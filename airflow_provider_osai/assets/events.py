"""The events of OSAI's assets: what a task says in them, and what it reads of those before."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_osai.assets.uris import is_osai

if TYPE_CHECKING:
    from airflow.sdk import Asset, Context

__all__ = ["announce", "extras", "last_extra"]

MOST: Final = 100
"""Events that are read of an asset, its last ones."""


def announce(context: Context, extra: Mapping[str, Any]) -> None:
    """Put *extra* on the event of each OSAI asset among the running task's outlets.

    Airflow makes the events when the task has succeeded, and only then. What is ``None`` stays out.
    """
    told = {name: value for name, value in extra.items() if value is not None}
    for asset in context["task"].outlets:
        if is_osai(asset):
            context["outlet_events"][asset].extra.update(told)


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
