"""Matches annotation files to images by name and folder."""

from __future__ import annotations

import posixpath
from collections import defaultdict
from collections.abc import Collection

from airflow_provider_osai.data.annotations.bounding_box import InvalidAnnotation, ProblemKind, shown

__all__ = ["ImageIndex"]


class ImageIndex:
    """The images of a source, indexed by the names that annotations refer to.

    :param images: the relative names, with slashes.
    """

    def __init__(self, images: Collection[str]) -> None:
        self._images = frozenset(images)
        self._by_stem: defaultdict[str, list[str]] = defaultdict(list)
        self._by_labels: defaultdict[str, list[str]] = defaultdict(list)
        self._by_base: defaultdict[str, list[str]] = defaultdict(list)
        for image in sorted(images):
            stem = posixpath.splitext(image)[0]
            self._by_stem[stem].append(image)
            self._by_base[posixpath.basename(image)].append(image)
            parts = stem.split("/")
            if "images" in parts[:-1]:
                last = len(parts) - 2 - parts[-2::-1].index("images")
                self._by_labels["/".join([*parts[:last], "labels", *parts[last + 1 :]])].append(image)
        self._stems: defaultdict[str, list[str]] = defaultdict(list)
        for stem in self._by_stem:
            self._stems[posixpath.basename(stem)].append(stem)

    def find_for_yolo(self, name: str) -> list[str]:
        """Return the images with the stem of a YOLO label file: beside it, or in ``images/`` for ``labels/``."""
        stem = posixpath.splitext(name)[0]
        return [*self._by_stem.get(stem, ()), *self._by_labels.get(stem, ())]

    def find_for_voc(self, name: str) -> list[str]:
        """Return the images with the stem of a Pascal VOC file.

        They are beside it or, if it is in ``Annotations/``, beside that folder or in one of its sibling folders.
        """
        stem = posixpath.splitext(name)[0]
        if beside := self._by_stem.get(stem):
            return list(beside)
        parts = stem.split("/")
        folders = [part.lower() for part in parts[:-1]]
        if "annotations" not in folders:
            return []
        last = len(folders) - 1 - folders[::-1].index("annotations")
        prefix, suffix = parts[:last], parts[last + 1 :]
        return sorted(
            image
            for image_stem in self._stems.get(parts[-1], ())
            if (image_parts := image_stem.split("/"))[: len(prefix)] == prefix
            and image_parts[len(prefix) :][-len(suffix) :] == suffix
            and len(image_parts) - len(prefix) - len(suffix) in (0, 1)
            for image in self._by_stem[image_stem]
        )

    def find_by_name(self, file_name: str, annotation_file: str) -> str:
        """Return the image for a COCO ``file_name``.

        It is the path relative to the annotation file's folder, or else the end of exactly one image's path.

        :raises InvalidAnnotation: if no image matches, or several do.
        """
        slashed = file_name.replace("\\", "/")
        relative = posixpath.normpath(posixpath.join(posixpath.dirname(annotation_file), slashed))
        if relative in self._images:
            return relative
        path_end = posixpath.normpath(slashed)
        matches = [
            image
            for image in self._by_base.get(posixpath.basename(path_end), ())
            if image == path_end or image.endswith(f"/{path_end}")
        ]
        if not matches:
            raise InvalidAnnotation(f"image {shown(file_name)} not found", ProblemKind.IMAGE_NOT_FOUND)
        if len(matches) > 1:
            message = f"{shown(file_name)} matches several images: {shown(', '.join(matches))}"
            raise InvalidAnnotation(message, ProblemKind.SEVERAL_FILES)
        return matches[0]
