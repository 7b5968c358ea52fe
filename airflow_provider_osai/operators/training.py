"""Operators that train and retrain models."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import AirflowTaskTimeout

from airflow_provider_osai.api.errors import OsaiArgumentError, OsaiJobCancelled, OsaiJobStopped, OsaiJobTimeout
from airflow_provider_osai.api.requests import ModelType, RetrainingRequest, TrainingRequest
from airflow_provider_osai.jobs.early_stopping import StopRules
from airflow_provider_osai.operators._tracking import check_tracker, has_tracker, open_training_run, push_run
from airflow_provider_osai.operators.base import fail_without_retry
from airflow_provider_osai.operators.job import OsaiJobOperator

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_osai.api.client import OsaiClient
    from airflow_provider_osai.api.models import Job
    from airflow_provider_osai.jobs.lifecycle import WaitOptions
    from airflow_provider_osai.tracking.mlflow import TrainingRun
    from airflow_provider_osai.triggers.event import JobEvent

__all__ = ["OsaiBaseTrainingOperator", "OsaiRetrainModelOperator", "OsaiTrainModelOperator"]


class OsaiBaseTrainingOperator(OsaiJobOperator):
    """Base of the training operators: adds ``data_digest`` to the result, stops trainings that are going wrong, and
    writes them to a tracker.

    :param data_digest: identifies the training data, as returned by ``OsaiUploadImagesOperator``.
    :param stop_when: when to stop a training before its end, see :class:`StopRules`; ``None`` (default): never.
    :param track_to: ``mlflow``: write the training to MLflow; see docs/mlflow.md. It needs the extra ``mlflow`` and
        ``wait_for_completion``. An MLflow that fails never fails the task. Default ``None``: write nothing.
    :param mlflow_experiment: the name of MLflow's experiment. Default: that of MLflow's own environment variables, else
        the Dag's id.
    :param mlflow_model: the name of a registered model in MLflow, of which the trained model becomes a version. Default
        ``None``: register nothing.
    :param kwargs: as for ``OsaiJobOperator``.
    :raises OsaiArgumentError: if *track_to* is unknown, or MLflow is not installed or has no tracking URI; before a job
        is submitted.
    """

    template_fields_renderers: ClassVar[dict[str, str]] = {
        **OsaiJobOperator.template_fields_renderers,
        "stop_when": "json",
    }

    tracking_fields: ClassVar[tuple[str, ...]] = ("track_to", "mlflow_experiment", "mlflow_model")
    """The template fields of the tracker."""
    _tracked: TrainingRun | None = None

    def __init__(
        self,
        *,
        data_digest: str | None = None,
        stop_when: Mapping[str, Any] | None = None,
        track_to: str | None = None,
        mlflow_experiment: str | None = None,
        mlflow_model: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.data_digest = data_digest
        self.stop_when = stop_when
        self.track_to = track_to
        self.mlflow_experiment = mlflow_experiment
        self.mlflow_model = mlflow_model

    @property
    def stop_rules(self) -> StopRules | None:
        """When to stop the job before its end; ``None``: never.

        :raises OsaiArgumentError: if ``stop_when`` is invalid, or the task does not wait for the job.
        """
        rules = StopRules.parse(self.stop_when)
        if rules is not None and not self.wait_for_completion:
            raise OsaiArgumentError(f"stop_when = {self.stop_when!r}: needs wait_for_completion = True")
        return rules

    def execute(self, context: Context) -> dict[str, Any]:
        """Submit the job or reconnect to it, then wait for it here or in the triggerer."""
        self._tracked = None
        with fail_without_retry():
            if check_tracker(self.track_to) and not self.wait_for_completion:
                msg = "track_to needs wait_for_completion=True: otherwise nothing would write the end of the training"
                raise OsaiArgumentError(msg)
        with self._ends_run_if_killed():
            return super().execute(context)

    def execute_complete(self, context: Context, event: Any) -> dict[str, Any]:
        """Continue after the trigger fired."""
        with self._ends_run_if_killed():
            return super().execute_complete(context, event)

    def build_result(self, client: OsaiClient, job: Job) -> dict[str, Any]:
        """Return the job's references, and ``data_digest`` if it is set."""
        return super().build_result(client, job) | ({"data_digest": self.data_digest} if self.data_digest else {})

    def on_kill(self) -> None:
        """Cancel the job as for all jobs; then, at the ``execution_timeout``, also end the run in the tracker."""
        super().on_kill()
        if self._tracked is not None and isinstance(sys.exception(), AirflowTaskTimeout):
            self._tracked.end("KILLED")

    @contextmanager
    def _ends_run_if_killed(self) -> Iterator[None]:
        """End the run of a job that this task had cancelled: no later try reconnects to it."""
        try:
            yield
        except (OsaiJobCancelled, OsaiJobStopped, OsaiJobTimeout):
            if self._tracked is not None:
                self._tracked.end("KILLED")
            raise

    def _on_job(self, context: Context, client: OsaiClient, job: Job) -> None:
        if (tracked := self._open_run(context, client, job)) is None:
            return
        is_new = tracked.run is None
        tracked.update(job)
        if is_new:
            push_run(self, context, tracked)

    def _wait_or_defer(
        self, context: Context, client: OsaiClient, job: Job, watch: WaitOptions, event: JobEvent | None = None
    ) -> dict[str, Any]:
        """Wait as for all jobs; on a worker, write the curves while waiting."""
        if (tracked := self._open_run(context, client, job)) is not None:
            log_poll = watch.on_poll

            def on_poll(job: Job, pause: float) -> None:
                log_poll(job, pause)
                tracked.on_poll(job)

            watch = replace(watch, on_poll=on_poll)
        return super()._wait_or_defer(context, client, job, watch, event)

    def _at_deadline(self, client: OsaiClient, job: Job, watch: WaitOptions, reason: str | None = None) -> Job:
        if self._context is not None and (tracked := self._open_run(self._context, client, job)) is not None:
            tracked.last_job = job  # its curves are written when the run ends
        return super()._at_deadline(client, job, watch, reason)

    def _open_run(self, context: Context, client: OsaiClient, job: Job) -> TrainingRun | None:
        if self._tracked is None and has_tracker(self.track_to):
            self._tracked = open_training_run(self, context, client.settings, self.build_request(), job)
        return self._tracked


class OsaiTrainModelOperator(OsaiBaseTrainingOperator):
    """Trains a model on datasets. Returns also ``model_id``, the model's ``metrics``, and ``data_digest`` if given.

    That OSAI trains, and on what, is documented (docs.onestepai.com/getting_started/three_main_actions,
    /pl/model-creation-and-training); the call itself is assumed. Further arguments: see ``OsaiJobOperator``.

    :param dataset_ids: the datasets to train on, at least one; or a single id. Each category needs at least 3
        images.
    :param model_name: at most 50 characters: Latin letters, digits, hyphens.
    :param model_type: ``classification`` (default) or ``detection``.
    :param framework: ``darknet``, ``tensorflow`` or ``pytorch``; ``None`` lets OSAI choose.
    :param pretrained_model: a pretrained model to start from; it sets all parameters.
    :param template: a template that sets all parameters.
    :param parameters: OSAI's Advanced configuration, by name.
    :param data_digest: identifies the training data, as returned by ``OsaiUploadImagesOperator``; for gates and events.
    :param stop_when: when to stop a training that is going wrong, as a dict of rules: ``no_progress_minutes``,
        ``nan_loss``, ``patience``, ``monitor``, ``min_delta``; see docs/early-stopping.md. ``None`` (default): never.
    :param track_to: ``mlflow``: write the training to MLflow; see docs/mlflow.md.
    :param mlflow_experiment: the name of MLflow's experiment.
    :param mlflow_model: the name of the registered model in MLflow of which the model becomes a version.
    :raises OsaiJobStopped: if a rule of ``stop_when`` held; the job was cancelled, or asked to stop and has no model.
    """

    template_fields = (
        "dataset_ids",
        "model_name",
        "model_type",
        "framework",
        "pretrained_model",
        "template",
        "parameters",
        "data_digest",
        "stop_when",
        *OsaiBaseTrainingOperator.tracking_fields,
        *OsaiJobOperator.template_fields,
    )

    def __init__(
        self,
        *,
        dataset_ids: Sequence[str] | str,
        model_name: str,
        model_type: str = ModelType.CLASSIFICATION.value,
        framework: str | None = None,
        pretrained_model: str | None = None,
        template: str | None = None,
        parameters: Mapping[str, Any] | None = None,
        data_digest: str | None = None,
        stop_when: Mapping[str, Any] | None = None,
        track_to: str | None = None,
        mlflow_experiment: str | None = None,
        mlflow_model: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            data_digest=data_digest,
            stop_when=stop_when,
            track_to=track_to,
            mlflow_experiment=mlflow_experiment,
            mlflow_model=mlflow_model,
            **kwargs,
        )
        self.dataset_ids = dataset_ids
        self.model_name = model_name
        self.model_type = model_type
        self.framework = framework
        self.pretrained_model = pretrained_model
        self.template = template
        self.parameters = parameters

    def build_request(self) -> TrainingRequest:
        """Return the training request."""
        return TrainingRequest(
            dataset_ids=self.dataset_ids,
            model_name=self.model_name,
            model_type=self.model_type,
            framework=self.framework,
            pretrained_model=self.pretrained_model,
            template=self.template,
            parameters=self.parameters,
        )


class OsaiRetrainModelOperator(OsaiBaseTrainingOperator):
    """Retrains a model into a new one. Returns also ``model_id``, ``metrics``, and ``data_digest`` if given.

    That OSAI retrains is documented (docs.onestepai.com/getting_started/three_main_actions, /api); the call itself is
    assumed. Further arguments: see ``OsaiJobOperator``.

    :param model_id: the model to start from; it does not change.
    :param dataset_ids: the datasets to train on, at least one; or a single id.
    :param model_name: the name of the new model, at most 50 characters: Latin letters, digits, hyphens.
    :param parameters: OSAI's Advanced configuration, by name.
    :param data_digest: identifies the training data, as returned by ``OsaiUploadImagesOperator``; for gates and events.
    :param stop_when: when to stop a training that is going wrong, as a dict of rules: ``no_progress_minutes``,
        ``nan_loss``, ``patience``, ``monitor``, ``min_delta``; see docs/early-stopping.md. ``None`` (default): never.
    :param track_to: ``mlflow``: write the training to MLflow; see docs/mlflow.md.
    :param mlflow_experiment: the name of MLflow's experiment.
    :param mlflow_model: the name of the registered model in MLflow of which the model becomes a version.
    :raises OsaiJobStopped: if a rule of ``stop_when`` held; the job was cancelled, or asked to stop and has no model.
    """

    template_fields = (
        *("model_id", "dataset_ids", "model_name", "parameters", "data_digest", "stop_when"),
        *OsaiBaseTrainingOperator.tracking_fields,
        *OsaiJobOperator.template_fields,
    )

    def __init__(
        self,
        *,
        model_id: str,
        dataset_ids: Sequence[str] | str,
        model_name: str,
        parameters: Mapping[str, Any] | None = None,
        data_digest: str | None = None,
        stop_when: Mapping[str, Any] | None = None,
        track_to: str | None = None,
        mlflow_experiment: str | None = None,
        mlflow_model: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            data_digest=data_digest,
            stop_when=stop_when,
            track_to=track_to,
            mlflow_experiment=mlflow_experiment,
            mlflow_model=mlflow_model,
            **kwargs,
        )
        self.model_id = model_id
        self.dataset_ids = dataset_ids
        self.model_name = model_name
        self.parameters = parameters

    def build_request(self) -> RetrainingRequest:
        """Return the retraining request."""
        return RetrainingRequest(
            model_id=self.model_id,
            dataset_ids=self.dataset_ids,
            model_name=self.model_name,
            parameters=self.parameters,
        )
