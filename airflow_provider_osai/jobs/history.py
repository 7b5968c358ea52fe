"""The history of a training: numbers and figures of its epochs, their estimated total, and the best ones."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final

from airflow_provider_osai.api.models import Epoch

__all__ = [
    "FIGURES",
    "best_epochs",
    "epoch_number",
    "epochs_done",
    "estimated_total",
    "figures",
    "format_figure",
    "select_epochs",
]

FIGURES: Final = ("loss", "val_loss", "accuracy", "val_accuracy")
"""The figures of an epoch, in the order in which they are shown."""


def epoch_number(history: Sequence[Epoch], index: int) -> int:
    """Return the number of an epoch as OSAI reports it, else its place in the history, from 1.

    :param index: the place from 0.
    """
    number = history[index].epoch
    return index + 1 if number is None else number


def epochs_done(history: Sequence[Epoch]) -> int:
    """Return how many epochs a training has done, by the last number if there is one, else by their count.

    The history may hold the last epochs only. Numbers may begin at 0.
    """
    if not history:
        return 0
    number = history[-1].epoch
    if number is None or number < 0:
        return len(history)
    return number + 1 if history[0].epoch == 0 else number


def estimated_total(done: int, progress: float | None) -> int | None:
    """Estimate the number of epochs of a training; ``None`` if it cannot be estimated.

    :param done: the number of epochs done.
    :param progress: the job's progress from 0 to 1. 1 before the end says nothing.
    """
    if progress is None or not 0 < progress < 1 or done < 1:
        return None
    total = done / progress
    return max(done, round(total)) if math.isfinite(total) else None


def figures(epoch: Epoch) -> dict[str, float]:
    """Return the figures of an epoch that OSAI reports, by name."""
    values = {name: getattr(epoch, name) for name in FIGURES}
    return {name: value for name, value in values.items() if value is not None}


def format_figure(value: float) -> str:
    """Return a figure with four significant digits; NaN and infinities as ``nan`` and ``inf``."""
    return f"{value:.4g}"


def best_epochs(history: Sequence[Epoch]) -> dict[int, str]:
    """Return the places of the best epochs, each with why: ``best val_accuracy``, ``best val_loss``, or both.

    Of equal ones, the first is the best. A figure that no epoch has as a finite number has no best epoch.
    """
    best: dict[int, str] = {}
    for name, sign in (("val_accuracy", 1), ("val_loss", -1)):
        values = {
            place: sign * value
            for place, epoch in enumerate(history)
            if (value := getattr(epoch, name)) is not None and math.isfinite(value)
        }
        if values:
            place = max(values, key=values.__getitem__)
            best[place] = f"{best[place]}, best {name}" if place in best else f"best {name}"
    return best


def select_epochs(count: int, best: Mapping[int, str], limit: int) -> list[int]:
    """Return the places of at most *limit* of *count* epochs: the first, the last, the *best*, and others between.

    :param limit: at least 4.
    """
    if count <= limit:
        return list(range(count))
    chosen = {0, count - 1, *best}
    spread = limit - len(chosen - {0, count - 1})
    chosen |= {round(step * (count - 1) / (spread - 1)) for step in range(spread)}
    return sorted(chosen)
