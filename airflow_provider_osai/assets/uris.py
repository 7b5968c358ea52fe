"""Asset URIs of OSAI datasets and models: ``osai://<region>/datasets/<id>`` and ``osai://<region>/models/<id>``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from airflow.sdk import Asset

from airflow_provider_osai.api.errors import OsaiArgumentError

if TYPE_CHECKING:
    from urllib.parse import SplitResult

__all__ = ["SCHEME", "is_osai", "make", "osai_dataset", "osai_model", "sanitize"]

SCHEME: Final = "osai"
GROUPS: Final = {"datasets": "dataset", "models": "model"}
"""Airflow's name of the asset group, by the path segment after the region."""
REGION: Final = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:\d+)?")
ID: Final = re.compile(r"[A-Za-z0-9._-]+")


def osai_dataset(dataset_id: str, *, region: str = "eu", **asset: Any) -> Asset:
    """Return the asset of a dataset, for ``schedule``, ``inlets`` and ``outlets``.

    :param dataset_id: the dataset's id, or any name on which your Dags agree.
    :param region: ``eu`` (default), ``us``, or the host of the connection's base URL.
    :param asset: further arguments of Airflow's ``Asset``, such as ``name``, ``extra`` or ``watchers``.
    :raises OsaiArgumentError: if the arguments do not form a valid asset URI.
    """
    return _asset("datasets", dataset_id, region, asset)


def osai_model(id_or_alias: str, *, region: str = "eu", **asset: Any) -> Asset:
    """Return the asset of a model, for ``schedule``, ``inlets`` and ``outlets``.

    :param id_or_alias: a model's id, or an alias for successive models, such as ``defects``. The extra of each event of
        an alias has the id of its current model.
    :param region: ``eu`` (default), ``us``, or the host of the connection's base URL.
    :param asset: further arguments of Airflow's ``Asset``, such as ``name``, ``extra`` or ``watchers``.
    :raises OsaiArgumentError: if the arguments do not form a valid asset URI.
    """
    return _asset("models", id_or_alias, region, asset)


def make(*, kind: str, id: str, region: str = "eu", **asset: Any) -> Asset:  # noqa: A002 - Airflow calls it by name
    """Return an asset from the parts of its URI. Airflow calls this as the asset factory of the scheme.

    :param kind: ``dataset`` or ``model``.
    :param id: the dataset's or model's id, or an alias.
    :param region: as for :func:`osai_dataset`.
    :param asset: as for :func:`osai_dataset`.
    """
    return _asset(f"{kind}s", id, region, asset)


def sanitize(uri: SplitResult) -> SplitResult:
    """Return the normalized URI. Airflow calls this as the URI handler of the scheme.

    :raises ValueError: if the URI is invalid.
    """
    region = uri.netloc.lower()
    parts = uri.path.strip("/").split("/")
    if not REGION.fullmatch(region):
        msg = f"Invalid asset URI {uri.geturl()!r}: osai:// must be followed by the region, eu or us, or by a host"
        raise ValueError(msg)
    if len(parts) != 2 or parts[0].lower() not in GROUPS or not ID.fullmatch(parts[1]):
        msg = f"Invalid asset URI {uri.geturl()!r}: the region must be followed by datasets/<id> or models/<id>"
        raise ValueError(msg)
    return uri._replace(netloc=region, path=f"/{parts[0].lower()}/{parts[1]}", query="", fragment="")


def is_osai(asset: Any) -> bool:
    """Return whether *asset* is an asset with the scheme ``osai``."""
    return isinstance(asset, Asset) and asset.uri.startswith(f"{SCHEME}://")


def _asset(path_group: str, name: str, region: str, asset: dict[str, Any]) -> Asset:
    if path_group not in GROUPS or not ID.fullmatch(str(name)) or not REGION.fullmatch(str(region).lower()):
        raise OsaiArgumentError(
            f"Invalid asset: {path_group[:-1]} {name!r} in region {region!r}. The kind is dataset or model; an id has "
            "only letters, digits, '.', '_' and '-'; the region is eu, us or a host"
        )
    return Asset(**{"uri": f"{SCHEME}://{region.lower()}/{path_group}/{name}", "group": GROUPS[path_group]} | asset)
