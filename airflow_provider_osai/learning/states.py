"""Learn what status words mean, from the order in which they appear.

Success and failure are never guessed: they follow from a result, from a cancel, from a job of the same kind that ended
otherwise, or from an answer of the user.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from airflow_provider_osai.api.contract import STATE_WORDS, Contract
from airflow_provider_osai.api.field_rules import FieldRule
from airflow_provider_osai.api.models import JobKind, JobState
from airflow_provider_osai.learning.fields import RESULTS, Mapped
from airflow_provider_osai.learning.roles import JobTrace
from airflow_provider_osai.learning.values import at

__all__ = ["END_STATES", "Question", "StateWords", "learn_states"]

END_STATES: Final = tuple(
    state.value for state in (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED, JobState.RUNNING)
)
"""What a word that was seen last may mean."""


@dataclass(frozen=True, slots=True)
class Question:
    """A question whose answer no recording has.

    :param id: names it in the file of answers.
    :param choices: the possible answers.
    """

    id: str
    text: str
    choices: tuple[str, ...]


@dataclass
class StateWords:
    """Status words and their states.

    :param words: of all kinds of jobs, those that the default contract does not know.
    :param by_kind: of kinds in which a word means something else.
    """

    words: dict[str, str] = field(default_factory=dict)
    by_kind: dict[str, dict[str, str]] = field(default_factory=dict)


def learn_states(
    jobs: Sequence[JobTrace], mapped: Mapping[JobKind, Mapped], envelope: str | None, answers: Mapping[str, str]
) -> tuple[StateWords, list[Question], dict[str, list[str]]]:
    """Return the words, the questions that remain, and doubts by kind."""
    known = Contract()
    meanings: dict[JobKind, dict[str, JobState]] = {}
    open_words: dict[tuple[JobKind, str], JobTrace] = {}
    for job in jobs:
        own = meanings.setdefault(job.kind, {})
        words = _words(job, mapped[job.kind], envelope)
        for word in words[:-1]:
            if word != words[-1]:
                own.setdefault(word, _live_state(word, words, mapped[job.kind]))
        if words:
            _judge_last(job, words, own, mapped[job.kind], envelope, open_words)
    _settle_failures(meanings, open_words)
    questions, doubts = _ask(meanings, open_words, known, answers)
    return _merged(meanings, known), questions, doubts


def _words(job: JobTrace, mapped: Mapped, envelope: str | None) -> list[str]:
    """Return the status word of each response about a job."""
    rule = mapped.rules.get("status", "status")
    words: list[str] = []
    for document in job.documents:
        inside = _inside(document, envelope)
        if isinstance(inside, str):
            words.append(inside.strip())
        elif isinstance(rule, list):
            values = [FieldRule.parse(path).paths[0].get(inside) for path in rule]
            words.append(
                "/".join("true" if value is True else "false" if value is False else str(value) for value in values)
            )
        else:
            value = at(inside, mapped.steps.get("status", ("status",)))
            if isinstance(value, (str, int)):
                words.append(str(value).lower() if isinstance(value, bool) else str(value))
    return words


def _live_state(word: str, words: Sequence[str], mapped: Mapped) -> JobState:
    """Return ``queued`` for the first word if another one of a live job follows; else ``running``."""
    if word != words[0] or len(set(words[:-1])) < 2 or isinstance(mapped.rules.get("status"), list):
        return JobState.RUNNING
    return JobState.QUEUED


def _results(job: JobTrace, mapped: Mapped, envelope: str | None) -> bool:
    """Whether the last response has the result of a job of its kind, and the first did not have it."""
    if not job.documents:
        return False
    if mapped.rules.get("result.modelId") == "$id":
        return job.is_used
    steps = next((mapped.steps[name] for name in RESULTS[job.kind][:1] if name in mapped.steps), None)
    if steps is None:
        return False
    first, last = (at(_inside(document, envelope), steps) for document in (job.documents[0], job.documents[-1]))
    return last not in (None, "", 0) and (first in (None, "", 0) or len(job.documents) == 1)


def _inside(document: Any, envelope: str | None) -> Any:
    return document.get(envelope, document) if envelope and isinstance(document, Mapping) else document


def _judge_last(
    job: JobTrace,
    words: Sequence[str],
    own: dict[str, JobState],
    mapped: Mapped,
    envelope: str | None,
    open_words: dict[tuple[JobKind, str], JobTrace],
) -> None:
    last = words[-1]
    if job.kind is JobKind.DEVICE_RENTAL and _results(job, mapped, envelope) and job.cancel is None:
        own.setdefault(last, JobState.RUNNING)
    elif job.cancel is not None and last not in own and last not in words[:-1] and _was_asked_after(job):
        own[last] = JobState.CANCELLED
    elif job.cancel is None and _results(job, mapped, envelope):
        own[last] = JobState.SUCCEEDED
    elif last not in own:
        open_words[job.kind, last] = job


def _was_asked_after(job: JobTrace) -> bool:
    """Whether the last response is younger than the cancel."""
    return job.cancel is not None and any(get.number > job.cancel.number for get in job.gets)


def _settle_failures(
    meanings: Mapping[JobKind, dict[str, JobState]], open_words: dict[tuple[JobKind, str], JobTrace]
) -> None:
    """A job that ended without a result, under another word than a success of its kind, has failed."""
    everywhere = {word for own in meanings.values() for word, state in own.items() if state is JobState.SUCCEEDED}
    for kind, word in list(open_words):
        own = meanings[kind]
        has_success = any(state is JobState.SUCCEEDED for state in own.values())
        job = open_words[kind, word]
        if word in everywhere and job.cancel is None and not has_success:
            own[word] = JobState.SUCCEEDED  # the same word as of another kind with a result
            del open_words[kind, word]
        elif has_success and job.cancel is None and len(job.documents) > 1:
            own[word] = JobState.FAILED
            del open_words[kind, word]


def _ask(
    meanings: Mapping[JobKind, dict[str, JobState]],
    open_words: Mapping[tuple[JobKind, str], JobTrace],
    known: Contract,
    answers: Mapping[str, str],
) -> tuple[list[Question], dict[str, list[str]]]:
    """Return the questions about words that neither the recordings nor the default contract explain."""
    questions: dict[str, Question] = {}
    doubts: dict[str, list[str]] = {}
    for kind, word in open_words:
        if known.state(word) is not JobState.UNKNOWN:
            continue
        if any(word in own for own in meanings.values()):
            continue
        key = f"state:{word}"
        answer = answers.get(key)
        if answer in END_STATES:
            meanings[kind][word] = JobState(answer)
            continue
        thing = kind.value.replace("_", " ")
        text = f"What does the status {word!r} of a {thing} mean? It was the last one that was seen."
        questions[key] = Question(key, text, END_STATES)
        doubts.setdefault(kind.value, []).append(f"status {word!r}: its meaning was not seen")
    return list(questions.values()), doubts


def _merged(meanings: Mapping[JobKind, dict[str, JobState]], known: Contract) -> StateWords:
    """Return the words of all kinds, and those of single kinds where they differ."""
    words = StateWords()
    votes: dict[str, list[tuple[JobKind, JobState]]] = {}
    for kind, own in meanings.items():
        for word, state in own.items():
            votes.setdefault(word, []).append((kind, state))
    live = (JobState.QUEUED, JobState.RUNNING)
    for word, cast in votes.items():
        states = {state for _, state in cast}
        if states <= set(live) and len(states) > 1:
            states = {JobState.QUEUED} if word not in STATE_WORDS else {known.state(word)}
        main = next(iter(states)) if len(states) == 1 else cast[0][1]
        default = known.state(word)
        if default is not main and not (default in live and main in live):
            words.words[word] = main.value
        for kind, state in cast:
            if state is not main and not (state in live and main in live):
                words.by_kind.setdefault(kind.value, {})[word] = state.value
    return words
