"""Differences between the supported Airflow versions that `common.compat` does not cover."""

from __future__ import annotations

from typing import Any

try:
    from airflow.sdk.exceptions import TaskDeferralError, TaskDeferralTimeout
except ImportError:  # Airflow 3.1
    from airflow.exceptions import TaskDeferralError, TaskDeferralTimeout  # type: ignore[no-redef]  # same classes

try:
    from airflow.triggers.shared_stream import SharedStreamProducer

    HAS_SHARED_STREAMS = True
    """Whether asset triggers can share a poll and are notified when their events are persisted (Airflow 3.3+)."""
except ImportError:  # before Airflow 3.3
    SharedStreamProducer = object  # type: ignore[assignment,misc]  # a base class that is never used then
    HAS_SHARED_STREAMS = False

__all__ = [
    "HAS_SHARED_STREAMS",
    "SharedStreamProducer",
    "TaskDeferralError",
    "TaskDeferralTimeout",
    "asset_state_stores",
]


def asset_state_stores(store: Any) -> list[Any]:
    """Return the state stores of the assets that a trigger watches; empty before Airflow 3.3.

    A trigger can watch several assets. Its store must then be subscripted by asset, but a trigger does not get its
    assets. So the store is iterated if it supports that; otherwise private attributes are read.

    :param store: the trigger's asset state store; ``None`` before Airflow 3.3.
    """
    if store is None:
        return []
    if hasattr(type(store), "__iter__"):
        return list(store)
    # Private attributes of AssetStateStoreAccessors in Airflow 3.3.2, which has no public iteration.
    mappings = [getattr(store, name, None) for name in ("_by_name", "_by_uri")]
    return [accessor for mapping in mappings for accessor in (mapping or {}).values()]
