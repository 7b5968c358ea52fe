"""Find out which operation each call is, by what it does: a job's submission is the call whose id is polled afterwards.

Names count only where the behavior leaves several possibilities.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from airflow_provider_osai.api.models import JobKind
from airflow_provider_osai.learning.provenance import Call, Source
from airflow_provider_osai.learning.recording import FILE
from airflow_provider_osai.learning.redaction import SECRET, is_sign_in_path
from airflow_provider_osai.learning.values import Steps, at, is_id_name, leaves, same_thing, similarity, words
from airflow_provider_osai.learning.vocabulary import RESPONSE

__all__ = ["ENDING", "KIND_WORDS", "MAKERS", "JobTrace", "Role", "Roles", "find_roles", "list_in"]

USER: Final = frozenset({"user", "me", "account", "profile", "whoami", "self"})
OPENING: Final = frozenset(
    {"start", "begin", "open", "upload", "batch", "lock", "session", "ingestion", "ingest", "uploading"}
)
CLOSING: Final = frozenset(
    {"finish", "end", "close", "complete", "commit", "done", "unlock", "lock", "uploading", "stop"}
)
ENDING: Final = frozenset(
    {"cancel", "stop", "abort", "halt", "kill", "terminate", "end", "return", "release", "revoke", "delete"}
)
"""Words in the path of what ends a job."""
KIND_WORDS: Final[Mapping[JobKind, frozenset[str]]] = {
    JobKind.TRAINING: frozenset({"train", "training", "learn", "learning", "fit"}),
    JobKind.RETRAINING: frozenset(
        {
            "retrain",
            "retraining",
            "relearn",
            "refine",
            "refinement",
            "finetune",
            "fine",
            "tune",
            "tuning",
            "continue",
            "re",
        }
    ),
    JobKind.CONVERSION: frozenset(
        {"convert", "conversion", "export", "build", "compile", "port", "quantize", "deploy", "deployment", "optimize"}
    ),
    JobKind.PREDICTION: frozenset(
        {"predict", "prediction", "infer", "inference", "guess", "classify", "annotate", "label", "autolabel", "detect"}
    ),
    JobKind.MANIPULATION: frozenset(
        {
            "manipulate",
            "manipulation",
            "augment",
            "augmentation",
            "transform",
            "variant",
            "derive",
            "remix",
            "preprocess",
        }
    ),
    JobKind.DEVICE_RENTAL: frozenset(
        {"rent", "rental", "lease", "reserve", "reservation", "borrow", "device", "book", "booking"}
    ),
}
MAKERS: Final = (JobKind.TRAINING, JobKind.RETRAINING)
"""Kinds of jobs that make models."""
LIST_DEPTH: Final = 3
IMAGES: Final = frozenset({"image", "picture", "photo"})
VERBS: Final = frozenset({"all", "get", "list", "find", "one", "new", "create", "add", "search", "query"})


@dataclass
class Role:
    """An operation of the contract, and the calls that show it.

    :param doubts: why it may be wrong; empty: it follows from what the calls do.
    :param thing: the call that made what this operation is about, where there is one.
    """

    operation: str
    calls: list[Call]
    doubts: list[str] = field(default_factory=list)
    thing: Call | None = None


@dataclass(eq=False)
class JobTrace:
    """One job: its submission, and what was seen of it.

    :param value: its id, or the part of it that the submission returned.
    :param documents: the responses about it, in the order of time; pushed messages, too.
    :param has_submission: whether the first of them is the response to the submission.
    :param is_listed: whether they are items of lists, since the job has no operation of its own.
    :param is_used: whether a later request has its id in another role than that of the job.
    """

    kind: JobKind
    submit: Call
    value: str
    gets: list[Call] = field(default_factory=list)
    documents: list[Any] = field(default_factory=list)
    cancel: Call | None = None
    has_submission: bool = False
    is_listed: bool = False
    is_used: bool = False
    doubts: list[str] = field(default_factory=list)


@dataclass
class Roles:
    """All operations that were found.

    :param datasets: the calls that made the datasets, one for each recording.
    :param unused: calls that are no operation of the contract.
    """

    operations: dict[str, Role] = field(default_factory=dict)
    jobs: list[JobTrace] = field(default_factory=list)
    datasets: list[Call] = field(default_factory=list)
    uploads: list[Call] = field(default_factory=list)
    categories: list[Call] = field(default_factory=list)
    unused: list[Call] = field(default_factory=list)

    def add(self, operation: str, calls: Iterable[Call], doubts: Sequence[str] = (), thing: Call | None = None) -> None:
        """Add calls of an operation; those of another template than the first are left out."""
        calls = list(calls)
        if not calls:
            return
        role = self.operations.get(operation)
        if role is None:
            self.operations[operation] = Role(operation, calls, list(doubts), thing)
            return
        first = role.calls[0]
        role.calls += [
            call
            for call in calls
            if call not in role.calls
            and (call.exchange.method, call.template) == (first.exchange.method, first.template)
        ]


def find_roles(calls: Sequence[Call]) -> Roles:
    """Return the operations that the calls show."""
    roles = Roles()
    by_recording: dict[str, list[Call]] = defaultdict(list)
    for call in calls:
        by_recording[call.recording].append(call)
    for own in by_recording.values():
        _Finder(own, calls, roles).find()
    taken = {call.number for role in roles.operations.values() for call in role.calls}
    roles.unused = [call for call in calls if call.number not in taken]
    return roles


def list_in(document: Any, depth: int = LIST_DEPTH) -> tuple[Steps, list[Any]] | None:
    """Return the first list of objects (or an empty list) in a response, and where it is."""
    if isinstance(document, list):
        return ((), document) if not document or isinstance(document[0], (dict, str, int)) else None
    if isinstance(document, dict) and depth:
        for name, value in document.items():
            if isinstance(value, list) and (not value or isinstance(value[0], dict)):
                return (name,), value
        for name, value in document.items():
            if isinstance(value, dict) and (found := list_in(value, depth - 1)) is not None:
                return (name, *found[0]), found[1]
    return None


class _Finder:
    """Finds the operations in one recording."""

    def __init__(self, own: Sequence[Call], calls: Sequence[Call], roles: Roles) -> None:
        self._own = [call for call in own if call.exchange.is_success or call.exchange.status in (301, 302, 303, 307)]
        self._all = calls
        self._roles = roles
        self._users: dict[int, list[Call]] = defaultdict(list)
        """The calls that use a value which may come from a call, by the number of the latter."""
        for call in self._own:
            for number in {source.call for use in call.uses for source in use.sources}:
                self._users[number].append(call)
        self._lists = [call for call in self._own if call.exchange.method == "GET" and call.exchange.form == "json"]
        self._messages = [message for call in self._own for message in call.exchange.messages]
        self._mentioned = {text for message in self._messages for text in _texts(message)}
        self._taken: set[int] = set()
        self._images: set[str] = set()

    def find(self) -> None:
        """Add all operations; each step looks at what the ones before have left."""
        self._find_sign_in()
        images = self._find_images()
        dataset = self._find_dataset(images)
        if dataset is not None:
            self._find_upload(dataset, images)
        self._find_jobs(dataset)
        self._find_lists(dataset)
        self._find_models()
        if dataset is not None:
            self._find_dataset_calls(dataset)
        self._match_known()

    def _match_known(self) -> None:
        """Add calls of the form that another recording has shown for an operation."""
        for call in list(self._free()):
            for name, role in self._roles.operations.items():
                first = role.calls[0].exchange
                if (first.method, role.calls[0].template, first.form) == (
                    call.exchange.method, call.template, call.exchange.form
                ) and not name.endswith((".submit", ".cancel")):  # fmt: skip
                    self._take(name, [call])
                    break

    def _free(self) -> Iterator[Call]:
        return (call for call in self._own if call.number not in self._taken)

    def _take(
        self, operation: str, calls: Iterable[Call], doubts: Sequence[str] = (), thing: Call | None = None
    ) -> None:
        calls = list(calls)
        self._taken |= {call.number for call in calls}
        self._roles.add(operation, calls, doubts, thing)

    def _find_sign_in(self) -> None:
        sent = {
            token
            for call in self._own
            for value in call.exchange.request_headers.values()
            for token in value.split()
            if token.startswith(SECRET)
        }
        for call in self._own:
            if call.exchange.method != "POST":
                continue
            returned = {str(value) for _, value in leaves(call.exchange.response) if str(value).startswith(SECRET)}
            is_used = bool(returned & sent)
            if is_used or (returned and is_sign_in_path(call.exchange)):
                self._take("auth.sign_in", [call], [] if is_used else ["found by its name: no request shows its token"])
                break
        for call in self._free():
            last = call.exchange.path[-1:] or ("",)
            if call.exchange.method == "GET" and set(words(last[0])) & USER and call.exchange.form == "json":
                self._take("user.me", [call])
                break

    def _find_images(self) -> list[Call]:
        groups: dict[tuple[str, str], list[Call]] = defaultdict(list)
        for call in self._free():
            exchange = call.exchange
            has_file = exchange.encoding == "file" or (
                exchange.encoding == "multipart"
                and (not exchange.is_complete or any(value == FILE for _, value in leaves(exchange.body)))
            )
            if exchange.method in ("POST", "PUT") and has_file:
                groups[exchange.method, call.template].append(call)
        images = max(groups.values(), key=len, default=[])
        self._take("upload.image", images)
        self._images |= {
            str(value) for call in images for steps, value in leaves(call.exchange.response) if _names_id(steps)
        }
        return images

    def _find_dataset(self, images: Sequence[Call]) -> Call | None:
        """Return the call that made the dataset: its id is used by more operations than any other's of that time."""
        first = images[0].number if images else None
        best: tuple[int, int] | None = None
        found = None
        for call in self._free():
            if call.exchange.method == "GET" or (first is not None and call.number > first):
                continue
            users = {(other.exchange.method, other.template) for other in self._users[call.number]}
            polls = Counter(
                other.template
                for other in self._users[call.number]
                if other.exchange.method == "GET" and any(self._best_maker(use.sources, call) for use in other.uses)
            )
            makers = [key for key in users if key[0] != "GET"]
            if not makers or (not images and max(polls.values(), default=0) > 1):
                continue
            score = (len(users), -call.number)
            if best is None or score > best:
                best, found = score, call
        if found is not None:
            self._take("dataset.create", [found])
            self._roles.datasets.append(found)
        return found

    def _find_upload(self, dataset: Call, images: Sequence[Call]) -> None:
        """Find what is between the dataset and its first image, and after the last one."""
        if not images:
            return
        last = images[-1].number
        before = [
            call
            for call in self._free()
            if dataset.number < call.number < last
            and call.exchange.method != "GET"
            and call.all_uses_of(dataset.number)
        ]
        groups: dict[tuple[str, str], list[Call]] = defaultdict(list)
        for call in before:
            groups[call.exchange.method, call.template].append(call)
        starts = self._opening(groups, images)
        self._take("upload.start", starts, thing=dataset)
        self._roles.uploads += starts
        self._find_finish(dataset, starts, images)
        first = images[0].number
        categories = [
            [call for call in group if call.number not in self._taken and call.number < first]
            for group in groups.values()
        ]
        for group in sorted(categories, key=len, reverse=True)[:1]:
            if group:
                names = {value for call in group for _, value in leaves(call.exchange.body) if isinstance(value, str)}
                is_used = any(image.all_uses_of(call.number) for image in images for call in group) or any(
                    value in names
                    for image in images
                    for _, value in leaves(image.exchange.body)
                    if isinstance(value, str)
                )
                doubts = [] if is_used else ["no image was sent with an id of it"]
                self._take("category.create", group, doubts, dataset)
                self._roles.categories += group

    def _opening(self, groups: Mapping[tuple[str, str], list[Call]], images: Sequence[Call]) -> list[Call]:
        """Return the calls that opened uploads: every image has the id of one, or its name says so."""
        fallback: list[Call] = []
        for group in groups.values():
            own = [call for call in group if call.number < images[-1].number]
            in_all = all(any(image.all_uses_of(call.number) for call in own) for image in images)
            is_category = any(map(_looks_like_category, group))
            is_named = bool(set(words(_tail(group[0]))) & OPENING)
            if in_all and (is_named or not is_category):
                return own
            if is_named and not is_category and group[0].number < images[0].number:
                fallback = fallback or group
        return fallback

    def _find_finish(self, dataset: Call, starts: Sequence[Call], images: Sequence[Call]) -> None:
        """Find what comes after the images, and has the id of the upload or names its end."""
        numbers = {call.number for call in starts}
        groups: dict[tuple[str, str], list[Call]] = defaultdict(list)
        for call in self._free():
            if call.exchange.method != "GET" and call.number > images[0].number:
                groups[call.exchange.method, call.template].append(call)
        for group in groups.values():
            closes = any(source.call in numbers for use in group[0].uses for source in use.sources)
            is_named = group[0].all_uses_of(dataset.number) and set(words(_tail(group[0]))) & CLOSING
            if closes or is_named:
                self._take("upload.finish", group, thing=starts[0] if starts else dataset)
                return

    def _find_jobs(self, dataset: Call | None) -> None:
        traces: list[JobTrace] = []
        for call in list(self._free()):
            if call.exchange.method == "GET" or call.number in self._taken:
                continue
            trace = self._job_of(call)
            if trace is not None:
                self._classify(trace, dataset, traces)
                traces.append(trace)
                self._taken.add(call.number)
                self._taken |= {get.number for get in trace.gets}
                if trace.cancel is not None:
                    self._taken.add(trace.cancel.number)
        for trace in traces:
            self._roles.jobs.append(trace)
            self._take(f"{trace.kind}.submit", [trace.submit], trace.doubts)
            self._take(f"{trace.kind}.get", trace.gets, trace.doubts, trace.submit)
            if trace.cancel is not None:
                self._take(f"{trace.kind}.cancel", [trace.cancel], trace.doubts, trace.submit)

    def _job_of(self, call: Call) -> JobTrace | None:
        """Return the job that a call submitted; ``None`` if nothing asked for it afterwards."""
        later = [other for other in self._users[call.number] if other.number not in self._taken]
        polls: dict[str, list[Call]] = defaultdict(list)
        values: Counter[str] = Counter()
        for other in later:
            if other.exchange.method != "GET" or other.exchange.form == "file":
                continue
            for use in other.all_uses_of(call.number):
                if self._best_maker(use.sources, call) and use.place in ("path", "query"):
                    polls[other.template + "?" + ",".join(sorted(name for name, _ in other.exchange.query))].append(
                        other
                    )
                    values[use.value] += 1
                    break
        pushed = self._pushed(call)
        if not polls and not pushed:
            return self._job_in_lists(call, later)
        if not values:
            values.update(pushed)
        value = values.most_common(1)[0][0]
        gets = max(polls.values(), key=lambda group: (_is_object(group[0]), len(group)), default=[])
        cancel = self._cancel_of(call, value, later)
        is_first = False
        documents = [get.exchange.response for get in gets]
        if documents and _is_alike(call.exchange.response, documents[0]):
            documents.insert(0, call.exchange.response)
            is_first = True
        for message in self._messages:
            documents += [found for found in _objects(message) if value in _texts(found)][:1]
        return JobTrace(JobKind.TRAINING, call, value, gets, documents, cancel, has_submission=is_first)

    def _job_in_lists(self, call: Call, later: Sequence[Call]) -> JobTrace | None:
        """Return the job that a call submitted, if it is watched in a list that is read again and again."""
        ids = {str(value) for steps, value in leaves(call.exchange.response) if value is not None and _names_id(steps)}
        polls: dict[tuple[str, str], list[tuple[Call, Any]]] = defaultdict(list)
        for other in self._lists:
            items = (list_in(other.exchange.response) or ((), ()))[1]
            for item in items if other.number > call.number and ids else ():
                own = _own_id(item, _tail(other))
                if own in ids and isinstance(item, Mapping):
                    polls[other.template, own].append((other, item))
        (_, value), seen = max(polls.items(), key=lambda pair: len(pair[1]), default=(("", ""), []))
        documents = [item for _, item in seen]
        is_watched = len(documents) > 1 and any(item != documents[0] for item in documents)
        has_status = any(
            similarity(str(steps[-1]), RESPONSE["status"]) >= 1 for steps, _ in leaves(documents[:1]) if steps
        )
        if not is_watched or not has_status:
            return None
        gets = [get for get, _ in seen]
        cancel = self._cancel_of(call, value, later)
        return JobTrace(JobKind.TRAINING, call, value, gets, documents, cancel, is_listed=True)

    def _best_maker(self, sources: Sequence[Source], call: Call) -> bool:
        """Whether a call is the most likely of the sources that made something."""
        makers = [source.call for source in sources if self._all[source.call].exchange.method != "GET"]
        return bool(makers) and makers[0] == call.number

    def _pushed(self, call: Call) -> list[str]:
        """Return the ids of the call's response that WebSocket messages mention."""
        found = []
        for steps, value in leaves(call.exchange.response):
            name = str(steps[-1]) if steps else "id"
            if is_id_name(name) and str(value) in self._mentioned and not isinstance(value, bool):
                found.append(str(value))
        return found

    def _cancel_of(self, call: Call, value: str, later: Sequence[Call]) -> Call | None:
        for other in later:
            if other.exchange.method == "GET" or (other.exchange.method, other.template) == (
                call.exchange.method,
                call.template,
            ):
                continue
            own = [use for use in other.uses if use.value == value and self._best_maker(use.sources, call)]
            inputs = list(leaves(other.exchange.body))
            is_ending = other.exchange.method == "DELETE" or set(words(_tail(other))) & ENDING
            if own and (is_ending or len(inputs) <= 1):
                return other
        return None

    def _classify(self, trace: JobTrace, dataset: Call | None, before: Sequence[JobTrace]) -> None:
        """Set the kind by what goes into the job, and by names where that leaves several kinds."""
        call = trace.submit
        known = [
            other.kind
            for other in self._roles.jobs
            if other.submit.template == call.template and _constants(other.submit) == _constants(call)
        ]
        if known:
            trace.kind = known[0]
            return
        has_dataset = dataset is not None and bool(call.all_uses_of(dataset.number))
        polled = {get.number for other in before for get in other.gets}
        made = {other.submit.number for other in before}
        has_model = any(
            source.call in polled or source.call in made
            for use in call.uses
            for source in use.sources
            if not (has_dataset and source.call == getattr(dataset, "number", None))
        )
        seen = _word_set(call)
        scores: dict[JobKind, float] = dict.fromkeys(JobKind, 0.0)
        for kind, vocabulary in KIND_WORDS.items():
            scores[kind] += 3 * bool(vocabulary & seen)
        for kind, wants_dataset, wants_model in (
            (JobKind.TRAINING, True, False), (JobKind.RETRAINING, True, True), (JobKind.PREDICTION, True, True),
            (JobKind.CONVERSION, False, True), (JobKind.MANIPULATION, True, False),
            (JobKind.DEVICE_RENTAL, False, False),
        ):  # fmt: skip
            scores[kind] += 2 * (has_dataset == wants_dataset) + 2 * (has_model == wants_model)
        ranked = sorted(scores, key=lambda kind: scores[kind], reverse=True)
        trace.kind = ranked[0]
        by_name = bool(KIND_WORDS[trace.kind] & seen)
        if not by_name or scores[ranked[0]] - scores[ranked[1]] < 1:
            others = ", ".join(kind.value for kind in ranked[1:2])
            trace.doubts.append(f"its kind follows only from what goes into it; it may be {others}")

    def _find_lists(self, dataset: Call | None) -> None:
        for call in list(self._free()):
            found = list_in(call.exchange.response) if call.exchange.method == "GET" else None
            if found is None or not found[1]:
                continue
            texts = {str(value) for item in found[1] for _, value in _own_scalars(item)}
            models = [get for trace in self._roles.jobs if trace.kind in MAKERS for get in trace.gets]
            has_model = any(self._all[source.call] in models for use in call.uses for source in use.sources)
            for trace in self._roles.jobs:
                if trace.kind is JobKind.CONVERSION and has_model:
                    continue  # the conversions of a model
                if trace.submit.recording == call.recording and trace.value in texts and _has_state(found[1], trace):
                    self._take(f"{trace.kind}.list", [call], thing=trace.submit)
                    break

    def _find_models(self) -> None:
        """Find what is done with the results of jobs."""
        finals = {
            get.number: trace for trace in self._roles.jobs for get in (*trace.gets, trace.submit)
            if trace.kind in (JobKind.TRAINING, JobKind.RETRAINING, JobKind.CONVERSION)
        }  # fmt: skip
        for call in list(self._free()):
            exchange = call.exchange
            makers = [source.call in finals for use in call.uses for source in use.sources]
            if exchange.method != "GET" or not any(makers):
                continue
            found = list_in(exchange.response) if exchange.form == "json" else None
            is_link = exchange.form == "json" and any(
                isinstance(value, str) and re.match(r"https?://", value) for _, value in leaves(exchange.response)
            )
            if exchange.form == "file" or exchange.status in (301, 302, 303, 307):
                self._take("model.download", [call])
            elif found is not None and not _is_mapping_with_id(exchange.response):
                self._take("model.conversions", [call])
            elif is_link and {"link", "download", "file", "url", "artifact", "content"} & _word_set(call):
                self._take("model.download", [call])
            else:
                self._take("model.get", [call])
        results = {text for trace in self._roles.jobs for text in _result_ids(trace)}
        for call in list(self._free()):
            found = list_in(call.exchange.response) if call.exchange.method == "GET" else None
            model = self._roles.operations.get("model.get")
            is_named = "model" in _word_set(call) or (model is not None and _is_list_of(call, model.calls[0]))
            if found and found[1] and is_named:
                texts = {str(value) for item in found[1] for _, value in _own_scalars(item)}
                if texts & results:
                    self._take("model.list", [call])
        self._find_empty_lists("model.list", "model.get")

    def _find_empty_lists(self, name: str, get: str) -> None:
        """Find a list that was empty by its path: that of one of its things, without the id."""
        role = self._roles.operations.get(get)
        if role is None or name in self._roles.operations:
            return
        for call in list(self._free()):
            found = list_in(call.exchange.response) if call.exchange.method == "GET" else None
            if found and not found[1] and _is_list_of(call, role.calls[0]):
                self._take(name, [call])

    def _find_dataset_calls(self, dataset: Call) -> None:
        ids = {str(value) for steps, value in leaves(dataset.exchange.response) if _names_id(steps)}
        categories = {
            str(value)
            for call in self._roles.categories
            for steps, value in leaves(call.exchange.response)
            if _names_id(steps)
        }
        for call in list(self._free()):
            exchange = call.exchange
            uses = call.all_uses_of(dataset.number)
            if exchange.method == "GET" and exchange.form == "json":
                inner = {
                    str(value) for steps, value in leaves(exchange.response) if steps and is_id_name(str(steps[-1]))
                }
                if uses and categories and categories <= inner and len(inner) <= 2 * len(categories) + 1:
                    self._take("category.list", [call])
                    continue
                found = list_in(exchange.response)
                is_list = found is not None and not _is_mapping_with_id(exchange.response)
                if is_list and found is not None:
                    self._take_list(call, found[1], ids, categories, has_parent=bool(uses))
                elif uses:
                    self._take("dataset.get", [call], thing=dataset)
            elif uses and call.number > dataset.number:
                tail = set(words(_tail(call)))
                if exchange.method == "DELETE" or tail & {"delete", "remove", "drop"}:
                    self._take("dataset.delete", [call], thing=dataset)

    def _take_list(
        self, call: Call, items: Sequence[Any], ids: set[str], categories: set[str], *, has_parent: bool
    ) -> None:
        own = {_own_id(item, _tail(call)) for item in items} - {None}
        texts = {str(value) for item in items for steps, value in _own_scalars(item) if _names_id(steps)}
        if has_parent and (self._images & (own | texts) or IMAGES & _word_set(call)):
            self._take("image.list", [call])
        elif has_parent and texts & categories:
            self._take("category.list", [call])
        elif (not has_parent and own & ids) or (
            not has_parent and not items and self._roles.datasets and _is_list_of(call, self._roles.datasets[-1])
        ):
            self._take("dataset.find", [call])


def _tail(call: Call) -> str:
    """Return the last part of a path that is not an id."""
    return call.template.replace("{}", "").rstrip("/").rpartition("/")[2]


def _looks_like_category(call: Call) -> bool:
    return any({"name", "title", "label"} & set(words(name)) for name in _names(call.exchange.body))


def _names(document: Any) -> Iterator[str]:
    for steps, _ in leaves(document):
        yield next((str(step) for step in reversed(steps) if isinstance(step, str)), "")


def _names_id(steps: Steps) -> bool:
    return not steps or is_id_name(str(steps[-1])) or isinstance(steps[-1], int)


def _word_set(call: Call) -> set[str]:
    """Return the words of a call's path, and of its body's names and short texts."""
    texts = [call.template.replace("{}", ""), *_names(call.exchange.body)]
    texts += [str(value) for _, value in leaves(call.exchange.body) if isinstance(value, str) and len(value) < 40]
    texts += [f"{name} {value}" for name, value in call.exchange.query if len(value) < 40]
    return {word for text in texts for word in words(text)}


def _constants(call: Call) -> dict[str, str]:
    """Return the short words in a body that tell the kinds apart at one address, such as ``{"job_type": "TRAIN"}``."""
    return {
        ".".join(map(str, steps)): value
        for steps, value in leaves(call.exchange.body)
        if isinstance(value, str) and value.isascii() and value.replace("_", "").isalpha()
        and set(words(str(steps[-1]) if steps else "")) & {"kind", "type", "job", "operation"}
        and any(set(words(value)) & vocabulary for vocabulary in KIND_WORDS.values())
    }  # fmt: skip


def _is_object(call: Call) -> bool:
    found = list_in(call.exchange.response)
    return found is None or _is_mapping_with_id(call.exchange.response)


def _is_mapping_with_id(document: Any, depth: int = 2) -> bool:
    """Whether a response is about one thing, even if a list is in it: an object with an id."""
    if not isinstance(document, dict):
        return False
    if any(
        is_id_name(name) and isinstance(value, (str, int)) and not isinstance(value, bool)
        for name, value in document.items()
    ):
        return True
    inner = [value for value in document.values() if isinstance(value, dict)]
    return depth > 0 and any(_is_mapping_with_id(value, depth - 1) for value in inner)


def _objects(document: Any) -> Iterator[Mapping[str, Any]]:
    """Yield the objects in a message, outermost last."""
    if isinstance(document, Mapping):
        for value in document.values():
            yield from _objects(value)
        yield document
    elif isinstance(document, list):
        for item in document:
            yield from _objects(item)


def _texts(document: Any) -> set[str]:
    return {str(value) for _, value in leaves(document) if not isinstance(value, bool)}


def _is_alike(first: Any, second: Any) -> bool:
    """Whether two responses are about the same kind of thing: most names are in both."""
    names, others = ({steps for steps, _ in leaves(document) if steps} for document in (first, second))
    return len(names & others) >= max(2, len(names) // 2)


def _is_list_of(call: Call, other: Call) -> bool:
    """Whether the path of a list is that of one of its things but for the id and a verb."""
    return _nouns(call) == _nouns(other)


def _nouns(call: Call) -> set[str]:
    return set(words(call.template.replace("{}", ""))) - VERBS


def _own_id(item: Any, noun: str) -> str | None:
    """Return the id of an item of a list.

    :param noun: the last part of the list's path, such as ``images``.
    """
    if not isinstance(item, Mapping):
        return str(item)
    named = [(steps, str(value)) for steps, value in _own_scalars(item) if _names_id(steps) and value is not None]
    plain = [value for steps, value in named if words(str(steps[-1])) == ("id",)]
    own = [value for steps, value in named if same_thing(noun, str(steps[-1]))]
    return next(iter(plain or own or [value for _, value in named]), None)


def _own_scalars(item: Any) -> Iterator[tuple[Steps, Any]]:
    """Yield the scalars of an item of a list, at most two levels deep."""
    for steps, value in leaves(item):
        if len(steps) <= 2:
            yield steps, value


def _has_state(items: Sequence[Any], trace: JobTrace) -> bool:
    """Whether the items of a list look like the job's own responses."""
    names = {steps[-1] for document in trace.documents for steps, _ in leaves(document) if steps}
    own_leaves = (leaf for document in trace.documents for leaf in leaves(document))
    keys = {steps[-1] for steps, value in own_leaves if steps and str(value) == trace.value}
    for item in items:
        if any(
            str(value) == trace.value and (not keys or steps[-1:] == () or steps[-1] in keys)
            for steps, value in leaves(item)
        ):
            own = {steps[-1] for steps, _ in leaves(item) if steps}
            return len(own & names) >= max(2, len(own) // 2)
    return False


def _result_ids(trace: JobTrace) -> set[str]:
    """Return the ids in the last response of a job that were not in the first one."""
    if not trace.documents:
        return set()
    first, last = trace.documents[0], trace.documents[-1]
    return {
        str(value)
        for steps, value in leaves(last)
        if isinstance(value, (str, int)) and not isinstance(value, bool) and str(at(first, steps)) != str(value)
    }
