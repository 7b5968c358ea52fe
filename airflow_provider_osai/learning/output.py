"""Write what was learned: the contract document, the redacted requests, and a summary for a person."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

import yaml

from airflow_provider_osai.api.contract import ENDPOINTS
from airflow_provider_osai.learning.learner import Learned, Row
from airflow_provider_osai.learning.recording import FILE, Exchange
from airflow_provider_osai.learning.values import is_opaque, time_unit

__all__ = ["document_text", "exchanges_text", "summary"]

WIDTH: Final = 120
WORD: Final = re.compile(r"[A-Za-z][A-Za-z_-]{0,39}")
MAX_ITEMS: Final = 3
"""Items of each list in the redacted requests."""


class _Dumper(yaml.SafeDumper):  # type: ignore[misc]  # it has no types
    """Writes equal values twice instead of as an alias."""

    def ignore_aliases(self, data: Any) -> bool:
        """Return whether a value is written again: always."""
        return True


def document_text(learned: Learned, files: Sequence[str]) -> str:
    """Return the contract document as YAML, with a comment on each uncertain row."""
    document = {key: value for key, value in learned.document.items() if key not in ENDPOINTS}
    lines = [
        f"# Learned by `osai-airflow contract learn` from {', '.join(files)}.",
        f"# Extra base_url of the connection: {learned.recording.origin}{learned.recording.base}",
        "# Check what is called doubtful. An operation that is null was not seen, or the API does not have it.",
        "",
    ]
    if document:
        lines.append(_dump(document))
    for name in ENDPOINTS:
        row = learned.rows.get(name)
        if row is not None:
            lines += [f"# doubtful: {doubt}" for doubt in _doubts(row)]
            lines.append(f"{name}: null" if row.rules is None else _dump({name: _with_evidence(row)}))
    return "\n".join(lines).rstrip("\n") + "\n"


def _dump(document: Mapping[str, Any]) -> str:
    text: str = yaml.dump(
        dict(document), Dumper=_Dumper, sort_keys=False, default_flow_style=None, width=WIDTH, allow_unicode=True
    )
    return text.rstrip("\n")


def _with_evidence(row: Row) -> dict[str, Any] | None:
    if row.rules is None:
        return None
    if not row.entries:
        return row.rules
    return {**row.rules, "evidence": f"learned: {', '.join(_ranges(row.entries))}"}


def _ranges(entries: Sequence[str]) -> Iterator[str]:
    """Yield the entries by recording, consecutive ones as a range: ``success.har#12-19``."""
    numbers: dict[str, list[int]] = {}
    for entry in entries:
        name, _, text = entry.rpartition("#")
        if text.isdecimal():
            numbers.setdefault(name, []).append(int(text))
        else:
            yield entry
    for name, own in numbers.items():
        yield f"{name}#{' '.join(_runs(sorted(own)))}"


def _runs(numbers: Sequence[int]) -> Iterator[str]:
    start = numbers[0]
    for number, following in pairwise([*numbers, -1]):
        if following != number + 1:
            yield str(start) if start == number else f"{start}-{number}"
            start = following


def _doubts(row: Row) -> list[str]:
    return [*row.doubts, *(f"not proven: {problem}" for problem in row.proof)]


def summary(learned: Learned) -> str:
    """Return what a person should know: the rows, what is doubtful or was not seen, and the questions."""
    rows = [row for row in learned.rows.values() if row.entries]
    doubtful = [row for row in learned.rows.values() if _doubts(row)]
    left = ", ".join(f"{times} {reason}" for reason, times in learned.recording.left)
    proven = len(rows) - sum(bool(row.proof) for row in rows)
    lines = [
        f"API: {learned.recording.origin}{learned.recording.base}, {len(learned.recording.exchanges)} requests",
        *([f"Left out: {left}"] if left else []),
        f"Operations: {len(rows)} learned, {proven} of them proven by replay, {len(doubtful)} with doubts",
        *(f"  {row.operation}: {doubt}" for row in doubtful for doubt in _doubts(row)),
    ]
    if learned.not_seen:
        lines.append(f"Not seen: {', '.join(learned.not_seen)}")
    lines += [f"Note: {note}" for note in learned.notes]
    for question in learned.questions:
        lines.append(f"Question {question.id!r}: {question.text} {' | '.join(question.choices)}")
    return "\n".join(lines) + "\n"


def exchanges_text(learned: Learned) -> str:
    """Return the exchanges that the rows rest on as JSON, without any text but names, words, ids and times.

    Equal texts have equal placeholders. It is enough to see why a row is as it is, and safe to share.
    """
    mask = _Mask(learned)
    by_source = {exchange.source: exchange for exchange in learned.recording.exchanges}
    rows: dict[str, Any] = {}
    for name, row in learned.rows.items():
        entries = [by_source[entry] for entry in row.entries if entry in by_source]
        rows[name] = {
            "rules": row.rules,
            "doubts": _doubts(row),
            "exchanges": [mask.exchange(each) for each in entries],
        }
    document = {"format": "osai-learned", "version": 1, "rows": rows}
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


class _Mask:
    """Replaces texts that are no names of the API."""

    def __init__(self, learned: Learned) -> None:
        self._words = {
            word
            for call in (call for role in learned.roles.operations.values() for call in role.calls)
            for word in call.template.split("/")
        } | set(learned.states.words)  # fmt: skip
        self._texts: dict[str, str] = {}

    def exchange(self, exchange: Exchange) -> dict[str, Any]:
        """Return the exchange as JSON."""
        return {
            "entry": exchange.source,
            "request": {
                "method": exchange.method,
                "path": "/" + "/".join(part if part in self._words else self.value(part) for part in exchange.path),
                "query": {name: self.value(value) for name, value in exchange.query},
                "body": self.value(exchange.body),
            },
            "response": {"status": exchange.status, "form": exchange.form, "body": self.value(exchange.response)},
        }

    def value(self, value: Any) -> Any:
        """Return a JSON value with texts masked, and lists shortened."""
        if isinstance(value, Mapping):
            return {str(name): self.value(each) for name, each in value.items()}
        if isinstance(value, list):
            return [self.value(each) for each in value[:MAX_ITEMS]]
        if not isinstance(value, str) or value in ("", FILE) or time_unit(value) or value in self._words:
            return value
        kind = "id" if is_opaque(value) else "word" if WORD.fullmatch(value) else "text"
        return self._texts.setdefault(value, f"{kind}-{len(self._texts) + 1}")
