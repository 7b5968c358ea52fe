"""OpenLineage namespaces and names: ``osai://<region>`` and ``datasets/<id>``, ``models/<id>``, ``conversions/<id>``.

Airflow imports this module for each Dag with assets, whether or not the extra ``openlineage`` is installed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from airflow_provider_osai.assets.uris import SCHEME

if TYPE_CHECKING:
    from airflow.sdk import Asset
    from openlineage.client.event_v2 import Dataset

    from airflow_provider_osai.api.settings import OsaiSettings

__all__ = ["from_asset", "namespace_from", "to_dataset"]


def namespace_from(settings: OsaiSettings) -> str:
    """Return the OpenLineage namespace: the region, or the host if the connection has a base URL."""
    return f"{SCHEME}://{settings.asset_region}"


def to_dataset(namespace: str, group: str, name: str, facets: dict[str, Any] | None = None) -> Dataset:
    """Return an OSAI dataset, model or conversion as an OpenLineage dataset.

    :param namespace: see :func:`namespace_from`.
    :param group: ``datasets``, ``models`` or ``conversions``.
    :param name: its id.
    :param facets: facets of the OpenLineage dataset by name.
    """
    from openlineage.client.event_v2 import Dataset  # an optional dependency

    return Dataset(namespace=namespace, name=f"{group}/{name}", facets=facets or {})


def from_asset(asset: Asset, lineage_context: Any) -> Dataset:  # noqa: ARG001 - OpenLineage's signature
    """Return the OpenLineage dataset of an ``osai://`` asset, which equals that of a job that reads or creates it."""
    parts = urlsplit(asset.uri)
    group, _, name = parts.path.strip("/").partition("/")
    return to_dataset(f"{parts.scheme}://{parts.netloc}", group, name)
