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

__all__ = ["format_duration", "format_number", "parse_time", "render", "task_path"]

TEMPLATES: Final = Path(__file__).parent / "templates"
MAX_TEXT: Final = 2_000
"""Maximum characters of a text from OSAI or from a Dag on a page."""
MINUTE: Final = 60.0
HOUR: Final = 3600.0


def render(template: str, **values: Any) -> str:
    """Return a page as HTML.

    :param template: name of the template.
    :param values: what the template uses. Text is escaped, whoever wrote it.
    """
    # A lone surrogate, which JSON allows, cannot be sent.
    return _environment().get_template(template).render(values).encode("utf-8", "replace").decode()


def parse_time(text: Any) -> datetime | None:
    """Return a time with a timezone; ``None`` for any other value, such as a time whose timezone is unknown."""
    if isinstance(text, datetime):
        return text if text.tzinfo else None
    try:
        time = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return time if time.tzinfo else None


def format_duration(seconds: float | None) -> str:
    """Return a duration such as ``12.3 s``, ``4 min 05 s``, ``2 h 03 min``; empty for an unknown or negative one."""
    if seconds is None or not math.isfinite(seconds) or seconds < 0:
        return ""
    if seconds < MINUTE:
        return f"{seconds:.1f} s"
    if seconds < HOUR:
        return f"{int(seconds // 60)} min {int(seconds % 60):02} s"
    return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60):02} min"


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
        "duration": format_duration,
        "json": _json,
        "number": format_number,
        "path": _quote,
        "text": _text,
        "time": _time,
        "words": lambda name: str(name).replace("_", " "),
    }
    environment.globals["task_path"] = task_path
    return environment


def _time(value: Any) -> Markup | str:
    """Return a ``<time>`` element, which the script shows in Airflow's timezone; other text as it is."""
    time = parse_time(value)
    if time is None:
        return _text(value or "")
    utc = time.astimezone(UTC)
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
