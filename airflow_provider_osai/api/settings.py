"""What a connection says, checked once: where OSAI is, who we are there, and in which words to speak."""

from __future__ import annotations

import difflib
import hashlib
import ipaddress
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from airflow_provider_osai.api.contract import Contract
from airflow_provider_osai.api.errors import OsaiArgumentError
from airflow_provider_osai.api.rebinding import rebind

__all__ = ["EXTRAS", "REGIONS", "OsaiSettings", "is_loopback"]

REGIONS: Final[Mapping[str, str]] = MappingProxyType(
    {"eu": "https://app-eu.onestepai.com/api", "us": "https://app-us.onestepai.com/api"}
)
"""Base address by region (docs.onestepai.com/how_to_use_api/authorization)."""
EXTRAS: Final = ("base_url", "contract", "deployment", "region", "timeout", "webhook_base_url", "webhook_secret")
"""The extra fields of a connection."""
DEFAULT_TIMEOUT: Final = 30.0
MAX_DEPLOYMENT: Final = 100
"""Characters of a deployment's name."""
SHORTEST_SECRET: Final = 16
"""Characters that a webhook secret needs: whoever sees an address could guess a shorter one at leisure."""


class OsaiSettings(BaseModel):
    """One OSAI account at one address.

    :param base_url: the API's base address, without a slash at the end.
    :param access_token: the token made in the portal's settings.
    :param region: ``eu`` or ``us``; ``None`` if the address was given.
    :param timeout: seconds that one HTTP exchange may take to connect, and between two pieces of its answer. As a whole
        it may last four times as long, the sending of files left aside.
    :param contract: the API's words.
    :param deployment: tells the jobs of this Airflow from those of another one whose database is a copy of this one's.
    :param webhook_base_url: the address at which OSAI reaches this Airflow, without a slash at the end.
    :param webhook_secrets: sign webhook addresses with the first; both are good.
    """

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    base_url: str
    access_token: SecretStr
    region: str | None = None
    timeout: float = DEFAULT_TIMEOUT
    contract: Contract = Field(default_factory=Contract)
    deployment: str | None = None
    webhook_base_url: str | None = None
    webhook_secrets: tuple[SecretStr, ...] = ()

    @classmethod
    def from_connection(cls, access_token: str | None, extra: Mapping[str, Any]) -> OsaiSettings:
        """Check what a connection says.

        :param access_token: the connection's password.
        :param extra: its extra fields; those that are empty count as not given.
        :raises OsaiArgumentError: naming the field, its value and the remedy.
        :raises OsaiContractError: if the field ``contract`` does not hold.
        """
        given = {name: value for name, value in extra.items() if value not in (None, "", {})}
        token = (access_token or "").strip()
        if not token:
            msg = "the connection has no access token: make one in OSAI under Settings; it goes into the password field"
            raise OsaiArgumentError(msg)
        base_url = given.get("base_url")
        region = None if base_url else _region(given.get("region", "eu"))
        webhook = given.get("webhook_base_url")
        return cls(
            base_url=_address("base_url", base_url) if base_url else REGIONS[region or "eu"],
            access_token=SecretStr(token),
            region=region,
            timeout=_timeout(given.get("timeout", DEFAULT_TIMEOUT)),
            contract=rebind(Contract(), given.get("contract")),
            deployment=_deployment(given.get("deployment")),
            webhook_base_url=_address("webhook_base_url", webhook) if webhook else None,
            webhook_secrets=_secrets(given.get("webhook_secret", "")),
        )

    @property
    def endpoint_digest(self) -> str:
        """Digits that stand for the API's address."""
        return hashlib.sha256(self.base_url.encode()).hexdigest()[:12]

    @property
    def takes_webhooks(self) -> bool:
        """Whether both the address and the secret for webhooks are there."""
        return bool(self.webhook_base_url and self.webhook_secrets)

    @property
    def portal_url(self) -> str:
        """The portal's address: the API's without ``/api`` at the end (assumed)."""
        return self.base_url.removesuffix("/api")


def unknown_extras(extra: Mapping[str, Any]) -> str | None:
    """Return a warning that lists the allowed extra fields, if *extra* has others."""
    unknown = sorted(set(extra) - set(EXTRAS))
    if not unknown:
        return None
    return (
        f"The OSAI connection has unknown extra fields {unknown}; they are ignored. Allowed are: {', '.join(EXTRAS)}."
    )


def _region(value: Any) -> str:
    region = str(value).strip().lower()
    if region not in REGIONS:
        near = difflib.get_close_matches(region, REGIONS, n=1, cutoff=0.4)
        msg = f"there is no OSAI region {value!r}: choose {' or '.join(REGIONS)}" + (
            f" (did you mean {near[0]}?)" if near else ""
        )
        raise OsaiArgumentError(msg)
    return region


def _timeout(value: Any) -> float:
    try:
        timeout = float(value)
    except (TypeError, ValueError):
        timeout = 0.0
    if not 0 < timeout <= 3600:
        msg = f"timeout = {value!r}: a number of seconds is needed, more than 0 and at most 3600"
        raise OsaiArgumentError(msg)
    return timeout


def _deployment(value: Any) -> str | None:
    name = str(value or "").strip()
    if len(name) > MAX_DEPLOYMENT:
        msg = f"deployment = {name[:20]!r}...: at most {MAX_DEPLOYMENT} characters are allowed"
        raise OsaiArgumentError(msg)
    return name or None


def _secrets(value: Any) -> tuple[SecretStr, ...]:
    secrets = str(value).replace(",", " ").split()
    if len(secrets) > 2 or any(len(secret) < SHORTEST_SECRET for secret in secrets):
        msg = (
            f"webhook_secret: one secret of at least {SHORTEST_SECRET} characters is needed, or two with a space in "
            "between, of which the first signs and both are good"
        )
        raise OsaiArgumentError(msg)
    return tuple(SecretStr(secret) for secret in secrets)


def _address(field: str, value: Any) -> str:
    text = str(value).strip().rstrip("/")
    parts = _split(text)
    if parts is None or parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        msg = (
            f"{field} = {_without_login(text)!r}: a whole address is needed, for instance https://osai.example.com/api"
        )
        raise OsaiArgumentError(msg)
    if parts.username or parts.password:
        msg = f"{field} = {_without_login(text)!r}: it must not hold a login; the token belongs in the password field"
        raise OsaiArgumentError(msg)
    if parts.scheme == "http" and not is_loopback(parts.hostname):
        msg = f"{field} = {text!r}: the token would travel in the clear; use https (http is for this machine only)"
        raise OsaiArgumentError(msg)
    return text


def _split(text: str) -> SplitResult | None:
    try:
        parts = urlsplit(text)
        parts.port  # noqa: B018 - raises on a port that is no number
    except ValueError:
        return None
    return parts


def _without_login(text: str) -> str:
    scheme, _, rest = text.partition("://")
    return f"{scheme}://***@{rest.rpartition('@')[2]}" if "@" in rest else text


def is_loopback(host: str) -> bool:
    """Whether *host* is this machine by its name or number."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
