"""OSAI datasets and models as Airflow assets.

Allowed here: asset URIs and asset events. Not allowed: requests, waiting.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_provider_osai.assets.champion import champion_model_id
    from airflow_provider_osai.assets.data_changes import has_new_data, skip_if_unchanged
    from airflow_provider_osai.assets.uris import osai_dataset, osai_model

__all__ = ["champion_model_id", "has_new_data", "osai_dataset", "osai_model", "skip_if_unchanged"]

MODULES = {
    "champion_model_id": "champion",
    "has_new_data": "data_changes",
    "osai_dataset": "uris",
    "osai_model": "uris",
    "skip_if_unchanged": "data_changes",
}


def __getattr__(name: str) -> Any:
    """Import a name's module at its first use: each task imports this package, and few need all of it."""
    if name not in MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{MODULES[name]}"), name)
