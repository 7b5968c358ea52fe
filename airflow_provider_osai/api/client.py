"""The only two senders: :class:`OsaiClient` blocks, :class:`AsyncOsaiClient` awaits. All they decide is shared."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import mimetypes
import ssl
import time
import urllib.request
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import httpx
from httpx_retries import RetryTransport

from airflow_provider_osai.api.answers import LONGEST_WAIT, PASSING, Repeat, decipher
from airflow_provider_osai.api.auth import OnSecret, OsaiAuth, SignInRefused
from airflow_provider_osai.api.bounds import PACKING, TIMES, UPLOAD, AsyncBoundedTransport, BoundedTransport, Bounds
from airflow_provider_osai.api.calls import Calls
from airflow_provider_osai.api.errors import OsaiAuthError, OsaiContractError, OsaiError, OsaiUnreachable
from airflow_provider_osai.api.gathering import Gathered
from airflow_provider_osai.api.streams import receive
from airflow_provider_osai.api.tls import prepare, ssl_context

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Self

    from airflow_provider_osai.api.calls import Call
    from airflow_provider_osai.api.settings import OsaiSettings

__all__ = ["AsyncOsaiClient", "OsaiClient"]

T = TypeVar("T")

PATIENCE = 60.0
"""Seconds that retries of one request may wait in all."""
LIMITS = httpx.Limits(max_connections=100, max_keepalive_connections=100)
"""Connections that are kept open, however many requests there are at once."""
OFF_LOOP = 256 * 2**10
"""Bytes of an answer from which on its reading would hold an event loop for too long."""
_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol)

_SIGN_IN = "osai.sign_in"

logging.getLogger("httpx").setLevel(logging.WARNING)  # it would log a line for every poll


class _Sender:
    """What both senders share: how requests are made, repeated and read."""

    def __init__(
        self,
        settings: OsaiSettings,
        *,
        patience: float = PATIENCE,
        on_secret: OnSecret = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings = settings
        self.bounds = Bounds(TIMES * settings.timeout, clock)
        self.calls = Calls(settings.contract)
        self.auth = OsaiAuth(self._sign_in_request, settings.access_token, on_secret=on_secret)
        total = 8 if patience > 0 else 0
        budget: dict[str, Any] = {
            "backoff_factor": 0.5,
            "max_backoff_wait": LONGEST_WAIT,
            "total_timeout": patience or None,
        }
        every = ("GET", "PUT", "DELETE", "POST")
        self._repeat = Repeat(total, every, PASSING, **budget)
        self._once = Repeat(0)
        # A request that makes something is sent again only when it is certain that OSAI did not take it.
        self._repeat_if_not_taken = Repeat(total, every, (429,), _NOT_SENT[:2], **budget)

    def _options(self) -> dict[str, Any]:
        headers = {"Accept": "application/json", "Accept-Encoding": PACKING}
        return {"auth": self.auth, "timeout": self.settings.timeout, "headers": headers}

    def _transport_options(self, verify: ssl.SSLContext | bool) -> dict[str, Any]:
        # A client with its own transport ignores the proxy variables of the environment, so they are read here.
        parts = urlsplit(self.settings.base_url)
        proxied = not urllib.request.proxy_bypass(parts.hostname or "")
        return {
            "limits": LIMITS,
            "verify": verify,
            "proxy": urllib.request.getproxies().get(parts.scheme) if proxied else None,
        }

    def _sign_in_request(self, access_token: str) -> httpx.Request:
        endpoint = self.settings.contract["auth.sign_in"]
        return httpx.Request(
            endpoint.method,
            self.settings.base_url + endpoint.path,
            json=access_token,
            headers={"Accept": "text/plain, application/json", "Accept-Encoding": PACKING},
            extensions={
                "retry": self._repeat,
                "timeout": httpx.Timeout(self.settings.timeout).as_dict(),
                _SIGN_IN: True,
            },
        )

    def _request(
        self,
        http: httpx.Client | httpx.AsyncClient,
        call: Call[Any],
        stack: contextlib.ExitStack,
        *,
        once: bool = False,
    ) -> httpx.Request:
        patient = self._repeat if call.repeatable else self._repeat_if_not_taken
        files = {
            name: (part.name, stack.enter_context(part.open()), mimetypes.guess_type(part.name)[0])
            for name, part in call.files.items()
        }
        request = http.build_request(
            call.method,
            self.settings.base_url + call.path,
            params=call.query or None,
            headers=dict(call.headers),
            extensions={"retry": self._once if once else patient, UPLOAD: bool(files)},
            **({"data": call.body, "files": files} if files else {"json": call.body}),
        )
        if files:
            request.stream = Gathered(request.stream)
        return request

    def _read(self, call: Call[T], response: httpx.Response) -> T:
        """Turn an answer into the call's value, or into the error that says what to do."""
        if not response.is_success:
            raise decipher(response, call.method, call.path, call.busy)
        if call.parse is None:
            return None  # type: ignore[return-value]  # such a call is a Call[None]
        try:
            answer = response.json()
        except (ValueError, RecursionError):
            kind = response.headers.get("content-type", "no type").partition(";")[0]
            msg = f"{call.method} {call.path} was answered with {kind} that is no JSON"
            raise OsaiUnreachable(msg, status=response.status_code) from None
        return call.parse(answer)

    def _failed(self, call: Call[Any], error: httpx.HTTPError | SignInRefused) -> OsaiError:
        """Turn what httpx raised into the error that says what to do."""
        if isinstance(error, SignInRefused):
            return self._refused(error.answer)
        sent = not isinstance(error, _NOT_SENT) and not _is_sign_in(error)
        reason = str(error) or type(error).__name__
        return OsaiUnreachable(
            f"{call.method} {call.path} got no answer from {self.settings.base_url}: {reason}", sent=sent
        )

    def _refused(self, answer: httpx.Response) -> OsaiError:
        """Say why the sign-in failed. The server's text is not quoted, since it may hold the token."""
        status, base = answer.status_code, self.settings.base_url
        if status in (400, 401, 403):
            return OsaiAuthError(
                f"OSAI at {base} refused the access token ({status}): it may be mistyped, expired, deleted, or of the "
                "other region. Make a new one in OSAI under Settings and put it into the connection's password field."
            )
        if status in PASSING or answer.is_server_error:
            return OsaiUnreachable(
                f"OSAI at {base} cannot sign us in at the moment ({status})", sent=False, status=status
            )
        return OsaiContractError(
            f"there is no OSAI at {base}: its sign-in address answered {status}; "
            "check region and base_url of the connection"
        )


class OsaiClient(_Sender):
    """Sends calls and blocks until they are answered. Use it as a context manager; it holds a connection pool.

    :param settings: where OSAI is and who we are.
    :param patience: seconds that the retries of one request may wait in all; 0 switches them off.
    :param on_secret: is told each new JWT, so that it can be masked in logs.
    :param clock: seconds that never go back, by which one exchange is bounded.
    :param renew: returns the settings as they are now; asked when the access token is refused, which may have been
        replaced meanwhile. :class:`AsyncOsaiClient` awaits it.
    """

    def __init__(
        self, settings: OsaiSettings, *, renew: Callable[[], OsaiSettings] | None = None, **options: Any
    ) -> None:
        super().__init__(settings, **options)
        self._renew = renew
        transport = BoundedTransport(httpx.HTTPTransport(**self._transport_options(ssl_context(settings))), self.bounds)
        self._http = httpx.Client(transport=RetryTransport(transport), **self._options())

    def send(self, call: Call[T]) -> T:
        """Send one call; raise an OsaiError if no usable answer comes."""
        try:
            return self._send(call)
        except OsaiAuthError as refused:
            if self._renew is None:
                raise
            try:
                settings = self._renew()
            except Exception as error:  # whatever a secrets backend raises: it is an outage of its own
                raise refused from error
            if not self.auth.replace(settings.access_token):
                raise
            return self._send(call)

    def _send(self, call: Call[T]) -> T:
        with contextlib.ExitStack() as stack:
            try:
                request = self._request(self._http, call, stack)
                if call.sink is not None:
                    return receive(self._http, request, call, call.sink, self.settings, self.bounds)
                response = self._http.send(request)
            except (httpx.HTTPError, SignInRefused) as error:
                raise self._failed(call, error) from error
            return self._read(call, response)

    def sibling(self, timeout: float) -> OsaiClient:
        """Return a brief client of its own that starts with this one's sign-in: for use while this one is busy.

        :param timeout: as in the settings, but no longer than there. It does not retry.
        """
        settings = self.settings.model_copy(update={"timeout": min(timeout, self.settings.timeout)})
        other = OsaiClient(settings, patience=0)
        other.auth.share(self.auth)
        return other

    def close(self) -> None:
        """Close the connection pool."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class AsyncOsaiClient(_Sender):
    """Sends calls and awaits their answers. Make it with :meth:`open`, which builds the TLS context off the loop.

    :param settings: where OSAI is and who we are.
    :param verify: the TLS context.
    :param options: as for :class:`OsaiClient`.
    """

    def __init__(
        self,
        settings: OsaiSettings,
        verify: ssl.SSLContext | bool,
        *,
        renew: Callable[[], Awaitable[OsaiSettings]] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(settings, **options)
        self._renew = renew
        transport = AsyncBoundedTransport(httpx.AsyncHTTPTransport(**self._transport_options(verify)), self.bounds)
        self._http = httpx.AsyncClient(transport=RetryTransport(transport), **self._options())

    @classmethod
    async def open(cls, settings: OsaiSettings, **options: Any) -> Self:
        """Return a client whose making has not held the event loop."""
        return cls(settings, await asyncio.to_thread(prepare, settings), **options)

    async def send(self, call: Call[T], *, once: bool = False) -> T:
        """Send one call; raise an OsaiError if no usable answer comes.

        :param once: do not repeat it, whatever comes; for who asks again anyway.
        """
        try:
            return await self._send(call, once=once)
        except OsaiAuthError as refused:
            if self._renew is None:
                raise
            try:
                settings = await self._renew()
            except Exception as error:  # whatever a secrets backend raises: it is an outage of its own
                raise refused from error
            if not self.auth.replace(settings.access_token):
                raise
            return await self._send(call, once=once)

    async def _send(self, call: Call[T], *, once: bool) -> T:
        if call.sink is not None:
            raise TypeError(f"{call.name}: only the blocking sender receives files")
        with contextlib.ExitStack() as stack:
            try:
                response = await self._http.send(self._request(self._http, call, stack, once=once))
            except (httpx.HTTPError, SignInRefused) as error:
                raise self._failed(call, error) from error
            if len(response.content) > OFF_LOOP:
                return await asyncio.to_thread(self._read, call, response)
            return self._read(call, response)

    async def aclose(self) -> None:
        """Close the connection pool."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()


def _is_sign_in(error: httpx.HTTPError) -> bool:
    try:
        return bool(error.request.extensions.get(_SIGN_IN))
    except RuntimeError:  # httpx does not know which request it was
        return False
