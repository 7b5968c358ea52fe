"""Skip a training if the data has not changed since the last successful one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from airflow.providers.common.compat.sdk import AirflowSkipException
from airflow.sdk import get_current_context

from airflow_provider_osai.api.requests import require_id
from airflow_provider_osai.assets.events import last_extra

if TYPE_CHECKING:
    from airflow.sdk import Asset, Context

__all__ = ["DATA_DIGEST", "has_new_data", "skip_if_unchanged"]

DATA_DIGEST: Final = "data_digest"
"""Key of the training data's digest in the extra of a training's asset event."""


def has_new_data(data_digest: str, trained: Asset, context: Context | None = None) -> bool:
    """Return whether the last successful training used other data, or there was none.

    :param data_digest: digest of the current data, as ``OsaiUploadImagesOperator`` returns it.
    :param trained: an asset in the ``outlets`` of the training and in the ``inlets`` of the running task.
    :param context: the running task's context. Default: Airflow's current context.
    :raises OsaiArgumentError: if the digest is missing.
    """
    digest = require_id(str(data_digest))
    last = last_extra(context or get_current_context(), trained)
    return last is None or last.get(DATA_DIGEST) != digest


def skip_if_unchanged(data_digest: str, trained: Asset, context: Context | None = None) -> None:
    """Skip the running task, and so its downstream tasks, if the last successful training used the same data.

    Call it in a running task, for instance in a ``@task(inlets=[trained])``. The arguments are those of
    :func:`has_new_data`.

    :raises AirflowSkipException: if the data has not changed.
    """
    if not has_new_data(data_digest, trained, context):
        raise AirflowSkipException(f"The last training of {trained.uri} used the same data, digest {data_digest}")
