"""Training and conversion, without a server."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from airflow_provider_osai.api.class_metrics import class_metrics
from airflow_provider_osai.api.models import ConfusionMatrix
from airflow_provider_osai.sandbox import image_features, training
from airflow_provider_osai.sandbox.models import ApiError, JobCancelled, JobFailed


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """Return all 1,797 digits as PNG files of 8 x 8 pixels, with their names."""
    folder, data = tmp_path_factory.mktemp("digits"), load_digits()
    paths = [folder / f"{index}.png" for index in range(len(data.images))]
    for path, pixels in zip(paths, data.images, strict=True):
        Image.fromarray((pixels * 15.9).astype("uint8")).save(path)
    return paths, [str(name) for name in data.target]


@pytest.fixture(scope="module")
def model(digits):
    """Return a model of the digits, its evaluation, and its history."""
    lines = []
    settings = training.parse_settings({})
    made, evaluation = training.train(*digits, settings, lambda line, _: lines.append(line), base=None)
    return made, evaluation, [line for line in lines if line]


def test_digits_reach_a_high_accuracy(model):
    made, evaluation, _ = model
    metrics = evaluation.metrics
    assert metrics["accuracy"] >= 0.95
    assert metrics["f1"] >= 0.95
    assert (metrics["images"], metrics["held_out"], metrics["categories"]) == (1797, 359, 10)
    assert (made.side, made.colour) == (8, False)


def test_history_has_one_line_per_epoch_and_ends_with_the_metrics(model):
    _, evaluation, lines = model
    assert [line["epoch"] for line in lines] == list(range(1, 21))
    assert lines[-1]["loss"] < lines[0]["loss"]
    assert lines[-1]["valAccuracy"] == evaluation.metrics["accuracy"]


def test_confusion_matrix_has_all_held_out_images_and_agrees_with_the_metrics(model):
    evaluation = model[1]
    matrix = ConfusionMatrix.model_validate(evaluation.confusion_matrix)
    found = class_metrics(matrix)
    assert matrix.labels == tuple("0123456789")
    assert sum(map(sum, matrix.rows)) == evaluation.metrics["held_out"] == 359
    hits = sum(row[index] for index, row in enumerate(matrix.rows))
    assert hits / 359 == pytest.approx(evaluation.metrics["accuracy"], abs=1e-5)
    assert sum(each.f1 for each in found) / 10 == pytest.approx(evaluation.metrics["f1"], abs=1e-5)
    assert {each.support for each in found} <= set(range(34, 38))  # each digit is a tenth of the images


def test_confusion_matrix_has_true_categories_as_rows():
    """Also such as the model does not have, and none that does not occur."""
    probabilities = np.array([[0.9, 0.1, 0.0], [0.2, 0.8, 0.0], [0.6, 0.4, 0.0]])
    evaluation = training.measure(["a", "a", "zebra"], probabilities, ["a", "b", "c"])
    assert evaluation.confusion_matrix == {
        "labels": ["a", "b", "zebra"],
        "rows": [[1, 1, 0], [0, 0, 0], [1, 0, 0]],
    }
    json.dumps(evaluation.confusion_matrix)


@pytest.mark.parametrize(("count", "has_matrix"), [(100, True), (101, False)])
def test_more_than_one_hundred_categories_have_no_confusion_matrix(count, has_matrix):
    names = [f"c{number:03}" for number in range(count)]
    evaluation = training.measure(names, np.eye(count), names)
    assert evaluation.metrics["accuracy"] == 1.0
    assert (evaluation.confusion_matrix is not None) == has_matrix


def test_same_seed_gives_the_same_metrics(digits):
    paths, names = digits[0][:200], digits[1][:200]
    settings = training.parse_settings({"epochs": 2, "seed": 7})
    first, second = (training.train(paths, names, settings, lambda *_: None, base=None)[1] for _ in range(2))
    assert first == second


def test_retraining_continues_from_the_weights_of_its_base(digits, model):
    """One more epoch of a trained model beats the first epoch of a new one, and does not change the base."""
    base, _, lines = model
    before = base.classify(digits[0][:5], lambda: None)
    settings = training.parse_settings({"epochs": 1}, base=base.settings)
    _, evaluation = training.train(*digits, settings, lambda *_: None, base=base)
    assert evaluation.metrics["loss"] < lines[0]["valLoss"] / 2
    assert base.classify(digits[0][:5], lambda: None) == before


def test_retraining_with_a_new_category_fails(digits, model):
    names = ["zebra" if name == "3" else name for name in digits[1]]
    with pytest.raises(JobFailed, match="zebra"):
        training.train(digits[0], names, model[0].settings, lambda *_: None, base=model[0])


@pytest.mark.parametrize(
    ("names", "problem"),
    [([], "No images to train on"), (["a"] * 5, "at least 2 categories"), (["a"] * 5 + ["b"] * 2, "b has 2")],
)
def test_training_without_enough_images_or_categories_fails(digits, names, problem):
    """The vendor documents a minimum of three images per category."""
    with pytest.raises(JobFailed, match=problem):
        training.train(digits[0][: len(names)], names, training.parse_settings({}), lambda *_: None, base=None)


def test_three_images_per_category_are_enough(digits):
    chosen = [i for k in range(10) for i in [n for n, name in enumerate(digits[1]) if name == str(k)][:3]]
    paths, names = [digits[0][i] for i in chosen], [digits[1][i] for i in chosen]
    _, evaluation = training.train(paths, names, training.parse_settings({"epochs": 1}), lambda *_: None, base=None)
    assert evaluation.metrics["held_out"] == 10


def test_exception_of_the_epoch_callback_ends_the_training(digits):
    seen = []

    def stop(line, _):
        seen.append(line)
        if line.get("epoch") == 2:
            raise JobCancelled

    with pytest.raises(JobCancelled):
        training.train(digits[0][:100], digits[1][:100], training.parse_settings({"epochs": 99}), stop, base=None)
    assert seen[-1]["epoch"] == 2


def test_parameters_are_parsed_and_unknown_ones_listed():
    """Numbers may be text, as from templates."""
    settings = training.parse_settings({"epochs": "3", "hidden": [8, 4], "learning_rate": 0.1, "zoo": 1, "fog": 2})
    assert (settings.epochs, settings.hidden, settings.learning_rate) == (3, (8, 4), 0.1)
    assert settings.ignored == ("fog", "zoo")


@pytest.mark.parametrize(
    "bad", [{"epochs": "many"}, {"epochs": 0}, {"hidden": []}, {"learning_rate": -1}, {"seed": -1}]
)
def test_invalid_parameters_fail(bad):
    with pytest.raises(JobFailed, match="parameter"):
        training.parse_settings(bad)


def test_colour_is_used_if_present(tmp_path):
    """Red and green of the same brightness differ in colour only."""
    paths = [tmp_path / f"{i}.png" for i in range(20)]
    for index, path in enumerate(paths):
        Image.new("RGB", (4, 4), (120 + index, 20, 20) if index % 2 else (20, 120 + index, 20)).save(path)
    names = ["red" if index % 2 else "green" for index in range(20)]
    model, evaluation = training.train(paths, names, training.parse_settings({}), lambda *_: None, base=None)
    assert model.colour
    assert evaluation.metrics["accuracy"] == 1.0


@pytest.fixture(scope="module")
def session(model):
    """Return an ONNX session of the converted digits model."""
    import onnxruntime

    return onnxruntime.InferenceSession(training.to_onnx(model[0]), providers=["CPUExecutionProvider"])


def test_onnx_predicts_like_scikit_learn(digits, model, session):
    """The converted file has the whole pipeline, from images to categories."""
    made = model[0]
    images = np.stack([np.asarray(Image.open(path).convert("RGB")) for path in digits[0][:300]])
    labels, probabilities = session.run(None, {"images": images})
    expected = made.probabilities(digits[0][:300], lambda: None)
    assert list(labels) == [name for name, _ in made.most_likely(expected)]
    np.testing.assert_allclose(probabilities, expected, atol=1e-4)


def test_onnx_metadata_has_the_labels_and_the_input_format(digits, session):
    metadata = session.get_modelmeta().custom_metadata_map
    assert metadata == {
        "labels": json.dumps(list("0123456789")),
        "layout": "NHWC",
        "side": "8",
        "channels": "1",
        "Image.BitmapPixelFormat": "Rgb8",
        "Image.ColorSpaceGamma": "SRGB",
        "Image.NominalPixelRange": "NominalRange_0_255",
    }
    images = np.asarray(Image.open(digits[0][3]).convert("RGB"))[None]
    (label,), (probabilities,) = session.run(None, {"images": images})
    assert json.loads(metadata["labels"])[probabilities.argmax()] == label


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((1, 8, 8, 3), np.float32),
        np.zeros((1, 3, 8, 8), np.uint8),
        np.zeros((1, 8, 8), np.uint8),
        np.zeros((8, 8, 3), np.uint8),
        np.zeros((1, 64), np.float32),
    ],
    ids=["floats", "channels first", "grey", "no batch", "rows of values"],
)
def test_onnx_rejects_other_input_formats(session, images):
    """Float pixels from 0 to 1, for example, would give wrong results without an error."""
    with pytest.raises(Exception, match="Unexpected input data type|invalid dimensions|Invalid rank"):
        session.run(None, {"images": images})


@pytest.mark.parametrize("size", [(40, 30), (3, 5), (200, 7), (1, 1), (16, 16)])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_onnx_resizes_images_like_the_training(tmp_path, size, mode):
    """For any size and shape, one image or several; up to a rounding error of one level."""
    import onnxruntime

    rng = np.random.default_rng(7)
    shape = (size[1], size[0], 3) if mode == "RGB" else (size[1], size[0])
    paths = [tmp_path / f"{i}.png" for i in range(24)]
    for index, path in enumerate(paths):
        levels = rng.integers(0, 120, shape) + (130 if index % 2 else 0)
        Image.fromarray(levels.astype("uint8")).save(path)
    names = ["light" if index % 2 else "dark" for index in range(24)]
    made, _ = training.train(paths, names, training.parse_settings({"epochs": 3}), lambda *_: None, base=None)
    session = onnxruntime.InferenceSession(training.to_onnx(made), providers=["CPUExecutionProvider"])
    images = np.stack([np.asarray(Image.open(path).convert("RGB")) for path in paths])
    labels, probabilities = session.run(None, {"images": images})
    expected = made.probabilities(paths, lambda: None)
    assert made.colour == (mode == "RGB")
    assert list(labels) == [name for name, _ in made.most_likely(expected)]
    np.testing.assert_allclose(probabilities, expected, atol=0.02)


class TestRead:
    """Image formats of cameras and microscopes."""

    def test_16_bit_grey_images_are_scaled(self, tmp_path):
        """Pillow alone clips all levels above 255 to white."""
        levels = np.array([[0, 256, 257 * 100, 40_000, 65_535]], dtype=np.uint16)
        for name in ("deep.png", "deep.tif"):
            Image.fromarray(levels).save(tmp_path / name)
            assert np.asarray(image_features.read(tmp_path / name)).tolist() == [[0, 0, 100, 155, 255]]
        pixels = image_features.load([tmp_path / "deep.png"], 5, lambda: None)
        assert len({tuple(pixel) for pixel in pixels[0].reshape(-1, 3)}) > 2

    def test_training_on_16_bit_images(self, tmp_path):
        paths = [tmp_path / f"{i}.png" for i in range(24)]
        for index, path in enumerate(paths):
            level = (40_000 if index % 2 else 2_000) + 300 * index
            Image.fromarray(np.full((4, 4), level, dtype=np.uint16)).save(path)
        names = ["light" if index % 2 else "dark" for index in range(24)]
        _, evaluation = training.train(paths, names, training.parse_settings({}), lambda *_: None, base=None)
        assert evaluation.metrics["accuracy"] == 1.0

    @pytest.mark.parametrize("orientation", range(1, 9))
    @pytest.mark.parametrize("suffix", ["png", "jpg"])
    def test_exif_orientation_is_applied(self, tmp_path, orientation, suffix):
        """All eight orientations, by a dark corner."""
        undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # Image.Transpose, which the viewer undoes
        upright = Image.new("L", (24, 16), 255)
        upright.paste(0, (0, 0, 8, 8))
        stored = upright.transpose(undo[orientation]) if orientation > 1 else upright
        exif = Image.Exif()
        exif[0x0112] = orientation
        stored.save(tmp_path / f"image.{suffix}", exif=exif)
        seen = np.asarray(image_features.read(tmp_path / f"image.{suffix}"))
        assert seen.shape == (16, 24)
        assert seen[:7, :7].max() < 64
        assert seen[:, 9:].min() > 192

    def test_invalid_exif_is_ignored(self, tmp_path):
        Image.new("L", (3, 2), 9).save(tmp_path / "image.jpg", exif=b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\xff\xff")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert image_features.read(tmp_path / "image.jpg").size == (3, 2)

    @pytest.mark.parametrize("mode", ["1", "P", "LA", "RGBA", "CMYK"])
    def test_other_modes_become_grey_or_rgb(self, tmp_path, mode):
        path = tmp_path / "image.tif"
        Image.new(mode, (3, 2)).save(path)
        assert image_features.read(path).mode in ("L", "RGB")

    @pytest.mark.parametrize("levels", [np.float32([[0.5]]), np.int32([[70_000]]), np.int32([[-1]])])
    def test_32_bit_images_are_rejected_at_upload(self, tmp_path, levels):
        Image.fromarray(levels).save(tmp_path / "source.tif")
        with (tmp_path / "source.tif").open("rb") as file, pytest.raises(ApiError, match="8 or 16 bits"):
            image_features.store(file, tmp_path / "stored")
        assert not (tmp_path / "stored").exists()
