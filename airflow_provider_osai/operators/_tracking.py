"""Connects operators to an experiment tracker: what a run is called, its parameters, its links, and its warnings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from airflow_provider_osai.api.errors import OsaiArgumentError
from airflow_provider_osai.api.requests import EMPTY_TEMPLATE_VALUES
from airflow_provider_osai.assets.uris import is_osai
from airflow_provider_osai.links.portal import OsaiPortalLink
from airflow_provider_osai.operators._callbacks import describe_error

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from airflow.sdk import Asset, Context

    from airflow_provider_osai.api.models import Job
    from airflow_provider_osai.api.requests import JobRequest
    from airflow_provider_osai.api.settings import OsaiSettings
    from airflow_provider_osai.tracking.mlflow import MlflowWriter, TrackedTask, TrainingRun

__all__ = [
    "MLFLOW_RUN_ID",
    "check_tracker",
    "has_tracker",
    "open_training_run",
    "promote_in_tracker",
    "push_run",
]

MLFLOW: Final = "mlflow"
MLFLOW_RUN_ID: Final = "mlflow_run_id"
"""The XCom with the id of the job's run in MLflow."""


def has_tracker(track_to: Any) -> bool:
    """Return whether a tracker is set; a template that renders to nothing sets none."""
    return _given(track_to) is not None


def check_tracker(track_to: Any) -> bool:
    """Return whether a tracker is set, after loading it.

    :raises OsaiArgumentError: if the tracker is unknown, not installed or not configured.
    """
    if not has_tracker(track_to):
        return False
    if _given(track_to) != MLFLOW:
        raise OsaiArgumentError(f"track_to = {track_to!r}: must be 'mlflow' or None")
    from airflow_provider_osai.tracking.mlflow import load_mlflow  # optional dependency

    load_mlflow()
    return True


def open_training_run(
    task: Any, context: Context, settings: OsaiSettings, request: JobRequest, job: Job
) -> TrainingRun:
    """Return the run of a training's job. Nothing is sent yet.

    :param task: the operator, with ``mlflow_experiment``, ``mlflow_model`` and ``data_digest``.
    """
    from airflow_provider_osai.tracking.mlflow import TrainingRun, job_uri

    region = _region(settings)
    portal_url = OsaiPortalLink.url(settings, job.kind, job.id)
    tracked = _tracked_task(context)
    tags = {"osai.kind": job.kind.value, "osai.job_id": job.id, "osai.portal_url": portal_url}
    if digest := _given(task.data_digest):
        tags["osai.data_digest"] = digest
    return TrainingRun(
        writer=_writer(task, tracked, f"OSAI {job.kind} job {job.id}"),
        task=tracked,
        uri=job_uri(region, job.kind.value, job.id),
        params=_params(request),
        tags=tags,
        note=_note(portal_url, tracked.url),
        registered_model=_given(task.mlflow_model),
        region=region,
    )


def push_run(task: Any, context: Context, tracked: TrainingRun) -> None:
    """Push the id of the run, and log its page."""
    if tracked.run is None:
        return
    from airflow_provider_osai.tracking import mlflow

    run_id = tracked.run.info.run_id
    context["ti"].xcom_push(key=MLFLOW_RUN_ID, value=run_id)
    page = mlflow.run_url(mlflow.tracking_uri(), tracked.run.info.experiment_id, run_id)
    task.log.info("MLflow run of OSAI job %s: %s", tracked.tags["osai.job_id"], page or run_id)


def promote_in_tracker(task: Any, context: Context, result: Mapping[str, Any], champion: Asset) -> None:
    """Move the alias of the registered model to the promoted model.

    :param task: the gate, with ``mlflow_experiment`` and ``mlflow_model``.
    :param result: the gate's result.
    """
    from airflow_provider_osai.tracking.mlflow import CHAMPION_ALIAS, Promotion, model_uri, promote

    model_id = str(result["model_id"])
    about = f"the promotion of model {model_id}"
    try:
        settings = task.hook.settings()
    except Exception as error:  # of a gate that only compares, which needs no connection; and backends raise anything
        _warn_once(task.log, about)(error)
        return
    name = _given(task.mlflow_model) or (champion.uri.rsplit("/", 1)[-1] if is_osai(champion) else champion.name)
    tracked = _tracked_task(context)
    tags = {"osai.model_id": model_id, **tracked.tags()}
    if measured_on := result["candidate"].get("measured_on"):
        tags["osai.measured_on"] = str(measured_on)
    promotion = Promotion(
        registered_model=name,
        uri=model_uri(_region(settings), model_id),
        tags=tags,
        note=_note(settings.portal_url, tracked.url),
    )
    version = promote(_writer(task, tracked, about), promotion)
    if version is not None:
        task.log.info("MLflow: alias %s of model %s is version %s", CHAMPION_ALIAS, name, version)


def _region(settings: OsaiSettings) -> str:
    return quote(settings.asset_region, safe=":.-[]")


def _given(value: Any) -> str | None:
    """Return a rendered text; ``None`` if it is empty."""
    text = "" if value is None else str(value).strip()
    return None if text in EMPTY_TEMPLATE_VALUES else text


def _tracked_task(context: Context) -> TrackedTask:
    from airflow_provider_osai.tracking.mlflow import TrackedTask

    ti = context["ti"]
    url = getattr(ti, "log_url", None)
    map_index = -1 if ti.map_index is None else ti.map_index
    return TrackedTask(ti.dag_id, ti.run_id, ti.task_id, map_index, url if isinstance(url, str) else None)


def _writer(task: Any, tracked: TrackedTask, about: str) -> MlflowWriter:
    from airflow_provider_osai.tracking.mlflow import MlflowWriter

    return MlflowWriter(
        experiment=_given(task.mlflow_experiment),
        default_experiment=tracked.dag_id,
        on_error=_warn_once(task.log, about),
    )


def _warn_once(log: Any, about: str) -> Callable[[BaseException], None]:
    """Return what logs the first error as a warning: one of MLflow's, without addresses and secrets."""
    from airflow_provider_osai.tracking.mlflow import masked_secrets

    errors: list[BaseException] = []

    def warn(error: BaseException) -> None:
        if not errors:
            log.warning(
                "Writing %s to MLflow failed; the task continues: %s", about, describe_error(error, masked_secrets)
            )
        errors.append(error)

    return warn


def _params(request: JobRequest) -> dict[str, Any]:
    """Return the parameters of a run: OSAI's by their own names, and the arguments of the operator."""
    arguments = request.model_dump(exclude_none=True)
    parameters = arguments.pop("parameters", None) or {}
    if "model_id" in arguments:
        arguments["base_model_id"] = arguments.pop("model_id")
    arguments["dataset_ids"] = ",".join(arguments["dataset_ids"])
    taken = {f"parameters.{name}" if name in arguments else name: value for name, value in parameters.items()}
    return {**taken, **arguments}


def _note(portal_url: str, task_url: str | None) -> str:
    links = {"OSAI portal": portal_url, "Airflow task": task_url}
    usable = {name: url for name, url in links.items() if url and not set(url) & set("<>\n ")}
    return " | ".join(f"[{name}](<{url}>)" for name, url in usable.items())
