"""Evidence of how an OSAI responds, as a file: names, types, codes and status words, and no other value.

What a file may hold is what the models below accept, so a value cannot get into it. ``osai-airflow contract evidence``
writes it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from airflow_provider_osai.api.errors import OsaiArgumentError
from airflow_provider_osai.api.misfits import FRACTION_METRICS, LAST, MORE, TOTALS
from airflow_provider_osai.api.text import normalize_word

__all__ = [
    "Evidence",
    "JsonType",
    "OperationEvidence",
    "Problem",
    "ProblemKind",
    "field_types",
    "json_type",
    "read_evidence",
    "safe_field",
    "safe_word",
]

FORMAT: Final = "osai-evidence"
VERSION: Final = 1
MAX_FILE: Final = 4 * 2**20
"""Maximum bytes of a file."""
MAX_FIELDS: Final = 300
"""Maximum fields of one operation."""
MAX_DEPTH: Final = 8
MAX_ITEMS: Final = 20
"""Maximum items of a list that are looked at."""
MAX_NAMES: Final = 64
"""Maximum names of an object; one with more is a map, whose keys are values."""
MAX_DIGITS: Final = 4
"""Maximum digits in a name; one with more is an id."""
ANY_NAME: Final = "*"
"""Stands for a name that may be a value."""

_WORD: Final = r"^[\w .-]{1,40}\Z"
_NAME: Final = re.compile(r"[A-Za-z_$@][A-Za-z0-9_$@-]{0,39}")
_USUAL: Final = frozenset(
    {
        *("loss", "valloss", "epoch", "width", "height", "x", "y", "page", "pages", "pagesize", "pagenumber", "size"),
        *("offset", "limit", "skip", "take", "count", "number", "id", "progress", "code", "status", "duration"),
        *FRACTION_METRICS,
        *TOTALS,
        *MORE,
        *LAST,
    }
)
"""Usual names of numbers (without case, underscores and hyphens): other names of numbers alone may be values."""

JsonType: TypeAlias = Literal["array", "boolean", "null", "number", "object", "string"]
ProblemKind: TypeAlias = Literal[
    "absent",
    "error",
    "form",
    "lost",
    "missing",
    "more-pages",
    "no-response",
    "not-json",
    "other-id",
    "scale",
    "status",
    "too-large",
    "type",
    "word",
]
"""How a response differs from the contract.

``absent``: no such operation. ``error``: an error in a response with a status of success. ``form``: not the contract's
form. ``lost``: a field that earlier responses had. ``missing``: a field that is not there. ``scale``: a number in
another unit. ``status``: an unexpected HTTP status. ``type``: a field of another type. ``word``: an unknown word.
"""
Code = Annotated[int, Field(ge=100, le=599)]
Count = Annotated[int, Field(ge=0)]
FieldPath = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_$@*.\[\]-]{0,300}\Z")]
Method: TypeAlias = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
Operation = Annotated[str, StringConstraints(pattern=r"^[a-z_]{1,40}\.[a-z_]{1,40}\Z")]
PathTemplate = Annotated[str, StringConstraints(pattern=r"^/[^\s?#]{0,500}\Z")]
Word = Annotated[str, StringConstraints(pattern=_WORD)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, regex_engine="python-re")


class Problem(_Part):
    """How responses of one operation differ from the contract.

    :param kind: see :data:`ProblemKind`.
    :param field: our name of the field that it is about, if any.
    :param seen: what was seen instead: a JSON type, a status word, an HTTP status, or the API's name of a field.
    """

    kind: ProblemKind
    field: FieldPath = ""
    seen: Annotated[str, StringConstraints(pattern=r"^[\w $@.-]{0,40}\Z")] = ""


class OperationEvidence(_Part):
    """What was seen of one operation.

    :param path: the path of the contract, with its placeholders.
    :param responses: the number of responses.
    :param codes: HTTP status -> number of responses.
    :param fields: the API's path of each field -> its JSON types. ``[]`` is each item of a list, ``*`` each key of an
        object whose keys may be values.
    :param words: the API's status word -> number of objects.
    :param problems: how the responses differ from the contract.
    """

    method: Method
    path: PathTemplate
    responses: Count = 0
    codes: Mapping[Code, Count] = {}
    fields: Mapping[FieldPath, tuple[JsonType, ...]] = {}
    words: Mapping[Word, Count] = {}
    problems: tuple[Problem, ...] = ()


class Evidence(_Part):
    """The content of a file: the operations by their names in the contract."""

    format: Literal["osai-evidence"] = FORMAT
    version: Literal[1] = VERSION
    operations: Mapping[Operation, OperationEvidence] = {}

    def to_json(self) -> str:
        """Return the text of the file."""
        return json.dumps(self.model_dump(mode="json"), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def read_evidence(path: Path) -> Evidence:
    """Read a file of evidence.

    :raises OsaiArgumentError: if it cannot be read, or is not one.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE + 1)
        if len(content) > MAX_FILE:
            raise OsaiArgumentError(f"{path}: longer than {MAX_FILE // 2**20} MiB, so not a file of evidence")
        return Evidence.model_validate_json(content)
    except OSError as error:
        raise OsaiArgumentError(f"{path}: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(map(str, first["loc"])) or "the document"
        raise OsaiArgumentError(
            f"{path} is not a file of evidence, version {VERSION}: {place}: {first['msg']}"
        ) from None


def safe_word(word: Any) -> str | None:
    """Return a status word that may be shown; ``None`` if it may be something else."""
    text = str(word).lower() if isinstance(word, bool) else str(word)
    return text if re.match(_WORD, text) else None


def safe_field(path: str) -> str:
    """Return our path of a field with ``*`` for each name that may be a value."""
    return ".".join(name if _is_name(name) else ANY_NAME for name in path.split(".")[:MAX_DEPTH])


def json_type(value: Any) -> JsonType:
    """Return the JSON type of a value."""
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int() | float():
            return "number"
        case str():
            return "string"
        case Mapping():
            return "object"
    return "array"


def field_types(
    document: Any,
    *,
    known: Iterable[str] = (),
    keyed: Iterable[str] = (),
    free: Iterable[str] = (),
    is_list: bool = False,
) -> dict[str, set[JsonType]]:
    """Return the path of each field of a JSON document, and its types; ``@`` is the document itself.

    :param known: names that are no values, such as those in the contract.
    :param keyed: names of fields that are objects with values as keys.
    :param free: names of fields below which any key may be a value.
    :param is_list: whether the document should hold a list: if it does not, an object may stand for it, by keys.
    """
    found: dict[str, set[JsonType]] = {}
    usual = _USUAL | {normalize_word(name) for name in known}
    walk = _Walk(usual, frozenset(keyed), frozenset(free), min_keys=1 if is_list and not _has_list(document) else 2)
    for path, value in walk.fields(document, "", "", 0):
        if path in found or len(found) < MAX_FIELDS:
            found.setdefault(path or "@", set()).add(json_type(value))
    return found


class _Walk:
    """Visits the fields of a document, with the names that may be values replaced.

    :param usual: names that are no values, as of :func:`.normalize_word`.
    :param keyed: see :func:`field_types`; so is *free*.
    :param min_keys: from how many keys on objects of one form make a map.
    """

    def __init__(self, usual: frozenset[str], keyed: frozenset[str], free: frozenset[str], min_keys: int) -> None:
        self._usual = usual
        self._keyed = keyed
        self._free = free
        self._min_keys = min_keys

    def fields(
        self, value: Any, path: str, name: str, depth: int, *, is_free: bool = False
    ) -> Iterator[tuple[str, Any]]:
        """Yield the path and value of a field, and of all below it."""
        yield path, value
        if depth == MAX_DEPTH:
            return
        is_free = is_free or name in self._free
        if isinstance(value, Mapping):
            only_usual = is_free or name in self._keyed or self._is_map(value)
            for key, each in list(value.items())[:MAX_NAMES]:
                is_shown = self._is_usual(str(key)) if only_usual else _is_name(str(key))
                shown = str(key) if is_shown else ANY_NAME
                below = f"{path}.{shown}" if path else shown
                yield from self.fields(each, below, str(key), depth + 1, is_free=is_free)
        elif isinstance(value, list):
            for each in value[:MAX_ITEMS]:
                yield from self.fields(each, f"{path}[]", "", depth + 1, is_free=is_free)

    def _is_usual(self, name: str) -> bool:
        return _is_name(name) and normalize_word(name) in self._usual

    def _is_map(self, value: Mapping[Any, Any]) -> bool:
        """Return whether the keys of an object may be values, such as ids or the names of categories."""
        names = [str(name) for name in value]
        if len(names) > MAX_NAMES or sum(map(_is_name, names)) * 2 < len(names):
            return True
        values = list(value.values())
        if len(names) >= self._min_keys and all(isinstance(each, Mapping) and each for each in values):
            return len({frozenset(each) for each in values}) == 1
        return len(names) > 1 and all(json_type(each) == "number" for each in values)


def _has_list(value: Any, depth: int = 0) -> bool:
    if isinstance(value, Mapping) and depth < MAX_DEPTH:
        return any(_has_list(each, depth + 1) for each in value.values())
    return isinstance(value, list)


def _is_name(name: str) -> bool:
    return _NAME.fullmatch(name) is not None and sum(map(str.isdigit, name)) <= MAX_DIGITS
