"""Learn how requests are authenticated: the sign-in, and the header of its token."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any, Final

from airflow_provider_osai.learning.recording import Exchange
from airflow_provider_osai.learning.redaction import SECRET
from airflow_provider_osai.learning.rules import header_name
from airflow_provider_osai.learning.seen import Row, Seen
from airflow_provider_osai.learning.values import Steps, leaves, path_text, words

__all__ = ["learn_sign_in"]

NO_TOKEN: Final = re.compile("cookie|csrf|xsrf|forgery", re.IGNORECASE)
"""Headers with secrets that are no token."""
SENT: Final = frozenset({"token", "key", "secret", "apikey", "accesstoken"})
"""Words in the name of the field with the access token."""


def learn_sign_in(seen: Seen) -> dict[str, Any]:
    """Learn the row ``auth.sign_in``, and return the key ``auth`` of the document; empty for the usual header."""
    headers = _token_headers(seen)
    role = seen.roles.operations.get("auth.sign_in")
    row = seen.rows.get("auth.sign_in")
    if role is not None and row is not None:
        _learn_row(seen, row, role.calls[0].exchange, headers)
        row.doubts = [*role.doubts, *row.doubts]
    if not headers:
        return {}
    name, prefix, _ = headers.most_common(1)[0][0]
    is_usual = (name, prefix) == ("authorization", "Bearer ")
    if role is None and is_usual:
        seen.notes.append(
            "No sign-in was seen, so the documented one is kept: record from before you sign in. If the API takes the "
            "access token itself, write auth.sign_in: null"
        )
    elif role is None:
        doubt = "no sign-in was seen: the header has a key, or the recording began after the sign-in"
        seen.rows["auth.sign_in"] = Row("auth.sign_in", None, [], [doubt])
    return {} if is_usual else {"header": header_name(name), "prefix": prefix}


def _token_headers(seen: Seen) -> Counter[tuple[str, str, str]]:
    """Return how often each header had which secret: its name, what is before the secret, and the secret."""
    headers: Counter[tuple[str, str, str]] = Counter()
    for call in seen.all_calls():
        for name, value in call.exchange.request_headers.items():
            prefix, space, token = value.rpartition(" ")
            if token.startswith(SECRET) and not NO_TOKEN.search(name):
                headers[name, prefix + space, token] += 1
    return headers


def _learn_row(seen: Seen, row: Row, exchange: Exchange, headers: Counter[tuple[str, str, str]]) -> None:
    """Keep the sign-in's method, path and encoding, and learn where both tokens are."""
    rules = {name: rule for name, rule in (row.rules or {}).items() if name in ("method", "path", "encoding")}
    row.rules, row.doubts = rules, []
    texts = [steps for steps, value in leaves(exchange.body) if isinstance(value, str)]
    if texts and texts[0]:
        named = [steps for steps in texts if set(words(str(steps[-1]))) & SENT]
        if not named and len(texts) > 1:
            seen.notes.append(
                "The page signs in with a name and a password. The documented sign-in with an access token is kept"
            )
            del seen.rows["auth.sign_in"]
            return
        place = (named or texts)[0]
        rules["request"] = {"accessToken": path_text(place)}
        if others := [path_text(steps) for steps in texts if steps != place]:
            row.doubts.append(f"the sign-in also has {', '.join(others)}, which a contract cannot send")
    token = _token_place(exchange, {token for _, _, token in headers})
    if token:
        rules["response"] = {"token": path_text(token)}


def _token_place(exchange: Exchange, sent: set[str]) -> Steps | None:
    """Return where the token of later requests is in the response; by its name if no request shows it."""
    secrets = [(steps, str(value)) for steps, value in leaves(exchange.response) if str(value).startswith(SECRET)]
    used = [steps for steps, value in secrets if value in sent]
    named = [steps for steps, _ in secrets if steps and {"token", "jwt"} & set(words(str(steps[-1])))]
    return next(iter(used or named), None)
