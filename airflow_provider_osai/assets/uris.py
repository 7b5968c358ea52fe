"""The addresses of OSAI's datasets and models as assets: ``osai://<region>/datasets/<id>``, ``.../models/<id>``."""

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
"""An asset's group, by what its address has after the region; they are Airflow's own words."""
REGION: Final = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:\d+)?")
ID: Final = re.compile(r"[A-Za-z0-9._-]+")


def osai_dataset(dataset_id: str, *, region: str = "eu", **asset: Any) -> Asset:
    """Return the asset of a dataset, for ``schedule``, ``inlets`` and ``outlets``.

    :param dataset_id: its id, or a name of your own: the asset is what the Dags mean by it.
    :param region: ``eu`` (default), ``us``, or the host of the connection's base URL.
    :param asset: further arguments of Airflow's ``Asset``, such as ``name``, ``extra`` or ``watchers``.
    :raises OsaiArgumentError: if the address would be none.
    """
    return _asset("datasets", dataset_id, region, asset)


def osai_model(id_or_alias: str, *, region: str = "eu", **asset: Any) -> Asset:
    """Return the asset of a model, for ``schedule``, ``inlets`` and ``outlets``.

    :param id_or_alias: a model's id, or what a line of models is called, such as ``defects``: then each event of the
        asset names the model that it stands for now.
    :param region: ``eu`` (default), ``us``, or the host of the connection's base URL.
    :param asset: further arguments of Airflow's ``Asset``, such as ``name``, ``extra`` or ``watchers``.
    :raises OsaiArgumentError: if the address would be none.
    """
    return _asset("models", id_or_alias, region, asset)


def make(*, kind: str, id: str, region: str = "eu", **asset: Any) -> Asset:  # noqa: A002 - Airflow calls it by name
    """Return an asset by its parts; Airflow's factory of the scheme.

    :param kind: ``dataset`` or ``model``.
    """
    return _asset(f"{kind}s", id, region, asset)


def sanitize(uri: SplitResult) -> SplitResult:
    """Return the address in its one form, or raise ValueError; Airflow's handler of the scheme."""
    region, parts = uri.netloc.lower(), uri.path.strip("/").split("/")
    if not REGION.fullmatch(region):
        msg = f"{uri.geturl()!r}: after osai:// comes the region, eu or us"
        raise ValueError(msg)
    if len(parts) != 2 or parts[0].lower() not in GROUPS or not ID.fullmatch(parts[1]):
        msg = f"{uri.geturl()!r}: after the region comes datasets/<id> or models/<id>"
        raise ValueError(msg)
    return uri._replace(netloc=region, path=f"/{parts[0].lower()}/{parts[1]}", query="", fragment="")


def is_osai(asset: Any) -> bool:
    """Whether something is an asset of ours."""
    return isinstance(asset, Asset) and asset.uri.startswith(f"{SCHEME}://")


def _asset(kind: str, name: str, region: str, asset: dict[str, Any]) -> Asset:
    if kind not in GROUPS or not ID.fullmatch(str(name)) or not REGION.fullmatch(str(region).lower()):
        raise OsaiArgumentError(
            f"no asset: {kind[:-1]} {name!r} in region {region!r}; an id has letters, digits, '.', '_' and '-' only"
        )
    return Asset(**{"uri": f"{SCHEME}://{region.lower()}/{kind}/{name}", "group": GROUPS[kind]} | asset)
