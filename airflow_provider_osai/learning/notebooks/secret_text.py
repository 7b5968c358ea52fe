"""Recognize secrets in source code, by their names and by their looks, and replace them by variables."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import pairwise
from typing import Any, Final

from airflow_provider_osai.learning.notebooks.stated_calls import MAX_NAME, Variable

__all__ = ["SecretValues", "is_secret_name", "looks_like_secret"]

_STRONG_NAME: Final = re.compile(
    r"passw|passphrase|passcode|pwd|secret|token|credential|bearer|jwt|(api|access|private|shared)_?key|authorization"
    r"|cookie|signature|(^|_)(pw|pin|otp|pass|sig)(_|$)"
)
_WEAK_NAME: Final = re.compile(
    r"key(?!_?(point|frame|word|board))|e_?mail|(^|_)(user|login|auth|phone|sid)(_?name)?$|(first|last|full)_?name"
)
"""Values of these are secrets where they stand; plain words, such as ``key = "state"``, are not searched elsewhere."""
_DESCRIBES_SECRET: Final = re.compile(r"(ur[il]|path|endpoint|route|type|expir\w*|ttl|header|field|limit|count)s?$")
"""Names that end so are not secrets themselves: ``token_url``, ``token_type``."""
_PLAIN_WORD: Final = re.compile(r"[A-Za-z_]{1,20}")
_TOKEN: Final = re.compile(r"eyJ[\w-]{6,}|(AKIA|ASIA)[A-Z0-9]{16}|AIza[\w-]{20}|(gh[pousr]_|xox[abp]-|sk-)\w{10}")
"""JWTs, and tokens of well-known services."""
_EMAIL: Final = re.compile(r"[^\s@/:?&=]{1,64}@[^\s@/:?&=]{1,250}\.\w")
_UUID: Final = re.compile(r"[0-9a-f]{8}-?([0-9a-f]{4}-?){3}[0-9a-f]{12}", re.IGNORECASE)
_RUN: Final = re.compile(r"[A-Za-z0-9+/=_~.-]{16,}")
_PLACEHOLDER: Final = re.compile(r"\{\w+\}")
_TIME: Final = re.compile(r"\d{4}-?\d\d-?\d\dT[\d:.]*Z?")
MIN_SEARCHED: Final = 4
"""Minimum characters of a secret that is searched for inside texts; a shorter one is compared with whole texts."""
MAX_SECRETS: Final = 2_000
"""Maximum number of secrets that are searched for; no notebook of an API has so many."""


def is_secret_name(name: str) -> bool:
    """Return whether a variable, field or header of this name holds a secret, or personal data."""
    plain = _plain(name)
    return bool((_STRONG_NAME.search(plain) or _WEAK_NAME.search(plain)) and not _DESCRIBES_SECRET.search(plain))


def looks_like_secret(text: str) -> bool:
    """Return whether *text* contains a JWT, an e-mail address, a UUID or a long random word."""
    text = _TIME.sub("", _PLACEHOLDER.sub("/", text))
    if _TOKEN.search(text) or _EMAIL.search(text) or _UUID.search(text):
        return True
    for run in _RUN.findall(text):
        chunks = re.split(r"[-_~./]", run)
        if any(len(chunk) >= 16 and _is_random(chunk, either=True) for chunk in chunks):
            return True
        joined = re.sub(r"[-_]", "", run)
        if "/" not in run and len(joined) >= 24 and _is_random(joined, either=False):
            return True
    return False


def _plain(name: str) -> str:
    """Return a name in lower snake case."""
    return re.sub(r"[\W_]+", "_", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name[:MAX_NAME])).lower().strip("_")


def _is_random(word: str, *, either: bool) -> bool:
    """Judge by the share of digits, and by how often the class of character changes."""
    classes = ["d" if c.isdigit() else "u" if c.isupper() else "l" for c in word]
    changes = sum(before != after for before, after in pairwise(classes))
    digits = classes.count("d")
    varied = changes >= 0.4 * len(word)
    if not digits:
        return either and varied and len(word) >= 20
    return (digits >= 0.2 * len(word) or varied) if either else (digits >= 0.2 * len(word) and varied)


class SecretValues:
    """The secrets of a notebook, with the names of the variables that hold them."""

    def __init__(self) -> None:
        self._exact: dict[str, str] = {}
        self._searched: dict[str, str] = {}
        self._pattern: re.Pattern[str] | None = None

    def add(self, name: str, value: str | float, *, is_certain: bool = False) -> None:
        """Add the value of a secret; values that are only a placeholder are ignored.

        :param is_certain: whether a plain word is a secret whatever its name.
        """
        name = "value" if looks_like_secret(name) else Variable.of(name).name
        text = str(value).strip()
        if not text or _plain(text) in (_plain(name), "") or len(self._exact) >= MAX_SECRETS:
            return
        if not is_certain and not _STRONG_NAME.search(_plain(name)) and _PLAIN_WORD.fullmatch(text):
            return
        self._exact[text] = name
        if len(text) >= MIN_SEARCHED:
            self._searched[text] = name
            self._pattern = None

    def is_secret(self, text: str) -> bool:
        """Return whether a text is or contains a secret."""
        return text.strip() in self._exact or self._replace(text) != text or looks_like_secret(text)

    def clean_path(self, path: str) -> str:
        """Return a path whose secret segments are variables."""
        segments = self._replace(path).split("/")
        return "/".join(
            "{id}" if _UUID.search(each) else "{value}" if self.is_secret(each) else each for each in segments
        )

    def clean_name(self, name: str) -> str:
        """Return a name of a field or variable, or ``value`` if it contains a secret."""
        return "value" if self.is_secret(name) else name

    def clean(self, value: Any, name: str = "value") -> Any:
        """Return a JSON-like value whose secrets are variables.

        :param name: the name of the field with this value.
        """
        if isinstance(value, Mapping):
            return {self.clean_name(key): self.clean(each, key) for key, each in value.items()}
        if isinstance(value, list):
            return [self.clean(each, name) for each in value]
        if isinstance(value, Variable):
            return Variable(self.clean_name(value.name))
        return value if isinstance(value, bool) or value is None else self._clean_scalar(value, name)

    def _clean_scalar(self, value: str | float, name: str) -> str | float | Variable:
        text = str(value)
        if text.strip() in self._exact:
            return Variable(self._exact[text.strip()])
        if is_secret_name(name) or (isinstance(value, str) and looks_like_secret(text)):
            return Variable(self.clean_name(Variable.of(name).name))
        return self._replace(value) if isinstance(value, str) else value

    def _replace(self, text: str) -> str:
        """Return a text in which each secret is replaced by its variable."""
        if not self._searched:
            return text
        if self._pattern is None:
            longest_first = sorted(self._searched, key=len, reverse=True)
            self._pattern = re.compile("|".join(map(re.escape, longest_first)))
        return self._pattern.sub(lambda match: f"{{{self._searched[match[0]]}}}", text)
