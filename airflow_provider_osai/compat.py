"""What differs between the Airflow versions that we support, and that `common.compat` does not bridge."""

from __future__ import annotations

from typing import Any

try:
    from airflow.sdk.exceptions import TaskDeferralError, TaskDeferralTimeout
except ImportError:  # Airflow 3.1
    from airflow.exceptions import TaskDeferralError, TaskDeferralTimeout  # type: ignore[no-redef]  # the same two

try:
    from airflow.triggers.shared_stream import SharedStreamProducer

    SHARES_STREAMS = True
    """Whether triggers that watch assets can share a poll, and are told when their events are kept (3.3 and newer)."""
except ImportError:  # before Airflow 3.3
    SharedStreamProducer = object  # type: ignore[assignment,misc]  # nobody asks for one
    SHARES_STREAMS = False

__all__ = ["SHARES_STREAMS", "SharedStreamProducer", "TaskDeferralError", "TaskDeferralTimeout", "each_asset_state"]


def each_asset_state(store: Any) -> list[Any]:
    """Return the state store of each asset that a trigger watches; none before Airflow 3.3.

    One trigger may serve several assets, and what it is given then answers only for an asset that is named, which a
    trigger cannot do: it never learns its assets. Airflows that let one go through the assets are asked, others are
    looked into.
    """
    if store is None:
        return []
    if hasattr(type(store), "__iter__"):
        return list(store)
    inside = [getattr(store, name, None) for name in ("_by_name", "_by_uri")]
    return [accessor for assets in inside for accessor in (assets or {}).values()]
