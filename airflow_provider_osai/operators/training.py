"""Models: train one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from airflow_provider_osai.api.requests import ModelType, TrainingRequest
from airflow_provider_osai.operators.job import OsaiJobOperator

__all__ = ["OsaiTrainModelOperator"]


class OsaiTrainModelOperator(OsaiJobOperator):
    """Trains a model on datasets. Returns also ``model_id`` and the model's ``metrics``.

    That OSAI trains, and on what, is documented (docs.onestepai.com/getting_started/three_main_actions,
    /pl/model-creation-and-training); the call itself is assumed. Further arguments: see ``OsaiJobOperator``.

    :param dataset_ids: the datasets to train on, at least one; a single id will do. Each of their categories needs at
        least 3 images.
    :param model_name: at most 50 characters: Latin letters, digits, hyphens.
    :param model_type: ``classification`` (default) or ``detection``.
    :param framework: ``darknet``, ``tensorflow`` or ``pytorch``; ``None``: OSAI chooses.
    :param pretrained_model: a pretrained model to start from; it fills in all parameters.
    :param template: a template that fills in all parameters.
    :param parameters: OSAI's Advanced configuration, by name.
    """

    template_fields = (
        "dataset_ids",
        "model_name",
        "model_type",
        "framework",
        "pretrained_model",
        "template",
        "parameters",
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
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.dataset_ids = dataset_ids
        self.model_name = model_name
        self.model_type = model_type
        self.framework = framework
        self.pretrained_model = pretrained_model
        self.template = template
        self.parameters = parameters

    def build_request(self) -> TrainingRequest:
        """Return the training to ask for."""
        return TrainingRequest(
            dataset_ids=self.dataset_ids,
            model_name=self.model_name,
            model_type=self.model_type,
            framework=self.framework,
            pretrained_model=self.pretrained_model,
            template=self.template,
            parameters=self.parameters,
        )
