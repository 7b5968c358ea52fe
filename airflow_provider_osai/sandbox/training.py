"""Train small scikit-learn models on pixels, and convert them with skl2onnx. Both are imported when first needed."""

from __future__ import annotations

import copy
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from airflow_provider_osai.api.models import MAX_LABELS
from airflow_provider_osai.sandbox import image_features
from airflow_provider_osai.sandbox.models import InvalidData

__all__ = ["Classifier", "Evaluation", "Settings", "measure", "parse_settings", "to_onnx", "train"]

MIN_IMAGES = 3
"""Minimum number of images per category (docs.onestepai.com/pl/model-creation-and-training)."""
HELD_OUT = 0.2
"""Share of the images that is held out to measure the model."""
OPSET = 18
"""The ONNX operator set of converted models: the first whose ``Resize`` supports Pillow's algorithm."""
PIXELS = "pixels"
"""Name of the input of scikit-learn's part of a converted model."""

OnEpoch = Callable[[dict[str, Any], float], bool]
"""Called with an epoch's line of the history (empty before training) and the progress from 0 to 1. Returns whether to
end the training; before its first epoch the result does not count."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of a training; ``ignored`` has the names of unknown parameters."""

    epochs: int = 20
    seed: int = 0
    learning_rate: float = 0.005
    hidden: tuple[int, ...] = (64,)
    ignored: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Classifier:
    """A trained model: ``pipeline`` maps pixel values of images, scaled to ``side`` x ``side``, to category names."""

    pipeline: Any = field(repr=False)
    side: int
    colour: bool
    settings: Settings

    @property
    def categories(self) -> tuple[str, ...]:
        """The names of the categories that the model can predict."""
        return tuple(str(name) for name in self.pipeline.classes_)

    def probabilities(self, paths: Sequence[Path], on_image: Callable[[], None]) -> Any:
        """Return one row for each image, with the probability of each category.

        :param on_image: called before each image.
        """
        import numpy as np  # heavy

        if not paths:
            return np.empty((0, len(self.categories)))
        return self.pipeline.predict_proba(
            image_features.features(image_features.load(paths, self.side, on_image), self.colour)
        )

    def most_likely(self, probabilities: Any) -> list[tuple[str, float]]:
        """Return the most likely category and its probability for each row of probabilities."""
        return [(self.categories[row.argmax()], float(row.max())) for row in probabilities]

    def classify(self, paths: Sequence[Path], on_image: Callable[[], None]) -> list[tuple[str, float]]:
        """Return the most likely category and its probability for each image; *on_image* is called before each."""
        return self.most_likely(self.probabilities(paths, on_image))


@dataclass(frozen=True, slots=True)
class Evaluation:
    """How well a model predicts images with known categories.

    :param metrics: the metrics by name.
    :param confusion_matrix: the labels and rows of the confusion matrix of all true or predicted categories, as in
        :class:`~airflow_provider_osai.api.models.ConfusionMatrix`; ``None`` if there are more than 100 categories.
    """

    metrics: dict[str, Any]
    confusion_matrix: dict[str, Any] | None


def parse_settings(parameters: dict[str, Any] | None, *, base: Settings | None = None) -> Settings:
    """Parse a training's ``parameters``.

    :param base: the settings of the model that is retrained; its learning rate and hidden layers are kept.
    :raises InvalidData: if a value is invalid.
    """
    remaining = dict(parameters or {})
    defaults = base or Settings()
    try:
        epochs = int(remaining.pop("epochs", Settings().epochs))
        seed = int(remaining.pop("seed", defaults.seed))
        rate = defaults.learning_rate
        hidden = defaults.hidden
        if base is None:
            rate = float(remaining.pop("learning_rate", rate))
            hidden = _widths(remaining.pop("hidden", hidden))
    except (TypeError, ValueError) as error:
        msg = f"Invalid training parameter: {error}"
        raise InvalidData(msg) from None
    if epochs < 1 or not 0 <= seed < 2**32 or rate <= 0 or not hidden or min(hidden) < 1:
        msg = "Invalid training parameters: epochs, learning_rate and hidden must be positive, seed 0 to 4294967295"
        raise InvalidData(msg)
    return Settings(epochs, seed, rate, hidden, tuple(sorted(remaining)))


def _widths(value: Any) -> tuple[int, ...]:
    return tuple(int(width) for width in (value if isinstance(value, (list, tuple)) else [value]))


def train(
    paths: Sequence[Path], names: Sequence[str], settings: Settings, on_epoch: OnEpoch, *, base: Classifier | None
) -> tuple[Classifier, Evaluation]:
    """Train a classifier on images and their category names; return it with its evaluation on held-out images.

    :param on_epoch: called after each epoch, and before each image is read; an exception stops the training.
    :param base: the model to continue training from.
    :raises InvalidData: if there are too few images or categories, or one that *base* does not have.
    """
    import numpy as np  # heavy

    _check(names, base)
    side = base.side if base else image_features.input_side(paths)
    pixels = image_features.load(paths, side, lambda: on_epoch({}, 0.0))
    colour = base.colour if base else image_features.has_colour(pixels)
    rows = image_features.features(pixels, colour)
    truth = np.asarray(names)
    learn, held = _split(truth, settings.seed)
    model = Classifier(_pipeline(rows[learn], settings, base), side, colour, settings)
    epochs = _fit(model, (rows[learn], truth[learn]), (rows[held], truth[held]), on_epoch, base)
    evaluation = measure(truth[held], model.pipeline.predict_proba(rows[held]), model.categories)
    counts = {"images": len(names), "held_out": len(held), "categories": len(set(names)), "epochs": epochs}
    return model, replace(evaluation, metrics={**evaluation.metrics, **counts})


def _check(names: Sequence[str], base: Classifier | None) -> None:
    counts = Counter(names)
    if not counts:
        msg = "No images to train on: the datasets have no images with a category"
        raise InvalidData(msg)
    if len(counts) < 2:
        msg = f"A model needs at least 2 categories with images; there is only {next(iter(counts))}"
        raise InvalidData(msg)
    few = sorted(f"{name} has {count}" for name, count in counts.items() if count < MIN_IMAGES)
    if few:
        msg = f"Too few images: each category needs at least {MIN_IMAGES}, but {', '.join(few)}"
        raise InvalidData(msg)
    new = sorted(set(counts) - set(base.categories)) if base else []
    if new:
        msg = f"Cannot retrain with categories that the model does not have: {', '.join(new)}. Train a new model"
        raise InvalidData(msg)


def _split(truth: Any, seed: int) -> tuple[Any, Any]:
    """Return the indexes of the training images and of the held-out images, each category in both."""
    import numpy as np  # heavy
    from sklearn.model_selection import train_test_split  # heavy

    size = max(len(set(truth)), round(HELD_OUT * len(truth)))
    learn, held = train_test_split(np.arange(len(truth)), test_size=size, stratify=truth, random_state=seed)
    return learn, held


def _pipeline(rows: Any, settings: Settings, base: Classifier | None) -> Any:
    if base:
        return copy.deepcopy(base.pipeline)
    from sklearn.neural_network import MLPClassifier  # heavy
    from sklearn.pipeline import Pipeline  # heavy
    from sklearn.preprocessing import StandardScaler  # heavy

    network = MLPClassifier(
        hidden_layer_sizes=settings.hidden,
        learning_rate_init=settings.learning_rate,
        batch_size=min(32, len(rows)),
        random_state=settings.seed,
    )
    return Pipeline([("scale", StandardScaler().fit(rows)), ("classify", network)])


def _fit(model: Classifier, learn: Any, held: Any, on_epoch: OnEpoch, base: Classifier | None) -> int:
    """Train, and return the number of epochs."""
    import numpy as np  # heavy
    from sklearn.metrics import log_loss  # heavy

    scale, network = (step for _, step in model.pipeline.steps)
    classes = np.asarray(base.categories) if base else np.unique(learn[1])
    network.set_params(batch_size=min(32, len(learn[1])))
    learn_rows = scale.transform(learn[0])
    held_rows = scale.transform(held[0])
    for epoch in range(1, model.settings.epochs + 1):
        network.partial_fit(learn_rows, learn[1], classes=classes)
        probabilities = network.predict_proba(held_rows)
        line = {
            "epoch": epoch,
            "loss": round(float(network.loss_), 5),
            "accuracy": round(float(network.score(learn_rows, learn[1])), 5),
            "valLoss": round(float(log_loss(held[1], probabilities, labels=classes)), 5),
            "valAccuracy": round(float((classes[probabilities.argmax(axis=1)] == held[1]).mean()), 5),
        }
        if on_epoch(line, epoch / model.settings.epochs):
            return epoch
    return model.settings.epochs


def measure(truth: Sequence[str], probabilities: Any, categories: Sequence[str]) -> Evaluation:
    """Evaluate a model on images with known categories, for trainings and predictions alike.

    :param truth: the true category of each image; at least one.
    :param probabilities: one row for each image, with the probability of each of the *categories*.
    :param categories: the categories that the model can predict.
    :return: the confusion matrix, and the metrics ``accuracy``, ``f1`` (macro: the unweighted mean over all true or
        predicted categories), and ``loss`` (the mean negative log-likelihood), which is omitted if the model does not
        have all true categories.
    """
    import numpy as np  # heavy
    from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, log_loss  # heavy

    true = np.asarray(truth)
    predicted = np.asarray(categories)[probabilities.argmax(axis=1)]
    metrics = {
        "accuracy": accuracy_score(true, predicted),
        "f1": f1_score(true, predicted, average="macro", zero_division=0),
    }
    if set(truth) <= set(categories):
        metrics["loss"] = log_loss(true, probabilities, labels=categories)
    labels = sorted({*true.tolist(), *predicted.tolist()})
    matrix = None
    if len(labels) <= MAX_LABELS:
        matrix = {"labels": labels, "rows": confusion_matrix(true, predicted, labels=labels).tolist()}
    return Evaluation({name: round(float(value), 5) for name, value in metrics.items()}, matrix)


def to_onnx(model: Classifier) -> bytes:
    """Return the model as ONNX, including the preprocessing: it accepts decoded images of any size.

    Input ``images``: uint8, image x row x column x 3 (RGB, 0-255); all images of a batch have the same size. Outputs:
    ``label``, the category name of each image, and ``probabilities``, the probability of each category in
    the order of ``labels`` in the metadata, which docs/models.md describes.
    """
    from skl2onnx import convert_sklearn  # heavy
    from skl2onnx.common.data_types import FloatTensorType  # heavy

    width = model.side * model.side * (3 if model.colour else 1)
    converted = convert_sklearn(
        model.pipeline,
        initial_types=[(PIXELS, FloatTensorType([None, width]))],
        options={id(model.pipeline): {"zipmap": False}},
        target_opset={"": OPSET, "ai.onnx.ml": 3},
    )
    # skl2onnx declares the lowest opset that its own operators need; the preprocessing needs OPSET.
    next(opset for opset in converted.opset_import if opset.domain == "").version = OPSET
    _prepend_preprocessing(converted.graph, model)
    metadata = {
        "labels": json.dumps(model.categories, ensure_ascii=False),
        "layout": "NHWC",
        "side": str(model.side),
        "channels": str(3 if model.colour else 1),
        # Names from ONNX's MetadataProps.md.
        "Image.BitmapPixelFormat": "Rgb8",
        "Image.ColorSpaceGamma": "SRGB",
        "Image.NominalPixelRange": "NominalRange_0_255",
    }
    for key, value in metadata.items():
        converted.metadata_props.add(key=key, value=value)
    return bytes(converted.SerializeToString())


def _prepend_preprocessing(graph: Any, model: Classifier) -> None:
    """Prepend to the graph what :mod:`.image_features` does with Pillow: from images to rows of pixel values."""
    import numpy as np  # heavy
    from onnx import TensorProto, helper, numpy_helper  # heavy; a dependency of skl2onnx

    node = helper.make_node
    # Pillow's default for resize(): bicubic, with a filter that widens with the scale factor when downscaling.
    cubic: dict[str, Any] = {"mode": "cubic", "cubic_coeff_a": -0.5, "antialias": 1, "exclude_outside": 1}
    steps = [
        node("Transpose", ["images"], ["images_nchw"], perm=[0, 3, 1, 2]),
        node("Shape", ["images"], ["images_count"], start=0, end=1),
        node("Concat", ["images_count", "images_rest"], ["images_sizes"], axis=0),
        node("Resize", ["images_nchw", "", "", "images_sizes"], ["images_small"], **cubic),
        node("Transpose", ["images_small"], ["images_nhwc"], perm=[0, 2, 3, 1]),
        node("Cast", ["images_nhwc"], ["images_float"], to=TensorProto.FLOAT),
        *([] if model.colour else [node("ReduceMean", ["images_float", "images_axis"], ["images_grey"])]),
        node("Reshape", ["images_float" if model.colour else "images_grey", "images_row"], [PIXELS]),
    ]
    constants = {"images_rest": [3, model.side, model.side], "images_row": [0, -1]}
    if not model.colour:
        constants["images_axis"] = [3]
    nodes = [*steps, *graph.node]
    del graph.node[:], graph.input[:]
    graph.node.extend(nodes)
    shape: list[str | int | None] = ["count", "height", "width", 3]
    graph.input.append(helper.make_tensor_value_info("images", TensorProto.UINT8, shape))
    graph.initializer.extend(
        numpy_helper.from_array(np.asarray(value, dtype=np.int64), name) for name, value in constants.items()
    )
