"""Reads the annotation files of a source; format and image are determined by name and content, never guessed."""

from __future__ import annotations

import posixpath
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from airflow_provider_osai.data.annotations import class_names, coco, voc, yolo
from airflow_provider_osai.data.annotations.bounding_box import (
    Box,
    InvalidAnnotation,
    ProblemCount,
    ProblemKind,
    Problems,
    reject,
    shown,
)
from airflow_provider_osai.data.annotations.image_matching import ImageIndex

__all__ = ["Annotations", "max_size", "read_annotations"]

MAX_JSON_SIZE: Final = 256 << 20
MAX_CLASSES_SIZE: Final = 1 << 20
MAX_OTHER_SIZE: Final = 4 << 20


@dataclass(frozen=True, slots=True)
class Annotations:
    """The annotations of a source.

    :param boxes: the boxes of each annotated image; an empty tuple for an image annotated as having no objects.
    :param categories: the declared and used categories, sorted.
    :param files: the annotation files and class lists, including those with problems.
    :param problems: the problems by file or image.
    :param problem_kinds: the problems by file or image, and by kind.
    :param incomplete_by_file: the images with rejected boxes, by annotation file; their other boxes are in *boxes*.
    :param sizes: width and height in pixels of each image for which an annotation file states them (COCO, VOC).
    :param unclear: images without boxes of a file with a rejected box of an unknown image.
    """

    boxes: Mapping[str, tuple[Box, ...]]
    categories: tuple[str, ...]
    files: frozenset[str]
    problems: Mapping[str, str]
    problem_kinds: Mapping[str, Mapping[ProblemKind, ProblemCount]] = field(default_factory=dict)
    incomplete_by_file: Mapping[str, frozenset[str]] = field(default_factory=dict)
    sizes: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    unclear: frozenset[str] = frozenset()

    @property
    def incomplete(self) -> frozenset[str]:
        """The images with rejected boxes."""
        return frozenset().union(*self.incomplete_by_file.values())


def max_size(name: str) -> int:
    """Return the maximum bytes of a file of this name: JSON 256 MiB, YAML and class lists 1 MiB, others 4 MiB."""
    if name.lower().endswith(".json"):
        return MAX_JSON_SIZE
    return MAX_CLASSES_SIZE if class_names.is_list(name) or class_names.is_yaml(name) else MAX_OTHER_SIZE


def read_annotations(sizes: Mapping[str, int], images: Collection[str], read: Callable[[str], bytes]) -> Annotations:
    """Read the COCO, YOLO and Pascal VOC annotations of a source.

    :param sizes: the bytes of all files other than images, by their relative names with slashes. A file larger than
        :func:`max_size` is a problem and is not read.
    :param images: the relative names of the images.
    :param read: returns the content of a file.
    """
    loader = _Loader(images, read, sizes)
    names = sorted(sizes)
    for name in names:
        if class_names.is_list(name) or class_names.is_yaml(name):
            loader.load(loader.class_list, name)
    for name in names:
        lower = name.lower()
        if lower.endswith(".json"):
            loader.load(loader.json, name)
        elif lower.endswith(".xml"):
            loader.load(loader.xml, name)
        elif lower.endswith(".txt") and not class_names.is_list(name):
            loader.load(loader.text, name)
    return loader.annotations()


class _Loader:
    def __init__(self, images: Collection[str], read: Callable[[str], bytes], sizes: Mapping[str, int]) -> None:
        self._read = read
        self._sizes = sizes
        self._images = ImageIndex(images)
        self._boxes: defaultdict[str, dict[str, tuple[Box, ...]]] = defaultdict(dict)
        self._class_lists: dict[str, dict[int, str]] = {}
        self._categories: set[str] = set()
        self._files: set[str] = set()
        self._without_classes: list[str] = []
        self._images_without_classes: set[str] = set()
        self._problems = Problems()
        self._incomplete: dict[str, frozenset[str]] = {}
        self._unclear: set[str] = set()
        self._stated_sizes: dict[str, tuple[int, int]] = {}

    def load(self, parse: Callable[[str, bytes], None], name: str) -> None:
        """Read and parse a file; an invalid file becomes a problem."""
        try:
            if self._sizes[name] > max_size(name):
                reject(f"larger than {max_size(name):,} bytes")
            parse(name, self._read(name))
        except InvalidAnnotation as error:
            self._files.add(name)
            self._problems.add(name, error)

    def class_list(self, name: str, data: bytes) -> None:
        classes = class_names.parse_list(data) if class_names.is_list(name) else class_names.parse_yaml(data)
        if classes is not None:
            self._files.add(name)
            self._class_lists[name] = classes
            self._categories |= set(classes.values())

    def json(self, name: str, data: bytes) -> None:
        document = coco.parse(data)
        if document is None:
            return
        self._files.add(name)
        found = coco.boxes(
            document, lambda file_name: self._images.find_by_name(file_name, name), partial(self._problems.add, name)
        )
        for image, boxes in found.boxes.items():
            self._boxes[image][name] = boxes
        if found.incomplete:
            self._incomplete[name] = found.incomplete
        self._unclear |= found.unclear
        self._stated_sizes |= found.sizes
        self._categories |= set(coco.categories(document, lambda _: None).values())

    def xml(self, name: str, data: bytes) -> None:
        document = voc.parse(data)
        if document.root != "annotation":
            return
        self._files.add(name)
        candidates = self._images.find_for_voc(name)
        if len(candidates) > 1:
            file_name = posixpath.basename((document.single("filename") or "").replace("\\", "/"))
            candidates = [image for image in candidates if posixpath.basename(image) == file_name] or candidates
        problems: list[InvalidAnnotation] = []
        image = _single(candidates)
        self._boxes[image][name] = voc.boxes(document, problems)
        if size := voc.size(document):
            self._stated_sizes[image] = size
        self._add_all(name, image, problems)

    def text(self, name: str, data: bytes) -> None:
        candidates = self._images.find_for_yolo(name)
        if not candidates and not yolo.looks_like_labels(data):
            return
        self._files.add(name)
        image = _single(candidates)
        classes = self._classes_for(name)
        if classes is None and data.strip():
            self._without_classes.append(name)
            self._images_without_classes.add(image)
            return
        problems: list[InvalidAnnotation] = []
        self._boxes[image][name] = yolo.parse(data, classes or {}, problems)
        self._add_all(name, image, problems)

    def annotations(self) -> Annotations:
        """Return the result; an image that several files annotate is a problem."""
        if self._without_classes:
            first, *others = self._without_classes
            also = f"; the same applies to {len(others):,} more files" if others else ""
            message = f"no class list (classes.txt, *.names or YAML with names) in its folder or above{also}"
            self._problems.add(first, InvalidAnnotation(message))
            self._incomplete[first] = frozenset(self._images_without_classes)
        boxes: dict[str, tuple[Box, ...]] = {}
        for image, by_file in sorted(self._boxes.items()):
            if len(by_file) > 1:
                message = f"annotated by several files, keep one: {', '.join(sorted(by_file))}"
                self._problems.add(image, InvalidAnnotation(message, ProblemKind.SEVERAL_FILES))
            else:
                (boxes[image],) = by_file.values()
        used = {box.category for image_boxes in boxes.values() for box in image_boxes}
        categories = tuple(sorted(self._categories | used))
        return Annotations(
            boxes,
            categories,
            frozenset(self._files),
            self._problems.messages(),
            self._problems.kinds(),
            self._incomplete,
            self._stated_sizes,
            frozenset(self._unclear),
        )

    def _classes_for(self, name: str) -> dict[int, str] | None:
        """Return the classes of the lists in a file's folder and above, which must be equal."""
        folders = {"", *_parents(name)}
        lists = [(file, classes) for file, classes in self._class_lists.items() if posixpath.dirname(file) in folders]
        if any(classes != lists[0][1] for _, classes in lists):
            raise InvalidAnnotation(
                f"different class lists in its folder or above: {', '.join(file for file, _ in lists)}"
            )
        return lists[0][1] if lists else None

    def _add_all(self, name: str, image: str, problems: list[InvalidAnnotation]) -> None:
        if problems:
            self._incomplete[name] = frozenset({image})
        for problem in problems:
            self._problems.add(name, problem)


def _parents(name: str) -> list[str]:
    folders = []
    while name := posixpath.dirname(name):
        folders.append(name)
    return folders


def _single(candidates: Sequence[str]) -> str:
    if not candidates:
        raise InvalidAnnotation("image not found", ProblemKind.IMAGE_NOT_FOUND)
    if len(candidates) > 1:
        message = f"it matches several images: {shown(', '.join(candidates))}"
        raise InvalidAnnotation(message, ProblemKind.SEVERAL_FILES)
    return candidates[0]
