"""Make a contract document from the calls of a recording, with the evidence and the doubts of each row."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from airflow_provider_osai.api.contract import ASSUMED, ENDPOINTS, UNBOUND, Contract
from airflow_provider_osai.api.contract_rules import RESERVED_HEADERS
from airflow_provider_osai.api.evidence import Evidence
from airflow_provider_osai.api.models import JobKind, JobState
from airflow_provider_osai.learning.fields import job_fields, share_fields
from airflow_provider_osai.learning.id_places import IdPlaces
from airflow_provider_osai.learning.provenance import STANDARD_HEADERS, Call, trace
from airflow_provider_osai.learning.recording import Recording
from airflow_provider_osai.learning.redaction import SECRET
from airflow_provider_osai.learning.request_rules import RequestRules
from airflow_provider_osai.learning.response_rules import TWINS, ResponseRules
from airflow_provider_osai.learning.roles import MAKERS, Role, Roles, find_roles
from airflow_provider_osai.learning.seen import JOBS, Row, Seen, find_envelope
from airflow_provider_osai.learning.sign_in import learn_sign_in
from airflow_provider_osai.learning.states import END_STATES, Question, StateWords, learn_states
from airflow_provider_osai.learning.values import leaves, path_text, words

__all__ = ["Learned", "Row", "learn", "path_by_analogy"]

SUCCESS: Final = ("success", "isSuccess", "succeeded", "ok")
"""Names of flags that tell whether a request succeeded."""
LONG_ID: Final = re.compile(r"(?=.*\d)[\w-]{8,}")
"""A segment that is no word."""
FORGERY: Final = re.compile("xsrf|csrf|forgery", re.IGNORECASE)


@dataclass
class Learned:
    """All that was learned from recordings.

    :param everywhere: rules of all operations (the key ``*``).
    :param auth: the key ``auth``.
    :param conflicts: documented rows, of which the recording shows another form.
    :param not_seen: operations that no recording shows.
    """

    recording: Recording
    roles: Roles
    rows: dict[str, Row] = field(default_factory=dict)
    everywhere: dict[str, Any] = field(default_factory=dict)
    auth: dict[str, Any] = field(default_factory=dict)
    states: StateWords = field(default_factory=StateWords)
    questions: list[Question] = field(default_factory=list)
    conflicts: dict[str, Row] = field(default_factory=dict)
    not_seen: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def document(self) -> dict[str, Any]:
        """The contract document."""
        document: dict[str, Any] = {}
        if self.auth:
            document["auth"] = self.auth
        if self.everywhere:
            document["*"] = self.everywhere
        if self.states.words:
            document["states"] = dict(self.states.words)
        for name in ENDPOINTS:
            if name in self.rows:
                row = self.rows[name]
                document[name] = None if row.rules is None else row.rules
        return document


def learn(recording: Recording, answers: Mapping[str, str] | None = None, evidence: Evidence | None = None) -> Learned:
    """Return what a redacted recording shows of the API.

    :param answers: of earlier questions, by their ids.
    :param evidence: what was seen of the live API: status words that no recording shows, and what differed.
    """
    calls = trace(recording.exchanges)
    return _Learner(recording, calls, find_roles(calls), answers or {}).learned(evidence)


class _Learner:
    def __init__(self, recording: Recording, calls: Sequence[Call], roles: Roles, answers: Mapping[str, str]) -> None:
        self._seen = Seen(calls, roles, answers, find_envelope(roles))
        self._ids = IdPlaces(self._seen)
        self._requests = RequestRules(self._seen)
        self._responses = ResponseRules(self._seen, self._ids)
        self._out = Learned(recording, roles, self._seen.rows, questions=self._seen.questions, notes=self._seen.notes)

    def learned(self, evidence: Evidence | None) -> Learned:
        """Learn everything; rows that no recording shows are listed, and optional ones are set to ``null``."""
        out = self._out
        self._note_missing_bodies()
        if self._seen.envelope:
            out.everywhere["envelope"] = self._seen.envelope
        self._learn_errors()
        self._learn_headers()
        for kind in JobKind:
            traces = [each for each in self._seen.roles.jobs if each.kind is kind]
            if traces:
                self._seen.jobs[kind] = job_fields(kind, traces, self._seen.envelope)
        self._find_own_results()
        share_fields(self._seen.jobs, self._seen.roles.jobs, self._seen.envelope)
        for name, role in sorted(self._seen.roles.operations.items(), key=lambda pair: pair[0] in TWINS):
            rules, doubts = self._row(name, role)
            entries = list(dict.fromkeys(call.exchange.source for call in role.calls))
            out.rows[name] = Row(name, rules, entries, [*role.doubts, *doubts])
        out.auth = learn_sign_in(self._seen)
        self._learn_states()
        if evidence is not None:
            self._learn_evidence(evidence)
        self._fill_unseen()
        self._settle_documented()
        return out

    def _note_missing_bodies(self) -> None:
        """Say if bodies are missing: then less can be learned."""
        exchanges = self._out.recording.exchanges
        missing = sum(not exchange.is_complete for exchange in exchanges)
        if missing:
            self._seen.notes.append(
                f"{missing} of {len(exchanges)} requests have a body that is not in the recording: save it with "
                "content, and switch 'Disable cache' on, as a response 304 has none"
            )

    def _find_own_results(self) -> None:
        """Where no response has the id of a model, and the job's own id is used as one, it is that."""
        for kind in MAKERS:
            mapped = self._seen.jobs.get(kind)
            if mapped is None or "result.modelId" in mapped.steps:
                continue
            values = {job.value: job for job in self._seen.roles.jobs if job.kind is kind}
            users = [
                job.submit for job in self._seen.roles.jobs if job.kind in (JobKind.CONVERSION, JobKind.PREDICTION)
            ]
            role = self._seen.roles.operations.get("model.get")
            users += role.calls if role is not None else []
            for call in users:
                for use in call.uses:
                    if use.value in values:
                        values[use.value].is_used = True
            if any(job.is_used for job in values.values()):
                mapped.rules["result.modelId"] = "$id"
                mapped.doubts = [doubt for doubt in mapped.doubts if not doubt.startswith("result.modelId")]

    def _row(self, name: str, role: Role) -> tuple[dict[str, Any], list[str]]:
        call = role.calls[0]
        exchange = call.exchange
        default = ENDPOINTS[name]
        doubts: list[str] = []
        rules: dict[str, Any] = {}
        if exchange.method != default.method:
            rules["method"] = exchange.method
        ids, path, parents = self._ids.find(name, call)
        if path != default.path:
            rules["path"] = path
        if constant := [part for part in path.split("/") if LONG_ID.fullmatch(part)]:
            doubts.append(
                f"the path has {', '.join(constant)}, which no response had before: the same for all requests?"
            )
        endpoint = replace(default, method=exchange.method, path=path)
        rules["request"] = self._requests.learn(role, endpoint, ids, rules, doubts)
        if exchange.encoding in ("form", "multipart") and name != "upload.image":
            rules["encoding"] = exchange.encoding
        response = self._responses.learn(role, parents, rules, doubts)
        if response:
            rules["response"] = response
        if not rules["request"]:
            del rules["request"]
        return rules, doubts

    def _learn_errors(self) -> None:
        """Learn that ``success: false`` is an error, if every response has such a flag."""
        responses = [call.exchange.response for call in self._seen.all_calls()]
        documents = [response for response in responses if isinstance(response, Mapping)]
        flags = (flag for flag in SUCCESS if documents and all(isinstance(each.get(flag), bool) for each in documents))
        flag = next(flags, None)
        if flag is None:
            return
        failed = [leaf for document in documents if document[flag] is False for leaf in leaves(document)]
        named = (steps for steps, value in failed if isinstance(value, str) and steps and _is_reason(steps[-1]))
        message = next(named, None)
        rule: dict[str, Any] = {"when": f"{flag} == `false`"}
        if message is not None:
            rule["message"] = path_text(message)
        self._out.everywhere["error"] = rule

    def _learn_headers(self) -> None:
        """Learn the headers that every request has with one value, such as ``api-version``."""
        requests = [call.exchange.request_headers for call in self._seen.all_calls()]
        constant: dict[str, str] = {}
        for name, value in requests[0].items() if requests else ():
            if name in STANDARD_HEADERS or name in RESERVED_HEADERS or name.startswith(("sec-", "x-forwarded")):
                continue
            if SECRET in value:
                if FORGERY.search(name):
                    self._seen.notes.append(
                        f"Requests have an anti-forgery token in the header {name}. The API may need it only beside "
                        "cookies; a contract cannot send it"
                    )
            elif value.isprintable() and value.isascii() and all(each.get(name) == value for each in requests):
                constant[name] = value
        if constant:
            self._out.everywhere["headers"] = constant

    def _learn_states(self) -> None:
        self._out.states, questions, doubts = learn_states(
            self._seen.roles.jobs, self._seen.jobs, self._seen.envelope, self._seen.answers
        )
        self._seen.questions += questions
        for kind, texts in doubts.items():
            row = self._seen.rows.get(f"{kind}.get")
            if row is not None:
                row.doubts += texts
        for kind, own in self._out.states.by_kind.items():
            for name, row in self._seen.rows.items():
                if row.rules is not None and name.startswith(f"{kind}."):
                    row.rules["states"] = dict(own)

    def _learn_evidence(self, evidence: Evidence) -> None:
        """Ask for the words that the live API used and nothing explains, and note what differed there."""
        known = Contract()
        for name, seen in evidence.operations.items():
            for word in seen.words:
                key = f"state:{word}"
                state = self._seen.answers.get(key)
                if word in self._out.states.words or known.state(word) is not JobState.UNKNOWN:
                    continue
                if state in END_STATES:
                    self._out.states.words[word] = state
                elif key not in {question.id for question in self._seen.questions}:
                    text = f"What does the status {word!r} mean? {name} of the live API had it."
                    self._seen.questions.append(Question(key, text, END_STATES))
            for problem in seen.problems:
                detail = " ".join(part for part in (problem.kind, problem.field, problem.seen) if part)
                self._seen.notes.append(f"The live API's {name}: {detail}")

    def _fill_unseen(self) -> None:
        """Set optional operations that were not seen to ``null``, and derive those that have a twin."""
        out = self._out
        seen = {job.kind for job in self._seen.roles.jobs}
        kinds = [kind.value for kind in JobKind if kind in seen]
        self._derive_cancels(kinds)
        for name, row in ENDPOINTS.items():
            if name in out.rows or name in UNBOUND or name.endswith(".page"):
                continue
            kind = name.partition(".")[0]
            if kind in JOBS and kind not in kinds:
                if name.endswith(".submit"):
                    out.not_seen.append(f"{kind}.*")
                continue
            out.not_seen.append(name)
            if row.optional and row.evidence == ASSUMED:
                out.rows[name] = Row(name, None)
        image = self._seen.roles.operations.get("upload.image")
        creates = "dataset.create" in self._seen.roles.operations
        if image is not None and creates and "upload.start" not in self._seen.roles.operations:
            for name in ("upload.start", "upload.finish"):
                if name not in self._seen.roles.operations:
                    out.rows[name] = Row(name, None, [], ["images were sent without it"])

    def _derive_cancels(self, kinds: Iterable[str]) -> None:
        """Derive how a job is cancelled from another kind whose jobs have paths of the same form; it is doubtful."""
        for seen in kinds:
            cancel, get = (self._seen.rows.get(f"{seen}.{verb}") for verb in ("cancel", "get"))
            if cancel is None or cancel.rules is None or get is None or get.rules is None:
                continue
            known = get.rules.get("path", ENDPOINTS[f"{seen}.get"].path)
            path = cancel.rules.get("path", ENDPOINTS[f"{seen}.cancel"].path)
            for kind in kinds:
                other = self._seen.rows.get(f"{kind}.get")
                if f"{kind}.cancel" in self._seen.rows or other is None or other.rules is None:
                    continue
                own = other.rules.get("path", ENDPOINTS[f"{kind}.get"].path)
                derived = path_by_analogy(known, path, own)
                if derived is not None:
                    rules = {**cancel.rules, "path": derived}
                    if derived == ENDPOINTS[f"{kind}.cancel"].path:
                        del rules["path"]
                    doubt = f"not seen: derived from the cancel of a {seen.replace('_', ' ')}"
                    self._seen.rows[f"{kind}.cancel"] = Row(f"{kind}.cancel", rules, [], [doubt])

    def _settle_documented(self) -> None:
        """Keep documented rows as they are, unless the user says that the recording counts."""
        out = self._out
        for name in list(out.rows):
            row = out.rows[name]
            if ENDPOINTS[name].evidence == ASSUMED:
                continue
            if row.rules == {} or (row.rules is None and not row.entries and name != "auth.sign_in"):
                continue
            out.conflicts[name] = row
        if not out.conflicts:
            return
        answer = self._seen.answers.get("documented")
        if answer == "recording":
            return
        for name in out.conflicts:
            out.rows.pop(name)
        if answer != "documentation":
            listed = ", ".join(out.conflicts)
            out.questions.insert(
                0,
                Question(
                    "documented",
                    f"The recording differs from the vendor's documentation in {listed}. Which one counts?",
                    ("recording", "documentation"),
                ),
            )


def _is_reason(name: str | int) -> bool:
    return bool({"message", "text", "detail", "reason"} & set(words(str(name))))


def path_by_analogy(known: str, path: str, own: str) -> str | None:
    """Return the path that is to *own* what *path* is to *known*."""
    if path.startswith(known):
        return own + path[len(known) :]
    first, second, third = known.split("/"), path.split("/"), own.split("/")
    if len(first) == len(second) == len(third):
        changed = [index for index, (a, b) in enumerate(zip(first, second, strict=True)) if a != b]
        kinds = [index for index, (a, b) in enumerate(zip(first, third, strict=True)) if a != b]
        if not set(changed) & set(kinds):
            return "/".join(second[i] if i in changed else third[i] for i in range(len(first)))
    return None
