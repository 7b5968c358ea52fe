"""Which model stands for an asset now."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.sdk import get_current_context

from airflow_provider_osai.api.errors import OsaiArgumentError
from airflow_provider_osai.assets.events import extras
from airflow_provider_osai.promotion.champion import champion_of

if TYPE_CHECKING:
    from airflow.sdk import Asset, Context

__all__ = ["standing_model"]


def standing_model(champion: Asset, context: Context | None = None) -> str:
    """Return the id of the model that stands: that of the last promotion that counts, by the same rule as the gate's.

    In a ``@task(inlets=[champion])``, or wherever a task runs.

    :param champion: the asset, one of the running task's ``inlets``.
    :param context: of the running task; ``None``: Airflow is asked for it.
    :raises OsaiArgumentError: if no model was promoted yet.
    """
    stands = champion_of(extras(context or get_current_context(), champion))
    if stands is None:
        raise OsaiArgumentError(f"{champion.uri}: no model was promoted yet")
    return stands.model.model_id
