"""Small, real models: scikit-learn learns from pixels, skl2onnx converts. Both are imported when first needed."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from airflow_provider_osai.sandbox import pictures
from airflow_provider_osai.sandbox.records import JobProblem

__all__ = ["Classifier", "Settings", "settings_from", "to_onnx", "train"]

MIN_IMAGES = 3
"""Images that each category needs (docs.onestepai.com/pl/model-creation-and-training)."""
HELD_OUT = 0.2
"""Share of the images that a model is measured on and never sees."""

EachEpoch = Callable[[dict[str, Any], float], None]


@dataclass(frozen=True, slots=True)
class Settings:
    """How a training goes; ``ignored`` names the given parameters that mean nothing here."""

    epochs: int = 20
    seed: int = 0
    learning_rate: float = 0.005
    hidden: tuple[int, ...] = (64,)
    ignored: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Classifier:
    """A trained model: ``pipeline`` maps pixel values to category names; images are seen ``side`` pixels wide."""

    pipeline: Any = field(repr=False)
    side: int
    colour: bool
    settings: Settings

    @property
    def categories(self) -> tuple[str, ...]:
        """The names that it can say."""
        return tuple(str(name) for name in self.pipeline.classes_)

    def classify(self, paths: Sequence[Path], each: Callable[[], None]) -> list[tuple[str, float]]:
        """Return a category and a confidence for each image; *each* is called before every image."""
        if not paths:
            return []
        rows = pictures.features(pictures.load(paths, self.side, each), self.colour)
        chances = self.pipeline.predict_proba(rows)
        best = chances.argmax(axis=1)
        return [(self.categories[k], float(row[k])) for row, k in zip(chances, best, strict=True)]


def settings_from(parameters: dict[str, Any] | None, *, like: Settings | None = None) -> Settings:
    """Read a training's ``parameters``; a retraining keeps the network of the model that it is *like*."""
    given = dict(parameters or {})
    base = like or Settings()
    try:
        epochs = int(given.pop("epochs", Settings().epochs))
        seed = int(given.pop("seed", base.seed))
        rate, hidden = base.learning_rate, base.hidden
        if like is None:
            rate = float(given.pop("learning_rate", rate))
            hidden = _widths(given.pop("hidden", hidden))
    except (TypeError, ValueError) as error:
        msg = f"a training parameter has a bad value: {error}"
        raise JobProblem(msg) from None
    if epochs < 1 or not 0 <= seed < 2**32 or rate <= 0 or not hidden or min(hidden) < 1:
        msg = "training parameters: epochs, learning_rate and hidden must be positive, seed 0 to 4294967295"
        raise JobProblem(msg)
    return Settings(epochs, seed, rate, hidden, tuple(sorted(given)))


def _widths(value: Any) -> tuple[int, ...]:
    return tuple(int(width) for width in (value if isinstance(value, (list, tuple)) else [value]))


def train(
    paths: Sequence[Path], names: Sequence[str], settings: Settings, each_epoch: EachEpoch, *, base: Classifier | None
) -> tuple[Classifier, dict[str, Any]]:
    """Train a classifier on images and the names of their categories; return it with its metrics on held-out images.

    :param each_epoch: is told every line of the history and the progress; what it raises ends the training.
    :param base: the model to go on from.
    """
    import numpy as np  # noqa: PLC0415 - heavy

    _check(names, base)
    side = base.side if base else pictures.side_for(paths)
    pixels = pictures.load(paths, side, lambda: each_epoch({}, 0.0))
    colour = base.colour if base else pictures.has_colour(pixels)
    rows, truth = pictures.features(pixels, colour), np.asarray(names)
    learn, held = _split(truth, settings.seed)
    model = Classifier(_pipeline(rows[learn], settings, base), side, colour, settings)
    _fit(model, (rows[learn], truth[learn]), (rows[held], truth[held]), each_epoch, base)
    measured = _measure(model, rows[held], truth[held])
    counts = {"images": len(names), "held_out": len(held), "categories": len(set(names)), "epochs": settings.epochs}
    return model, {**measured, **counts}


def _check(names: Sequence[str], base: Classifier | None) -> None:
    counts = Counter(names)
    if not counts:
        msg = "there is nothing to train on: the datasets have no images with a category"
        raise JobProblem(msg)
    if len(counts) < 2:
        msg = f"a model needs at least 2 categories with images; there is only {next(iter(counts))}"
        raise JobProblem(msg)
    few = sorted(f"{name} has {count}" for name, count in counts.items() if count < MIN_IMAGES)
    if few:
        msg = f"each category needs at least {MIN_IMAGES} images: {', '.join(few)}"
        raise JobProblem(msg)
    new = sorted(set(counts) - set(base.categories)) if base else []
    if new:
        msg = f"the model does not know the categories {', '.join(new)}; train a new one"
        raise JobProblem(msg)


def _split(truth: Any, seed: int) -> tuple[Any, Any]:
    """Return the indexes to learn from and those to measure on, each category in both."""
    import numpy as np  # noqa: PLC0415 - heavy
    from sklearn.model_selection import train_test_split  # noqa: PLC0415 - heavy

    held = max(len(set(truth)), round(HELD_OUT * len(truth)))
    learn, kept = train_test_split(np.arange(len(truth)), test_size=held, stratify=truth, random_state=seed)
    return learn, kept


def _pipeline(rows: Any, settings: Settings, base: Classifier | None) -> Any:
    if base:
        return copy.deepcopy(base.pipeline)
    from sklearn.neural_network import MLPClassifier  # noqa: PLC0415 - heavy
    from sklearn.pipeline import Pipeline  # noqa: PLC0415 - heavy
    from sklearn.preprocessing import StandardScaler  # noqa: PLC0415 - heavy

    network = MLPClassifier(
        hidden_layer_sizes=settings.hidden,
        learning_rate_init=settings.learning_rate,
        batch_size=min(32, len(rows)),
        random_state=settings.seed,
    )
    return Pipeline([("scale", StandardScaler().fit(rows)), ("classify", network)])


def _fit(model: Classifier, learn: Any, held: Any, each_epoch: EachEpoch, base: Classifier | None) -> None:
    import numpy as np  # noqa: PLC0415 - heavy
    from sklearn.metrics import log_loss  # noqa: PLC0415 - heavy

    scale, network = (step for _, step in model.pipeline.steps)
    classes = np.asarray(base.categories) if base else np.unique(learn[1])
    network.set_params(batch_size=min(32, len(learn[1])))
    seen, unseen = scale.transform(learn[0]), scale.transform(held[0])
    for epoch in range(1, model.settings.epochs + 1):
        network.partial_fit(seen, learn[1], classes=classes)
        chances = network.predict_proba(unseen)
        line = {
            "epoch": epoch,
            "loss": round(float(network.loss_), 5),
            "accuracy": round(float(network.score(seen, learn[1])), 5),
            "valLoss": round(float(log_loss(held[1], chances, labels=classes)), 5),
            "valAccuracy": round(float((classes[chances.argmax(axis=1)] == held[1]).mean()), 5),
        }
        each_epoch(line, epoch / model.settings.epochs)


def _measure(model: Classifier, rows: Any, truth: Any) -> dict[str, Any]:
    from sklearn.metrics import accuracy_score, f1_score, log_loss  # noqa: PLC0415 - heavy

    said, chances = model.pipeline.predict(rows), model.pipeline.predict_proba(rows)
    return {
        "accuracy": round(float(accuracy_score(truth, said)), 5),
        "f1": round(float(f1_score(truth, said, average="macro", zero_division=0)), 5),
        "loss": round(float(log_loss(truth, chances, labels=model.categories)), 5),
    }


def to_onnx(model: Classifier) -> bytes:
    """Return the model as ONNX: input ``pixels`` (rows of values 0-255), outputs the category and the chances."""
    from skl2onnx import convert_sklearn  # noqa: PLC0415 - heavy
    from skl2onnx.common.data_types import FloatTensorType  # noqa: PLC0415 - heavy

    width = model.side * model.side * (3 if model.colour else 1)
    converted = convert_sklearn(
        model.pipeline,
        initial_types=[("pixels", FloatTensorType([None, width]))],
        options={id(model.pipeline): {"zipmap": False}},
    )
    for key, value in (("side", model.side), ("channels", 3 if model.colour else 1)):
        converted.metadata_props.add(key=key, value=str(value))
    return bytes(converted.SerializeToString())
