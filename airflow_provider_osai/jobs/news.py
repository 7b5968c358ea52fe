"""What is new of datasets and models since it was last told: what was told goes in, what to tell comes out.

What was told is plain JSON, since it is kept where another process reads it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Final

from airflow_provider_osai.api.models import Dataset, Model

__all__ = ["Told", "dataset_news", "is_comparable", "model_news"]

Told = dict[str, Any]
"""What was told last, or found at the first look."""
MARKS: Final = ("updated_at", "image_count")
"""What shows that a dataset has changed, the best first: the first that is known of then and of now decides."""
GONE: Final = 1000
"""Models that are not listed any more and still count as told."""


def is_comparable(dataset: Dataset) -> bool:
    """Whether OSAI says anything by which a change of the dataset could be seen."""
    return any(getattr(dataset, mark) is not None for mark in MARKS)


def dataset_news(told: Told | None, dataset: Dataset | None) -> tuple[list[dict[str, Any]], Told | None]:
    """Return what to tell of a dataset, one event at the most, and what is told then.

    Nothing while an upload locks it: the change is told when it is over. All that happened between two looks is one
    change.

    :param told: ``None`` at the first look: it is what changes are measured by, and tells nothing.
    :param dataset: as OSAI shows it now; ``None`` if it does not.
    """
    if dataset is None or not is_comparable(dataset):
        return [], told
    now = {mark: getattr(dataset, mark) for mark in MARKS}
    if told is None:
        return [], now
    if dataset.locked:
        return [], told
    before = {mark: told.get(mark) for mark in MARKS}
    current = {mark: before[mark] if value is None else value for mark, value in now.items()}
    deciding = next((mark for mark in MARKS if None not in (before[mark], now[mark])), None)
    if deciding is None or before[deciding] == now[deciding]:
        return [], current
    event = {"kind": "dataset_changed", "dataset_id": dataset.id, "name": dataset.name, **now, "previous": before}
    return [event], current


def model_news(
    told: Told | None, models: Iterable[Model], name: str | None = None
) -> tuple[list[dict[str, Any]], Told | None]:
    """Return what to tell of new models, one event for each in the order of their making, and what is told then.

    :param told: ``None`` at the first look: the models that there are then are none to tell of.
    :param models: all that OSAI lists.
    :param name: tells only of models that are called so.
    """
    there = {model.id: model for model in models if name is None or model.name == name}
    if told is None:
        return [], {"model_ids": list(there)}
    known = dict.fromkeys(str(one) for one in told.get("model_ids") or ())
    new = sorted((model for model in there.values() if model.id not in known), key=lambda model: model.created_at or "")
    if not new:
        return [], told
    gone = [one for one in known if one not in there][-GONE:]
    return [_made(model) for model in new], {"model_ids": [*gone, *there]}


def _made(model: Model) -> dict[str, Any]:
    return {
        "kind": "model_trained",
        "model_id": model.id,
        "name": model.name,
        "metrics": _plain(model.metrics or {}),
        "created_at": model.created_at,
    }


def _plain(value: Any) -> Any:
    """Return JSON that every database takes: without NaN and infinities, which Python's reader lets through."""
    return json.loads(json.dumps(value, default=str), parse_constant=lambda _: None)
