"""Set the extra of a task's asset events, suppress the events, and read the extras of earlier ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_osai.assets.uris import is_osai

if TYPE_CHECKING:
    from airflow.sdk import Asset, BaseOperator, Context

__all__ = ["asset_event_extras", "last_extra", "set_asset_event_extra", "suppress_asset_events"]

MAX_EVENTS: Final = 100
"""Maximum events of an asset that are read, latest first."""


def set_asset_event_extra(task: BaseOperator, context: Context, extra: Mapping[str, Any]) -> None:
    """Add *extra* to the event of each OSAI asset in the outlets of the running *task*.

    Airflow creates the events only when the task has succeeded.
    """
    for asset in task.outlets:
        if is_osai(asset):
            context["outlet_events"][asset].extra.update(extra)


def suppress_asset_events(task: BaseOperator, predicate: Callable[[Any], bool] = is_osai) -> None:
    """Suppress the asset events of the running *task* for outlets whose assets it has not changed.

    :param task: the running task.
    :param predicate: returns whether to suppress the event of an outlet. Default: every OSAI asset.
    """
    task.outlets = [outlet for outlet in task.outlets if not predicate(outlet)]


def asset_event_extras(context: Context, asset: Asset) -> list[dict[str, Any]]:
    """Return the extras of the asset's last hundred events, oldest first.

    :param context: the running task's context.
    :param asset: one of the running task's inlets.
    """
    events = context["inlet_events"][asset]
    if hasattr(events, "limit"):  # Airflow 3.2 and newer
        return [dict(event.extra or {}) for event in events.ascending(ascending=False).limit(MAX_EVENTS)][::-1]
    return [dict(event.extra or {}) for event in events][-MAX_EVENTS:]


def last_extra(context: Context, asset: Asset) -> dict[str, Any] | None:
    """Return the extra of the asset's last event; ``None`` if it has no event.

    :param context: the running task's context.
    :param asset: one of the running task's inlets.
    """
    event_extras = asset_event_extras(context, asset)
    return event_extras[-1] if event_extras else None
