"""Convert text to paths: local ones, or those of Airflow's object storage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from airflow_provider_osai.api.errors import OsaiArgumentError
from airflow_provider_osai.data.local_files import is_empty_path

__all__ = ["as_path", "parse_path"]


def parse_path(text: str, conn_id: str | None = None) -> Any:
    """Convert text to a path: ``ObjectStoragePath`` if it has a scheme or *conn_id* is given, otherwise ``Path``.

    :raises OsaiArgumentError: if no installed provider supports the scheme.
    """
    if "://" not in text and conn_id is None:
        return Path(text)
    # Imported here because the import is slow and most paths are local.
    from airflow.sdk import ObjectStoragePath

    try:
        path = ObjectStoragePath(text, conn_id=conn_id)
        path.fs  # noqa: B018 - Airflow 3.1 looks up the scheme only on this access
    except ValueError as error:
        raise OsaiArgumentError(f"{text!r}: {error}; is the provider of this storage installed?") from error
    return path


def as_path(path: Any) -> Any:
    """Convert text with a scheme and a path to an ``ObjectStoragePath``; return everything else unchanged.

    :raises OsaiArgumentError: if no installed provider supports the scheme.
    """
    return parse_path(path) if isinstance(path, str) and "://" in path and not is_empty_path(path) else path
