"""Training and converting, without a server."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from airflow_provider_osai.sandbox import learning, pictures
from airflow_provider_osai.sandbox.records import JobProblem, JobStopped


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """All 1,797 digits as PNGs of 8 by 8 pixels, with their names."""
    folder, data = tmp_path_factory.mktemp("digits"), load_digits()
    paths = [folder / f"{index}.png" for index in range(len(data.images))]
    for path, pixels in zip(paths, data.images, strict=True):
        Image.fromarray((pixels * 15.9).astype("uint8")).save(path)
    return paths, [str(name) for name in data.target]


@pytest.fixture(scope="module")
def model(digits):
    """A model of the digits, its metrics, and the lines of its history."""
    lines = []
    settings = learning.settings_from({})
    made, metrics = learning.train(*digits, settings, lambda line, _: lines.append(line), base=None)
    return made, metrics, [line for line in lines if line]


def test_digits_are_learned_well(model):
    """The held-out accuracy is that of a real model."""
    made, metrics, _ = model
    assert metrics["accuracy"] >= 0.95
    assert metrics["f1"] >= 0.95
    assert (metrics["images"], metrics["held_out"], metrics["categories"]) == (1797, 359, 10)
    assert (made.side, made.colour) == (8, False)


def test_history_has_a_line_for_each_epoch_and_the_last_is_what_was_measured(model):
    """Loss falls, and metrics and history speak of the same images."""
    _, metrics, lines = model
    assert [line["epoch"] for line in lines] == list(range(1, 21))
    assert lines[-1]["loss"] < lines[0]["loss"]
    assert lines[-1]["valAccuracy"] == metrics["accuracy"]


def test_same_seed_learns_the_same(digits):
    """A training can be repeated to the last figure."""
    paths, names = digits[0][:200], digits[1][:200]
    settings = learning.settings_from({"epochs": 2, "seed": 7})
    first, second = (learning.train(paths, names, settings, lambda *_: None, base=None)[1] for _ in range(2))
    assert first == second


def test_retraining_goes_on_from_the_weights_of_its_base(digits, model):
    """One more epoch of a good model is better than the first epoch of a new one, and leaves the base as it was."""
    base, _, lines = model
    before = base.classify(digits[0][:5], lambda: None)
    settings = learning.settings_from({"epochs": 1}, like=base.settings)
    _, metrics = learning.train(*digits, settings, lambda *_: None, base=base)
    assert metrics["loss"] < lines[0]["valLoss"] / 2
    assert base.classify(digits[0][:5], lambda: None) == before


def test_retraining_with_a_category_that_the_model_does_not_know_is_a_problem(digits, model):
    """The message names the category."""
    names = ["zebra" if name == "3" else name for name in digits[1]]
    with pytest.raises(JobProblem, match="zebra"):
        learning.train(digits[0], names, model[0].settings, lambda *_: None, base=model[0])


@pytest.mark.parametrize(
    ("names", "problem"),
    [([], "nothing to train on"), (["a"] * 5, "at least 2 categories"), (["a"] * 5 + ["b"] * 2, "b has 2")],
)
def test_too_little_to_learn_from_is_a_problem_that_says_what_is_missing(digits, names, problem):
    """Each category needs at least three images, as the vendor says."""
    with pytest.raises(JobProblem, match=problem):
        learning.train(digits[0][: len(names)], names, learning.settings_from({}), lambda *_: None, base=None)


def test_three_images_a_category_are_enough(digits):
    """The vendor's minimum trains."""
    chosen = [i for k in range(10) for i in [n for n, name in enumerate(digits[1]) if name == str(k)][:3]]
    paths, names = [digits[0][i] for i in chosen], [digits[1][i] for i in chosen]
    _, metrics = learning.train(paths, names, learning.settings_from({"epochs": 1}), lambda *_: None, base=None)
    assert metrics["held_out"] == 10


def test_training_ends_where_it_is_stopped(digits):
    """What the epoch's listener raises ends the training in that epoch."""
    seen = []

    def stop(line, _):
        seen.append(line)
        if line.get("epoch") == 2:
            raise JobStopped

    with pytest.raises(JobStopped):
        learning.train(digits[0][:100], digits[1][:100], learning.settings_from({"epochs": 99}), stop, base=None)
    assert seen[-1]["epoch"] == 2


def test_parameters_are_read_and_the_unknown_named():
    """Text from templates is as good as numbers."""
    settings = learning.settings_from({"epochs": "3", "hidden": [8, 4], "learning_rate": 0.1, "zoo": 1, "fog": 2})
    assert (settings.epochs, settings.hidden, settings.learning_rate) == (3, (8, 4), 0.1)
    assert settings.ignored == ("fog", "zoo")


@pytest.mark.parametrize(
    "bad", [{"epochs": "many"}, {"epochs": 0}, {"hidden": []}, {"learning_rate": -1}, {"seed": -1}]
)
def test_parameters_that_make_no_sense_are_a_problem(bad):
    """The message speaks of the parameters."""
    with pytest.raises(JobProblem, match="parameter"):
        learning.settings_from(bad)


def test_colour_is_used_where_it_is_present(tmp_path):
    """Red and green of the same brightness can only be told apart in colour."""
    paths = [tmp_path / f"{i}.png" for i in range(20)]
    for index, path in enumerate(paths):
        Image.new("RGB", (4, 4), (120 + index, 20, 20) if index % 2 else (20, 120 + index, 20)).save(path)
    names = ["red" if index % 2 else "green" for index in range(20)]
    model, metrics = learning.train(paths, names, learning.settings_from({}), lambda *_: None, base=None)
    assert model.colour
    assert metrics["accuracy"] == 1.0


def test_onnx_says_what_scikit_learn_says(digits, model):
    """The converted file is the whole pipeline, from pixels to category."""
    import onnxruntime

    made = model[0]
    rows = pictures.features(pictures.load(digits[0][:300], made.side, lambda: None), made.colour)
    session = onnxruntime.InferenceSession(learning.to_onnx(made), providers=["CPUExecutionProvider"])
    labels, chances = session.run(None, {"pixels": rows})
    assert list(labels) == list(made.pipeline.predict(rows))
    np.testing.assert_allclose(chances, made.pipeline.predict_proba(rows), atol=1e-4)
    assert session.get_modelmeta().custom_metadata_map == {"side": "8", "channels": "1"}
