"""The upload example Dag: an archive with COCO annotations and one invalid file, and the training of a detector."""

from __future__ import annotations

import io
import json
import zipfile

import pytest
from PIL import Image

from tests.sandbox.client import Api


def test_the_example_uploads_an_archive_with_annotations(run_dag, connection, tmp_path, sandbox, logged):
    """The boxes are uploaded with their images, the README is ignored, and the invalid file is reported."""
    names = [f"images/{number}.png" for number in range(6)]
    buffer = io.BytesIO()
    Image.new("RGB", (40, 20), "grey").save(buffer, "PNG")
    images = [{"id": n, "file_name": f"{n}.png", "width": 40, "height": 20} for n in range(7)]
    boxes = [{"id": n, "image_id": n, "category_id": n % 2, "bbox": [4, 5, 8, 10]} for n in range(7)]
    categories = [{"id": 0, "name": "bolt"}, {"id": 1, "name": "nut"}]
    with zipfile.ZipFile(tmp_path / "parts.zip", "w") as archive:
        for name in names:
            archive.writestr(name, buffer.getvalue() + name.encode())
        archive.writestr("images/6.png", "no image")
        archive.writestr("README.md", "how it was made")
        archive.writestr(
            "images/labels.json", json.dumps({"images": images, "annotations": boxes, "categories": categories})
        )
    ran = run_dag("example_osai_upload", archive=str(tmp_path / "parts.zip"))
    assert ran.state == "success", ran.tasks
    result = ran.xcom("upload_images")
    assert (result["images"], result["categories"]) == (6, ["bolt", "nut"])
    assert list(result["invalid_files"]) == ["images/6.png"]
    with Api(sandbox) as api:
        uploaded = api.ok("GET", f"/Datasets/{result['dataset_id']}/Images")
    (box,) = uploaded[0]["annotations"]
    sides = [box[side] for side in ("x", "y", "width", "height")]
    assert sides == pytest.approx([0.1, 0.25, 0.2, 0.5])
