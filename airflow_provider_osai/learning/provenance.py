"""Find where the values of requests come from: an id in a path is one that an earlier response had.

The same number may be the id of several things, so each use keeps all possible sources, best first.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from airflow_provider_osai.learning.recording import FILE, Exchange
from airflow_provider_osai.learning.values import Steps, is_id_name, is_opaque, leaves, same_thing, words

__all__ = ["Call", "Source", "Use", "trace"]

Place = Literal["path", "query", "body", "header"]
ACTION: Final = re.compile(r"(?P<id>[^:]+)(?P<action>:[A-Za-z]+)")
"""A segment such as ``12:cancel``."""
STANDARD_HEADERS: Final = frozenset(
    {
        *("accept", "accept-encoding", "accept-language", "authorization", "cache-control", "connection", "cookie"),
        *("content-length", "content-type", "dnt", "host", "origin", "pragma", "priority", "referer", "te"),
        *("upgrade-insecure-requests", "user-agent", "x-requested-with", "if-none-match", "if-modified-since"),
    }
)
MAX_SOURCES: Final = 40
LONG: Final = 6
"""Digits from which a number is no coincidence."""


@dataclass(frozen=True, slots=True)
class Source:
    """A value of an earlier response.

    :param call: the number of the call.
    :param steps: where it is in the response; ``()`` if it is all of it.
    :param header: the name of the header it is in, if it is.
    """

    call: int
    steps: Steps
    header: str | None = None


@dataclass(frozen=True, slots=True)
class Use:
    """A value of a request that an earlier response had.

    :param place: where it is in the request.
    :param steps: of the body; the name of the query parameter or header; the number of the path's segment.
    :param sources: where it may come from, most likely first.
    """

    place: Place
    steps: Steps
    value: str
    sources: tuple[Source, ...]


@dataclass(eq=False)
class Call:
    """One exchange with what is known of its values.

    :param template: the path, with ``{}`` for each segment that is an id.
    :param recording: the name of its file.
    """

    number: int
    exchange: Exchange
    template: str = ""
    uses: list[Use] = field(default_factory=list)

    @property
    def recording(self) -> str:
        """The name of the file that the exchange is from."""
        return self.exchange.source.rpartition("#")[0]

    def uses_of(self, source_call: int) -> list[Use]:
        """Return the uses whose most likely source is a call."""
        return [use for use in self.uses if use.sources and use.sources[0].call == source_call]

    def all_uses_of(self, source_call: int) -> list[Use]:
        """Return the uses that may come from a call."""
        return [use for use in self.uses if any(source.call == source_call for source in use.sources)]


def trace(exchanges: Sequence[Exchange]) -> list[Call]:
    """Return the exchanges with their templates and the sources of their values.

    Values of one recording are not looked for in another one.
    """
    calls: list[Call] = []
    known: dict[str, list[Source]] = defaultdict(list)
    recording = None
    for number, exchange in enumerate(exchanges):
        call = Call(number, exchange)
        if call.recording != recording:
            known.clear()
            recording = call.recording
        _trace_one(call, known, calls)
        calls.append(call)
        if exchange.is_success:
            _learn_values(call, known)
    return calls


def _trace_one(call: Call, known: dict[str, list[Source]], calls: Sequence[Call]) -> None:
    template: list[str] = []
    previous = ""
    for index, segment in enumerate(call.exchange.path):
        action = ACTION.fullmatch(segment)
        value, rest = (action["id"], action["action"]) if action else (segment, "")
        sources = _ranked(known.get(value, ()), previous, calls)
        literals = [part for part in template if "{}" not in part]
        is_named = any(_is_id_source(source) or _names_thing(source, literals) for source in sources)
        if sources and is_opaque(value) and (is_named or not value.isdigit() or len(value) >= LONG):
            template.append("{}" + rest)
            call.uses.append(Use("path", (index,), value, sources))
        else:
            template.append(segment)
        previous = segment if not sources else previous
    call.template = "/" + "/".join(template)
    last = next((part for part in reversed(template) if "{}" not in part), "")
    for name, text in call.exchange.query:
        for value in dict.fromkeys((text, *text.split(","))):
            _add(call, "query", (name,), value, known, name if words(name) != ("id",) else last, calls)
    for name, text in call.exchange.request_headers.items():
        if name not in STANDARD_HEADERS and not name.startswith("sec-"):
            _add(call, "header", (name,), text, known, name, calls)
    for steps, value in leaves(call.exchange.body):
        if isinstance(value, (str, int)) and not isinstance(value, bool) and value != FILE:
            name = next((str(step) for step in reversed(steps) if isinstance(step, str)), last)
            _add(call, "body", steps, str(value), known, name if words(name) != ("id",) else last, calls)


def _add(
    call: Call, place: Place, steps: Steps, value: str, known: dict[str, list[Source]], name: str, calls: Sequence[Call]
) -> None:
    sources = _ranked(known.get(value, ()), name, calls)
    if not sources or not value:
        return
    if value.isdigit() and len(value) < LONG and not any(_is_id_source(source) for source in sources):
        return  # a number that some response had by chance
    if is_opaque(value):
        call.uses.append(Use(place, steps, value, sources))


def _names_thing(source: Source, names: Sequence[str]) -> bool:
    """Whether the name of a value is one of *names*, as ``model`` is of ``/models/7``."""
    key = next((str(step) for step in reversed(source.steps) if isinstance(step, str)), "")
    return any(same_thing(key, name) for name in names)


def _is_id_source(source: Source) -> bool:
    name = next((str(step) for step in reversed(source.steps) if isinstance(step, str)), "id")
    return is_id_name(name) or source.header is not None or not source.steps


def _ranked(sources: Sequence[Source], name: str, calls: Sequence[Call]) -> tuple[Source, ...]:
    """Sort the possible sources of a value: what made a thing of that name comes before what only mentions it."""

    def rank(source: Source) -> tuple[float, int]:
        call = calls[source.call]
        key = next((str(step) for step in reversed(source.steps) if isinstance(step, str)), "id")
        literals = [part for part in call.template.split("/") if part and "{}" not in part]
        score = 0.0
        score += 4 * (is_id_name(key) or not source.steps)
        score += 3 * (call.exchange.method != "GET")
        score += 5 * (bool(literals) and same_thing(name, literals[-1]))
        score += 2 * any(same_thing(name, part) for part in literals[:-1])
        score += 4 * same_thing(name, key)
        score -= 0.5 * len([step for step in source.steps if isinstance(step, int)])
        score -= 0.1 * len(source.steps)
        return score, source.call

    return tuple(sorted(sources, key=rank, reverse=True))


def _learn_values(call: Call, known: dict[str, list[Source]]) -> None:
    exchange = call.exchange
    sent: dict[str, set[str]] = defaultdict(set)
    for use in call.uses:
        name = use.steps[0] if use.place != "path" else _before(exchange.path, int(use.steps[0]))
        if use.place == "body":
            name = next((str(step) for step in reversed(use.steps) if isinstance(step, str)), "")
        sent[use.value].add(str(name))
    documents: list[Any] = [exchange.response]
    documents += [message for message in exchange.messages if message is not None]
    for document in documents:
        has_other_id = any(
            steps and is_id_name(str(steps[-1])) and value is not None and str(value) not in sent
            for steps, value in leaves(document)
        )
        for steps, value in leaves(document):
            if isinstance(value, (str, int)) and not isinstance(value, bool) and value != "":
                text = str(value)
                name = next((str(step) for step in reversed(steps) if isinstance(step, str)), "id")
                if any(same_thing(name, other) or name == other for other in sent.get(text, ())):
                    continue  # what the request had, it did not make
                if text in sent and words(name) != ("id",) and has_other_id:
                    continue
                if len(known[text]) < MAX_SOURCES:
                    known[text].append(Source(call.number, steps))
    location = exchange.response_headers.get("location", "")
    for part in reversed(re.split(r"[/?&=:#]", location)):
        if is_opaque(part):
            known[part].append(Source(call.number, (), "location"))
            break


def _before(path: Sequence[str], index: int) -> str:
    """Return the segment before an id."""
    return path[index - 1] if index else ""
