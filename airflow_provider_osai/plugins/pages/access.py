"""Airflow's access checks for what the pages show."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.resource_details import AssetDetails, DagAccessEntity
from airflow.api_fastapi.core_api.security import requires_access_asset, requires_access_dag
from fastapi import Depends

if TYPE_CHECKING:
    from airflow.api_fastapi.auth.managers.base_auth_manager import ResourceMethod

__all__ = ["MAY_READ_ASSET", "MAY_READ_TASK", "may_use_asset", "readable_dags"]

MAY_READ_TASK: Final = [
    Depends(requires_access_dag(method="GET", access_entity=entity))
    for entity in (DagAccessEntity.TASK_INSTANCE, DagAccessEntity.XCOM)
]
"""Dependencies of the pages of a task, which show its state and its XComs."""
MAY_READ_ASSET: Final = [Depends(requires_access_asset(method="GET"))]
"""Dependencies of the pages of an asset in the path."""


def may_use_asset(user: Any, asset_id: int, method: ResourceMethod = "GET") -> bool:
    """Return whether the user may read an asset, or with ``POST`` create events of it. Blocks."""
    details = AssetDetails(id=str(asset_id))
    return bool(get_auth_manager().is_authorized_asset(method=method, details=details, user=user))


def readable_dags(user: Any) -> set[str]:
    """Return the ids of the Dags that the user may read. Blocks."""
    return set(get_auth_manager().get_authorized_dag_ids(user=user, method="GET"))
