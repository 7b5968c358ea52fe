"""Limit the size of histories, metrics and other results in responses; what is dropped is logged once for each job."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

from airflow_provider_osai.api.errors import sanitize_server_text
from airflow_provider_osai.api.models import MAX_LABELS, MAX_SAMPLES

__all__ = ["MAX_DEPTH", "MAX_EPOCHS", "MAX_ITEMS", "MAX_METRICS", "MAX_TEXT", "trim"]

MAX_EPOCHS: Final = 10_000
"""Maximum epochs of a history; the last ones are kept."""
MAX_METRICS: Final = 1_000
"""Maximum metrics; the first ones are kept."""
MAX_TEXT: Final = 1_000
"""Maximum characters of a metric's name, and of any text in its value."""
MAX_ITEMS: Final = 10_000
"""Maximum items of each list or object in a metric's value."""
MAX_DEPTH: Final = 10
"""Maximum levels of lists and objects in a metric's value."""
RESULTS: Final = frozenset({"metrics", "confusionMatrix", "samples"})
"""Fields of a result that have limits."""

FIELDS: Final = frozenset({"history", "metrics", "result"})
"""Fields of a job or a model that have limits."""

log = logging.getLogger(__name__)


def trim(fields: Mapping[str, Any], operation: str) -> Mapping[str, Any]:
    """Return *fields* with ``history``, ``metrics`` and what is in ``result`` within the limits.

    :param fields: the fields of a job or a model, under our names.
    :param operation: the name of the endpoint, for the log.
    """
    if FIELDS.isdisjoint(fields):
        return fields
    kept = dict(fields)
    subject = (operation, fields.get("id"))
    history = kept.get("history")
    result = kept.get("result")
    if isinstance(history, list) and len(history) > MAX_EPOCHS:
        kept["history"] = history[-MAX_EPOCHS:]
        _warn(subject, f"the history has {len(history)} epochs; only the last {MAX_EPOCHS} are kept")
    if "metrics" in kept:
        kept["metrics"] = _trim_metrics(kept["metrics"], subject)
    if isinstance(result, dict) and not RESULTS.isdisjoint(result):
        kept["result"] = _trim_result(result, subject)
    return kept


def _trim_result(result: dict[str, Any], subject: tuple[str, Any]) -> dict[str, Any]:
    kept = dict(result)
    if "metrics" in kept:
        kept["metrics"] = _trim_metrics(kept["metrics"], subject)
    matrix = kept.get("confusionMatrix")
    labels = matrix.get("labels") if isinstance(matrix, dict) else None
    if isinstance(labels, list) and len(labels) > MAX_LABELS:
        del kept["confusionMatrix"]
        _warn(subject, f"the confusion matrix has {len(labels)} labels; one with more than {MAX_LABELS} is dropped")
    samples = kept.get("samples")
    if isinstance(samples, list) and len(samples) > MAX_SAMPLES:
        kept["samples"] = samples[:MAX_SAMPLES]
        _warn(subject, f"there are {len(samples)} sample predictions; only the first {MAX_SAMPLES} are kept")
    return kept


def _trim_metrics(metrics: Any, subject: tuple[str, Any]) -> Any:
    if not isinstance(metrics, dict):
        return metrics
    fitting = [name for name, value in metrics.items() if len(name) <= MAX_TEXT and _fits(value)]
    kept = {name: _json_value(metrics[name]) for name in fitting[:MAX_METRICS]}
    if len(kept) == len(metrics):
        return kept
    dropped = next(name for name in metrics if name not in kept)
    _warn(
        subject,
        f"{len(metrics) - len(kept)} of {len(metrics)} metrics were dropped, for instance {dropped[:100]!a}; limits: "
        f"{MAX_METRICS} metrics, {MAX_TEXT} characters in names and texts, {MAX_ITEMS} items in lists, and "
        f"{MAX_DEPTH} levels",
    )
    return kept


def _fits(value: Any, depth: int = 0) -> bool:
    if isinstance(value, str):
        return len(value) <= MAX_TEXT
    if isinstance(value, int):
        return value.bit_length() <= 1024  # larger than any float
    if not isinstance(value, (list, dict)):
        return True
    if depth == MAX_DEPTH or len(value) > MAX_ITEMS:
        return False
    if isinstance(value, dict) and any(len(name) > MAX_TEXT for name in value):
        return False
    return all(_fits(item, depth + 1) for item in (value.values() if isinstance(value, dict) else value))


def _json_value(value: Any) -> Any:
    """Replace NaN and infinities with text ("nan", "inf"): JSON, and so an XCom, cannot hold them."""
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, list):
        return [_json_value(item) for item in value]
    return {name: _json_value(item) for name, item in value.items()} if isinstance(value, dict) else value


def _warn(subject: tuple[str, Any], message: str) -> None:
    operation, object_id = subject
    _warn_once(operation, sanitize_server_text(str(object_id), 100), message)


@lru_cache(maxsize=1024)
def _warn_once(operation: str, object_id: str, message: str) -> None:
    """Log *message* once: a job is polled many times."""
    log.warning("%s: %s: %s", operation, object_id, message)
