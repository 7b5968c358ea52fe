"""The rules about categories, annotations and invalid files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import PurePosixPath
from typing import Final

from airflow_provider_osai.data.annotations.bounding_box import ProblemKind
from airflow_provider_osai.data.images import looks_like_image
from airflow_provider_osai.data.log_lines import join_limited, plural, quoted
from airflow_provider_osai.data.quality.decoding import ImageFacts
from airflow_provider_osai.data.quality.options import QualityOptions
from airflow_provider_osai.data.quality.report import FindingCollector
from airflow_provider_osai.data.scan import EMPTY_FILE, NOT_AN_IMAGE, ImageFile, ScanResult

__all__ = ["check_annotations", "check_categories", "check_holdout", "check_invalid_files"]

CODES: Final = {
    ProblemKind.BOX_OUTSIDE: "box-outside",
    ProblemKind.DEGENERATE_BOX: "degenerate-box",
    ProblemKind.DUPLICATE_BOX: "duplicate-box",
    ProblemKind.IMAGE_NOT_FOUND: "annotation-without-image",
    ProblemKind.INVALID: "invalid-annotation",
    ProblemKind.SEVERAL_FILES: "several-annotations",
    ProblemKind.UNKNOWN_CLASS: "unknown-class",
}
UNSUPPORTED_SUFFIXES: Final = frozenset(
    {".arw", ".avif", ".cr2", ".cr3", ".dng", ".heic", ".heif", ".ico", ".j2k", ".jp2", ".jxl", ".nef", ".orf"}
    | {".pbm", ".pgm", ".pnm", ".ppm", ".psd", ".raw", ".svg", ".tga"}
)
"""Suffixes of image formats that an upload rejects."""


def check_invalid_files(scan: ScanResult, found: FindingCollector) -> None:
    """Sort the invalid files of a scan by what is wrong with them."""
    for name, reason in scan.invalid_files.items():
        kinds = scan.annotations.problem_kinds.get(name)
        for kind, problem in (kinds or {}).items():
            more = f" (and {problem.number - 1:,} more)" if problem.number > 1 else ""
            found.add(CODES[kind], name, detail=f"{problem.first}{more}")
            found.mark(CODES[kind], scan.annotations.incomplete_by_file.get(name, ()))
        if not kinds:
            code = _code(name, reason)
            found.add(code, name, detail="" if code == "empty-file" else reason)


def _code(name: str, reason: str) -> str:
    if reason == EMPTY_FILE:
        return "empty-file"
    is_other_image = PurePosixPath(name).suffix.lower() in UNSUPPORTED_SUFFIXES and not looks_like_image(name)
    return "unsupported-format" if reason == NOT_AN_IMAGE or is_other_image else "invalid-file"


def check_categories(
    scan: ScanResult, facts: Mapping[str, ImageFacts], options: QualityOptions, found: FindingCollector
) -> None:
    """Check the number of images of each category, the names, and whether anything but the content tells them apart."""
    counts = scan.counts({name for name, image in facts.items() if image.problem})
    all_counts = scan.counts()
    uncertain = _uncertain_categories(scan)
    for category, count in counts.items():
        if count < options.min_images and category not in uncertain:
            which = "" if count == all_counts[category] else " that can be decoded"
            detail = f"{quoted(category)} has {plural(count, 'image')}{which}, fewer than {options.min_images}"
            found.add("few-images", detail=detail)
    present = {category: count for category, count in counts.items() if count}
    if present:
        largest = max(present, key=lambda category: present[category])
        for category, count in sorted(present.items(), key=lambda entry: entry[1]):
            if present[largest] > count * options.max_imbalance:
                ratio = f"{present[largest] / count:.1f} times as many, more than {options.max_imbalance:g}"
                pair = [_counted(name, present[name], all_counts[name]) for name in (category, largest)]
                detail = f"{', '.join(pair)}: {ratio}"
                found.add("imbalance", detail=detail)
    if len(present) == 1 and not any(image.boxes for image in scan.images.values()):
        found.add("one-category", detail=quoted(next(iter(present))))
    for folder, category in sorted(scan.nested.items()):
        found.add("nested-folders", detail=f"{quoted(folder)} is {quoted(category)}")
    _check_names(counts, found)
    _check_shortcuts(scan, facts, options, found)


def _counted(category: str, count: int, of: int) -> str:
    return f"{quoted(category)} has {count:,}{'' if count == of else ' that can be decoded'}"


def _uncertain_categories(scan: ScanResult) -> set[str]:
    """Return the categories that may have more images when the invalid annotations are corrected."""
    if not scan.annotations.problems:
        return set()
    return {box.category for image in scan.images.values() if not image.category for box in image.boxes}


def _check_names(counts: Mapping[str, int], found: FindingCollector) -> None:
    similar: dict[str, list[str]] = {}
    for category in counts:
        key = "".join(char for char in category.casefold() if char.isalnum())
        similar.setdefault(key or category, []).append(category)
    for names in similar.values():
        if len(names) > 1:
            found.add("similar-categories", detail=join_limited(map(quoted, names)))


def _check_shortcuts(
    scan: ScanResult, facts: Mapping[str, ImageFacts], options: QualityOptions, found: FindingCollector
) -> None:
    """Find properties of files that are equal within each category, and differ between categories."""
    by_category: dict[str, list[ImageFacts]] = {}
    for name, image in facts.items():
        if not image.problem and (category := scan.images[name].category):
            by_category.setdefault(category, []).append(image)
    enough = {name: images for name, images in by_category.items() if len(images) >= max(options.min_images, 2)}
    properties: dict[str, Callable[[ImageFacts], str]] = {
        "format": lambda image: image.format,
        "colour mode": lambda image: image.mode,
        "size": lambda image: f"{image.width} x {image.height}",
    }
    for what, value_of in properties.items():
        values = {name: {value_of(image) for image in images} for name, images in enough.items()}
        distinct = set().union(*values.values()) if values else set()
        if len(distinct) > 1 and all(len(each) == 1 for each in values.values()):
            pairs = join_limited(f"{quoted(name)} is {next(iter(each))}" for name, each in sorted(values.items()))
            found.add("category-shortcut", detail=f"{what}: {pairs}")


def check_annotations(
    scan: ScanResult, facts: Mapping[str, ImageFacts], options: QualityOptions, found: FindingCollector
) -> None:
    """Check which images and classes have annotations, and the size of boxes."""
    annotations = scan.annotations
    if not annotations.boxes:
        return
    unknown = annotations.incomplete | annotations.unclear
    for name, image in scan.images.items():
        if not image.boxes:
            if name in unknown:
                continue
            code = "image-without-boxes" if name in annotations.boxes else "image-without-annotation"
            found.add(code, name, detail=f"category {quoted(image.category or '')}")
        elif (decoded := facts.get(name)) and not decoded.problem:
            _check_box_sizes(image, decoded, options, found)
    used = {box.category for boxes in annotations.boxes.values() for box in boxes}
    for category in annotations.categories:
        if category not in used:
            found.add("unused-class", detail=quoted(category))


def _check_box_sizes(image: ImageFile, facts: ImageFacts, options: QualityOptions, found: FindingCollector) -> None:
    width, height = facts.width, facts.height
    if facts.orientation >= 5:  # it is not known which of the two the boxes refer to
        width = height = max(width, height)
    sides = [(box.width * width, box.height * height) for box in image.boxes]
    if tiny := [side for side in sides if min(side) < options.min_box_side]:
        smallest = min(tiny, key=min)
        more = f" (and {len(tiny) - 1:,} more)" if len(tiny) > 1 else ""
        found.add("tiny-box", image.name, detail=f"{smallest[0]:.1f} x {smallest[1]:.1f} pixels{more}")


def check_holdout(
    scan: ScanResult, holdout: ScanResult, facts: Mapping[str, ImageFacts], found: FindingCollector
) -> None:
    """Check the categories and the images of the holdout.

    :param facts: the images of the holdout.
    """
    for category in sorted(set(holdout.counts()) - set(scan.counts())):
        found.add("holdout-category", detail=quoted(category))
    for name, reason in holdout.invalid_files.items():
        found.add("invalid-file", detail=reason, holdout_files=[name])
    for name, image in facts.items():
        if image.problem:
            found.add(image.problem, detail=image.reason, holdout_files=[name])
