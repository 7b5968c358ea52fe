"""Writes trainings and promotions to MLflow: a run for each job, versions of a registered model, and its alias.

MLflow's client is configured by its own environment variables, such as ``MLFLOW_TRACKING_URI``. It blocks, so nothing
here may be called on an event loop. Everything is written by :meth:`MlflowWriter.write`, which limits the time and
raises nothing: an MLflow that fails, hangs or is missing does not fail a training.
"""

from __future__ import annotations

import importlib
import json
import math
import os
import posixpath
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import quote, urlsplit

from airflow_provider_osai.api.errors import OsaiArgumentError
from airflow_provider_osai.api.models import JobState
from airflow_provider_osai.api.text import parse_time
from airflow_provider_osai.jobs.history import epoch_number, figures

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Run
    from mlflow.entities.model_registry import ModelVersion

    from airflow_provider_osai.api.models import Epoch, Job

__all__ = [
    "CHAMPION_ALIAS",
    "CURVE_INTERVAL",
    "MlflowWriter",
    "Promotion",
    "TrackedTask",
    "TrainingRun",
    "job_uri",
    "load_mlflow",
    "masked_secrets",
    "model_uri",
    "numeric_metrics",
    "promote",
    "run_url",
    "tracking_uri",
]

T = TypeVar("T")
CHAMPION_ALIAS: Final = "champion"
"""The alias of the registered model's version that a gate promoted last."""
CURVE_INTERVAL: Final = 60.0
"""Minimum seconds between two writes of the curves while a task waits on a worker."""
REQUEST_TIMEOUT: Final = 5
"""Seconds without a byte after which a request to MLflow fails, unless ``MLFLOW_HTTP_REQUEST_TIMEOUT`` is set."""
WRITE_TIMEOUT: Final = 20.0
"""Maximum seconds for all requests of one write."""
CURVES: Final = "epoch/"
"""Prefix of the metrics of the history: they may have the same names as the metrics of the result."""
JOB_TAG: Final = "osai.job_uri"
"""The tag by which the run of a job is found again."""
TASK_TAG: Final = "airflow.task_instance"
"""The tag by which runs of earlier jobs of the same task instance are found."""
MODEL_TAG: Final = "osai.model_uri"
"""The tag by which the version of a model, and the run that trained it, are found."""
STATUSES: Final[Mapping[JobState, str]] = {
    JobState.SUCCEEDED: "FINISHED",
    JobState.FAILED: "FAILED",
    JobState.CANCELLED: "KILLED",
}
SECRETS: Final = ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")
MAX_KEY: Final = 250
"""MLflow's maximum of characters in a name."""
MAX_PARAM: Final = 6000
"""MLflow's maximum of characters in a parameter."""
MAX_TAG: Final = 5000
"""Maximum characters in a tag, which all of MLflow's stores accept."""
MAX_PARAMS: Final = 100
"""MLflow's maximum of parameters in one request."""
MAX_METRICS: Final = 1000
"""MLflow's maximum of metrics in one request."""
NOT_FINITE: Final = ("nan", "inf", "-inf")
"""The text of numbers that JSON cannot hold, in the metrics of a job."""
INVALID: Final = re.compile(r"[^\w./ -]", re.ASCII)
"""Characters that not all of MLflow's stores accept in a name."""


def load_mlflow() -> None:
    """Import MLflow, and check that it is configured. Takes about a second the first time.

    :raises OsaiArgumentError: if it cannot be imported or has no tracking URI, which no retry can fix.
    """
    try:
        mlflow = importlib.import_module("mlflow")
    except Exception as error:  # of a broken installation, anything
        msg = (
            f"track_to = 'mlflow': importing mlflow failed ({type(error).__name__}). Install the extra on the workers: "
            'pip install "airflow-provider-osai[mlflow]"'
        )
        raise OsaiArgumentError(msg) from error
    if not mlflow.is_tracking_uri_set():
        msg = "track_to = 'mlflow': no tracking URI. Set the environment variable MLFLOW_TRACKING_URI on the workers"
        raise OsaiArgumentError(msg)


def job_uri(region: str, kind: str, job_id: str) -> str:
    """Return the URI that identifies a job: ``osai://<region>/<kind>s/<id>``, with the id percent-encoded."""
    return f"osai://{region}/{kind}s/{quote(job_id, safe='')}"


def model_uri(region: str, model_id: str) -> str:
    """Return the URI that identifies a model: ``osai://<region>/models/<id>``, with the id percent-encoded."""
    return f"osai://{region}/models/{quote(model_id, safe='')}"


def tracking_uri() -> str:
    """Return MLflow's tracking URI, which may contain a password."""
    import mlflow

    return str(mlflow.get_tracking_uri())


def run_url(tracking_uri: str, experiment_id: str, run_id: str) -> str | None:
    """Return the URL of a run's page without credentials; ``None`` if the tracking URI is not one of HTTP."""
    try:
        parts = urlsplit(tracking_uri)
    except ValueError:
        return None
    if parts.scheme not in ("http", "https"):
        return None
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path.rstrip('/')}/#/experiments/{experiment_id}/runs/{run_id}"


def masked_secrets(text: str) -> str:
    """Return *text* without the password and the token of MLflow's environment variables."""
    for name in SECRETS:
        if secret := os.environ.get(name, "").strip():
            text = text.replace(secret, "***")
    return text


def numeric_metrics(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Return the metrics that are numbers, by a name that MLflow accepts; NaN and infinities are numbers too.

    In the metrics of a job they are text, since JSON cannot hold them.
    """
    numbers: dict[str, float] = {}
    for name, value in metrics.items():
        if value not in NOT_FINITE and (isinstance(value, bool) or not isinstance(value, (int, float))):
            continue
        try:
            numbers[_key(str(name))] = float(value)
        except OverflowError:  # an integer of more than 308 digits
            continue
    return numbers


@dataclass(frozen=True, slots=True)
class TrackedTask:
    """The Airflow task instance that writes.

    :param url: of its page in Airflow, for a link; ``None`` if unknown.
    """

    dag_id: str
    run_id: str
    task_id: str
    map_index: int = -1
    url: str | None = None

    @property
    def name(self) -> str:
        """The name of its run in MLflow: Dag, task and run."""
        index = f"[{self.map_index}]" if self.map_index >= 0 else ""
        return f"{self.dag_id}.{self.task_id}{index} {self.run_id}"

    @property
    def key(self) -> str:
        """What identifies it, percent-encoded: MLflow cannot quote a quotation mark in a filter."""
        parts = (self.dag_id, self.run_id, self.task_id, str(self.map_index))
        return "/".join(quote(part, safe=":+") for part in parts)

    def tags(self) -> dict[str, str]:
        """Return the tags that name it."""
        tags = {"airflow.dag_id": self.dag_id, "airflow.run_id": self.run_id, "airflow.task_id": self.task_id}
        tags[TASK_TAG] = self.key
        if self.map_index >= 0:
            tags["airflow.map_index"] = str(self.map_index)
        return tags | ({"airflow.url": self.url} if self.url else {})


class MlflowWriter:
    """Writes to MLflow within a time limit, and reports errors instead of raising them.

    :param experiment: the experiment's name. ``None``: that of MLflow's environment variables
        ``MLFLOW_EXPERIMENT_NAME`` or ``MLFLOW_EXPERIMENT_ID``; without them *default_experiment*.
    :param default_experiment: the name if nothing else names one.
    :param on_error: called with each error of a write.
    """

    def __init__(
        self, *, experiment: str | None, default_experiment: str, on_error: Callable[[BaseException], None]
    ) -> None:
        self._experiment = experiment
        self._default_experiment = default_experiment
        self._on_error = on_error

    def write(self, function: Callable[[MlflowClient], T]) -> T | None:
        """Call *function* with MLflow's client, for at most :data:`WRITE_TIMEOUT` seconds; ``None`` if it failed.

        It is called in a thread: a timeout of HTTP does not limit a name lookup, or a response that trickles in. A
        function that did not end in time sends no further request.
        """
        outcome: list[tuple[T | None, BaseException | None]] = []
        is_abandoned = threading.Event()

        def call() -> None:
            try:
                from mlflow import MlflowClient

                outcome.append((function(_Abandonable(MlflowClient(), is_abandoned)), None))
            except BaseException as error:  # it is raised nowhere else
                outcome.append((None, error))

        thread = threading.Thread(target=call, name="mlflow", daemon=True)
        try:
            with _environment():
                thread.start()
                thread.join(WRITE_TIMEOUT)
        except RuntimeError as no_thread:  # is left on this machine
            outcome.append((None, no_thread))
        finally:
            is_abandoned.set()
        result, error = outcome[0] if outcome else (None, TimeoutError(f"no result after {WRITE_TIMEOUT:g} seconds"))
        if error is not None:
            self._on_error(error)
        return result

    def experiment_id(self, client: MlflowClient) -> str:
        """Return the id of the experiment; it is created if it does not exist."""
        if not self._experiment and (experiment_id := os.environ.get("MLFLOW_EXPERIMENT_ID")):
            return experiment_id
        name = self._experiment or os.environ.get("MLFLOW_EXPERIMENT_NAME") or self._default_experiment
        if (found := client.get_experiment_by_name(name)) is not None:
            return str(found.experiment_id)
        try:
            return str(client.create_experiment(name))
        except Exception:  # another task has created it since
            if (found := client.get_experiment_by_name(name)) is None:
                raise
            return str(found.experiment_id)


@dataclass
class TrainingRun:
    """The run of a training's job in MLflow: created once, found again by a tag, ended with the job.

    :param writer: writes to MLflow.
    :param task: the task that waits for the job.
    :param uri: the job's, from :func:`job_uri`.
    :param params: the training's parameters.
    :param tags: further tags.
    :param note: a description in Markdown, with links.
    :param registered_model: register the model as a version of this registered model; ``None`` = do not.
    :param region: the region in the URI of the model.
    """

    writer: MlflowWriter
    task: TrackedTask
    uri: str
    params: Mapping[str, Any]
    tags: Mapping[str, str]
    note: str
    registered_model: str | None
    region: str
    last_job: Job | None = None
    """The job as the task saw it last."""
    run: Run | None = None
    version: ModelVersion | None = None
    has_failed: bool = False
    """Whether a write failed. Then nothing is written before the end."""
    _has_ended: bool = field(default=False, init=False)
    _has_params: bool = field(default=False, init=False)
    _last_step: int | None = field(default=None, init=False)
    _written_at: float = field(default=-math.inf, init=False)

    def update(self, job: Job) -> None:
        """Write the job's state: create its run, add epochs, or end it if the job has ended."""
        self.last_job = job
        if job.is_terminal:
            self.end(STATUSES[job.state])
        elif not self.has_failed:
            self._write(lambda client: self._update(client, job))

    def on_poll(self, job: Job) -> None:
        """Write the epochs of a job that runs, at most every :data:`CURVE_INTERVAL` seconds."""
        if job.history or self.last_job is None:  # a response without a history keeps the epochs of the last one
            self.last_job = job
        if job.history and not job.is_terminal and time.monotonic() - self._written_at >= CURVE_INTERVAL:
            self.update(job)

    def end(self, status: str) -> None:
        """Write all that is left, and end the run.

        :param status: ``FINISHED``, ``FAILED`` or ``KILLED``.
        """
        if not self._has_ended:
            self._has_ended = True
            self._write(lambda client: self._end(client, status))

    def _write(self, function: Callable[[MlflowClient], bool]) -> None:
        if not self.writer.write(function):
            self.has_failed = True
            self._last_step = None  # what was written of the epochs is unknown
        self._written_at = time.monotonic()

    def _update(self, client: MlflowClient, job: Job) -> bool:
        run = self._find_or_create(client)
        self._log_history(client, run, job)
        self._log_params(client, run)
        return True

    def _end(self, client: MlflowClient, status: str) -> bool:
        run, job = self._find_or_create(client), self.last_job
        result = job.result if job else None
        ended = parse_time(job.finished_at) if job else None
        end_time = max(run.info.start_time, int((ended or time.time()) * 1000))
        tags = {"osai.simulated": "true"} if job and job.simulated else {}
        if result and result.model_id:
            tags |= {"osai.model_id": result.model_id, MODEL_TAG: model_uri(self.region, result.model_id)}
        if job:
            self._log_history(client, run, job)
            metrics = numeric_metrics((result.metrics if result else None) or {})
            _log_metrics(client, run, [_metric(name, value, end_time, 0) for name, value in metrics.items()])
        client.log_batch(run.info.run_id, tags=_tags(tags))
        client.set_terminated(run.info.run_id, status, end_time)
        self._log_params(client, run)
        if status == "FINISHED" and self.registered_model and result and result.model_id:
            about = dict(self.tags) | self.task.tags() | tags
            self.version = _find_or_register(client, self.registered_model, about, run, self.note)
        return True

    def _find_or_create(self, client: MlflowClient) -> Run:
        if self.run is None:
            experiment_id = self.writer.experiment_id(client)
            self.run = self._find(client, experiment_id) or self._create(client, experiment_id)
        return self.run

    def _find(self, client: MlflowClient, experiment_id: str) -> Run | None:
        """Return the job's run; of several, that with data, and delete those that are empty.

        An empty one is the late effect of a request to create it that got no response.
        """
        runs = list(client.search_runs([experiment_id], f"tags.`{JOB_TAG}` = '{self.uri}'"))
        runs.sort(key=lambda run: (_is_empty(run), run.info.start_time, run.info.run_id))
        for duplicate in filter(_is_empty, runs[1:]):
            client.delete_run(duplicate.info.run_id)
        return runs[0] if runs else None

    def _end_earlier(self, client: MlflowClient, experiment_id: str) -> None:
        """End the runs of earlier jobs that this task waits for no more, such as one that was killed while deferred."""
        earlier = f"tags.`{TASK_TAG}` = '{self.task.key}' and attributes.status = 'RUNNING'"
        for run in client.search_runs([experiment_id], earlier):
            client.set_terminated(run.info.run_id, "KILLED")

    def _create(self, client: MlflowClient, experiment_id: str) -> Run:
        self._end_earlier(client, experiment_id)
        began = self.last_job and (parse_time(self.last_job.started_at) or parse_time(self.last_job.created_at))
        simulated = {"osai.simulated": "true"} if self.last_job and self.last_job.simulated else {}
        tags = {
            JOB_TAG: self.uri,
            "mlflow.note.content": self.note,
            "mlflow.source.name": f"{self.task.dag_id}.{self.task.task_id}",
            "mlflow.source.type": "JOB",
            **self.tags,
            **self.task.tags(),
            **simulated,
        }
        start_time = int((began or time.time()) * 1000)
        tags = {name: value[:MAX_TAG] for name, value in tags.items()}
        return client.create_run(experiment_id, start_time=start_time, tags=tags, run_name=self.task.name[:MAX_KEY])

    def _log_history(self, client: MlflowClient, run: Run, job: Job) -> None:
        history = job.history or ()
        metrics = [
            metric
            for step, epoch in _steps(history)
            if self._last_step is None or step > self._last_step
            for metric in _epoch_metrics(epoch, step, run.info.start_time)
        ]
        _log_metrics(client, run, metrics)
        if history:
            self._last_step = max(step for step, _ in _steps(history))

    def _log_params(self, client: MlflowClient, run: Run) -> None:
        """Log the parameters. MLflow accepts them again if they are equal."""
        if self._has_params:
            return
        from mlflow.entities import Param

        params = [Param(_key(name), _text(value)) for name, value in self.params.items() if value is not None]
        for start in range(0, len(params), MAX_PARAMS):
            client.log_batch(run.info.run_id, params=params[start : start + MAX_PARAMS])
        self._has_params = True


@dataclass(frozen=True, slots=True)
class Promotion:
    """A promotion by a gate.

    :param registered_model: the name of the registered model.
    :param uri: the model's, from :func:`model_uri`.
    :param tags: of the version, if it has to be registered.
    :param note: its description in Markdown, with links.
    """

    registered_model: str
    uri: str
    tags: Mapping[str, str]
    note: str


def promote(writer: MlflowWriter, promotion: Promotion) -> str | None:
    """Move the alias ``champion`` to the version of a promoted model, which is registered if it has none.

    :returns: the version; ``None`` if writing failed.
    """

    def move(client: MlflowClient) -> str:
        run = None
        tags = {**promotion.tags, MODEL_TAG: promotion.uri}
        version = _find_version(client, promotion.registered_model, promotion.uri)
        if version is None:
            runs = client.search_runs([writer.experiment_id(client)], f"tags.`{MODEL_TAG}` = '{promotion.uri}'")
            run = runs[0] if runs else None
            version = _find_or_register(client, promotion.registered_model, tags, run, promotion.note)
        client.set_registered_model_alias(promotion.registered_model, CHAMPION_ALIAS, version.version)
        return str(version.version)

    return writer.write(move)


class _Abandonable:
    """MLflow's client, which refuses calls after the write that uses it was abandoned."""

    def __init__(self, client: Any, is_abandoned: threading.Event) -> None:
        self._client = client
        self._is_abandoned = is_abandoned

    def __getattr__(self, name: str) -> Any:
        if self._is_abandoned.is_set():
            msg = "the write was abandoned"
            raise TimeoutError(msg)
        return getattr(self._client, name)


@contextmanager
def _environment() -> Iterator[None]:
    """Set MLflow's own variables for the length of a write: they are the only way to limit its requests.

    Without retries: MLflow would repeat a request that creates a run. It would also print the tracking URI, which may
    contain a password.
    """
    wanted = {
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": os.environ.get("MLFLOW_HTTP_REQUEST_TIMEOUT", str(REQUEST_TIMEOUT)),
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    }
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _find_version(client: MlflowClient, name: str, uri: str) -> ModelVersion | None:
    # MLflow cannot quote a quotation mark in a filter, so the name is compared here.
    versions = client.search_model_versions(f"tags.`{MODEL_TAG}` = '{uri}'")
    return next((version for version in versions if version.name == name), None)


def _find_or_register(
    client: MlflowClient, name: str, tags: Mapping[str, str], run: Run | None, note: str
) -> ModelVersion:
    """Return the version of the model in *tags*; it is registered if it is not yet."""
    uri = tags[MODEL_TAG]
    if (version := _find_version(client, name, uri)) is not None:
        return version
    try:
        client.create_registered_model(name)
    except Exception:  # it exists already
        client.get_registered_model(name)
    run_id = run.info.run_id if run else None
    return client.create_model_version(name, uri, run_id, tags=dict(tags), description=note, await_creation_for=0)


def _is_empty(run: Run) -> bool:
    return run.info.status == "RUNNING" and not run.data.params and not run.data.metrics


def _steps(history: Sequence[Epoch]) -> list[tuple[int, Epoch]]:
    return [(epoch_number(history, index), epoch) for index, epoch in enumerate(history)]


def _epoch_metrics(epoch: Epoch, step: int, start_time: int) -> list[Metric]:
    """Return the figures of an epoch. OSAI reports no times of epochs; one that is written twice has the same time."""
    timestamp = start_time + max(0, min(step, 10**9))
    return [_metric(f"{CURVES}{name}", float(value), timestamp, step) for name, value in figures(epoch).items()]


def _metric(name: str, value: float, timestamp: int, step: int) -> Metric:
    from mlflow.entities import Metric

    return Metric(name, value, timestamp, step)


def _log_metrics(client: MlflowClient, run: Run, metrics: Sequence[Metric]) -> None:
    for start in range(0, len(metrics), MAX_METRICS):
        client.log_batch(run.info.run_id, metrics=metrics[start : start + MAX_METRICS])


def _tags(tags: Mapping[str, str]) -> list[Any]:
    from mlflow.entities import RunTag

    return [RunTag(name, value[:MAX_TAG]) for name, value in tags.items()]


def _key(name: str) -> str:
    """Return a name of a metric or parameter that MLflow accepts: it must also be a plain relative path."""
    key = INVALID.sub("_", name)[:MAX_KEY]
    if not key.strip() or key.startswith(("/", ".")) or posixpath.normpath(key) != key:
        key = re.sub(r"[/.]", "_", key).strip() or "_"
    return key


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False, skipkeys=True)
    return text[:MAX_PARAM]
