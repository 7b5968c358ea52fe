"""The promotion policy: what a candidate must achieve to replace the champion."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from airflow_provider_osai.api.requests import Name, Request

__all__ = ["Guardrail", "PromotionPolicy"]

Finite = Annotated[float, Field(allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Guardrail(BaseModel):
    """The requirements for a guardrail metric.

    ``max_drop``: how much worse than the champion's value it may be, in the metric's own unit. ``threshold``: the
    minimum value (the maximum with ``higher_is_better=False``), with or without a champion.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    max_drop: NotNegative = 0.0
    threshold: Finite | None = None
    higher_is_better: bool = True


def _parse_guardrails(value: Any) -> Any:
    """Expand the short forms: one name, a list of names, or names with their ``max_drop``."""
    if value is None or value == "":
        return {}
    if isinstance(value, str):
        value = [value]
    if isinstance(value, Mapping):
        return {
            name: rule if isinstance(rule, (Mapping, Guardrail)) else {"max_drop": rule} for name, rule in value.items()
        }
    return {name: {} for name in value} if isinstance(value, Iterable) else value


class PromotionPolicy(Request):
    """The conditions for a promotion; ``OsaiModelGateOperator`` describes the fields.

    :raises OsaiArgumentError: if a value is invalid.
    """

    metric: Name = "accuracy"
    higher_is_better: bool = True
    threshold: Finite | None = None
    min_improvement: NotNegative = 0.0
    guardrail_metrics: Annotated[dict[Name, Guardrail], BeforeValidator(_parse_guardrails)] = Field(
        default_factory=dict
    )
    allow_different_data: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return the policy as plain JSON."""
        return self.model_dump(mode="json")
