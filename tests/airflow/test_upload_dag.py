"""The upload example: an archive with COCO annotations, one bad file in it, and a detector of what is good."""

from __future__ import annotations

import io
import json
import zipfile

import pytest
from PIL import Image

from tests.sandbox.client import Api


def test_the_example_brings_an_archive_with_annotations_in(run_dag, connection, tmp_path, sandbox, logged):
    """The boxes travel with their images, the README is left alone, and the bad file is named."""
    names = [f"images/{number}.png" for number in range(6)]
    buffer = io.BytesIO()
    Image.new("RGB", (40, 20), "grey").save(buffer, "PNG")
    images = [{"id": n, "file_name": f"{n}.png", "width": 40, "height": 20} for n in range(7)]
    boxes = [{"id": n, "image_id": n, "category_id": n % 2, "bbox": [4, 5, 8, 10]} for n in range(7)]
    kinds = [{"id": 0, "name": "bolt"}, {"id": 1, "name": "nut"}]
    with zipfile.ZipFile(tmp_path / "parts.zip", "w") as archive:
        for name in names:
            archive.writestr(name, buffer.getvalue() + name.encode())
        archive.writestr("images/6.png", "no image")
        archive.writestr("README.md", "how it was made")
        archive.writestr(
            "images/labels.json", json.dumps({"images": images, "annotations": boxes, "categories": kinds})
        )
    ran = run_dag("example_osai_upload", archive=str(tmp_path / "parts.zip"))
    assert ran.state == "success", ran.tasks
    told = ran.xcom("upload_images")
    assert (told["images"], told["categories"]) == (6, ["bolt", "nut"])
    assert list(told["bad"]) == ["images/6.png"]
    with Api(sandbox) as api:
        there = api.ok("GET", f"/Datasets/{told['dataset_id']}/Images")
    (box,) = there[0]["annotations"]
    found = [box[side] for side in ("x", "y", "width", "height")]
    assert found == pytest.approx([0.1, 0.25, 0.2, 0.5])
