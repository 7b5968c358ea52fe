"""The report of a data quality check as one HTML page: no scripts, nothing loaded, every text escaped."""

from __future__ import annotations

import base64
import contextlib
import io
from collections.abc import Collection, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from airflow_provider_osai.data.log_lines import size_text
from airflow_provider_osai.data.quality.decoding import scaled_down
from airflow_provider_osai.data.quality.options import MAX_PIXELS
from airflow_provider_osai.data.quality.report import QualityReport, printable
from airflow_provider_osai.data.sources import Source

__all__ = ["html_report", "thumbnails"]

TEMPLATES: Final = Path(__file__).parent
THUMBNAIL_SIDE: Final = 112
MAX_THUMBNAILS: Final = 300
"""Maximum number of thumbnails in a page; about 3 kB each."""
WITH_THUMBNAILS: Final = frozenset(
    {"blank-image", "duplicate-image", "holdout-overlap", "image-too-small", "label-conflict", "near-duplicate"}
    | {"near-holdout-overlap", "near-label-conflict"}
)
"""Codes of findings that one understands by looking at the images."""


def html_report(report: QualityReport, source: Source, holdout: Source | None, now: datetime) -> str:
    """Return the report as an HTML page with small images of duplicates.

    :param source: the source that was checked; the images that are shown are read again.
    :param holdout: the holdout, if there was one.
    :param now: the date on the page.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # a dependency of Airflow; only this needs it

    shown = [item for finding in report.findings if finding.code in WITH_THUMBNAILS for item in finding.items]
    pictures = thumbnails(source, list(dict.fromkeys(name for item in shown for name in item.files)))
    of_holdout: Mapping[str, str] = {}
    if holdout is not None:
        names = list(dict.fromkeys(name for item in shown for name in item.holdout_files))
        of_holdout = thumbnails(holdout, names, MAX_THUMBNAILS - len(pictures))
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters |= {"printable": printable, "size_text": size_text}
    page = environment.get_template("report.html").render(
        report=report,
        thumbnails=pictures,
        holdout_thumbnails=of_holdout,
        with_thumbnails=WITH_THUMBNAILS,
        date=f"{now:%Y-%m-%d %H:%M}",
    )
    return page.encode("utf-8", "replace").decode()


def thumbnails(source: Source, names: Collection[str], limit: int = MAX_THUMBNAILS) -> Mapping[str, str]:
    """Return small JPEG images as ``data:`` addresses by name; an image that cannot be decoded is left out.

    :param limit: maximum number of thumbnails.
    """
    wanted = set(list(names)[: max(0, limit)])
    found: dict[str, str] = {}
    if not wanted:
        return found
    for name, opener in source.walk(wanted):
        # Pillow raises many types for broken images, and a file may have changed
        with contextlib.suppress(Exception), opener() as file:
            found[name] = _thumbnail(file)
    return found


def _thumbnail(file: Any) -> str:
    from PIL import Image

    from airflow_provider_osai.data.quality.decoding import FORMATS

    with Image.open(file, formats=FORMATS) as image:
        if image.width * image.height > MAX_PIXELS:
            raise ValueError("too large")
        small = scaled_down(image, THUMBNAIL_SIDE)
    small.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    content = io.BytesIO()
    small.save(content, "JPEG", quality=70)
    return f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}"
