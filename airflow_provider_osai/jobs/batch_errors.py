"""Why jobs of a batch do not exist, as JSON: a resumed task must not send again what OSAI has rejected."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from airflow_provider_osai.api.errors import OsaiError, OsaiJobError, OsaiJobLost, OsaiRequestError
from airflow_provider_osai.api.models import JobKind

__all__ = ["dump_errors", "load_errors"]

MAX_TEXT: Final = 500
"""Maximum characters of OSAI's text about one job: XComs should be small."""


def dump_errors(errors: Mapping[int, OsaiError]) -> dict[str, dict[str, Any]]:
    """Return errors of jobs, by the index of the job, as JSON."""
    return {str(index): _dump(error) for index, error in errors.items()}


def load_errors(document: Any, kind: JobKind) -> dict[int, OsaiError]:
    """Return what :func:`dump_errors` made, without what is not of its form.

    :param kind: the jobs' kind.
    """
    errors: dict[int, OsaiError] = {}
    for index, fields in document.items() if isinstance(document, Mapping) else ():
        try:
            errors[int(index)] = _load(fields, kind)
        except (KeyError, TypeError, ValueError, AttributeError):
            continue
    return errors


def _dump(error: OsaiError) -> dict[str, Any]:
    if isinstance(error, OsaiRequestError):
        return {
            "status": error.status,
            "received": error.received,
            "method": error.method,
            "path": error.path,
            "text": error.text[:MAX_TEXT],
        }
    message = str(error)
    job_id = ""
    if isinstance(error, OsaiJobError):
        job_id = error.job_id
        message = message.removeprefix(f"{error.kind} job {job_id}: ")
    return {"job_id": job_id, "message": message[:MAX_TEXT], "is_lost": isinstance(error, OsaiJobLost)}


def _load(fields: Mapping[str, Any], kind: JobKind) -> OsaiError:
    if "status" in fields:
        method, path, text = (str(fields[name]) for name in ("method", "path", "text"))
        return OsaiRequestError(int(fields["status"]), method, path, text, int(fields["received"]))
    error_class = OsaiJobLost if fields["is_lost"] else OsaiJobError
    return error_class(str(fields["message"]), kind=kind, job_id=str(fields["job_id"]))
