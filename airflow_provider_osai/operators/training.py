"""Operators that train and retrain models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_provider_osai.api.errors import OsaiArgumentError
from airflow_provider_osai.api.requests import ModelType, RetrainingRequest, TrainingRequest
from airflow_provider_osai.jobs.early_stopping import StopRules
from airflow_provider_osai.operators.job import OsaiJobOperator

if TYPE_CHECKING:
    from airflow_provider_osai.api.client import OsaiClient
    from airflow_provider_osai.api.models import Job

__all__ = ["OsaiBaseTrainingOperator", "OsaiRetrainModelOperator", "OsaiTrainModelOperator"]


class OsaiBaseTrainingOperator(OsaiJobOperator):
    """Base of the training operators: adds ``data_digest`` to the result, and stops trainings that are going wrong.

    :param data_digest: identifies the training data, as returned by ``OsaiUploadImagesOperator``.
    :param stop_when: when to stop a training before its end, see :class:`StopRules`; ``None`` (default): never.
    :param kwargs: as for ``OsaiJobOperator``.
    """

    template_fields_renderers: ClassVar[dict[str, str]] = {
        **OsaiJobOperator.template_fields_renderers,
        "stop_when": "json",
    }

    def __init__(
        self, *, data_digest: str | None = None, stop_when: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.data_digest = data_digest
        self.stop_when = stop_when

    @property
    def stop_rules(self) -> StopRules | None:
        """When to stop the job before its end; ``None``: never.

        :raises OsaiArgumentError: if ``stop_when`` is invalid, or the task does not wait for the job.
        """
        rules = StopRules.parse(self.stop_when)
        if rules is not None and not self.wait_for_completion:
            raise OsaiArgumentError(f"stop_when = {self.stop_when!r}: needs wait_for_completion = True")
        return rules

    def build_result(self, client: OsaiClient, job: Job) -> dict[str, Any]:
        """Return the job's references, and ``data_digest`` if it is set."""
        return super().build_result(client, job) | ({"data_digest": self.data_digest} if self.data_digest else {})


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
    :raises OsaiJobStopped: if a rule of ``stop_when`` held; the job was cancelled.
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
        **kwargs: Any,
    ) -> None:
        super().__init__(data_digest=data_digest, stop_when=stop_when, **kwargs)
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
    :raises OsaiJobStopped: if a rule of ``stop_when`` held; the job was cancelled.
    """

    template_fields = (
        *("model_id", "dataset_ids", "model_name", "parameters", "data_digest", "stop_when"),
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
        **kwargs: Any,
    ) -> None:
        super().__init__(data_digest=data_digest, stop_when=stop_when, **kwargs)
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
