"""Annotations of images: whatever format they come in, they leave as boxes in fractions of the image.

May live here: the formats (COCO, YOLO, Pascal VOC), and which file speaks of which image. May not: Airflow, HTTP.
"""

from __future__ import annotations

from airflow_provider_osai.data.annotations.box import Box
from airflow_provider_osai.data.annotations.reading import Annotations, largest, read_annotations

__all__ = ["Annotations", "Box", "largest", "read_annotations"]
