"""Look up the current champion of a model asset."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.sdk import get_current_context

from airflow_provider_osai.api.errors import OsaiArgumentError
from airflow_provider_osai.assets.events import asset_event_extras
from airflow_provider_osai.promotion.champion import current_champion

if TYPE_CHECKING:
    from airflow.sdk import Asset, Context

__all__ = ["champion_model_id"]


def champion_model_id(champion: Asset, context: Context | None = None) -> str:
    """Return the model id of the current champion: the model of the last valid promotion, by the same rule as the gate.

    Call it in a running task, for instance in a ``@task(inlets=[champion])``.

    :param champion: the asset, one of the running task's ``inlets``.
    :param context: the running task's context. Default: Airflow's current context.
    :raises OsaiArgumentError: if no model has been promoted yet.
    """
    current = current_champion(asset_event_extras(context or get_current_context(), champion))
    if current is None:
        raise OsaiArgumentError(f"{champion.uri}: no model has been promoted yet")
    return current.model.model_id
