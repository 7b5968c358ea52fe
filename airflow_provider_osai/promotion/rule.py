"""What a candidate has to show before it replaces the champion."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from airflow_provider_osai.api.requests import Name, Request

__all__ = ["Guard", "Rule"]

Finite = Annotated[float, Field(allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Guard(BaseModel):
    """A second metric that may veto.

    ``max_drop``: how much worse than the champion's it may be, in the metric's own unit. ``min_value``: what it must
    reach whatever the champion's is (at the most, where lower is better).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    max_drop: NotNegative = 0.0
    min_value: Finite | None = None
    higher_is_better: bool = True


def _guards(value: Any) -> Any:
    """Read the short forms: a name or names alone, or a name with the drop that is borne."""
    if value is None or value == "":
        return {}
    if isinstance(value, str):
        value = [value]
    if isinstance(value, Mapping):
        return {
            name: told if isinstance(told, (Mapping, Guard)) else {"max_drop": told} for name, told in value.items()
        }
    return {name: {} for name in value} if isinstance(value, Iterable) else value


class Rule(Request):
    """When a candidate is better; see ``OsaiModelGateOperator`` for the words.

    :raises OsaiArgumentError: on a value that means nothing.
    """

    metric: Name = "accuracy"
    higher_is_better: bool = True
    min_value: Finite | None = None
    min_improvement: NotNegative = 0.0
    guard_metrics: Annotated[dict[Name, Guard], BeforeValidator(_guards)] = Field(default_factory=dict)
    any_data: bool = False

    def told(self) -> dict[str, Any]:
        """Return the rule as plain JSON, for the record."""
        return self.model_dump(mode="json")
