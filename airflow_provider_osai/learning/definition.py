"""Compare what was learned with the API's definition (OpenAPI 3 or Swagger 2), and take from it what was not seen."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from airflow_provider_osai.api.contract import ASSUMED, ENDPOINTS, Contract
from airflow_provider_osai.api.models import JobKind
from airflow_provider_osai.api.overrides import apply_overrides
from airflow_provider_osai.learning.api_definition import ApiOperation
from airflow_provider_osai.learning.definition_diff import MatchStatus, compare, suggest_overrides
from airflow_provider_osai.learning.learner import Learned, Row, path_by_analogy
from airflow_provider_osai.learning.roles import ENDING, KIND_WORDS
from airflow_provider_osai.learning.values import words

__all__ = ["add_definition"]

BY_NAMES: Final = "from the definition only, by the similarity of names: no recording shows it"
BY_ANALOGY: Final = "from the definition only, by analogy with {kind}: no recording shows it"
PLACEHOLDER: Final = re.compile(r"{([^}]*)}")
INPUTS: Final[Mapping[JobKind, tuple[str, ...]]] = {
    JobKind.TRAINING: ("datasetIds",),
    JobKind.RETRAINING: ("modelId",),
    JobKind.CONVERSION: ("modelId",),
    JobKind.PREDICTION: ("modelId", "datasetId"),
    JobKind.MANIPULATION: ("datasetId",),
    JobKind.DEVICE_RENTAL: ("device",),
}
"""What may be in the path of each submission, in this order."""


def add_definition(learned: Learned, operations: Sequence[ApiOperation]) -> None:
    """Note where the definition says something else, and add rows for operations that no recording shows.

    :param operations: of the definition.
    """
    contract = apply_overrides(Contract(), json.loads(json.dumps(learned.document)))
    base = learned.recording.base
    known: set[tuple[str, str]] = set()
    for finding in compare(contract, operations, base):
        row = learned.rows.get(finding.name)
        if row is None or not row.entries:
            continue
        if finding.status is MatchStatus.MISSING:
            row.doubts.append("the definition does not have this method and path")
        else:
            known |= {(operation.method, operation.path) for operation in finding.candidates}
            row.doubts += [f"the definition says: {problem}" for problem in finding.problems]
    rest = [operation for operation in operations if (operation.method, operation.path) not in known]
    added = dict(_by_names(learned, rest, base))
    added.update(_by_analogy(learned, rest, base))
    for name, (rules, doubt) in added.items():
        learned.rows[name] = Row(name, rules, [], [doubt])
        learned.not_seen = [each for each in learned.not_seen if each not in (name, f"{name.partition('.')[0]}.*")]


def _by_names(
    learned: Learned, rest: Sequence[ApiOperation], base: str
) -> Iterator[tuple[str, tuple[dict[str, Any], str]]]:
    """Yield rows that fit the assumed ones by the similarity of names."""
    seen = {name for name, row in learned.rows.items() if row.entries}
    default = [finding for finding in compare(Contract(), rest, base) if finding.name not in seen]
    for name, rules in suggest_overrides(default, base).items():
        if rules is not None and ENDPOINTS[name].evidence == ASSUMED:
            yield name, (rules, BY_NAMES)


def _by_analogy(
    learned: Learned, rest: Sequence[ApiOperation], base: str
) -> Iterator[tuple[str, tuple[dict[str, Any], str]]]:
    """Yield rows of kinds of jobs that no recording shows, made like those of a kind that one shows."""
    seen = {job.kind for job in learned.roles.jobs}
    model = next((kind for kind in JobKind if kind in seen and learned.rows[f"{kind}.get"].rules), None)
    if model is None:
        return
    submit = learned.rows[f"{model}.submit"].rules or {}
    is_joined = isinstance(submit.get("response", {}).get("id"), list)
    paths = {(operation.method, _shape(operation.path.removeprefix(base))) for operation in rest}
    doubt = BY_ANALOGY.format(kind=model.value.replace("_", " "))
    for kind in JobKind:
        found = _submission(kind, rest, base) if kind not in seen else None
        if found is None:
            continue
        path = _own_path(kind, found)
        yield f"{kind}.submit", ({**_shared(submit, path), "path": path}, doubt)
        for verb in ("get", "cancel"):
            like = learned.rows.get(f"{model}.{verb}")
            if like is None or like.rules is None:
                continue
            ends = (_path(submit, model, "submit"), path)
            known, other = map(_numbered, ends) if is_joined else ends
            own = path_by_analogy(known, _path(like.rules, model, verb), other)
            method = like.rules.get("method", ENDPOINTS[f"{kind}.{verb}"].method)
            same = _path(like.rules, model, verb)
            choice = own if own is not None and (method, _shape(own)) in paths else same
            kept = {name: rule for name, rule in like.rules.items() if name != "path"}
            yield f"{kind}.{verb}", ({**kept, "path": choice}, doubt)


def _submission(kind: JobKind, rest: Sequence[ApiOperation], base: str) -> str | None:
    """Return the path of the operation that submits jobs of a kind by its words; ``None`` if several may."""
    found = []
    for operation in rest:
        path = operation.path.removeprefix(base)
        own = set(words(PLACEHOLDER.sub("", path)))
        others = {each for each, vocabulary in KIND_WORDS.items() if vocabulary & own}
        is_kind = kind in others or (kind is JobKind.RETRAINING and JobKind.TRAINING in others and "model" in own)
        if operation.method in ("POST", "PUT") and is_kind and not ENDING & own:
            found.append(path)
    return min(found, key=len) if found and len({path.count("{") for path in found}) == len(found) else None


def _own_path(kind: JobKind, path: str) -> str:
    """Return a path with our names of its placeholders."""
    names = iter(INPUTS[kind])
    return PLACEHOLDER.sub(lambda match: f"{{{next(names, match[1])}}}", path)


def _numbered(path: str) -> str:
    """Return a path with the parts of a joined id as its placeholders."""
    numbers = itertools.count(1)
    return PLACEHOLDER.sub(lambda _: f"{{id.{next(numbers)}}}", path)


def _shared(rules: Mapping[str, Any], path: str) -> dict[str, Any]:
    """Return the rules of a submission that hold for other kinds, too: encoding, envelope and the place of the id.

    :param path: of the other kind; the fields in it are parts of an id that has several.
    """
    kept = {name: rules[name] for name in ("method", "encoding", "answer", "envelope") if name in rules}
    if "id" in rules.get("response", {}):
        place = rules["response"]["id"]
        is_joined = isinstance(place, list)
        kept["response"] = {
            "id": [*(f"${name}" for name in PLACEHOLDER.findall(path)), place[-1]] if is_joined else place
        }
    return kept


def _path(rules: Mapping[str, Any], kind: JobKind, verb: str) -> str:
    return str(rules.get("path", ENDPOINTS[f"{kind}.{verb}"].path))


def _shape(path: str) -> str:
    return PLACEHOLDER.sub("{}", path)
