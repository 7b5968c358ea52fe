"""Take secrets out of recordings by value, before anything else looks at them.

Every value that is a secret at one place (a header, a cookie, a sign-in, a query) is replaced wherever it occurs, and
always by the same placeholder, so that it can still be seen which request used what an earlier response returned.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from http.cookies import CookieError, SimpleCookie
from typing import Any, Final
from urllib.parse import quote, quote_plus

from airflow_provider_osai.api.errors import OsaiContractError
from airflow_provider_osai.learning.recording import Exchange

__all__ = ["SECRET", "Redactor", "is_sign_in_path"]

SECRET: Final = "secret-"  # noqa: S105 - begins placeholders
"""Begins the placeholders of secrets."""
MIN_LENGTH: Final = 6
"""Shorter values are replaced only where they are the whole value: they occur in other texts by chance."""
SECRET_NAME: Final = re.compile(
    r"token|secret|passw|pwd|credential|api.?key|auth(?!or)|session|csrf|xsrf|forgery|signature|^sig$|^key$|jwt|bearer",
    re.IGNORECASE,
)
"""Names of headers, fields and query parameters whose values are secrets."""
PERSON_NAME: Final = re.compile(
    r"(user|first|last|full|given|family|sur|nick|display|preferred|real|company|organi[sz]ation).?name|^name$|mail|"
    r"phone|login|avatar|address|company|organi[sz]ation",
    re.IGNORECASE,
)
"""Names of fields about a person, in responses about a user."""
PERSON_ANYWHERE: Final = re.compile(
    r"(user|first|last|given|family|sur).?name|e.?mail|phone|(created|updated|modified|changed|owned).?by|^owner$",
    re.IGNORECASE,
)
"""Names of fields about a person, in every response."""
SIGN_IN_PATH: Final = re.compile(
    r"(^|/)[^/]*(sign.?in|log.?in|logon|authenticate|authentication|authorize|oauth|token|auth)[^/]*$", re.IGNORECASE
)
SESSION_PATH: Final = re.compile(r"(^|/)sessions?$", re.IGNORECASE)
"""A sign-in if a secret is sent."""
USER_PATH: Final = re.compile(r"^(users?|me|account|accounts|profile|whoami|self)$", re.IGNORECASE)
JWT: Final = re.compile(r"eyJ[\w-]{5,}\.[\w-]{5,}\.[\w-]*")
EMAIL: Final = re.compile(r"[\w.+%-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63})+")
SIGNED_QUERY: Final = re.compile(r"[?&](?:[\w.-]*(?:sig|signature|token|credential|key)[\w.-]*)=([^&#\s\"']+)", re.I)
HARMLESS: Final = frozenset({"true", "false", "null", "none", "bearer", "basic"})


class Redactor:
    """Collects the secrets of exchanges, and replaces them.

    A value is known by what it is (a JWT, an e-mail address), by its name, or by where it is: everything in a sign-in.
    """

    def __init__(self) -> None:
        self._placeholders: dict[str, str] = {}
        self._counts: dict[str, int] = {}
        self._pattern: re.Pattern[str] | None = None

    def __repr__(self) -> str:
        return f"Redactor({len(self._placeholders)} values)"

    def collect(self, exchanges: Iterable[Exchange]) -> None:
        """Remember every secret of the exchanges."""
        for exchange in exchanges:
            self._collect_one(exchange)
        self._pattern = None

    def _collect_one(self, exchange: Exchange) -> None:
        for headers in (exchange.request_headers, exchange.response_headers):
            for name, value in headers.items():
                self._collect_header(name, value)
        for name, value in exchange.query:
            if SECRET_NAME.search(name):
                self._add(value, SECRET)
        is_sign_in = is_sign_in_path(exchange)
        is_user = any(USER_PATH.fullmatch(part) for part in exchange.path)
        for document in (exchange.body, exchange.response, *exchange.messages):
            for name, value in _named_values(document):
                if is_sign_in and name != "" and not SECRET_NAME.search(name) and len(value) < MIN_LENGTH:
                    continue
                if is_sign_in or SECRET_NAME.search(name):
                    self._add(value, SECRET)
                elif PERSON_ANYWHERE.search(name) or (is_user and PERSON_NAME.search(name)):
                    self._add(value, "person-")
                self._collect_text(value)
        for part in exchange.path:
            self._collect_text(part)

    def _collect_header(self, name: str, value: str) -> None:
        if name in ("cookie", "set-cookie"):
            try:
                for morsel in SimpleCookie(value).values():
                    self._add(morsel.value, SECRET)
            except CookieError:
                pass
            for pair in value.split(";"):
                self._add(pair.partition("=")[2].strip(), SECRET)
        elif name in ("authorization", "proxy-authorization"):
            self._add(value.rpartition(" ")[2], SECRET)
            self._add(value, SECRET)
        elif SECRET_NAME.search(name):
            self._add(value, SECRET)
        self._collect_text(value)

    def _collect_text(self, text: str) -> None:
        for found in JWT.findall(text):
            self._add(found, SECRET)
        for found in EMAIL.findall(text):
            self._add(found, "email-")
        for found in SIGNED_QUERY.findall(text):
            self._add(found, SECRET)

    def _add(self, value: str, prefix: str) -> None:
        value = value.strip().strip('"')
        if not value or value in self._placeholders or value.lower() in HARMLESS or value.startswith(SECRET):
            return
        self._counts[prefix] = self._counts.get(prefix, 0) + 1
        self._placeholders[value] = f"{prefix}{self._counts[prefix]}"

    @property
    def count(self) -> int:
        """The number of different values."""
        return len(self._placeholders)

    def redact(self, exchange: Exchange) -> Exchange:
        """Return the exchange with every collected value replaced, in names, too."""
        return replace(
            exchange,
            path=tuple(map(self.text, exchange.path)),
            query=tuple((self.text(name), self.text(value)) for name, value in exchange.query),
            request_headers={
                self.text(name): self._header(name, value) for name, value in exchange.request_headers.items()
            },
            response_headers={
                self.text(name): self._header(name, value) for name, value in exchange.response_headers.items()
            },
            body=self.value(exchange.body),
            response=self.value(exchange.response),
            messages=tuple(map(self.value, exchange.messages)),
        )

    def _header(self, name: str, value: str) -> str:
        if name in ("cookie", "set-cookie"):
            return "<cookies>"
        if name == "authorization":
            scheme, space, token = value.rpartition(" ")
            return scheme + space + self.text(token)
        return self.text(value)

    def value(self, document: Any) -> Any:
        """Return a JSON value with the collected values replaced."""
        if isinstance(document, str):
            return self.text(document)
        if isinstance(document, Mapping):
            return {self.text(str(name)): self.value(value) for name, value in document.items()}
        if isinstance(document, (list, tuple)):
            return [self.value(item) for item in document]
        return document

    def text(self, text: str) -> str:
        """Return a text with the collected values replaced."""
        if whole := self._placeholders.get(text):
            return whole
        if self._pattern is None:
            long = sorted((value for value in self._placeholders if len(value) >= MIN_LENGTH), key=len, reverse=True)
            self._pattern = re.compile("|".join(map(re.escape, long)) or r"(?!)")
        return self._pattern.sub(lambda match: self._placeholders[match[0]], text)

    def require_clean(self, text: str, what: str) -> str:
        """Return *text* if none of the collected values is in it, in any usual spelling.

        :param what: names the text in the error.
        :raises OsaiContractError: if one is; nothing must be written then.
        """
        for value, placeholder in self._placeholders.items():
            if len(value) >= MIN_LENGTH and any(form in text for form in _spellings(value)):
                raise OsaiContractError(
                    f"{what} would contain a value that was recognized as a secret ({placeholder}), so nothing was "
                    "written. Please report this, without the recording"
                )
        return text


def is_sign_in_path(exchange: Exchange) -> bool:
    """Return whether a request is a sign-in by its path."""
    path = "/".join(exchange.path)
    if exchange.method != "POST":
        return False
    has_secret = any(SECRET_NAME.search(name) for name, _ in _named_values(exchange.body))
    return bool(SIGN_IN_PATH.search(path) or (SESSION_PATH.search(path) and has_secret))


def _named_values(document: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Yield each text of a JSON value, with the name of its field."""
    stack = [(name, document)]
    while stack:
        name, value = stack.pop()
        if isinstance(value, str):
            yield name, value
        elif isinstance(value, Mapping):
            stack += [(str(key), inner) for key, inner in value.items()]
        elif isinstance(value, (list, tuple)):
            stack += [(name, item) for item in value]


def _spellings(value: str) -> set[str]:
    raw = value.encode("utf-8", "surrogatepass")
    coded = {base64.b64encode(raw).decode().rstrip("="), base64.urlsafe_b64encode(raw).decode().rstrip("=")}
    return {
        value,
        json.dumps(value)[1:-1],
        quote(value, safe="", errors="replace"),
        quote_plus(value, errors="replace"),
        *coded,
    }
