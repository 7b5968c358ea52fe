"""One field of a contract document: where it is on the wire, and how its value is converted, in both directions.

:meth:`FieldRule.to_api` converts our value to the API's, and :meth:`FieldRule.from_api` the API's to ours. The client
writes requests and reads responses; the sandbox reads requests and writes responses.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Annotated, Any, Final, Literal, TypeAlias
from urllib.parse import quote, unquote, urlsplit

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator

from airflow_provider_osai.api.joined_ids import json_word, split_parts
from airflow_provider_osai.api.json_paths import ABSENT, JsonPath, Steps, get_value, json_path, put_value

__all__ = ["EVERY", "SECONDS", "FieldRule", "PairsShape", "Place"]

Place: TypeAlias = Literal["body", "query", "header", "path"]
Path: TypeAlias = Annotated[str, StringConstraints(min_length=1, max_length=500)]
Scalar: TypeAlias = str | int | float | bool

SECONDS: Final[Mapping[str, float]] = {"milliseconds": 0.001, "seconds": 1, "minutes": 60, "hours": 3600, "days": 86400}
"""Seconds in each unit of a duration."""
TICKS_AT_EPOCH: Final = 621_355_968_000_000_000
"""The .NET ticks (100 ns since the year 1) of 1970-01-01."""
EPOCH: Final = datetime.fromtimestamp(0, UTC)
"""1970-01-01."""
EPOCHS: Final[Mapping[str, int]] = {"epoch": 1, "epoch_milliseconds": 1_000, "ticks": 10_000_000}
"""Units per second of each form of a time."""
VALUE: Final = "{value}"
"""Stands for the value in ``match`` and ``write``."""
FLAGS: Final[Mapping[str, bool]] = {"true": True, "false": False}
"""The JSON values of parts of a joined text that are flags."""
EVERY: Final = "*"
"""Stands for the names of all fields of an object that have no rule, in ``items``."""
DIGITS: Final = 12
"""Decimal digits to which a scaled number is rounded."""

_TIMESPAN: Final = re.compile(r"(?:(\d+)\.)?(\d{1,2}):(\d{2}):(\d{2}(?:\.\d{1,7})?)")
_ISO_DURATION: Final = re.compile(
    r"P(?:(\d+(?:\.\d+)?)D)?(?:T(?:(\d+(?:\.\d+)?)H)?(?:(\d+(?:\.\d+)?)M)?(?:(\d+(?:\.\d+)?)S)?)?"
)


class PairsShape(BaseModel):
    """An object as a list of objects with a key and a value each: ``[{"name": "accuracy", "value": 0.9}]``.

    Without ``value``, the rest of each object is the value: ``[{"type": "resize", "width": 64}]``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    key: str = Field(min_length=1)
    value: str | None = None


class FieldRule(BaseModel):
    """Where a field is on the wire, and the form of its value there.

    :param name: its place: a path, or a JMESPath expression in a response. Several paths: their values are joined with
        ``/`` into one text. ``$name``: the value of a field of the request. Default: our name.
    :param place: ``body``, ``query``, ``header`` or ``path`` (which needs a placeholder in the operation's path).
    :param values: our value -> the API's.
    :param scale: what our number is multiplied with: 100 for percent of a fraction.
    :param unit: of a duration (ours is seconds) or of a time (ours is ISO 8601 text).
    :param type: the JSON type of the value on the wire, where it is not that of ours. ``parsed``: our text is JSON, and
        the value is what it says.
    :param default: the API's value where there is none of ours: it is sent then, and in a response it counts as none.
    :param shape: ``one``: our list has one item, which is sent alone. ``list``: our value is the only item of a list.
        ``csv``: our list is comma-separated text. ``repeat``: the query key is repeated. ``json``: JSON text. An
        object, ``{key: name, value: value}``: our object is a list of pairs. ``pairs``: our object is a list of lists
        of a key and a value each.
    :param keyed_by: our list of objects is an object on the wire, whose keys are this field of our objects; with the
        shape ``list``, a list of objects with one of the keys each.
    :param items: rules of the fields of the object, or of the objects in the list, that the value is. ``*`` stands for
        each other field; so it does in its rule's ``name``: ``*.value``.
    :param match: where the value is in a text, as ``/Trainings/{value}`` or ``{value}s``; default for the header
        Location: at its end. In a text with a slash, the value is escaped as in an address.
    :param write: what is written for a field that is read with an expression; ``{value}`` is the value.
    :param writes: the same for each value; nothing for others.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, defer_build=True)

    name: Path | Annotated[tuple[Path, ...], Field(min_length=1)] | None = None
    place: Place | None = Field(default=None, alias="in")
    values: Annotated[dict[str, Scalar], Field(min_length=1)] | None = None
    scale: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    unit: (
        Literal[
            "milliseconds",
            "seconds",
            "minutes",
            "hours",
            "days",
            "iso8601",
            "timespan",
            "epoch",
            "epoch_milliseconds",
            "ticks",
        ]
        | None
    ) = None
    type: Literal["text", "number", "parsed"] | None = None
    default: Scalar | None = None
    shape: Literal["one", "list", "csv", "repeat", "json", "pairs"] | PairsShape | None = None
    keyed_by: str | None = None
    items: dict[str, Any] | None = None
    match: Annotated[str, StringConstraints(pattern=r"^[^{}]*\{value\}[^{}]*$")] | None = None
    write: Any = None
    writes: dict[str, Any] | None = None

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: Any) -> Any:
        for text in (name,) if isinstance(name, str) else (name or ()):
            if not text.startswith("$"):
                json_path(text)  # raises ValueError
        return name

    @field_validator("items", mode="before")
    @classmethod
    def _parse_items(cls, items: Any) -> Any:
        if not isinstance(items, Mapping):
            return items
        rules = {name: rule if isinstance(rule, FieldRule) else cls.parse(rule) for name, rule in items.items()}
        if EVERY in rules:
            _steps_of_every(rules[EVERY], EVERY)
        return rules

    @model_validator(mode="after")
    def _check_forms(self) -> FieldRule:
        if self.values is not None and (self.scale or self.unit):
            raise ValueError("values cannot be combined with scale or unit")
        if self.scale and self.unit:
            raise ValueError("scale and unit cannot be combined")
        if self.values is not None:
            words = [str(value).casefold() for value in self.values.values()]
            if len(set(words)) < len(words):
                raise ValueError("values has one value of the API twice, so it cannot be read")
        return self

    @classmethod
    def parse(cls, value: Any) -> FieldRule:
        """Return the rule of a document's value: a name, a list of names, or an object.

        :raises ValueError: if it is none of them.
        """
        if isinstance(value, (str, list)):
            value = {"name": value}
        elif not isinstance(value, (Mapping, FieldRule)):
            hint = " (YAML reads no, yes, on and off as this: quote them)" if isinstance(value, bool) else ""
            msg = f"must be a name, a list of names, or an object of rules, not {value!r:.40}{hint}"
            raise ValueError(msg)  # noqa: TRY004 - as pydantic's
        return cls.model_validate(value)

    @cached_property
    def paths(self) -> tuple[JsonPath, ...]:
        """The places, compiled once. A ``$name`` is a field of the request instead and has no path."""
        names = (self.name,) if isinstance(self.name, str) else (self.name or ())
        return tuple(json_path(name) for name in names if not name.startswith("$"))

    @cached_property
    def parts(self) -> tuple[str | JsonPath, ...] | None:
        """The parts of a joined value: paths, and ``$name`` for fields of the request. ``None``: not joined."""
        names = (self.name,) if isinstance(self.name, str) and self.name.startswith("$") else self.name
        if not isinstance(names, tuple):
            return None
        return tuple(name[1:] if name.startswith("$") else json_path(name) for name in names)

    def path(self, name: str) -> JsonPath:
        """Return the place of a value that is not joined.

        :param name: our name, which is the default.
        """
        return self.paths[0] if self.paths else json_path(name)

    def places(self, name: str, value: Any) -> list[tuple[JsonPath, Any]]:
        """Return the places in a request, and what is to be sent there: the converted value, or its joined parts.

        :raises ValueError: if the value has another number of parts.
        """
        if self.parts is None:
            return [(self.path(name), value)]
        pieces = split_parts(json_word(value))
        if len(pieces) != len(self.paths):
            raise ValueError(f"has {len(pieces)} parts, and the contract sends {len(self.paths)}")
        return [(path, FLAGS.get(piece, piece)) for path, piece in zip(self.paths, pieces, strict=True)]

    def to_api(self, value: Any) -> Any:
        """Convert our value to the API's.

        :raises ValueError: if the contract has no form for it.
        """
        if self.items is not None:
            value = _each_object(value, self._items_to_api)
        if self.keyed_by is not None:
            value = _to_keyed(value, self.keyed_by)
        if isinstance(self.shape, PairsShape):
            value = _to_pairs(value, self.shape)
        if self.shape == "pairs" and isinstance(value, Mapping):
            value = [[key, item] for key, item in value.items()]
        if self.shape == "one" and isinstance(value, (list, tuple)):
            if len(value) != 1:
                raise ValueError(f"has {len(value)} values, and the contract sends one")
            value = value[0]
        value = [self._one_to_api(item) for item in value] if isinstance(value, list) else self._one_to_api(value)
        if self.shape == "list" and self.keyed_by is not None and isinstance(value, Mapping):
            return [{key: item} for key, item in value.items()]
        if self.shape == "list":
            return value if isinstance(value, list) else [value]
        if self.shape == "csv":
            return ",".join(map(str, value)) if isinstance(value, list) else str(value)
        if self.shape == "json":
            return json.dumps(value)
        return json.loads(value) if self.type == "parsed" and isinstance(value, str) else value

    def from_api(self, value: Any) -> Any:
        """Convert the API's value to ours.

        :raises ValueError: if it does not have the form of the contract.
        """
        if self.type == "parsed":
            return json.dumps(value)
        if self.shape == "json" and isinstance(value, str):
            value = json.loads(value)
        elif self.shape == "csv":
            value = [text.strip() for text in str(value).split(",") if text.strip()]
        elif self.shape == "list" and self.keyed_by is not None and isinstance(value, list):
            value = {key: item for each in value for key, item in each.items()}
        elif self.shape == "list" and isinstance(value, list):
            if len(value) > 1:
                raise ValueError(f"has {len(value)} values, and the contract expects one")
            value = value[0] if value else None
        value = [self._one_from_api(item) for item in value] if isinstance(value, list) else self._one_from_api(value)
        if self.shape in ("one", "repeat") and value is not None and not isinstance(value, list):
            value = [value]
        if isinstance(self.shape, PairsShape):
            value = _from_pairs(value, self.shape)
        if self.shape == "pairs" and isinstance(value, list):
            value = {str(key): item for key, item in value}
        if self.keyed_by is not None:
            value = _from_keyed(value, self.keyed_by)
        if self.items is not None:
            value = _each_object(value, self._items_from_api)
        return value

    @cached_property
    def reader(self) -> Callable[[Any], Any]:
        """:meth:`from_api`, or a faster function that does the same for the form of this rule."""
        forms = self.model_fields_set - {"name", "place", "default", "match", "write", "writes"}
        if not forms:
            return lambda value: value
        scale, unit, shape = self.scale, self.unit, self.shape
        if forms == {"scale"} and scale is not None:
            return lambda value: _whole(value / scale) if type(value) in (int, float) else self.from_api(value)
        if forms == {"unit"} and unit is not None:
            return lambda value: _from_unit(value, unit) if type(value) in (int, float, str) else self.from_api(value)
        if forms == {"values"} and self.values is not None:
            ours = {word: name for name, word in self.values.items() if not isinstance(word, bool)}
            return lambda value: ours[value] if type(value) in (str, int) and value in ours else self.from_api(value)
        if forms == {"shape"} and isinstance(shape, PairsShape):
            return lambda value: _from_pairs(value, shape)
        return self.from_api

    def is_none(self, value: Any) -> bool:
        """Return whether the API's value stands for none of ours."""
        if value is ABSENT or value is None:
            return True
        return self.default is not None and json_word(value) == json_word(self.default)

    def extract(self, text: Any) -> Any:
        """Return the value in a text; by ``match``, or for the header Location its last path segment."""
        if self.match is None and not self.is_location:
            return text
        if not isinstance(text, str):
            raise ValueError("is not a text")  # noqa: TRY004 - the caller catches it
        if self.match is None:
            return unquote(urlsplit(text).path.rstrip("/").rpartition("/")[2])
        before, _, after = self.match.partition(VALUE)
        found = re.search(re.escape(before) + (r"([^/?#\s]+)" if not after else "(.+?)" + re.escape(after)), text)
        if found is None:
            raise ValueError(f"does not contain {self.match!r}")
        return unquote(found.group(1)) if "/" in self.match else found.group(1)

    def embed(self, value: Any) -> Any:
        """Return the text in which :meth:`extract` finds the value."""
        if self.match is None and not self.is_location:
            return value
        text = self.match or f"/{VALUE}"
        return text.replace(VALUE, quote(str(value), safe="") if "/" in text else str(value))

    @property
    def is_location(self) -> bool:
        """Whether the value is at the end of the header Location."""
        return self.place == "header" and str(self.name).lower() == "location"

    def fill_template(self, value: Any) -> Any:
        """Return ``write`` with the value in it."""

        def fill(node: Any) -> Any:
            if node == VALUE:
                return value
            if isinstance(node, Mapping):
                return {key: fill(item) for key, item in node.items()}
            return [fill(item) for item in node] if isinstance(node, list) else node

        return fill(self.write)

    def _items_to_api(self, item: Mapping[str, Any]) -> dict[str, Any]:
        rules: Mapping[str, FieldRule] = self.items or {}
        every = rules.get(EVERY)
        content: Any = {}
        for name, value in item.items():
            if name not in rules:
                steps = (name,) if every is None else _steps_of_every(every, name)
                content = put_value(content, steps, value if every is None else every.to_api(value))
        for name, rule in rules.items():
            if item.get(name) is None:
                continue
            converted = rule.to_api(item[name])
            if isinstance(rule.write, Mapping):
                content |= rule.fill_template(converted)
            else:
                content = rule.path(name).put(content, converted)
        return dict(content)

    def _items_from_api(self, item: Mapping[str, Any]) -> dict[str, Any]:
        rules: Mapping[str, FieldRule] = {name: rule for name, rule in (self.items or {}).items() if name != EVERY}
        every = (self.items or {}).get(EVERY)
        taken = {path.steps[0] for rule in rules.values() for path in rule.paths if path.steps}
        content: dict[str, Any] = {}
        for name in [name for name in item if name not in rules and name not in taken]:
            value = item[name] if every is None else get_value(item, _steps_of_every(every, name))
            if value is not ABSENT:
                content[name] = value if every is None else every.from_api(value)
        for name, rule in rules.items():
            value = rule.path(name).get(item)
            if not rule.is_none(value):
                content[name] = rule.from_api(value)
        return content

    def _one_to_api(self, value: Any) -> Any:
        if value is None or isinstance(value, (dict, list)):
            return value
        if self.values is not None:
            word = json_word(value)
            if word not in self.values:
                raise ValueError(f"{word!r} is not among the contract's values: {', '.join(self.values)}")
            return self.values[word]
        if self.scale is not None:
            value = _whole(float(value) * self.scale)
        elif self.unit is not None:
            value = _to_unit(value, self.unit)
        return _to_type(value, self.type)

    def _one_from_api(self, value: Any) -> Any:
        if value is None or isinstance(value, (dict, list)):
            return value
        if self.values is not None:
            word = json_word(value).casefold()
            for ours, theirs in self.values.items():
                if json_word(theirs).casefold() == word:
                    return ours
            known = ", ".join(map(json_word, self.values.values()))
            raise ValueError(f"{word[:40]!r} is not among the contract's values: {known}")
        if self.scale is not None:
            return _whole(float(value) / self.scale)
        if self.unit is not None:
            return _from_unit(value, self.unit)
        return json_word(value) if self.type == "number" and isinstance(value, (int, float)) else value


def _whole(number: float) -> int | float:
    rounded = round(number, DIGITS)
    return int(rounded) if rounded.is_integer() and abs(rounded) < 2**53 else rounded


def _to_type(value: Any, kind: str | None) -> Any:
    if kind == "text":
        return json_word(value)
    if kind == "number" and isinstance(value, str):
        try:
            return int(value)
        except ValueError:
            return float(value)
    return value


def _to_unit(value: Any, unit: str) -> Any:
    if unit in EPOCHS:
        moment = datetime.fromisoformat(str(value))
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        since = moment - EPOCH
        count = (since // timedelta(microseconds=1)) * EPOCHS[unit] / 1_000_000
        return int(count) + TICKS_AT_EPOCH if unit == "ticks" else _whole(count)
    seconds = float(value)
    if unit == "iso8601":
        return f"PT{_whole(seconds)}S"
    if unit == "timespan":
        days, rest = divmod(seconds, 86400)
        text = f"{int(rest // 3600):02}:{int(rest % 3600 // 60):02}:{_whole(rest % 60):02}"
        return f"{int(days)}.{text}" if days else text
    return _whole(seconds / SECONDS[unit])


def _from_unit(value: Any, unit: str) -> Any:
    if unit in EPOCHS:
        count = float(value) if unit != "ticks" else int(value) - TICKS_AT_EPOCH
        try:
            moment = EPOCH + timedelta(seconds=count / EPOCHS[unit])
        except OverflowError:
            raise ValueError(f"{value!r} is not a time in {unit}") from None
        return f"{moment.isoformat(timespec='milliseconds')[:-6]}Z"
    if unit in SECONDS:
        return _whole(round(float(value) * SECONDS[unit], 6))
    pattern = _ISO_DURATION if unit == "iso8601" else _TIMESPAN
    found = pattern.fullmatch(str(value))
    if found is None or not any(found.groups()):
        raise ValueError(f"{str(value)[:40]!r} is not a duration in the form {unit}")
    days, hours, minutes, seconds = (float(part or 0) for part in found.groups())
    return _whole(days * 86400 + hours * 3600 + minutes * 60 + seconds)


def _steps_of_every(rule: FieldRule, name: str) -> Steps:
    """Return where the field *name* is, by the rule of every field: ``*.value`` is below its name."""
    text = EVERY if rule.name is None else str(rule.name)
    below = json_path(text.removeprefix(f"{EVERY}.")).steps if text != EVERY else ()
    if not text.startswith(EVERY) or below is None:
        raise ValueError(f"{text!r} must be '*', or '*.' and a plain path")
    return (name, *below)


def _each_object(value: Any, convert: Any) -> Any:
    if isinstance(value, Mapping):
        return convert(value)
    if isinstance(value, (list, tuple)):
        return [convert(item) if isinstance(item, Mapping) else item for item in value]
    return value


def _to_pairs(value: Any, shape: PairsShape) -> Any:
    if not isinstance(value, Mapping):
        return value
    if shape.value is not None:
        return [{shape.key: key, shape.value: item} for key, item in value.items()]
    return [{shape.key: key, **(item if isinstance(item, Mapping) else {})} for key, item in value.items()]


def _from_pairs(value: Any, shape: PairsShape) -> Any:
    if not isinstance(value, list):
        return value
    key, inner = shape.key, shape.value
    pairs = [item for item in value if isinstance(item, dict) and key in item]
    if inner is not None:
        return {str(item[key]): item.get(inner) for item in pairs}
    return {str(item[shape.key]): {name: v for name, v in item.items() if name != shape.key} for item in pairs}


def _to_keyed(value: Any, key: str) -> Any:
    if not isinstance(value, (list, tuple)):
        return value
    keys = [item.get(key) for item in value if isinstance(item, Mapping)]
    if len(keys) < len(value) or len(set(keys)) < len(keys):
        raise ValueError(f"has two items with one {key!r}, and the contract sends an object with it as the key")
    return {str(item[key]): {name: v for name, v in item.items() if name != key} for item in value}


def _from_keyed(value: Any, key: str) -> Any:
    if not isinstance(value, Mapping):
        return value
    return [{key: name, **(item if isinstance(item, Mapping) else {})} for name, item in value.items()]
