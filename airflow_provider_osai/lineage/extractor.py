"""Extracts the OpenLineage inputs, outputs and facets of a job."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from airflow.providers.openlineage.extractors import OperatorLineage
from openlineage.client.facet_v2 import dataset_version_dataset

from airflow_provider_osai.api.models import JobKind, JobState
from airflow_provider_osai.lineage.facets import OsaiJobRunFacet, OsaiMetricsDatasetFacet
from airflow_provider_osai.lineage.naming import namespace_from, to_dataset
from airflow_provider_osai.links.portal import OsaiPortalLink

if TYPE_CHECKING:
    from openlineage.client.event_v2 import Dataset

    from airflow_provider_osai.api.requests import JobRequest
    from airflow_provider_osai.api.settings import OsaiSettings

__all__ = ["extract_batch_lineage", "extract_lineage"]

OUTPUTS: Final[Mapping[JobKind, tuple[str, str]]] = {
    JobKind.TRAINING: ("model_id", "models"),
    JobKind.RETRAINING: ("model_id", "models"),
    JobKind.CONVERSION: ("conversion_id", "conversions"),
    JobKind.MANIPULATION: ("dataset_id", "datasets"),
    JobKind.PREDICTION: ("dataset_id", "datasets"),
}
"""By kind: the result's key with the output's id, and the output's type. A device rental has no output data."""


def extract_lineage(
    request: JobRequest, settings: OsaiSettings, job_id: str | None, result: Mapping[str, Any] | None
) -> OperatorLineage[Any, Any]:
    """Return the lineage of a task's job.

    :param request: the job's request, which has the inputs.
    :param settings: the connection's settings, for the namespace and the portal link.
    :param job_id: OSAI's id of the job; ``None`` if none was submitted.
    :param result: the task's return value, which has the output; ``None`` if the task did not succeed.
    """
    kind = type(request).kind
    namespace = namespace_from(settings)
    inputs = _inputs(request)
    version = _version_facet(result) if sum(group == "datasets" for group, _ in inputs) == 1 else {}
    url = OsaiPortalLink.url(settings, kind, job_id) if job_id else None
    facet = OsaiJobRunFacet(kind=kind.value, job_id=job_id, state=result["state"] if result else None, portal_url=url)
    return OperatorLineage(
        inputs=[to_dataset(namespace, group, id_, version if group == "datasets" else None) for group, id_ in inputs],
        outputs=_outputs(namespace, kind, result) if result else [],
        run_facets={"osai_job": facet},
    )


def extract_batch_lineage(
    kind: JobKind, requests: Iterable[JobRequest], settings: OsaiSettings, results: Iterable[Mapping[str, Any]]
) -> OperatorLineage[Any, Any]:
    """Return the lineage of a batch: the inputs of all jobs, and the outputs of those that succeeded.

    :param kind: the kind of the jobs.
    :param requests: the requests of the jobs.
    :param settings: the connection's settings, for the namespace.
    :param results: the results of the jobs that have ended.
    """
    namespace = namespace_from(settings)
    inputs = dict.fromkeys(each for request in requests for each in _inputs(request))
    succeeded = [result for result in results if result["state"] == JobState.SUCCEEDED]
    outputs = [output for result in succeeded for output in _outputs(namespace, kind, result)]
    return OperatorLineage(
        inputs=[to_dataset(namespace, group, id_) for group, id_ in inputs],
        outputs=list({output.name: output for output in outputs}.values()),
        run_facets={"osai_job": OsaiJobRunFacet(kind=kind.value, job_id=None, state=None, portal_url=None)},
    )


def _outputs(namespace: str, kind: JobKind, result: Mapping[str, Any]) -> list[Dataset]:
    key, group = OUTPUTS.get(kind, ("", ""))
    if not result.get(key):
        return []
    metrics = result.get("metrics")
    facets = {"osai_metrics": OsaiMetricsDatasetFacet(metrics=dict(metrics))} if metrics else {}
    return [to_dataset(namespace, group, str(result[key]), facets)]


def _inputs(request: JobRequest) -> list[tuple[str, str]]:
    dataset_ids = getattr(request, "dataset_ids", None) or [getattr(request, "dataset_id", None)]
    model_id = getattr(request, "model_id", None)
    models = [("models", model_id)] if model_id else []
    return models + [("datasets", dataset_id) for dataset_id in dataset_ids if dataset_id]


def _version_facet(result: Mapping[str, Any] | None) -> dict[str, Any]:
    digest = (result or {}).get("data_digest")
    return {"version": dataset_version_dataset.DatasetVersionDatasetFacet(datasetVersion=digest)} if digest else {}
