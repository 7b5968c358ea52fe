"""How OSAI's things are called in OpenLineage: namespace ``osai://<region>``, name ``datasets/<id>`` and the like."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from openlineage.client.event_v2 import Dataset

from airflow_provider_osai.assets.uris import SCHEME

if TYPE_CHECKING:
    from airflow.sdk import Asset

    from airflow_provider_osai.api.settings import OsaiSettings

__all__ = ["from_asset", "namespace_of", "thing"]


def namespace_of(settings: OsaiSettings) -> str:
    """Return the namespace of what lies in an OSAI: by its region, or by its host if the address was given."""
    return f"{SCHEME}://{settings.region or urlsplit(settings.base_url).netloc}"


def thing(namespace: str, kind: str, name: str, facets: dict[str, Any] | None = None) -> Dataset:
    """Return a thing of OSAI as OpenLineage's dataset.

    :param kind: ``datasets``, ``models`` or ``conversions``.
    """
    return Dataset(namespace=namespace, name=f"{kind}/{name}", facets=facets or {})


def from_asset(asset: Asset, lineage_context: Any) -> Dataset:  # noqa: ARG001 - how OpenLineage's provider calls it
    """Return an asset ``osai://...`` as the same dataset that a job says it read or made."""
    parts = urlsplit(asset.uri)
    kind, _, name = parts.path.strip("/").partition("/")
    return thing(f"{parts.scheme}://{parts.netloc}", kind, name)
