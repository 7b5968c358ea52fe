"""Receives an answer piece by piece, past the bounds of ordinary answers and within its own.

A success is never read whole. It may last as long as it brings :data:`.STEADY` bytes within four times the connection's
``timeout``, and each piece within one. Every other answer is bounded and read as those of other calls.

OSAI may redirect to a storage's address. That is followed over https (http only where OSAI itself is on this machine),
without the sign-in and without cookies; of the address only the host is ever shown, since the rest may be signed.
"""

from __future__ import annotations

import contextlib
import urllib.request
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final, TypeVar

import httpx

from airflow_provider_osai.api.answers import decipher
from airflow_provider_osai.api.bounds import STREAM, BoundedTransport, Bounds, OverBound
from airflow_provider_osai.api.errors import OsaiContractError, OsaiRequestError, OsaiUnreachable
from airflow_provider_osai.api.pieces import STEADY, Stream
from airflow_provider_osai.api.settings import is_loopback

if TYPE_CHECKING:
    from airflow_provider_osai.api.calls import Call
    from airflow_provider_osai.api.settings import OsaiSettings

__all__ = ["receive"]

T = TypeVar("T")

MOST_REDIRECTS: Final = 5
CARRIED: Final = ("accept", "accept-encoding", "if-range", "range")
"""The headers that go along with a redirect."""


def receive(
    http: httpx.Client,
    request: httpx.Request,
    call: Call[Any],
    sink: Callable[[Stream], T],
    settings: OsaiSettings,
    bounds: Bounds,
) -> T:
    """Send *request*, hand the answer to *sink* while it comes, and return what that returns.

    :raises OsaiError: if the answer is none.
    :raises httpx.HTTPError: if the connection breaks, also amid the answer.
    """
    request.extensions[STREAM] = True
    with contextlib.ExitStack() as stack:
        response = _sent(http, request, stack)
        for _ in range(MOST_REDIRECTS):
            if not response.has_redirect_location:
                break
            url = _onward(call, response, settings)
            is_ours = _origin(url) == _origin(httpx.URL(settings.base_url)) == _origin(response.request.url)
            headers = {name: request.headers[name] for name in CARRIED if name in request.headers}
            if is_ours:
                extensions = {STREAM: True, "retry": request.extensions["retry"]}
                response = _sent(http, http.build_request("GET", url, headers=headers, extensions=extensions), stack)
            else:
                response = _elsewhere(url, headers, stack, settings, bounds)
        _check(call, response, settings)
        headers = {name.lower(): value for name, value in response.headers.items()}
        return sink(Stream(response.status_code, headers, _steady(response, bounds)))


def _sent(http: httpx.Client, request: httpx.Request, stack: contextlib.ExitStack) -> httpx.Response:
    response = http.send(request, stream=True)
    stack.callback(response.close)
    return response


def _onward(call: Call[Any], response: httpx.Response, settings: OsaiSettings) -> httpx.URL:
    """Return where a redirect leads; raise OsaiContractError if nobody should go there."""
    base = httpx.URL(settings.base_url)
    try:
        url = response.request.url.join(response.headers["location"])
    except (httpx.InvalidURL, ValueError):
        raise OsaiContractError(f"{call.method} {call.path} was redirected to what is no address") from None
    local = url.scheme == "http" and is_loopback(url.host) and base.scheme == "http" and is_loopback(base.host)
    if not url.host or url.userinfo or not (url.scheme == "https" or local):
        where = url.host or "nowhere"
        raise OsaiContractError(
            f"{call.method} {call.path} was redirected to {where}; only https without a login will do"
        )
    return url


def _elsewhere(
    url: httpx.URL, headers: dict[str, str], stack: contextlib.ExitStack, settings: OsaiSettings, bounds: Bounds
) -> httpx.Response:
    """Ask somebody who shall know nothing of our sign-in; by no client, since clients and retries log addresses."""
    proxied = not urllib.request.proxy_bypass(url.host)
    transport = httpx.HTTPTransport(
        verify=httpx.create_ssl_context(), proxy=urllib.request.getproxies().get(url.scheme) if proxied else None
    )
    bounded = stack.enter_context(BoundedTransport(transport, bounds))
    extensions = {STREAM: True, "timeout": httpx.Timeout(settings.timeout).as_dict()}
    request = httpx.Request("GET", url, headers=headers, extensions=extensions)
    response = bounded.handle_request(request)
    response.request = request
    stack.callback(response.close)
    return response


def _check(call: Call[Any], response: httpx.Response, settings: OsaiSettings) -> None:
    """Raise what an answer means that is no file."""
    asked, status, url = f"{call.method} {call.path}", response.status_code, response.request.url
    if response.has_redirect_location:
        raise OsaiContractError(f"{asked} was redirected more than {MOST_REDIRECTS} times")
    if not response.is_success and _origin(url) != _origin(httpx.URL(settings.base_url)):
        # Its words are not ours to show: storages quote what they were asked, signature and all. A new request to OSAI
        # may bring a new address.
        if status == 416:
            raise OsaiRequestError(status, call.method, call.path, "")
        raise OsaiUnreachable(f"{asked} was redirected to {url.host}, which answered {status}", status=status)
    if not response.is_success:
        raise decipher(response, call.method, call.path, call.busy)
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if status not in (200, 206) or kind == "text/html":
        raise OsaiUnreachable(f"{asked} was answered with {status} and {kind or 'no type'}, no file", status=status)


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port or {"http": 80, "https": 443}.get(url.scheme)


def _steady(response: httpx.Response, bounds: Bounds) -> Iterator[bytes]:
    """Yield the body's pieces; raise OverBound when too little comes in too long."""
    since, fresh = bounds.clock(), 0
    for piece in response.iter_raw():
        fresh += len(piece)
        now = bounds.clock()
        if fresh >= STEADY:
            since, fresh = now, 0
        elif now - since > bounds.seconds:
            raise OverBound(f"less than {STEADY // 2**10} KiB came in {bounds.seconds:g} s")
        yield piece
