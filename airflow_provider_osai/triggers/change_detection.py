"""Change detection: compares datasets and models with the last reported state and returns the new events.

The reported state is plain JSON, since it is persisted and read by another process.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Final

from airflow_provider_osai.api.models import Dataset, Model

__all__ = ["ReportedState", "dataset_changes", "is_comparable", "model_changes"]

ReportedState = dict[str, Any]
"""The state as last reported, or as found by the first poll."""
CHANGE_FIELDS: Final = ("updated_at", "image_count")
"""Fields that show a change of a dataset, in order of preference: the first one that is set in both states decides."""
MAX_UNLISTED_MODELS: Final = 1000
"""Maximum number of models that are no longer listed and still count as reported."""


def is_comparable(dataset: Dataset) -> bool:
    """Return whether OSAI provides any field that shows a change of the dataset."""
    return any(getattr(dataset, name) is not None for name in CHANGE_FIELDS)


def dataset_changes(
    reported: ReportedState | None, dataset: Dataset | None
) -> tuple[list[dict[str, Any]], ReportedState | None]:
    """Return the events for a dataset, at most one, and the new reported state.

    No event is returned while an upload locks the dataset; it follows once the upload has ended. All changes between
    two polls are one event.

    :param reported: the last reported state; ``None`` at the first poll, which sets the baseline and returns no event.
    :param dataset: the current dataset; ``None`` if OSAI does not return it.
    """
    if dataset is None or not is_comparable(dataset):
        return [], reported
    current = {name: getattr(dataset, name) for name in CHANGE_FIELDS}
    if reported is None:
        return [], current
    if dataset.locked:
        return [], reported
    previous = {name: reported.get(name) for name in CHANGE_FIELDS}
    new_state = {name: previous[name] if value is None else value for name, value in current.items()}
    deciding = next((name for name in CHANGE_FIELDS if None not in (previous[name], current[name])), None)
    if deciding is None or previous[deciding] == current[deciding]:
        return [], new_state
    event = {"kind": "dataset_changed", "dataset_id": dataset.id, "name": dataset.name, **current, "previous": previous}
    return [event], new_state


def model_changes(
    reported: ReportedState | None, models: Iterable[Model], name: str | None = None
) -> tuple[list[dict[str, Any]], ReportedState | None]:
    """Return one event for each new model, ordered by creation time, and the new reported state.

    :param reported: the last reported state; ``None`` at the first poll, which sets the baseline and returns no event.
    :param models: all models that OSAI lists.
    :param name: return events only for models with this name.
    """
    current = {model.id: model for model in models if name is None or model.name == name}
    if reported is None:
        return [], {"model_ids": list(current)}
    known_ids = dict.fromkeys(str(model_id) for model_id in reported.get("model_ids") or ())
    new = sorted(
        (model for model in current.values() if model.id not in known_ids), key=lambda model: model.created_at or ""
    )
    if not new:
        return [], reported
    unlisted = [model_id for model_id in known_ids if model_id not in current][-MAX_UNLISTED_MODELS:]
    return [_model_trained(model) for model in new], {"model_ids": [*unlisted, *current]}


def _model_trained(model: Model) -> dict[str, Any]:
    return {
        "kind": "model_trained",
        "model_id": model.id,
        "name": model.name,
        "metrics": _to_plain_json(model.metrics or {}),
        "created_at": model.created_at,
    }


def _to_plain_json(value: Any) -> Any:
    """Return JSON that every database accepts: without NaN and infinities, which Python's parser accepts."""
    return json.loads(json.dumps(value, default=str), parse_constant=lambda _: None)
