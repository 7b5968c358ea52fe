"""``osai-airflow contract learn``: make a contract document from recordings of the portal."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import httpx
import yaml

from airflow_provider_osai.api.errors import OsaiContractError, OsaiError
from airflow_provider_osai.api.evidence import Evidence, read_evidence
from airflow_provider_osai.cli.output import USAGE, CommandError
from airflow_provider_osai.learning.api_definition import MAX_BYTES, ApiOperation, parse_definition
from airflow_provider_osai.learning.definition import add_definition
from airflow_provider_osai.learning.json_limits import read_bounded
from airflow_provider_osai.learning.learner import Learned, learn
from airflow_provider_osai.learning.notebooks.notebook import read_notebook
from airflow_provider_osai.learning.output import document_text, exchanges_text, summary
from airflow_provider_osai.learning.recording import Recording, read_recording
from airflow_provider_osai.learning.redaction import Redactor
from airflow_provider_osai.learning.replay import prove
from airflow_provider_osai.learning.stated_exchanges import stated_exchanges

__all__ = ["main"]

TIMEOUT: Final = 15.0
MAX_ANSWERS: Final = 64 * 2**10
MAX_QUESTIONS: Final = 5
"""Questions that are shown at most; more would mean that the recording shows too little."""


def main(options: argparse.Namespace) -> int:
    """Learn, and write the document; ask what the recordings do not tell, if this is a terminal.

    :return: 0 if nothing is open, 1 if a question is unanswered or a row is not proven.
    :raises CommandError: if a file cannot be read, with the exit code 2.
    """
    try:
        return _run(options)
    except OsaiError as error:
        raise CommandError(str(error), USAGE) from error


def _run(options: argparse.Namespace) -> int:
    answers = _read_answers(options.answers) if options.answers else {}
    recording, redactor = _read(options.recordings, options.notebook, options.base_url)
    operations = _definition(options.definition) if options.definition else None
    evidence = read_evidence(options.evidence) if options.evidence else None
    learned = _learn(recording, operations, evidence, answers)
    while learned.questions and sys.stdin.isatty():
        question = learned.questions[0]
        sys.stderr.write(f"{question.text}\n")
        answers = {**answers, question.id: _ask(question.choices)}
        learned = _learn(recording, operations, evidence, answers)
    names = [path.name for path in (*options.recordings, *options.notebook)]
    document = redactor.require_clean(document_text(learned, names), "The document")
    report = redactor.require_clean(summary(learned), "The summary")
    if options.redacted:
        _write(options.redacted, redactor.require_clean(exchanges_text(learned), "The file of requests"))
    if options.output:
        _write(options.output, document)
        sys.stdout.write(report)
    else:
        sys.stdout.write(document)
        sys.stderr.write(report)
    is_open = learned.questions or any(row.proof for row in learned.rows.values())
    return 1 if is_open else 0


def _read(paths: Sequence[Path], notebooks: Sequence[Path], base_url: str | None) -> tuple[Recording, Redactor]:
    """Read the recordings and notebooks, and take secrets out."""
    recording = read_recording(paths, base_url)
    exchanges = list(recording.exchanges)
    for path in notebooks:
        exchanges += stated_exchanges(read_notebook(path), recording.base)
    redactor = Redactor()
    redactor.collect(exchanges)
    return replace(recording, exchanges=[redactor.redact(exchange) for exchange in exchanges]), redactor


def _learn(
    recording: Recording,
    operations: Sequence[ApiOperation] | None,
    evidence: Evidence | None,
    answers: Mapping[str, str],
) -> Learned:
    learned = learn(recording, answers, evidence)
    if operations is not None:
        add_definition(learned, operations)
    prove(learned)
    return learned


def _definition(place: str) -> list[ApiOperation]:
    if not place.startswith(("http://", "https://")):
        return _parsed(place, read_bounded(Path(place), MAX_BYTES))
    try:
        with httpx.stream("GET", place, timeout=TIMEOUT) as response:
            response.raise_for_status()
            content = b""
            for chunk in response.iter_bytes():
                content += chunk
                if len(content) > MAX_BYTES:
                    break
    except httpx.HTTPError as error:
        raise OsaiContractError(f"--definition {place}: {error or type(error).__name__}") from error
    return _parsed(place, content)


def _parsed(place: str, content: bytes) -> list[ApiOperation]:
    try:
        return parse_definition(content)
    except OsaiContractError as error:
        raise OsaiContractError(f"--definition {place}: {error}") from error


def _read_answers(path: Path) -> dict[str, str]:
    try:
        document = yaml.safe_load(read_bounded(path, MAX_ANSWERS))
    except (yaml.YAMLError, ValueError) as error:
        raise OsaiContractError(f"{path.name}: not valid YAML") from error
    if not isinstance(document, dict) or not all(isinstance(value, (str, int)) for value in document.values()):
        raise OsaiContractError(f"{path.name}: answers are a mapping, such as {{modelType: classification}}")
    return {str(name): str(value) for name, value in document.items()}


def _ask(choices: Sequence[str]) -> str:
    for number, choice in enumerate(choices, 1):
        sys.stderr.write(f"  {number}: {choice}\n")
    while True:
        sys.stderr.write("> ")
        sys.stderr.flush()
        line = sys.stdin.readline()
        if not line:
            raise OsaiContractError("No answer was given; --answers FILE answers without a terminal")
        text = line.strip()
        if text in choices:
            return text
        if text.isdecimal() and 1 <= int(text) <= len(choices):
            return choices[int(text) - 1]


def _write(path: Path, text: str) -> None:
    """Write a file that only its owner can read."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
