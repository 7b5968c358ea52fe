"""The portal's page of a job: plain HTML that refreshes itself while the job lives."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

__all__ = ["job_page"]

STYLE = "body{font-family:sans-serif;margin:2em}td,th{padding:.2em 1em .2em 0;text-align:left}"


def job_page(kind: str, job: Mapping[str, Any], *, live: bool) -> str:
    """Return the page of one job, given under our names; everything in it is escaped."""
    title = f"{kind.replace('_', ' ')} {job['id']}"
    result = dict(job.get("result") or {})
    metrics = result.pop("metrics", None) or {}
    refresh = '<meta http-equiv="refresh" content="2">' if live else ""
    facts = {name: job.get(name) for name in ("status", "reference", "createdAt", "startedAt", "finishedAt", "message")}
    parts = [
        f'<!doctype html><html lang="en"><head><meta charset="utf-8">{refresh}',
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body><h1>{escape(title)}</h1>",
        f'<progress max="1" value="{float(job.get("progress") or 0)}"></progress>',
        _table(("", ""), {**facts, **result}.items()),
        _table(("metric", "value"), metrics.items()) if metrics else "",
    ]
    history = job.get("history") or []
    if history:
        names = tuple(history[0])
        parts.append(_table(names, ([line.get(name) for name in names] for line in history)))
    return "".join(parts) + "</body></html>"


def _table(heads: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in heads)
    body = "".join("<tr>" + "".join(f"<td>{_cell(value)}</td>" for value in row) + "</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def _cell(value: Any) -> str:
    return "" if value is None else escape(str(value))
