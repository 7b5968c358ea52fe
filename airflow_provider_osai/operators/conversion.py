"""Models for hardware: convert one."""

from __future__ import annotations

from typing import Any

from airflow_provider_osai.api.requests import ConversionRequest
from airflow_provider_osai.operators.job import OsaiJobOperator

__all__ = ["OsaiConvertModelOperator"]


class OsaiConvertModelOperator(OsaiJobOperator):
    """Converts a model for a kind of hardware. Returns also ``conversion_id``.

    OSAI converts every model to three hardware types by itself and to others on request, which may be charged
    (docs.onestepai.com/model_creation_and_training/hardware_and_conversions); the call itself is assumed. Further
    arguments: see ``OsaiJobOperator``.

    :param model_id: the model.
    :param target: the hardware. The names that OSAI knows are not described; the sandbox really converts ``onnx``.
    """

    template_fields = ("model_id", "target", *OsaiJobOperator.template_fields)

    def __init__(self, *, model_id: str, target: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.model_id = model_id
        self.target = target

    def build_request(self) -> ConversionRequest:
        """Return the conversion to ask for."""
        return ConversionRequest(model_id=self.model_id, target=self.target)
