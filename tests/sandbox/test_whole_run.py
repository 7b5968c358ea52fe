"""From images to a converted model that says the same: the whole road, over HTTP."""

from __future__ import annotations

import numpy as np
import onnxruntime
from PIL import Image
from sklearn.datasets import load_digits

from tests.sandbox.client import encoded

COUNT = 500


def test_digits_are_uploaded_trained_converted_downloaded_and_predicted(api):
    """Everything here is real: the files, the training, the model that is downloaded."""
    data = load_digits()
    pixels = [(image * 15.9).astype("uint8") for image in data.images[:COUNT]]
    names = [str(name) for name in data.target[:COUNT]]
    files = [encoded(Image.fromarray(one)) for one in pixels]
    dataset_id = api.dataset({k: [f for f, n in zip(files, names, strict=True) if n == k] for k in sorted(set(names))})
    training = api.train(dataset_id)
    model_id = training["result"]["modelId"]
    assert training["result"]["metrics"]["accuracy"] >= 0.85

    assert api.run("Conversions", modelId=model_id, target="onnx")["status"] == "succeeded"
    answer = api.get(f"/Models/{model_id}/Download", params={"target": "onnx"})
    session = onnxruntime.InferenceSession(answer.content, providers=["CPUExecutionProvider"])
    labels, _ = session.run(None, {"pixels": np.asarray(pixels, dtype=np.float32).reshape(COUNT, -1)})
    assert np.mean(np.asarray(names) == labels) >= 0.95

    fresh = api.dataset({"": files[:50]})
    assert api.run("Predictions", modelId=model_id, datasetId=fresh, minConfidence=0)["status"] == "succeeded"
    said = [image["labels"][0]["name"] for image in api.sandbox.control.images(fresh)]
    assert said == list(labels[:50])
