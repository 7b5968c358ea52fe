"""What a job reads and makes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from airflow.providers.openlineage.extractors import OperatorLineage
from openlineage.client.facet_v2 import dataset_version_dataset

from airflow_provider_osai.api.models import JobKind
from airflow_provider_osai.lineage.facets import OsaiJobRunFacet, OsaiMetricsDatasetFacet
from airflow_provider_osai.lineage.naming import namespace_of, thing
from airflow_provider_osai.links.portal import OsaiPortalLink

if TYPE_CHECKING:
    from openlineage.client.event_v2 import Dataset

    from airflow_provider_osai.api.requests import JobRequest
    from airflow_provider_osai.api.settings import OsaiSettings

__all__ = ["lineage_of"]

MADE: Final[Mapping[JobKind, tuple[str, str]]] = {
    JobKind.TRAINING: ("model_id", "models"),
    JobKind.RETRAINING: ("model_id", "models"),
    JobKind.CONVERSION: ("conversion_id", "conversions"),
    JobKind.MANIPULATION: ("dataset_id", "datasets"),
    JobKind.PREDICTION: ("dataset_id", "datasets"),
}
"""Under which name a job's result has what was made, and what kind of thing that is. A rented device is no data."""


def lineage_of(
    request: JobRequest, settings: OsaiSettings, job_id: str | None, told: Mapping[str, Any] | None
) -> OperatorLineage[Any, Any]:
    """Return what a task's job read and made.

    :param request: what OSAI was asked to do; it names what is read.
    :param job_id: ``None``: nothing was submitted.
    :param told: what the task hands on, if it succeeded; it names what was made.
    """
    kind, namespace, read = type(request).kind, namespace_of(settings), _read(request)
    version = _version(told) if sum(what == "datasets" for what, _ in read) == 1 else {}
    url = OsaiPortalLink.url(settings, kind, job_id) if job_id else None
    facet = OsaiJobRunFacet(kind=kind.value, job_id=job_id, state=told["state"] if told else None, portal_url=url)
    return OperatorLineage(
        inputs=[thing(namespace, what, name, version if what == "datasets" else None) for what, name in read],
        outputs=_made(namespace, kind, told) if told else [],
        run_facets={"osai_job": facet},
    )


def _made(namespace: str, kind: JobKind, told: Mapping[str, Any]) -> list[Dataset]:
    key, what = MADE.get(kind, ("", ""))
    if not told.get(key):
        return []
    facets = {"osai_metrics": OsaiMetricsDatasetFacet(metrics=dict(told["metrics"]))} if told.get("metrics") else {}
    return [thing(namespace, what, str(told[key]), facets)]


def _read(request: JobRequest) -> list[tuple[str, str]]:
    datasets = getattr(request, "dataset_ids", None) or [getattr(request, "dataset_id", None)]
    models = [getattr(request, "model_id", None)]
    return [("models", one) for one in models if one] + [("datasets", one) for one in datasets if one]


def _version(told: Mapping[str, Any] | None) -> dict[str, Any]:
    digest = (told or {}).get("data_digest")
    return {"version": dataset_version_dataset.DatasetVersionDatasetFacet(datasetVersion=digest)} if digest else {}
