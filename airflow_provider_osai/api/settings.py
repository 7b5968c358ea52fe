"""The validated settings of a connection: API address, access token, contract overrides and webhook secrets."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

import httpx
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from airflow_provider_osai.api.addresses import is_loopback
from airflow_provider_osai.api.contract import Contract
from airflow_provider_osai.api.errors import OsaiArgumentError, OsaiContractError
from airflow_provider_osai.api.secret import HoldsSecret, SealedStr

__all__ = ["EXTRAS", "REGIONS", "OsaiSettings"]

REGIONS: Final[Mapping[str, str]] = MappingProxyType(
    {"eu": "https://app-eu.onestepai.com/api", "us": "https://app-us.onestepai.com/api"}
)
"""Base URL by region (docs.onestepai.com/how_to_use_api/authorization)."""
EXTRAS: Final = ("base_url", "contract", "deployment", "region", "timeout", "webhook_base_url", "webhook_secret")
"""The extra fields of a connection."""
DEFAULT_TIMEOUT: Final = 30.0
MAX_DEPLOYMENT: Final = 100
"""Maximum characters of a deployment's name."""
MIN_SECRET: Final = 16
"""Minimum characters of a webhook secret: a shorter one could be brute-forced offline from a webhook URL."""


class OsaiSettings(HoldsSecret, BaseModel):
    """The settings of one OSAI account. They contain secrets, so they cannot be pickled or deeply copied.

    :param base_url: the API's base URL, without a trailing slash.
    :param access_token: the token created in the portal's settings.
    :param region: ``eu`` or ``us``; ``None`` if *base_url* was given.
    :param timeout: seconds to connect, and between two chunks of a response. A whole request may take four times as
        long, not counting the upload of files.
    :param contract: the API's endpoints.
    :param deployment: distinguishes this Airflow's jobs from those of another Airflow with a copy of its database.
    :param webhook_base_url: the URL at which OSAI reaches this Airflow, without a trailing slash.
    :param webhook_secrets: the first signs webhook URLs; all are accepted.
    """

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    base_url: str
    access_token: SealedStr
    region: str | None = None
    timeout: float = DEFAULT_TIMEOUT
    contract: Contract = Field(default_factory=Contract)
    deployment: str | None = None
    webhook_base_url: str | None = None
    webhook_secrets: tuple[SealedStr, ...] = ()

    @classmethod
    def from_connection(cls, access_token: str | None, extra: Mapping[str, Any]) -> OsaiSettings:
        """Validate a connection and return its settings.

        :param access_token: the connection's password.
        :param extra: its extra fields; empty ones count as missing.
        :raises OsaiArgumentError: if a field is invalid; the message names it, its value and the remedy.
        :raises OsaiContractError: if the field ``contract`` is invalid.
        """
        given = {name: value for name, value in extra.items() if value not in (None, "", {})}
        token = (access_token or "").strip()
        if not token:
            msg = "The connection has no access token. Create one in OSAI under Settings and set it as the password"
            raise OsaiArgumentError(msg)
        if not token.isprintable():
            msg = "The access token contains an invalid character. Copy it from OSAI again and set it as the password"
            raise OsaiArgumentError(msg)
        base_url = given.get("base_url")
        region = None if base_url else _region(given.get("region", "eu"))
        webhook = given.get("webhook_base_url")
        url = _parse_url("base_url", base_url) if base_url else REGIONS[region or "eu"]
        contract = _contract(given.get("contract"))
        _require_relative_paths(contract, url)
        return cls(
            base_url=url,
            access_token=SecretStr(token),
            region=region,
            timeout=_timeout(given.get("timeout", DEFAULT_TIMEOUT)),
            contract=contract,
            deployment=_deployment(given.get("deployment")),
            webhook_base_url=_parse_url("webhook_base_url", webhook) if webhook else None,
            webhook_secrets=_secrets(given.get("webhook_secret", "")),
        )

    @property
    def endpoint_digest(self) -> str:
        """A short digest of the API's base URL."""
        return hashlib.sha256(self.base_url.encode()).hexdigest()[:12]

    @property
    def takes_webhooks(self) -> bool:
        """Whether the connection has both extras that webhooks need."""
        return self.missing_webhook_extra is None

    @property
    def asset_region(self) -> str:
        """The region in the URIs of assets and in lineage: the region, or the host if the connection has a base URL."""
        return self.region or urlsplit(self.base_url).netloc

    @property
    def missing_webhook_extra(self) -> str | None:
        """The extra that webhooks need and the connection lacks; ``None`` if it has both."""
        if not self.webhook_base_url:
            return "webhook_base_url"
        return None if self.webhook_secrets else "webhook_secret"

    @property
    def portal_url(self) -> str:
        """The portal's URL: the base URL without ``/api`` at the end (assumed)."""
        return self.base_url.removesuffix("/api")


def unknown_extras(extra: Mapping[str, Any]) -> str | None:
    """Return a warning if *extra* has unknown fields; it lists the allowed ones."""
    unknown = sorted(set(extra) - set(EXTRAS))
    if not unknown:
        return None
    allowed = ", ".join(EXTRAS)
    return f"The OSAI connection has unknown extra fields {unknown}; they are ignored. Allowed fields: {allowed}."


def _contract(document: Any) -> Contract:
    if document is None:
        return Contract()
    from airflow_provider_osai.api.overrides import apply_overrides  # only connections with a document need it

    return apply_overrides(Contract(), document)


def _require_relative_paths(contract: Contract, base_url: str) -> None:
    """Reject paths that repeat the path of the base URL, as API definitions show them: it would be sent twice."""
    prefix = urlsplit(base_url).path
    for name, endpoint in contract.endpoints.items():
        if endpoint is not None and prefix and endpoint.path.startswith(f"{prefix}/"):
            relative = endpoint.path.removeprefix(prefix)
            msg = (
                f"Contract key {name!r}: path {endpoint.path!r} repeats {prefix!r} of the base URL {base_url}. "
                f"Set it to {relative!r}"
            )
            raise OsaiContractError(msg)


def _region(value: Any) -> str:
    region = str(value).strip().lower()
    if region not in REGIONS:
        matches = difflib.get_close_matches(region, REGIONS, n=1, cutoff=0.4)
        suggestion = f" (did you mean {matches[0]}?)" if matches else ""
        msg = f"region = {value!r}: must be {' or '.join(REGIONS)}{suggestion}"
        raise OsaiArgumentError(msg)
    return region


def _timeout(value: Any) -> float:
    try:
        timeout = float(value)
    except (TypeError, ValueError):
        timeout = 0.0
    if not 0 < timeout <= 3600:
        msg = f"timeout = {value!r}: must be a number of seconds, more than 0 and at most 3600"
        raise OsaiArgumentError(msg)
    return timeout


def _deployment(value: Any) -> str | None:
    name = str(value or "").strip()
    if len(name) > MAX_DEPLOYMENT:
        msg = f"deployment = {name[:20]!r}...: must have at most {MAX_DEPLOYMENT} characters"
        raise OsaiArgumentError(msg)
    return name or None


def _secrets(value: Any) -> tuple[SecretStr, ...]:
    secrets = str(value).replace(",", " ").split()
    if len(secrets) > 2 or any(len(secret) < MIN_SECRET for secret in secrets):
        msg = (
            f"webhook_secret: must be one secret of at least {MIN_SECRET} characters, or two separated by a space; the "
            "first one signs, both are accepted"
        )
        raise OsaiArgumentError(msg)
    return tuple(SecretStr(secret) for secret in secrets)


def _parse_url(field: str, value: Any) -> str:
    text = str(value).strip().rstrip("/")
    parts = _split_url(text)
    if parts is None or parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        msg = f"{field} = {_redact_credentials(text)!r}: must be a complete URL, for instance https://osai.example.com/api"
        raise OsaiArgumentError(msg)
    if parts.username or parts.password:
        msg = f"{field} = {_redact_credentials(text)!r}: must not contain credentials; set the token as the password"
        raise OsaiArgumentError(msg)
    if parts.scheme == "http" and not is_loopback(parts.hostname):
        msg = f"{field} = {text!r}: the token would be sent unencrypted; use https (http is for this machine only)"
        raise OsaiArgumentError(msg)
    return text


def _split_url(text: str) -> SplitResult | None:
    try:
        parts = urlsplit(text)
        parts.port  # noqa: B018 - raises for an invalid port
        url = httpx.URL(text)
        url.host, url.raw_host.decode().encode("idna")  # raise for an invalid host name
    except (ValueError, httpx.InvalidURL):
        return None
    return parts


def _redact_credentials(text: str) -> str:
    scheme, _, rest = text.partition("://")
    return f"{scheme}://***@{rest.rpartition('@')[2]}" if "@" in rest else text
