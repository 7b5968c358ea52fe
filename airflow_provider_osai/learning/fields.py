"""Map the fields of responses about jobs to ours: by how their values change, and by their names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final

from airflow_provider_osai.api.misfits import is_fraction_name
from airflow_provider_osai.api.models import JobKind
from airflow_provider_osai.api.text import normalize_word
from airflow_provider_osai.learning.recording import FILE
from airflow_provider_osai.learning.roles import JobTrace
from airflow_provider_osai.learning.rules import objects_in, put
from airflow_provider_osai.learning.values import (
    Steps,
    at,
    is_opaque,
    leaves,
    path_text,
    similarity,
    time_unit,
    words,
)
from airflow_provider_osai.learning.vocabulary import CONFIDENT, EPOCH, REQUEST, RESPONSE, SAMPLE, VALUES

__all__ = [
    "RESULTS",
    "SURE",
    "Mapped",
    "best_named",
    "is_file",
    "is_metrics",
    "job_fields",
    "metrics_rule",
    "named_request_field",
    "pair_names",
    "share_fields",
    "value_rule",
]

OWNERS: Final = frozenset({"model", "dataset", "category", "file", "image", "photo", "job", "training"})
"""Objects whose name is that of the thing."""
TIMES: Final = ("createdAt", "startedAt", "finishedAt")
RESULTS: Final[Mapping[JobKind, tuple[str, ...]]] = {
    JobKind.TRAINING: ("result.modelId",),
    JobKind.RETRAINING: ("result.modelId",),
    JobKind.CONVERSION: ("result.conversionId", "result.modelId"),
    JobKind.PREDICTION: ("result.datasetId",),
    JobKind.MANIPULATION: ("result.datasetId",),
    JobKind.DEVICE_RENTAL: ("result.deviceId", "result.expiresAt"),
}
WORD: Final = re.compile(r"[^\W\d_][\w .-]{0,39}")
FLAG_WORDS: Final = (
    frozenset({"finished", "done", "completed", "complete", "ended", "ready"}),
    frozenset({"failed", "error", "failure", "faulted", "haserror"}),
    frozenset({"cancelled", "canceled", "aborted", "stopped", "killed"}),
)
SCALES: Final = (1, 100, 1000)
SURE: Final = 0.85
"""Similarity of a name from which it counts without other signs."""
RESULT_OBJECTS: Final = frozenset({"result", "output", "outcome", "made", "product"})
"""Objects that hold the results of a job."""
GENERIC: Final = frozenset({"name", "value", "text", "id", "count", "done", "min", "word", "number", "code"})
"""Names that say little without that of the object they are in."""


@dataclass
class Mapped:
    """Rules of fields, by our names, as in contract documents.

    :param doubts: why a field may be wrong.
    """

    rules: dict[str, Any] = field(default_factory=dict)
    doubts: list[str] = field(default_factory=list)
    steps: dict[str, Steps] = field(default_factory=dict)

    def put(self, name: str, steps: Steps, doubt: str | None = None, **more: Any) -> None:
        """Add the place of a field, and other rules of it."""
        path = path_text(steps)
        self.steps[name] = steps
        if more:
            self.rules[name] = {"name": path, **more} if path != name else more
        elif path != name:
            self.rules[name] = path
        if doubt:
            self.doubts.append(f"{name}: {doubt}")


def best_named(
    names: Mapping[Steps, Any],
    our_name: str,
    vocabulary: Mapping[str, Mapping[str, float]],
    taken: Iterable[Steps] = (),
) -> Steps | None:
    """Return the place whose name fits one of our fields best; ``None`` if none fits well."""
    best: tuple[float, int] | None = None
    found = None
    for steps in names:
        if steps in taken:
            continue
        own = [str(step) for step in steps if isinstance(step, str)]
        if not own:
            continue
        score = _name_score(own, vocabulary[our_name])
        if score >= CONFIDENT and (best is None or (score, -len(steps)) > best):
            best, found = (score, -len(steps)), steps
    return found


def _name_score(own: Sequence[str], vocabulary: Mapping[str, float]) -> float:
    """Return how well a place's name fits: its last name, or the object's if the last says little."""
    score = max(similarity(own[-1], vocabulary), similarity("".join(own[-2:]), vocabulary))
    if len(own) < 2 or not set(words(own[-1])) <= GENERIC:
        return score
    parent = similarity(own[-2], vocabulary)
    if "".join(words(own[-1])) in vocabulary:  # a name is wanted: that of the thing itself comes first
        return score - 0.05 * len(own) - (0.3 if parent < CONFIDENT else 0.0) * (own[-2] not in OWNERS)
    return max(parent, score)


@dataclass
class _Series:
    """What was seen at one place of the responses about jobs of one kind.

    :param runs: the values by job, in the order of time.
    :param polls: those of polls only, without the response to the submission.
    """

    steps: Steps
    runs: list[list[Any]]
    polls: list[list[Any]]

    @property
    def values(self) -> list[Any]:
        return [value for run in self.runs for value in run]

    @property
    def present(self) -> list[Any]:
        return [value for value in self.values if value not in (None, "")]

    @property
    def name(self) -> str:
        return next((str(step) for step in reversed(self.steps) if isinstance(step, str)), "")

    @property
    def changes(self) -> bool:
        return any(_distinct(run) > 1 for run in self.runs)

    @property
    def comes_late(self) -> bool:
        """Whether it is missing (``null``, empty or 0) at first and set at the end of some job."""
        return any(map(_ends_set, self.runs))

    @property
    def comes_while_polled(self) -> bool:
        """The same, where the response to the submission does not count."""
        return any(map(_ends_set, self.polls))


def _ends_set(values: Sequence[Any]) -> bool:
    return bool(values) and values[0] in (None, "", 0) and values[-1] not in (None, "", 0)


def _distinct(values: Sequence[Any]) -> int:
    return len({repr(value) for value in values})


def job_fields(kind: JobKind, traces: Sequence[JobTrace], envelope: str | None) -> Mapped:
    """Return the fields of a job's responses.

    :param traces: the jobs of this kind.
    :param envelope: the key of the result in every response, which paths leave out.
    """
    runs = [[_inside(document, envelope) for document in trace.documents] for trace in traces]
    runs = [[document for document in run if isinstance(document, (dict, list))] for run in runs]
    series = _all_series(runs, [int(trace.has_submission) for trace in traces])
    mapped = Mapped()
    taken: set[Steps] = set()
    ids = {trace.value for trace in traces}
    _map_id(series, ids, mapped, taken)
    _map_status(series, mapped, taken)
    _map_progress(series, mapped, taken)
    _map_times(series, mapped, taken)
    sent = {str(value) for trace in traces for _, value in leaves(trace.submit.exchange.body)}
    sent |= {use.value for trace in traces for use in trace.submit.uses}
    _map_results(kind, series, sent, mapped, taken)
    _map_message(series, mapped, taken)
    _map_metrics(runs, mapped, taken)
    _map_history(runs, mapped)
    _map_matrix(runs, mapped)
    _map_samples(runs, mapped)
    if all(len(trace.gets) < 2 and len(trace.documents) < 3 for trace in traces):
        mapped.doubts.append("only one response about such a job was seen, so what appears later may be missing")
    return mapped


def share_fields(jobs: Mapping[JobKind, Mapped], traces: Sequence[JobTrace], envelope: str | None) -> None:
    """Let kinds of jobs with the same response learn from each other what one of them did not show."""
    for kind, mapped in jobs.items():
        documents = [
            _inside(document, envelope) for trace in traces if trace.kind is kind for document in trace.documents
        ]
        for other in jobs.values():
            for name, steps in other.steps.items():
                is_doubted = any(doubt.startswith(f"{name}:") for doubt in other.doubts)
                is_doubted = is_doubted and name != "result.metrics"
                if (
                    other is mapped
                    or is_doubted
                    or name == "id"
                    or (name.startswith("result.") and name != "result.metrics")
                ):
                    continue
                own = mapped.steps.get(name)
                doubts = [doubt for doubt in mapped.doubts if doubt.startswith(f"{name}:")]
                is_there = any(at(document, steps, ...) is not ... for document in documents)
                if name == "result.metrics" and "items" not in _as_dict(other.rules.get(name)):
                    continue
                has_less = own == steps and name == "result.metrics" and "items" not in _as_dict(mapped.rules.get(name))
                if (
                    is_there
                    and (own is None or has_less or (doubts and own == steps))
                    and steps not in (place for each, place in mapped.steps.items() if each != name)
                ):
                    mapped.doubts = [doubt for doubt in mapped.doubts if doubt not in doubts]
                    mapped.doubts += [doubt for doubt in other.doubts if doubt.startswith(f"{name}:")]
                    mapped.steps[name] = steps
                    if name in other.rules:
                        mapped.rules[name] = other.rules[name]


def _as_dict(rule: Any) -> Mapping[str, Any]:
    return rule if isinstance(rule, Mapping) else {}


def _inside(document: Any, envelope: str | None) -> Any:
    return document.get(envelope, document) if envelope and isinstance(document, Mapping) else document


def _all_series(runs: Sequence[Sequence[Any]], first_polls: Sequence[int]) -> dict[Steps, _Series]:
    """Return what was seen at each place.

    :param first_polls: of each job, the number of responses before its first poll.
    """
    places: dict[Steps, None] = {}
    for document in (document for run in runs for document in run):
        for steps, _ in leaves(document):
            if not any(isinstance(step, int) for step in steps):
                places[steps] = None
    series: dict[Steps, _Series] = {}
    for steps in places:
        values = [[at(document, steps) for document in run] for run in runs]
        polls = [run[first:] for run, first in zip(values, first_polls, strict=True)]
        series[steps] = _Series(steps, values, polls)
    return series


def _map_id(series: Mapping[Steps, _Series], ids: set[str], mapped: Mapped, taken: set[Steps]) -> None:
    own = [each.steps for each in series.values() if each.present and {str(value) for value in each.present} <= ids]
    if own:
        best = min(own, key=lambda steps: (words(str(steps[-1]))[-1:] != ("id",), len(steps)))
        mapped.put("id", best)
        taken.add(best)
    elif series:
        mapped.rules["id"] = None


def _map_status(series: Mapping[Steps, _Series], mapped: Mapped, taken: set[Steps]) -> None:
    best: tuple[float, int] | None = None
    found: _Series | None = None
    for each in series.values():
        present = each.present
        if each.steps in taken or not present or any(isinstance(value, (float, dict, list)) for value in present):
            continue
        are_words = all(isinstance(value, str) and WORD.fullmatch(value) for value in present)
        are_codes = all(
            isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 100 for value in present
        )
        named = _name_score([str(step) for step in each.steps], RESPONSE["status"]) if each.steps else 1.0
        if not (are_words or are_codes) or _distinct(present) > 8:
            continue
        score = named * 2 + 1.5 * each.changes * are_words + 0.5 * each.changes * are_codes - len(each.values) * 0.0
        score -= 1.0 * (len(present) < len(each.values))
        if score >= (1.4 if are_words else 1.8) and (best is None or (score, -len(each.steps)) > best):
            best, found = (score, -len(each.steps)), each
    if found is not None:
        doubt = None if found.changes else "it did not change while the job was watched"
        mapped.put("status", found.steps, doubt)
        taken.add(found.steps)
        return
    flags = []
    for vocabulary in FLAG_WORDS:
        for each in series.values():
            is_flag = each.present and all(isinstance(value, bool) for value in each.values if value is not None)
            if is_flag and set(words(each.name)) & vocabulary and each.steps not in flags:
                flags.append(each.steps)
    if flags:
        mapped.rules["status"] = [path_text(steps) for steps in flags] if len(flags) > 1 else path_text(flags[0])
        mapped.steps["status"] = flags[0]
        taken.update(flags)
    else:
        mapped.doubts.append("status: not found")


def _map_progress(series: Mapping[Steps, _Series], mapped: Mapped, taken: set[Steps]) -> None:
    best: tuple[float, int] | None = None
    found: _Series | None = None
    for each in series.values():
        numbers = [value for value in each.present if isinstance(value, (int, float)) and not isinstance(value, bool)]
        if (
            each.steps in taken
            or not numbers
            or len(numbers) < len(each.present)
            or max(numbers) > 1000
            or min(numbers) < 0
        ):
            continue
        rises = all(first <= second for run in each.runs for first, second in pairwise(_numbers(run)))
        named = _name_score([str(step) for step in each.steps], RESPONSE["progress"]) if each.steps else 0.0
        score = named + 0.3 * (rises and each.changes)
        if rises and score >= CONFIDENT and (best is None or (score, -len(each.steps)) > best):
            best, found = (score, -len(each.steps)), each
    if found is None:
        return
    taken.add(found.steps)
    numbers = _numbers(found.values)
    top = max(numbers)
    scale = next(scale for scale in SCALES if top <= scale)
    ends_at_one = any(len(run) > 1 and run[0] == 0 and run[-1] == 1 for run in found.runs)
    is_clear = ends_at_one or any(0 < number < 1 for number in numbers) or scale > 1
    doubt = None if is_clear else "whether it is a fraction or percent was not seen"
    if scale == 1:
        mapped.put("progress", found.steps, doubt)
    else:
        mapped.put("progress", found.steps, doubt, scale=scale)


def _numbers(values: Iterable[Any]) -> list[float]:
    return [value for value in values if isinstance(value, (int, float)) and not isinstance(value, bool)]


def _map_times(series: Mapping[Steps, _Series], mapped: Mapped, taken: set[Steps]) -> None:
    times = {
        each.steps: each
        for each in series.values()
        if each.steps not in taken and any(time_unit(value) for value in each.present)
        and all(time_unit(value) or value == 0 for value in each.present)
    }  # fmt: skip
    for name in TIMES:
        steps = best_named(times, name, RESPONSE, taken)
        if steps is not None:
            _put_time(name, times[steps], mapped)
            taken.add(steps)


def _put_time(name: str, series: _Series, mapped: Mapped) -> None:
    unit = next(unit for value in series.present if (unit := time_unit(value)))
    more: dict[str, Any] = {} if unit == "iso" else {"unit": unit}
    if 0 in series.present:
        more["default"] = 0
    mapped.put(name, series.steps, **more)


def _map_results(
    kind: JobKind, series: Mapping[Steps, _Series], sent: set[str], mapped: Mapped, taken: set[Steps]
) -> None:
    for name in RESULTS[kind]:
        late = {
            each.steps: each for each in series.values() if each.steps not in taken and _is_result(each, name, sent)
        }
        if name == "result.expiresAt":
            times = {steps: each for steps, each in late.items() if any(time_unit(value) for value in each.present)}
            steps = best_named(times, name, RESPONSE, taken)
            if steps is not None:
                _put_time(name, times[steps], mapped)
                taken.add(steps)
            continue
        opaque = {
            steps: each
            for steps, each in late.items()
            if all(_is_id(value) for value in each.present) and not time_unit(each.present[-1])
        }
        steps = best_named(opaque, name, RESPONSE, taken)
        doubt = None
        if steps is None and len(opaque) == 1 and name == RESULTS[kind][0] and kind is not JobKind.PREDICTION:
            steps, doubt = next(iter(opaque)), "its name does not say what it is"
        if steps is not None:
            more = {"default": 0} if 0 in opaque[steps].values else {}
            mapped.put(name, steps, doubt, **more)
            taken.add(steps)


def _is_result(series: _Series, name: str, sent: set[str]) -> bool:
    """Whether a field came with the result: later than the job, or under a clear name and with a value of its own."""
    is_echo = bool({str(value) for value in series.present} & sent)
    if series.comes_while_polled or (series.comes_late and not is_echo):
        return True
    if series.present and len(series.steps) > 1 and set(words(str(series.steps[-2]))) & RESULT_OBJECTS:
        return True
    return (
        not is_echo
        and bool(series.present)
        and len(series.present) == len(series.values)
        and similarity(series.name, RESPONSE[name]) >= SURE
    )


def _is_id(value: Any) -> bool:
    is_number = isinstance(value, int) and not isinstance(value, bool)
    return is_number or (isinstance(value, str) and is_opaque(value))


def _map_message(series: Mapping[Steps, _Series], mapped: Mapped, taken: set[Steps]) -> None:
    texts = {
        each.steps: each
        for each in series.values()
        if each.steps not in taken
        and all(isinstance(value, str) and not time_unit(value) for value in each.present)
        and len(each.present) < len(each.values)
    }
    steps = best_named({steps: each for steps, each in texts.items() if each.present}, "message", RESPONSE, taken)
    steps = steps or best_named(texts, "message", RESPONSE, taken)
    if steps is not None:
        mapped.put("message", steps, None if texts[steps].present else "no failed job was seen")
        taken.add(steps)


def _map_metrics(runs: Sequence[Sequence[Any]], mapped: Mapped, taken: set[Steps]) -> None:
    """Find an object of numbers, or a list of pairs, at the end of a job."""
    last = [document for run in runs for document in run[-1:]]
    found = {steps: value for each in last for steps, value in objects_in(each) if steps and is_metrics(value)}
    place = best_named(found, "result.metrics", RESPONSE, taken)
    if place is not None:
        rule, doubt = metrics_rule(found[place])
        mapped.put("result.metrics", place, doubt, **rule)


def metrics_rule(value: Any) -> tuple[dict[str, Any], str | None]:
    """Return the shape and the scales of metrics, and a doubt.

    If all of several metrics that are fractions by their names are scaled, every metric is taken to be.
    """
    rule: dict[str, Any] = {}
    inner = inner_number(value)
    if isinstance(value, list):
        key, number = pair_names(value) or ("name", "value")
        rule["shape"] = {"key": key, "value": number}
        value = {str(item.get(key)): item.get(number) for item in value}
    elif inner is not None:
        value = {name: each[inner] for name, each in value.items()}
        rule["items"] = {"*": {"name": f"*.{inner}"}}
    fractions = {str(name): each for name, each in value.items() if is_fraction_name(str(name)) and _numbers([each])}
    scaled = {name: 1000 if each > 100 else 100 for name, each in fractions.items() if each > 1}
    if not scaled:
        return rule, None
    scale = max(scaled.values())
    if len(scaled) == len(fractions) > 1:
        rule["items"] = {"*": {**rule.get("items", {}).get("*", {}), "scale": scale}}
        return rule, f"every metric is divided by {scale}, since all that are fractions by their names are scaled"
    own = {"name": f"{{}}.{inner}"} if inner is not None else {}
    for name in scaled:
        rule.setdefault("items", {})[name] = {**({"name": own["name"].format(name)} if own else {}), "scale": scale}
    return rule, None


def is_metrics(value: Any) -> bool:
    """Whether a value is an object of numbers, in any of the usual shapes."""
    return _is_numbers(value) or pair_names(value) is not None or inner_number(value) is not None


def inner_number(value: Any) -> str | None:
    """Return the one name in each of an object's objects, if its values are numbers."""
    if not isinstance(value, dict) or not value:
        return None
    names = {tuple(each) if isinstance(each, dict) else () for each in value.values()}
    (name,) = names if len(names) == 1 else ((),)
    if len(name) == 1 and len(_numbers(each[name[0]] for each in value.values())) == len(value):
        return str(name[0])
    return None


def _is_numbers(value: Any) -> bool:
    return isinstance(value, dict) and bool(value) and len(_numbers(value.values())) == len(value)


def pair_names(value: Any) -> tuple[str, str] | None:
    """Return the names in a list of pairs of a name and a number."""
    if not isinstance(value, list) or not value or not all(isinstance(item, dict) and len(item) == 2 for item in value):
        return None
    for key, number in ((first, second) for first in value[0] for second in value[0] if first != second):
        if all(isinstance(item.get(key), str) and len(_numbers([item.get(number)])) == 1 for item in value):
            return key, number
    return None


def _map_history(runs: Sequence[Sequence[Any]], mapped: Mapped) -> None:
    """Find a list of objects of numbers, one for each epoch."""
    documents = [document for run in runs for document in run]
    found = {steps: value for each in documents for steps, value in objects_in(each) if _is_history(value)}
    place = best_named(found, "history", RESPONSE)
    if place is None:
        return
    items: dict[str, Any] = {}
    names: dict[Steps, Any] = {(str(name),): None for name in found[place][0]}
    taken: set[Steps] = set()
    for ours in EPOCH:
        key = best_named(names, ours, EPOCH, taken)
        if key is not None:
            taken.add(key)
            values = _numbers(item.get(key[0]) for item in found[place])
            if ours in ("accuracy", "valAccuracy") and max(values, default=0) > 1:
                items[ours] = {"name": path_text(key), "scale": 100}
            elif key[0] != ours:
                items[ours] = path_text(key)
    _put_with_items("history", place, items, mapped)


def _is_history(value: Any) -> bool:
    if not isinstance(value, list) or not value:
        return False
    return all(isinstance(item, dict) and len(_numbers(item.values())) >= 2 for item in value)


def _map_matrix(runs: Sequence[Sequence[Any]], mapped: Mapped) -> None:
    """Find an object with a square list of whole numbers and a list of as many labels."""
    documents = [document for run in runs for document in run]
    found = {steps: value for each in documents for steps, value in objects_in(each) if _matrix_names(value)}
    place = best_named(found, "result.confusionMatrix", RESPONSE)
    if place is None:
        return
    items: dict[str, Any] = {}
    for ours, key in _matrix_names(found[place]).items():
        put(items, ours, path_text((key,)))
    _put_with_items("result.confusionMatrix", place, items, mapped)


def _put_with_items(name: str, place: Steps, items: Mapping[str, Any], mapped: Mapped) -> None:
    if items:
        mapped.put(name, place, items=items)
    else:
        mapped.put(name, place)


def _matrix_names(value: Any) -> dict[str, str]:
    """Return our fields and theirs in a confusion matrix of at least two labels; nothing if it is not one."""
    if not isinstance(value, dict):
        return {}
    lists = {str(name): each for name, each in value.items() if isinstance(each, list) and len(each) > 1}
    for rows, each in lists.items():
        if not all(isinstance(row, list) and len(row) == len(each) and _are_counts(row) for row in each):
            continue
        for labels, other in lists.items():
            are_labels = all(isinstance(label, str) for label in other) or _are_counts(other)
            if are_labels and len(other) == len(each):
                return {"labels": labels, "rows": rows}
    return {}


def _are_counts(values: Sequence[Any]) -> bool:
    numbers = _numbers(values)
    are_whole = all(isinstance(number, int) or number.is_integer() for number in numbers)
    return len(numbers) == len(values) and are_whole and all(number >= 0 for number in numbers)


def _map_samples(runs: Sequence[Sequence[Any]], mapped: Mapped) -> None:
    """Find a list of objects with an image and the category that was predicted for it."""
    documents = [document for run in runs for document in run]
    found = {steps: value for each in documents for steps, value in objects_in(each) if _sample_names(value)}
    place = best_named(found, "result.samples", RESPONSE)
    if place is None:
        return
    items: dict[str, Any] = {}
    for ours, key in _sample_names(found[place]).items():
        rule: dict[str, Any] = {"name": path_text((key,))} if key != ours else {}
        if ours == "confidence" and max(_numbers(item.get(key) for item in found[place]), default=0) > 1:
            rule["scale"] = 100
        put(items, ours, rule)
    _put_with_items("result.samples", place, items, mapped)


def _sample_names(value: Any) -> dict[str, str]:
    """Return our fields and theirs in a list of sample predictions; nothing if it is not one."""
    if not isinstance(value, list) or not value or not all(isinstance(item, dict) for item in value):
        return {}
    places: dict[Steps, Any] = {(str(name),): None for name in value[0]}
    names: dict[str, str] = {}
    for ours in SAMPLE:
        key = best_named(places, ours, SAMPLE, [(name,) for name in names.values()])
        if key is not None:
            names[ours] = str(key[0])
    return names if {"fileName", "predicted"} <= names.keys() else {}


def value_rule(name: str, key: str, value: Any) -> tuple[dict[str, Any], bool]:
    """Return the rule ``values`` of one of our fields with fixed words, and whether it is clear.

    :param name: our field, ``modelType`` or ``mode``.
    :param key: its name in the API.
    :param value: the value that was seen.
    """
    vocabulary = VALUES[name]
    if isinstance(value, bool) and name == "modelType":
        is_clear = bool(set(words(key)) & vocabulary["detection"])
        return {"values": {"classification": not is_clear, "detection": is_clear}}, is_clear
    if isinstance(value, str):
        own = set(words(value))
        fitting = [ours for ours, theirs in vocabulary.items() if normalize_word(value) == ours or own & theirs]
        if len(fitting) == 1:
            return ({} if value == fitting[0] else {"values": {fitting[0]: value}}), True
    return {"values": {next(iter(vocabulary)): value}}, False


def is_file(value: Any) -> bool:
    """Whether a field of a form holds a file."""
    return value == FILE or (isinstance(value, list) and FILE in value)


def named_request_field(places: Mapping[Steps, Any], name: str) -> Steps | None:
    """Return the place of one of our request fields by its name."""
    return best_named(places, name, REQUEST)
