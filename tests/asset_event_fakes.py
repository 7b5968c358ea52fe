"""What stands in for a task context's ``inlet_events`` and ``outlet_events``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from airflow.sdk import Asset, AssetAlias

__all__ = ["ByAsset"]


class ByAsset:
    """Looked up by an asset, like Airflow's own. An asset cannot be the key of a dict on Airflow 3.1.

    :param make: makes what is there for an asset that was not asked for yet.
    """

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._kept: dict[str, Any] = {}

    def __getitem__(self, asset: Asset) -> Any:
        return self._kept.setdefault(_name(asset), self._make())

    def __setitem__(self, asset: Asset, what: Any) -> None:
        self._kept[_name(asset)] = what

    def __contains__(self, asset: Asset) -> bool:
        return _name(asset) in self._kept


def _name(asset: Asset | AssetAlias) -> str:
    return asset.name if isinstance(asset, AssetAlias) else asset.uri
