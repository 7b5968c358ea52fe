"""The portal page of a job: plain HTML that refreshes itself until the job ends."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

__all__ = ["job_page"]

STYLE = "body{font-family:sans-serif;margin:2em}td,th{padding:.2em 1em .2em 0;text-align:left}"


def job_page(kind: str, job: Mapping[str, Any], *, live: bool) -> str:
    """Return the HTML page of a job, whose fields have our names. All values are escaped."""
    title = f"{kind.replace('_', ' ')} {job['id']}"
    result = dict(job.get("result") or {})
    metrics = result.pop("metrics", None) or {}
    matrix = result.pop("confusionMatrix", None)
    samples = result.pop("samples", None)
    refresh = '<meta http-equiv="refresh" content="2">' if live else ""
    names = ("status", "simulated", "reference", "createdAt", "startedAt", "finishedAt", "message")
    fields = {name: job.get(name) for name in names}
    parts = [
        f'<!doctype html><html lang="en"><head><meta charset="utf-8">{refresh}',
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body><h1>{escape(title)}</h1>",
        f'<progress max="1" value="{float(job.get("progress") or 0)}"></progress>',
        _table(("", ""), {**fields, **result}.items()),
        _table(("metric", "value"), metrics.items()) if metrics else "",
    ]
    if matrix:
        rows = zip(matrix["labels"], matrix["rows"], strict=True)
        parts.append("<h2>Confusion matrix</h2><p>Rows: true category. Columns: predicted category.</p>")
        parts.append(_table(("", *matrix["labels"]), ([label, *row] for label, row in rows)))
    if samples:
        parts.append("<h2>Sample predictions</h2>")
        parts.append(_records(samples))
    history = job.get("history") or []
    if history:
        parts.append(_records(history))
    return "".join(parts) + "</body></html>"


def _records(records: Sequence[Mapping[str, Any]]) -> str:
    """Return a table of objects with the same keys."""
    columns = tuple(records[0])
    return _table(columns, ([record.get(name) for name in columns] for record in records))


def _table(columns: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in columns)
    body = "".join("<tr>" + "".join(f"<td>{_cell(value)}</td>" for value in row) + "</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def _cell(value: Any) -> str:
    return "" if value is None else escape(str(value))
