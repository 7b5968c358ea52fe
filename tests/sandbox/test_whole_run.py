"""A complete run over HTTP: upload, training, conversion, download, prediction."""

from __future__ import annotations

import io
import re

import numpy as np
import onnxruntime
from PIL import Image
from sklearn.datasets import load_digits

from tests.conftest import ROOT
from tests.sandbox.client import encoded

COUNT = 500


def test_digits_are_uploaded_trained_converted_downloaded_and_predicted(api):
    """Nothing is simulated: the files, the training, the downloaded model."""
    data = load_digits()
    pixels = [(image * 15.9).astype("uint8") for image in data.images[:COUNT]]
    names = [str(name) for name in data.target[:COUNT]]
    files = [encoded(Image.fromarray(each)) for each in pixels]
    dataset_id = api.dataset({k: [f for f, n in zip(files, names, strict=True) if n == k] for k in sorted(set(names))})
    training = api.train(dataset_id)
    model_id = training["result"]["modelId"]
    assert training["result"]["metrics"]["accuracy"] >= 0.85

    assert api.run("Conversions", modelId=model_id, target="onnx")["status"] == "succeeded"
    response = api.get(f"/Models/{model_id}/Download", params={"target": "onnx"})
    session = onnxruntime.InferenceSession(response.content, providers=["CPUExecutionProvider"])
    labels, _ = session.run(None, {"images": np.stack([np.asarray(pixels)] * 3, axis=-1)})
    assert np.mean(np.asarray(names) == labels) >= 0.95

    fresh = api.dataset({"": files[:50]})
    assert api.run("Predictions", modelId=model_id, datasetId=fresh, minConfidence=0)["status"] == "succeeded"
    predicted = [image["labels"][0]["name"] for image in api.sandbox.control.images(fresh)]
    assert predicted == list(labels[:50])


def test_docs_snippet_is_as_accurate_as_the_prediction(api, tmp_path, monkeypatch):
    """With images of several sizes, 16 bits, rotated by EXIF, and JPEG; the snippet runs unchanged."""
    data, learned, holdout = load_digits(), {}, {}
    for number, (pixels, name) in enumerate(zip(data.images[:900], data.target[:900], strict=True)):
        part = learned if number % 3 else holdout
        part.setdefault(str(name), []).append(image_file(pixels, number))
    training = api.train(api.dataset(learned))
    model_id = training["result"]["modelId"]
    evaluation = api.run("Predictions", modelId=model_id, datasetId=api.dataset(holdout), minConfidence=1.0)
    api.run("Conversions", modelId=model_id, target="onnx")
    content = api.get(f"/Models/{model_id}/Download", params={"target": "onnx"}).content
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.onnx").write_bytes(content)
    page = (ROOT / "docs/models.md").read_text()
    (snippet,) = [each for each in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "def classify(" in each]
    shown: dict = {}
    exec(snippet, shown)
    right = 0
    for name, images in holdout.items():
        for image in images:
            (tmp_path / "image").write_bytes(image)
            right += shown["classify"]("image")[0] == name
    accuracy = evaluation["result"]["metrics"]["accuracy"]
    assert abs(right / 300 - accuracy) <= 1 / 300  # a level that is rounded otherwise may tip one image
    assert accuracy >= 0.85
    assert abs(accuracy - training["result"]["metrics"]["accuracy"]) <= 0.1


def image_file(pixels: np.ndarray, number: int) -> bytes:
    """Return a digit in one of several image formats."""
    image = Image.fromarray((pixels * 15.9).astype("uint8"))
    buffer, exif = io.BytesIO(), Image.Exif()
    if number % 4 == 1:
        Image.fromarray((pixels * 4095).astype("uint16")).save(buffer, "PNG")
    elif number % 4 == 2:
        exif[0x0112] = 6
        image.transpose(Image.Transpose.ROTATE_90).save(buffer, "PNG", exif=exif)
    elif number % 4 == 3:
        image.resize((36, 28)).convert("RGB").save(buffer, "JPEG", quality=95)
    else:
        image.save(buffer, "PNG")
    return buffer.getvalue()
