"""Render the templates of the pages; every value is escaped."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from airflow_provider_osai.jobs.remaining_time import format_duration

__all__ = ["format_number", "render", "task_path"]

TEMPLATES: Final = Path(__file__).parent / "templates"
MAX_TEXT: Final = 2_000
"""Maximum characters of a text from OSAI or from a Dag on a page."""


def render(template: str, **values: Any) -> str:
    """Return a page as HTML.

    :param template: name of the template.
    :param values: the template variables. All text is escaped.
    """
    # A lone surrogate, which JSON allows, cannot be sent.
    return _environment().get_template(template).render(values).encode("utf-8", "replace").decode()


def format_number(value: Any) -> str:
    """Return a number with at most five significant digits, and any other value as text."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return _text(value)
    if isinstance(value, int) or (value.is_integer() and abs(value) < 1e15):
        return f"{int(value):,}" if abs(value) < 1e15 else f"{value:.5g}"
    return f"{value:.5g}"


def task_path(dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> str:
    """Return the path of a task instance in Airflow's UI, relative to its root."""
    path = f"dags/{_quote(dag_id)}/runs/{_quote(run_id)}/tasks/{_quote(task_id)}"
    return path if map_index < 0 else f"{path}/mapped/{map_index}"


def _quote(part: str) -> str:
    return quote(part, safe="")


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "duration": _duration,
        "json": _json,
        "number": format_number,
        "path": _quote,
        "text": _text,
        "time": _time,
        "words": lambda name: str(name).replace("_", " "),
    }
    environment.globals["task_path"] = task_path
    return environment


def _duration(seconds: float | None) -> str:
    """Return a duration such as ``12 min``; empty for an unknown or impossible one."""
    return "" if seconds is None or not 0 <= seconds < math.inf else format_duration(seconds)


def _time(value: Any) -> Markup | str:
    """Return a ``<time>`` element, which the script shows in Airflow's timezone; other text as it is.

    A time without a timezone is text, since nobody can tell which time it is.
    """
    try:
        time = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
        utc = time.astimezone(UTC) if time.tzinfo else None
    except (ValueError, OverflowError):
        utc = None
    if utc is None:
        return _text(value or "")
    return Markup('<time datetime="{}">{}</time>').format(utc.isoformat(), f"{utc:%Y-%m-%d %H:%M:%S} UTC")


def _text(value: Any) -> str:
    """Return any value as a text of limited length; containers as JSON."""
    if isinstance(value, (Mapping, Sequence)) and not isinstance(value, str):
        value = json.dumps(value, default=str, ensure_ascii=False)
    text = "".join(char if char.isprintable() or char in "\n\t" else "\N{REPLACEMENT CHARACTER}" for char in str(value))
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}..."


def _json(value: Any) -> str:
    """Return strict JSON for a data attribute; NaN and infinities become ``null``."""
    return json.dumps(_finite(value), default=str)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value
