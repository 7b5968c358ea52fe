"""How much of each recorded style is learned right: ``python -m tests.learning.scoring`` prints the table of the docs.

A row is right if the learned rules and the gallery's document, which a person wrote, read the recorded requests and
responses alike.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from airflow_provider_osai.api.contract import ENDPOINTS, Contract, Endpoint
from airflow_provider_osai.api.models import JobResult
from airflow_provider_osai.api.overrides import apply_overrides
from airflow_provider_osai.learning.learner import Learned, learn
from airflow_provider_osai.learning.provenance import Call
from airflow_provider_osai.learning.recording import FILE, Recording, read_recording
from airflow_provider_osai.learning.redaction import Redactor
from airflow_provider_osai.learning.replay import decoded_request, prove
from tests.learning.styles import STYLES, Style

__all__ = ["ANSWERS", "Score", "read", "score", "table"]

ANSWERS = {"documented": "recording", "modelType": "classification", "mode": "all"}
"""What the person who made the recordings answers."""
NOT_SENT = ("reference", "webhookUrl")
"""Fields of ours that no page sends."""
RESULT = frozenset(field.alias or name for name, field in JobResult.model_fields.items())


@dataclass
class Score:
    """What was learned of one style.

    :param wrong: rows that are wrong and not called doubtful, with what is wrong.
    :param doubtful: rows that are wrong and called doubtful.
    :param questions: asked without any answers.
    :param states: status words with another meaning than in the gallery's document.
    """

    learned: Learned
    right: list[str] = field(default_factory=list)
    doubtful: list[str] = field(default_factory=list)
    wrong: dict[str, str] = field(default_factory=dict)
    questions: list[str] = field(default_factory=list)
    states: list[str] = field(default_factory=list)

    @property
    def shown(self) -> int:
        """The number of rows that the recordings show."""
        return len(self.right) + len(self.doubtful) + len(self.wrong)


def read(paths: list[Path]) -> tuple[Recording, Redactor]:
    """Return recordings without secrets."""
    recording = read_recording(paths)
    redactor = Redactor()
    redactor.collect(recording.exchanges)
    return replace(recording, exchanges=[redactor.redact(exchange) for exchange in recording.exchanges]), redactor


def recordings_of(style: Style) -> list[Path]:
    """Return the files of a style."""
    return [next(style.folder.glob(f"{story}.har*")) for story in style.stories]


def score(style: Style) -> Score:
    """Learn a style, and compare it with the gallery's document."""
    recording, _ = read(recordings_of(style))
    learned = learn(recording, ANSWERS)
    prove(learned)
    found = Score(learned, questions=[question.id for question in learn(recording).questions])
    written = apply_overrides(Contract(), str(style.contract)) if style.contract else Contract()
    ours = apply_overrides(Contract(), learned.document)
    for name, role in learned.roles.operations.items():
        problem = next(_problems(name, written, ours, role.calls, recording.base), None)
        if problem is None:
            found.right.append(name)
        elif learned.rows[name].doubts:
            found.doubtful.append(name)
        else:
            found.wrong[name] = problem
    for kind in {job.kind for job in learned.roles.jobs}:
        for word in {*learned.states.words, *(ENDPOINTS and ["queued", "running", "succeeded", "failed", "cancelled"])}:
            pair = (written.state(word, f"{kind}.get"), ours.state(word, f"{kind}.get"))
            live = {"queued", "running"}
            if pair[0] != pair[1] and pair[0] != "unknown" and not set(pair) <= live:
                found.states.append(f"{kind} {word!r}: {pair[0]}, learned {pair[1]}")
    return found


def _problems(name: str, written: Contract, ours: Contract, calls: list[Call], base: str) -> Iterator[str]:
    first, second = written.endpoints[name], ours.endpoints[name]
    if first is None or second is None:
        yield "one of the documents does not have it"
        return
    if name == "auth.sign_in":
        if (first.method, first.path, written.token_path) != (second.method, second.path, ours.token_path):
            yield f"{first.path} is {second.path}"
        return
    first = replace(first, path=first.path.removeprefix(base.removeprefix("/api")))
    for call in calls:
        requests = [_request(endpoint, call) for endpoint in (first, second)]
        if requests[0] != requests[1]:
            yield f"request: {requests[0]} is {requests[1]}"
        responses = [_response(name, endpoint, call) for endpoint in (first, second)]
        if responses[0] != responses[1]:
            yield f"response: {responses[0]} is {responses[1]}"


def _request(endpoint: Endpoint, call: Call) -> Any:
    decoded = decoded_request(endpoint, call.exchange)
    if isinstance(decoded, str):
        return decoded
    fields = {name: value for name, value in decoded[0].items() if name not in NOT_SENT}
    return {name: value for name, value in fields.items() if value not in (None, "", [], FILE)}


def _response(name: str, endpoint: Endpoint, call: Call) -> Any:
    """Return what is read of a response: the fields that the provider uses."""
    if name in ("model.download", "upload.finish") or name.endswith((".cancel", ".delete")):
        return None
    if endpoint.rules.answer == "none" and not name.endswith(".submit"):
        return None
    exchange = call.exchange
    sent = decoded_request(endpoint, exchange)
    read = endpoint.read(exchange.response, exchange.response_headers, sent[0] if not isinstance(sent, str) else {})
    only = {"id", "status"} if name.endswith(".submit") else {"id"} if name == "upload.image" else None
    return _trimmed(endpoint, read, only)


def _trimmed(endpoint: Endpoint, value: Any, only: set[str] | None) -> Any:
    if isinstance(value, list):
        return [_trimmed(endpoint, item, only) for item in value]
    if not isinstance(value, dict):
        return value
    kept: dict[str, Any] = {}
    for name in endpoint.response_fields & (only or endpoint.response_fields):
        each = value.get(name)
        if name == "result" and isinstance(each, dict):
            each = {key: inner for key, inner in each.items() if key in RESULT}
        if each not in (None, {}, [], "") and name != "simulated":
            kept[name] = str(each) if name == "status" else each
    return kept


def table() -> str:
    """Return the table of docs/contract.md."""
    lines = [
        "| style | rows shown | right | doubtful | wrong | questions asked |",
        "|---|---|---|---|---|---|",
    ]
    for style in STYLES.values():
        found = score(style)
        questions = ", ".join(f"`{question}`" for question in found.questions) or "none"
        cells = [f"`{style.name}`", found.shown, len(found.right), len(found.doubtful), len(found.wrong), questions]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(table() + "\n")
