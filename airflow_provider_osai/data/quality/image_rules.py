"""The rules about single images and about duplicates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, Final, TypeAlias

from airflow_provider_osai.data.log_lines import join_limited, quoted
from airflow_provider_osai.data.quality.decoding import ImageFacts
from airflow_provider_osai.data.quality.duplicates import near_duplicate_groups, nearest
from airflow_provider_osai.data.quality.options import HASH_BITS, QualityOptions
from airflow_provider_osai.data.quality.report import FindingCollector
from airflow_provider_osai.data.scan import ImageFile, ScanResult

__all__ = ["Decoded", "check_duplicates", "check_holdout", "check_images"]

Decoded: TypeAlias = tuple[ImageFile, ImageFacts]
"""An image that was decoded, with its category and boxes."""
USUAL_MODES: Final = frozenset({"L", "LA", "P", "PA", "RGB", "RGBA"})
FORMATS_BY_SUFFIX: Final = {
    ".bmp": "BMP",
    ".gif": "GIF",
    ".jpeg": "JPEG",
    ".jpg": "JPEG",
    ".png": "PNG",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".webp": "WEBP",
}


def check_images(
    facts: Mapping[str, ImageFacts], scan: ScanResult, options: QualityOptions, found: FindingCollector
) -> None:
    """Check each image by itself."""
    for name, image in facts.items():
        if image.problem:
            found.add(image.problem, name, detail=image.reason)
            continue
        size = f"{image.width:,} x {image.height:,} pixels"
        if min(image.width, image.height) < options.min_side:
            found.add("image-too-small", name, detail=f"{size}, below {options.min_side}")
        if image.is_blank:
            found.add("blank-image", name)
        if image.mode not in USUAL_MODES:
            found.add("unusual-mode", name, detail=image.mode)
        if image.is_transparent:
            found.add("transparent-image", name, detail=image.mode)
        if image.is_animated:
            found.add("animated-image", name, detail=image.format)
        suffix = PurePosixPath(name).suffix.lower()
        if FORMATS_BY_SUFFIX.get(suffix) != image.format:
            found.add("format-mismatch", name, detail=f"the format is {image.format}")
        _check_size(name, image, scan, found)


def _check_size(name: str, image: ImageFacts, scan: ScanResult, found: FindingCollector) -> None:
    stored = image.width, image.height
    stated = scan.annotations.sizes.get(name)
    upright = stored[::-1] if image.orientation >= 5 else stored
    if stated not in (None, stored, upright):
        detail = f"stated {stated[0]:,} x {stated[1]:,}, but it is {stored[0]:,} x {stored[1]:,}" if stated else ""
        found.add("size-mismatch", name, detail=detail)
    elif image.orientation > 1 and scan.images[name].boxes:
        fits = "" if stated is None or stored == upright else "; the stated size is that of the "
        which = fits and ("stored image" if stated == stored else "rotated image")
        found.add("exif-rotation", name, detail=f"orientation {image.orientation}{fits}{which}")


def check_duplicates(images: Sequence[Decoded], options: QualityOptions, found: FindingCollector) -> None:
    """Find identical images and near-duplicates, and those of them that have different labels."""
    by_digest: dict[bytes, list[Decoded]] = {}
    for image in images:
        by_digest.setdefault(image[1].digest, []).append(image)
    for group in by_digest.values():
        if len(group) < 2 or _are_blank(group):
            continue
        if len({_label(image) for image, _ in group}) > 1:
            found.add("label-conflict", *_names(group), detail=_labels(group))
        else:
            found.add("duplicate-image", *_names(group))
    distinct = [group[0] for group in by_digest.values() if group[0][1].perceptual_hash]
    hashes = [facts.perceptual_hash for _, facts in distinct]
    for indices in near_duplicate_groups(hashes, options.max_hash_distance) if len(hashes) > 1 else ():
        group = [distinct[index] for index in indices]
        if len({image.category for image, _ in group}) > 1:
            found.add("near-label-conflict", *_names(group), detail=_labels(group))
        else:
            found.add("near-duplicate", *_names(group))


def check_holdout(
    images: Sequence[Decoded], holdout: Sequence[Decoded], options: QualityOptions, found: FindingCollector
) -> None:
    """Find images of the training data that are also in the holdout."""
    by_digest: dict[bytes, list[Decoded]] = {}
    for image in images:
        by_digest.setdefault(image[1].digest, []).append(image)
    others: list[Decoded] = []
    for image in holdout:
        if same := by_digest.get(image[1].digest):
            found.add("holdout-overlap", *_names(same), detail=_conflict([*same, image]), holdout_files=[image[0].name])
        elif image[1].perceptual_hash:
            others.append(image)
    hashed = [image for image in images if image[1].perceptual_hash]
    if not others or not hashed:
        return
    distances = nearest([facts.perceptual_hash for _, facts in others], [facts.perceptual_hash for _, facts in hashed])
    for image, (index, distance) in zip(others, distances, strict=True):
        if distance <= options.max_hash_distance:
            pair = [hashed[index], image]
            detail = "; ".join(filter(None, [f"{distance} of {HASH_BITS} bits differ", _conflict(pair)]))
            found.add("near-holdout-overlap", hashed[index][0].name, detail=detail, holdout_files=[image[0].name])


def _names(group: Sequence[Decoded]) -> list[str]:
    return [image.name for image, _ in group]


def _are_blank(group: Sequence[Decoded]) -> bool:
    return group[0][1].is_blank


def _label(image: ImageFile) -> Any:
    """Return what the image is said to show; boxes are rounded, because formats differ in precision."""
    boxes = {(box.category, *(round(side, 3) for side in (box.x, box.y, box.width, box.height))) for box in image.boxes}
    return image.category, frozenset(boxes)


def _labels(group: Sequence[Decoded]) -> str:
    labels = {image.category or ", ".join(sorted({box.category for box in image.boxes})) for image, _ in group}
    shown = [quoted(label) if label else "no boxes" for label in sorted(labels)]
    return join_limited(shown) if len(shown) > 1 else f"different boxes of {shown[0]}"


def _conflict(group: Sequence[Decoded]) -> str:
    return f"different labels: {_labels(group)}" if len({_label(image) for image, _ in group}) > 1 else ""
