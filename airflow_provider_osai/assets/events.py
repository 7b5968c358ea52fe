"""Set the extra of a task's asset events, suppress the events, and read the extras of earlier ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from airflow.sdk import AssetAlias

from airflow_provider_osai.api.errors import OsaiArgumentError
from airflow_provider_osai.api.models import JobKind
from airflow_provider_osai.assets.uris import is_osai, osai_dataset, osai_model

if TYPE_CHECKING:
    from airflow.sdk import Asset, BaseOperator, Context

__all__ = ["asset_event_extras", "create_asset_events", "last_extra", "set_asset_event_extra", "suppress_asset_events"]

MAX_EVENTS: Final = 100
"""Maximum events of an asset that are read, latest first."""


CHANGED_MODELS: Final = frozenset({JobKind.TRAINING, JobKind.RETRAINING})
"""Kinds of job that make the model in their result."""
CHANGED_DATASETS: Final = frozenset({JobKind.MANIPULATION, JobKind.PREDICTION})
"""Kinds of job that make or change the dataset in their result."""


def create_asset_events(task: BaseOperator, context: Context, result: Mapping[str, Any], region: str) -> None:
    """Create the asset events of the running *task* from its result: of its OSAI assets, and of its aliases.

    An ``AssetAlias`` in the outlets gets an event of the asset that the task has made or changed, whose id is only
    known at run time: ``osai_model(<model_id>)`` of a training, ``osai_dataset(<dataset_id>)`` of a task that changes a
    dataset. A conversion and a device rental make neither.

    :param result: what the task returns; its ``kind`` is the job's, and is missing if there was no job.
    :param region: the region of the asset's URI, or the host of the connection's base URL.
    """
    set_asset_event_extra(task, context, result)
    aliases = [outlet for outlet in task.outlets if isinstance(outlet, AssetAlias)]
    if not aliases:
        return
    try:
        asset = _changed_asset(result, region)
    except OsaiArgumentError as error:  # an id that no URI can have; the task has succeeded nevertheless
        task.log.warning("No event of the asset alias is created: %s", error)
        return
    if asset is not None:
        for alias in aliases:
            context["outlet_events"][alias].add(asset, extra=dict(result))


def _changed_asset(result: Mapping[str, Any], region: str) -> Asset | None:
    kind = result.get("kind")
    if kind in CHANGED_MODELS and result.get("model_id"):
        return osai_model(str(result["model_id"]), region=region)
    if (kind is None or kind in CHANGED_DATASETS) and result.get("dataset_id"):
        return osai_dataset(str(result["dataset_id"]), region=region)
    return None


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
