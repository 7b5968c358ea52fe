"""Which files are annotations, of which images, and in which format: found by name and content, never guessed."""

from __future__ import annotations

import posixpath
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from airflow_provider_osai.data.annotations import classes, coco, voc, yolo
from airflow_provider_osai.data.annotations.box import Box, Problems, Unfit, refuse, shown
from airflow_provider_osai.data.annotations.places import Places

__all__ = ["Annotations", "largest", "read_annotations"]

LARGEST_JSON: Final = 256 << 20
LARGEST: Final = 4 << 20
LARGEST_CLASSES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Annotations:
    """What the annotation files of a source say.

    :param boxes: the boxes of each image that they speak of; none, if they say that nothing is on it.
    :param categories: the classes that are declared or in use, sorted.
    :param files: the files that are annotations or lists of classes, those with problems included.
    :param problems: what is wrong, by file or image.
    """

    boxes: Mapping[str, tuple[Box, ...]]
    categories: tuple[str, ...]
    files: frozenset[str]
    problems: Mapping[str, str]


def largest(name: str) -> int:
    """Return the bytes that an annotation file of this name may have: 256 MiB for JSON, 4 MiB, 1 MiB for classes."""
    if name.lower().endswith(".json"):
        return LARGEST_JSON
    return LARGEST_CLASSES if classes.is_list(name) or classes.is_yaml(name) else LARGEST


def read_annotations(sizes: Mapping[str, int], images: Collection[str], read: Callable[[str], bytes]) -> Annotations:
    """Read the annotations that lie beside images, in COCO's, YOLO's and Pascal VOC's formats.

    :param sizes: of all files that are no images, in bytes, by their relative names with slashes. One that is larger
        than :func:`largest` is a problem, and is not read.
    :param images: those of the images.
    :param read: returns one file's bytes.
    """
    reading, names = _Reading(images, read, sizes), sorted(sizes)
    for name in names:
        if classes.is_list(name) or classes.is_yaml(name):
            reading.guarded(reading.class_list, name)
    for name in names:
        lower = name.lower()
        if lower.endswith(".json"):
            reading.guarded(reading.json, name)
        elif lower.endswith(".xml"):
            reading.guarded(reading.xml, name)
        elif lower.endswith(".txt") and not classes.is_list(name):
            reading.guarded(reading.text, name)
    return reading.annotations()


class _Reading:
    def __init__(self, images: Collection[str], read: Callable[[str], bytes], sizes: Mapping[str, int]) -> None:
        self._read, self._sizes, self._places = read, sizes, Places(images)
        self._found: defaultdict[str, dict[str, tuple[Box, ...]]] = defaultdict(dict)
        self._lists: dict[str, dict[int, str]] = {}
        self._categories: set[str] = set()
        self._files: set[str] = set()
        self._without_classes: list[str] = []
        self._problems = Problems()

    def guarded(self, step: Callable[[str, bytes], None], name: str) -> None:
        """Read one file; what cannot be read is a problem of it, and the others go on."""
        try:
            if self._sizes[name] > largest(name):
                refuse(f"it is larger than {largest(name):,} bytes")
            step(name, self._read(name))
        except Unfit as error:
            self._files.add(name)
            self._problems.add(name, str(error))

    def class_list(self, name: str, data: bytes) -> None:
        found = classes.parse_list(data) if classes.is_list(name) else classes.parse_yaml(data)
        if found is not None:
            self._files.add(name)
            self._lists[name] = found
            self._categories |= set(found.values())

    def json(self, name: str, data: bytes) -> None:
        document = coco.parse(data)
        if document is None:
            return
        self._files.add(name)
        add = self._adder(name)
        for image, boxes in coco.boxes(document, lambda file: self._places.named(file, name), add).items():
            self._found[image][name] = boxes
        self._categories |= set(coco.categories(document, lambda _: None).values())

    def xml(self, name: str, data: bytes) -> None:
        document = voc.parse(data)
        if document.root != "annotation":
            return
        self._files.add(name)
        candidates = self._places.of_voc(name)
        if len(candidates) > 1:
            stated = posixpath.basename((document.one("filename") or "").replace("\\", "/"))
            candidates = [image for image in candidates if posixpath.basename(image) == stated] or candidates
        problems: list[str] = []
        self._found[_only(candidates)][name] = voc.boxes(document, problems)
        self._add_all(name, problems)

    def text(self, name: str, data: bytes) -> None:
        candidates = self._places.of_yolo(name)
        if not candidates and not yolo.looks_like_labels(data):
            return
        self._files.add(name)
        image = _only(candidates)
        known = self._classes_for(name)
        if known is None and data.strip():
            self._without_classes.append(name)
            return
        problems: list[str] = []
        self._found[image][name] = yolo.parse(data, known or {}, problems)
        self._add_all(name, problems)

    def annotations(self) -> Annotations:
        """Return all that was found, once each image is known to be spoken of by one file only."""
        if self._without_classes:
            first, *others = self._without_classes
            also = f"; the same is true of {len(others):,} more files" if others else ""
            self._problems.add(
                first, f"no list of classes (classes.txt, *.names or YAML with names) is beside it or above it{also}"
            )
        boxes: dict[str, tuple[Box, ...]] = {}
        for image, by_file in sorted(self._found.items()):
            if len(by_file) > 1:
                self._problems.add(image, f"it is annotated by several files, keep one: {', '.join(sorted(by_file))}")
            else:
                (boxes[image],) = by_file.values()
        used = {box.category for those in boxes.values() for box in those}
        categories = tuple(sorted(self._categories | used))
        return Annotations(boxes, categories, frozenset(self._files), self._problems.sentences())

    def _classes_for(self, name: str) -> dict[int, str] | None:
        """Return the classes that all lists beside a file and above it agree on."""
        folders = {"", *_parents(name)}
        lists = [(file, known) for file, known in self._lists.items() if posixpath.dirname(file) in folders]
        if any(known != lists[0][1] for _, known in lists):
            raise Unfit(f"the lists of classes beside it and above it differ: {', '.join(file for file, _ in lists)}")
        return lists[0][1] if lists else None

    def _adder(self, name: str) -> Callable[[str], None]:
        return lambda reason: self._problems.add(name, reason)

    def _add_all(self, name: str, problems: list[str]) -> None:
        for problem in problems:
            self._problems.add(name, problem)


def _parents(name: str) -> list[str]:
    folders = []
    while name := posixpath.dirname(name):
        folders.append(name)
    return folders


def _only(candidates: Sequence[str]) -> str:
    if not candidates:
        raise Unfit("the image that it speaks of is not there")
    if len(candidates) > 1:
        raise Unfit(f"it may speak of several images: {shown(', '.join(candidates))}")
    return candidates[0]
