"""Image annotations: parsers for COCO, YOLO and Pascal VOC that return boxes in fractions of the image.

Belongs here: the formats, and matching annotation files to images. Does not: Airflow, HTTP.
"""

from __future__ import annotations

from airflow_provider_osai.data.annotations.bounding_box import Box
from airflow_provider_osai.data.annotations.loader import Annotations, max_size, read_annotations

__all__ = ["Annotations", "Box", "max_size", "read_annotations"]
