"""A source of annotations in memory, or in a folder that another tool has filled."""

from __future__ import annotations

from pathlib import Path

from airflow_provider_osai.data.annotations import Annotations, read_annotations

IMAGES = (".jpg", ".png")


def reading(files: dict[str, bytes | str]) -> Annotations:
    """Read a source of these files; those that end as images are images."""
    texts = {name: data.encode() if isinstance(data, str) else data for name, data in files.items()}
    images = [name for name in texts if name.endswith(IMAGES)]
    sizes = {name: len(content) for name, content in texts.items() if name not in images}
    return read_annotations(sizes, images, texts.__getitem__)


def reading_folder(folder: Path) -> Annotations:
    """Read a folder."""
    return reading({str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()})


def problem(files: dict[str, bytes | str]) -> str:
    """Return the only problem of a source, after the name that it is told under."""
    ((name, reason),) = reading(files).problems.items()
    return f"{name}: {reason}"
