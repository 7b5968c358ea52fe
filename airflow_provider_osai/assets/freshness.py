"""Whether there is anything new to train on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from airflow.providers.common.compat.sdk import AirflowSkipException
from airflow.sdk import get_current_context

from airflow_provider_osai.api.requests import present
from airflow_provider_osai.assets.events import last_extra

if TYPE_CHECKING:
    from airflow.sdk import Asset, Context

__all__ = ["DATA_DIGEST", "is_new", "skip_unless_new"]

DATA_DIGEST: Final = "data_digest"
"""Under which name a training's event says what it was trained on."""


def is_new(data_digest: str, trained: Asset, context: Context | None = None) -> bool:
    """Return whether the last successful training was on other data, or there was none.

    :param data_digest: of the data now, as ``OsaiUploadImagesOperator`` returns it.
    :param trained: the asset that the training has among its ``outlets``, and the running task among its ``inlets``.
    :param context: of the running task; ``None``: Airflow is asked for it.
    :raises OsaiArgumentError: if the digest is missing.
    """
    digest = present(str(data_digest))
    last = last_extra(context or get_current_context(), trained)
    return last is None or last.get(DATA_DIGEST) != digest


def skip_unless_new(data_digest: str, trained: Asset, context: Context | None = None) -> None:
    """Skip the running task, and so what follows, if the last successful training was on the same data.

    In a ``@task(inlets=[trained])``, or wherever a task runs; arguments as of :func:`is_new`.

    :raises AirflowSkipException: if there is nothing new.
    """
    if not is_new(data_digest, trained, context):
        raise AirflowSkipException(f"the last training of {trained.uri} was on the same data, digest {data_digest}")
