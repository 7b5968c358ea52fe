"""Find responses that the contract does not describe, and that would otherwise be misread in silence.

Each finding names the operation, what was seen, and the line to add to the contract.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from functools import lru_cache
from typing import Any, Final

from airflow_provider_osai.api.errors import OsaiContractError, sanitize_server_text
from airflow_provider_osai.api.text import normalize_word

__all__ = [
    "difference_text",
    "is_fraction_name",
    "is_percent",
    "observe_misfits",
    "raise_for_hidden_error",
    "raise_for_more_pages",
    "raise_for_other_id",
    "raise_for_unknown_image",
    "rental_misfit",
    "report_misfit",
    "sign_of_more",
    "warn_about_epoch",
    "warn_about_fraction",
    "warn_about_metrics",
    "warn_about_samples",
]

log = logging.getLogger(__name__)

SUCCESS_FLAGS: Final = frozenset({"success", "issuccess", "issuccessful", "succeeded", "ok"})
"""Keys (without case, underscores and hyphens) that tell whether the request succeeded."""
ERROR_KEYS: Final = frozenset({"error", "errors", "errormessage", "errorcode"})
"""Keys of an error's description."""
TOTALS: Final = frozenset(
    {"total", "totalcount", "totalitems", "totalresults", "totalelements", "recordstotal", "recordcount"}
)
"""Keys of the number of items in all pages."""
MORE: Final = frozenset(
    {
        *("next", "nextlink", "nextpage", "nextpagetoken", "nexttoken", "nextcursor", "continuationtoken"),
        *("more", "hasmore", "hasnext", "hasnextpage", "@odata.nextlink"),
    }
)
"""Keys that are set if there are more pages."""
LAST: Final = frozenset({"islast", "islastpage", "last", "lastpage"})
"""Keys that are false if there are more pages."""
LINK_NEXT: Final = re.compile(r"""<[^>]*>[^,]*;\s*rel\s*=\s*"?next"?""", re.IGNORECASE)
FRACTION_METRICS: Final = frozenset(
    {"accuracy", "auc", "balancedaccuracy", "f1", "f1score", "map", "precision", "recall", "valaccuracy"}
)
"""Metrics that are fractions by definition, from 0 to 1."""
LISTS: Final = ("history", "result.samples")
"""Our names of the fields of a job that are lists of objects."""
MAX_RATIO: Final = 10.0
"""Ratio of two durations from which their units differ: the smallest ratio of two units is 24."""

DIFFERENCES: Final = {
    "absent": "the API does not have the operation: set it to null, or change its path",
    "error": "the contract's 'error' takes this response for an error",
    "form": "the response does not have the contract's form",
    "lost": "{field} is no longer in the response; if it has another name now, add {operation}: "
    "{{response: {{{field}: ...}}}}",
    "missing": "{field} is not in the response: add {operation}: {{response: {{{field}: {seen}}}}}",
    "more-pages": "there are more pages than are read: add {operation}: {{pages: ...}}",
    "no-response": "there is no response",
    "not-json": "the response is not JSON",
    "other-id": "the response is about another id: check 'path' and 'response.id'",
    "scale": "{field} is not a fraction: if it is percent, add {operation}: {{response: {{{scaled}}}}}",
    "status": "returned {seen}; if that has a meaning, add {operation}: {{statuses: {{{seen}: ...}}}}",
    "too-large": "the response is too large",
    "type": "{field} is now of the type {seen}: add its form to {operation}: {{response: {{{formed}}}}}",
    "word": "unknown status word {seen}: add states: {{{seen}: ...}}",
}
"""How a response differs, by the kinds of problems in :mod:`.evidence`, with the line to add to the contract."""


_observers: list[Callable[[str, str], object]] = []
"""Of this process, as the log is: a metric counts what all its clients see."""


def observe_misfits(observer: Callable[[str, str], object]) -> None:
    """Have *observer* called for each misfit that is logged, with the operation and the kind of the problem.

    The kinds are those of :data:`DIFFERENCES`.
    """
    if observer not in _observers:
        _observers.append(observer)


def report_misfit(operation: str, kind: str) -> None:
    """Call the observers; what they raise is ignored."""
    for observer in _observers:
        with suppress(Exception):
            observer(operation, kind)


def difference_text(operation: str, kind: str, field: str = "", seen: str = "") -> str:
    """Return how a response differs from the contract, and the line to add to it.

    :param field: our name of the field.
    :param seen: a JSON type, a status word, an HTTP status, or the API's name of a field.
    """
    rules = {"scaled": _rule_text(field, "{scale: 100}"), "formed": _rule_text(field, "...")}
    return DIFFERENCES[kind].format(operation=operation, field=field, seen=seen or "...", **rules)


def _rule_text(field: str, rule: str) -> str:
    """Return a rule of a field as in a document: what is below a list is among its ``items``."""
    for name in LISTS:
        if field.startswith(f"{name}."):
            return f"{name}: {{items: {{{field.removeprefix(f'{name}.')}: {rule}}}}}"
    return f"{field}: {rule}"


def raise_for_hidden_error(operation: str, document: Any, *, has_content: bool) -> None:
    """Raise OsaiContractError if a response with a status of success describes an error.

    :param has_content: whether a result is expected in the response. If so, an error's description alone is not
        enough, since a failed job has one, too.
    """
    if not isinstance(document, Mapping):
        return
    named = {normalize_word(str(key)): key for key in document}
    for flag in SUCCESS_FLAGS & named.keys():
        if document[named[flag]] is False and (not has_content or "id" not in document):
            _raise_hidden(operation, document, named[flag])
    if not has_content:
        for key in ERROR_KEYS & named.keys():
            if document[named[key]]:
                _raise_hidden(operation, document, named[key])


def _raise_hidden(operation: str, document: Mapping[str, Any], key: str) -> None:
    reason = next((document[name] for name in document if normalize_word(name) in {"message", *ERROR_KEYS}), "")
    value = document[key]
    test = f"{key} == `false`" if value is False else key
    raise OsaiContractError(
        f"{operation}: the response has a status of success, and {key} = {sanitize_server_text(str(value), 100)!r} "
        f"({sanitize_server_text(str(reason), 300) or 'no reason given'}). If this is an error, add to the contract: "
        f"{operation}: {{error: {{when: {test!r}, message: ...}}}}; else the same with when: '`false`'"
    )


def raise_for_unknown_image(operation: str, fields: Mapping[str, Any], known: Iterable[str]) -> None:
    """Raise OsaiContractError if the response to an image has fields, but none that is known: it may be a refusal.

    :param known: the fields by which an image that was taken is recognized.
    """
    if fields and not any(fields.get(name) is not None for name in known):
        seen = sanitize_server_text(", ".join(sorted(map(str, fields))))
        raise OsaiContractError(
            f"{operation}: the response has only unknown fields ({seen}), so the image may have been refused. "
            f"Add to the contract the place of its id, {operation}: {{response: {{id: ...}}}}, and if there are "
            f"refusals with a status of success, {operation}: {{error: {{when: ..., means: invalid}}}}"
        )


def raise_for_more_pages(operation: str, document: Any, headers: Mapping[str, str], count: int) -> None:
    """Raise OsaiContractError if a list has more pages, and the contract does not say how to get them.

    :param count: the number of items in the response.
    """
    if seen := sign_of_more(document, headers, count):
        raise OsaiContractError(
            f"{operation}: the response has {count} items and more pages ({seen}). Add to the contract how to get "
            f"them, for example {operation}: {{pages: {{page: page, size: pageSize, total: total}}}}"
        )


def sign_of_more(document: Any, headers: Mapping[str, str], count: int) -> str | None:
    """Return what in a response says that a list has more pages; ``None`` if nothing does.

    :param count: the number of items so far.
    """
    return next(_signs_of_more(document, headers, count), None)


def _signs_of_more(document: Any, headers: Mapping[str, str], count: int) -> Iterator[str]:
    if LINK_NEXT.search(headers.get("link", "")):
        yield "header Link"
    for level in _objects(document, depth=2):
        for key, value in level.items():
            word = normalize_word(str(key))
            is_number = isinstance(value, int) and not isinstance(value, bool)
            if word in TOTALS and is_number and value > count:
                yield f"{key} = {value}"
            elif word in MORE and value not in (None, False, "", [], {}, 0):
                yield f"{key} is set"
            elif word in LAST and value is False:
                yield f"{key} = false"


def _objects(document: Any, depth: int) -> Iterator[Mapping[str, Any]]:
    """Yield a document and the objects in it, not those in lists."""
    if isinstance(document, Mapping):
        yield document
        for value in document.values() if depth else ():
            yield from _objects(value, depth - 1)


def raise_for_other_id(operation: str, asked: str, answered: str) -> None:
    """Raise OsaiContractError if a response is about another object than the one that was asked for."""
    if asked.strip("{}").casefold() != answered.strip("{}").casefold():
        raise OsaiContractError(
            f"{operation}: asked for id {asked[:100]!r}, and the response is about id "
            f"{sanitize_server_text(answered, 100)!r}. Check 'path' and 'response.id' of {operation!r} in the contract"
        )


def is_percent(metric: str, value: Any) -> bool:
    """Return whether a metric that is a fraction by its name has a value that is none, such as an accuracy of 93.5."""
    return type(value) in (int, float) and 1 < value <= 100 and is_fraction_name(metric)


def is_fraction_name(metric: str) -> bool:
    """Return whether a metric is a fraction by its name, from 0 to 1."""
    return normalize_word(metric) in FRACTION_METRICS


def warn_about_metrics(operation: str, place: str, metrics: Mapping[str, Any]) -> None:
    """Log once which metrics seem to be percent, and the line to add.

    :param place: our name of the metrics.
    """
    for name, value in metrics.items():
        if is_percent(name, value):
            _warn_about_metric(operation, f"{place}.{sanitize_server_text(name, 50)}")


@lru_cache(maxsize=1024)
def _warn_about_metric(operation: str, name: str) -> None:
    log.warning(
        "%s: %s is more than 1; is it percent? Then add to the contract %s: {response: {%s: {scale: 100}}}",
        *(operation, name, operation, name),
    )
    report_misfit(operation, "scale")


def rental_misfit(duration: float, started: str | None, expires: str | None) -> str | None:
    """Return a warning if a rental does not take about as long as was asked for; ``None`` if it does or is unknown.

    :param duration: the seconds that were asked for.
    :param started: when the rental started, ISO 8601.
    :param expires: when it expires.
    """
    try:
        seconds = (datetime.fromisoformat(str(expires)) - datetime.fromisoformat(str(started))).total_seconds()
    except (ValueError, TypeError):  # not times, or only one of them has a zone
        return None
    if duration / MAX_RATIO <= seconds <= duration * MAX_RATIO:
        return None
    return (
        f"Asked to rent for {duration:.0f} s, but the rental ends {seconds:.0f} s after its start. If OSAI counts in "
        "another unit, add to the contract device_rental.submit: {request: {duration: {unit: minutes}}}"
    )


def warn_about_epoch(operation: str, epoch: Any) -> None:
    """Log once which fractions of an epoch (as the API has it) seem to be percent, so that they are ignored.

    :param epoch: an item of the history.
    """
    if isinstance(epoch, Mapping):
        for name in ("accuracy", "valAccuracy"):
            if is_percent(name, epoch.get(name)):
                _warn_about_epoch(operation, name)


@lru_cache(maxsize=1024)
def _warn_about_epoch(operation: str, name: str) -> None:
    log.warning(
        "%s: %s in the history is more than 1 and is ignored; is it percent? Then add to the contract "
        "%s: {response: {history: {items: {%s: {scale: 100}}}}}",
        *(operation, name, operation, name),
    )
    report_misfit(operation, "scale")


def warn_about_samples(operation: str, samples: Any) -> None:
    """Log once that the confidence of sample predictions seems to be percent, so that it is ignored.

    :param samples: the list, as the API has it.
    """
    for sample in samples if isinstance(samples, list) else ():
        confidence = sample.get("confidence") if isinstance(sample, Mapping) else None
        if isinstance(confidence, (int, float)) and 1 < confidence <= 100:
            _warn_about_samples(operation)
            return


@lru_cache(maxsize=1024)
def _warn_about_samples(operation: str) -> None:
    log.warning(
        "%s: confidence in the sample predictions is more than 1 and is ignored; is it percent? Then add to the "
        "contract %s: {response: {result.samples: {items: {confidence: {scale: 100}}}}}",
        *(operation, operation),
    )
    report_misfit(operation, "scale")


def warn_about_fraction(operation: str, field: str, value: Any) -> None:
    """Log once that a field is not a fraction, so that it is ignored."""
    _warn_about_fraction(operation, field, isinstance(value, (int, float)) and 1 < value <= 100, str(value)[:50])


@lru_cache(maxsize=1024)
def _warn_about_fraction(operation: str, field: str, is_percent: bool, shown: str) -> None:
    remedy = "is it percent? Then add to" if is_percent else "change it in"
    log.warning(
        "%s: %s = %s is not a number from 0 to 1 and is ignored; %s the contract %s: {response: {%s: {scale: 100}}}",
        *(operation, field, sanitize_server_text(shown), remedy, operation, field),
    )
    report_misfit(operation, "scale")
