"""Helpers to read annotations from memory or from a folder."""

from __future__ import annotations

from pathlib import Path

from airflow_provider_osai.data.annotations import Annotations, read_annotations

IMAGES = (".jpg", ".png")


def read_files(files: dict[str, bytes | str]) -> Annotations:
    """Read the annotations among files in memory; the suffix tells the images."""
    contents = {name: data.encode() if isinstance(data, str) else data for name, data in files.items()}
    images = [name for name in contents if name.endswith(IMAGES)]
    sizes = {name: len(content) for name, content in contents.items() if name not in images}
    return read_annotations(sizes, images, contents.__getitem__)


def read_folder(folder: Path) -> Annotations:
    return read_files({str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()})


def problem(files: dict[str, bytes | str]) -> str:
    """Return the only problem of a source as ``name: reason``."""
    ((name, reason),) = read_files(files).problems.items()
    return f"{name}: {reason}"
