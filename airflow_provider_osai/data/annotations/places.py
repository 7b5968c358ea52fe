"""Where the image lies that an annotation speaks of."""

from __future__ import annotations

import posixpath
from collections import defaultdict
from collections.abc import Collection

from airflow_provider_osai.data.annotations.box import Unfit, shown

__all__ = ["Places"]


class Places:
    """The images of a source, by what annotations know of them.

    :param images: their relative names, with slashes.
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

    def of_yolo(self, name: str) -> list[str]:
        """Return the images that a file of labels may mean: its stem beside it, or in ``images/`` for ``labels/``."""
        stem = posixpath.splitext(name)[0]
        return [*self._by_stem.get(stem, ()), *self._by_labels.get(stem, ())]

    def of_voc(self, name: str) -> list[str]:
        """Return the images that a VOC file may mean.

        Its stem is beside it, or, for one in ``Annotations/``, beside that folder or in another one there.
        """
        stem = posixpath.splitext(name)[0]
        if beside := self._by_stem.get(stem):
            return list(beside)
        parts = stem.split("/")
        folders = [part.lower() for part in parts[:-1]]
        if "annotations" not in folders:
            return []
        last = len(folders) - 1 - folders[::-1].index("annotations")
        before, inner = parts[:last], parts[last + 1 :]
        return sorted(
            image
            for found in self._stems.get(parts[-1], ())
            if (there := found.split("/"))[: len(before)] == before
            and there[len(before) :][-len(inner) :] == inner
            and len(there) - len(before) - len(inner) in (0, 1)
            for image in self._by_stem[found]
        )

    def named(self, file_name: str, by: str) -> str:
        """Return the image that COCO calls *file_name* in the file *by*.

        That is the one at this place as seen from the file's folder; else the only one whose name ends so.

        :raises Unfit: if there is none, or more than one.
        """
        slashed = file_name.replace("\\", "/")
        beside = posixpath.normpath(posixpath.join(posixpath.dirname(by), slashed))
        if beside in self._images:
            return beside
        plain = posixpath.normpath(slashed)
        ends = [
            image
            for image in self._by_base.get(posixpath.basename(plain), ())
            if image == plain or image.endswith(f"/{plain}")
        ]
        if not ends:
            raise Unfit(f"the image {shown(file_name)} is not there")
        if len(ends) > 1:
            raise Unfit(f"{shown(file_name)} may be several images: {shown(', '.join(ends))}")
        return ends[0]
