"""Where users keep files: on this machine, or in object storage that Airflow knows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from airflow_provider_osai.api.errors import OsaiArgumentError

__all__ = ["at_hand", "path_at"]


def path_at(text: str, conn_id: str | None = None) -> Any:
    """Return the place that *text* means: on this machine, or in object storage if it has a scheme.

    :raises OsaiArgumentError: if the scheme is that of no storage that Airflow knows here.
    """
    if "://" not in text and conn_id is None:
        return Path(text)
    # Not at the top: it takes its time, and most places are folders.
    from airflow.sdk import ObjectStoragePath  # noqa: PLC0415

    try:
        place = ObjectStoragePath(text, conn_id=conn_id)
        place.fs  # noqa: B018 - Airflow 3.1 looks for the scheme's storage here, and not above
    except ValueError as error:
        raise OsaiArgumentError(f"{text!r}: {error}; is its provider installed?") from error
    return place


def at_hand(place: Any) -> Any:
    """Return *place*; if it is text with a scheme, the place in object storage that it means.

    :raises OsaiArgumentError: if the scheme is that of no storage that Airflow knows here.
    """
    return path_at(place) if isinstance(place, str) and "://" in place else place
