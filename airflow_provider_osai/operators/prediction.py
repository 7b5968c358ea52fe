"""Operator that labels a dataset with a model."""

from __future__ import annotations

from typing import Any

from airflow_provider_osai.api.client import OsaiClient
from airflow_provider_osai.api.models import Job
from airflow_provider_osai.api.requests import PredictionMode, PredictionRequest
from airflow_provider_osai.operators.job import OsaiJobOperator

__all__ = ["OsaiPredictOperator"]


class OsaiPredictOperator(OsaiJobOperator):
    """Labels the images of a dataset with a model, in the dataset itself. Returns also ``dataset_id``.

    The settings are documented (docs.onestepai.com/predictor); the call itself is assumed. Further arguments: see
    ``OsaiJobOperator``.

    :param model_id: the model.
    :param dataset_id: the dataset whose images are labelled.
    :param min_confidence: the minimum confidence of a label, 0 to 1; labels below it are dropped. Default 0.5.
    :param mode: ``all`` (default): all images; ``replace``: all images, and existing labels are replaced;
        ``unannotated``: only images without annotations.
    """

    template_fields = ("model_id", "dataset_id", "min_confidence", "mode", *OsaiJobOperator.template_fields)

    def __init__(
        self,
        *,
        model_id: str,
        dataset_id: str,
        min_confidence: float = 0.5,
        mode: str = PredictionMode.ALL.value,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.model_id = model_id
        self.dataset_id = dataset_id
        self.min_confidence = min_confidence
        self.mode = mode

    def build_request(self) -> PredictionRequest:
        """Return the prediction request."""
        return PredictionRequest(
            model_id=self.model_id, dataset_id=self.dataset_id, min_confidence=self.min_confidence, mode=self.mode
        )

    def build_result(self, client: OsaiClient, job: Job) -> dict[str, Any]:
        """Return the result, with the dataset also where the API does not report it; warn if nothing was labelled."""
        result = {"dataset_id": str(self.dataset_id), **super().build_result(client, job)}
        metrics = result["metrics"]
        if metrics.get("labelled") == 0 and metrics.get("images", 0) > 0:
            self.log.warning("%s", self._unlabelled(metrics["images"]))
        return result

    def _unlabelled(self, images: float) -> str:
        if self.mode == PredictionMode.UNANNOTATED.value:
            reason = "with mode='unannotated', an image that has a category or a label counts as annotated"
        else:
            reason = f"no label has the min_confidence of {self.min_confidence}"
        return f"None of the {images:g} images was labelled: {reason}"
