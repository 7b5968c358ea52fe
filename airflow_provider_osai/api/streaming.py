"""Stream a response to a consumer, with limits of its own instead of those of ordinary responses.

A successful response is never held in memory as a whole. It may take as long as it receives :data:`MIN_PROGRESS_BYTES`
within four times the connection's ``timeout``, and each chunk within one ``timeout``. Other responses have the ordinary
limits.

OSAI may redirect to a storage service. Such a redirect is followed over https (http only if OSAI itself is on this
machine), without the JWT and without cookies. Only the URL's host is ever shown, since the rest may be signed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

import httpx

from airflow_provider_osai.api.addresses import is_loopback
from airflow_provider_osai.api.decoding import coding_of
from airflow_provider_osai.api.error_mapping import convert_invalid_redirects, error_from_response
from airflow_provider_osai.api.errors import OsaiContractError, OsaiRequestError, OsaiUnreachable
from airflow_provider_osai.api.proxies import proxy_for
from airflow_provider_osai.api.transport import STREAM, BoundedTransport, LimitExceeded, RequestLimits

if TYPE_CHECKING:
    from airflow_provider_osai.api.calls import Call
    from airflow_provider_osai.api.settings import OsaiSettings

__all__ = ["MIN_PROGRESS_BYTES", "Stream", "stream_response"]

T = TypeVar("T")

MIN_PROGRESS_BYTES: Final = 64 * 2**10
"""Minimum bytes of progress: a stream with fewer bytes within its time limit, or before it breaks, has stalled."""
MAX_REDIRECTS: Final = 5
FORWARDED_HEADERS: Final = ("accept", "accept-encoding", "if-range", "range")
"""Request headers that are sent again after a redirect."""


@dataclass(frozen=True, slots=True)
class Stream:
    """A successful response whose body has not been read.

    :param status: 200 to 299.
    :param headers: the headers, with lower-case names.
    :param chunks: the body in chunks, not decompressed; reading it may raise httpx.TransportError.
    """

    status: int
    headers: Mapping[str, str]
    chunks: Iterator[bytes]


def stream_response(
    http: httpx.Client,
    request: httpx.Request,
    call: Call[Any],
    consumer: Callable[[Stream], T],
    settings: OsaiSettings,
    bounds: RequestLimits,
) -> T:
    """Send *request*, stream the response to *consumer*, and return the result of *consumer*.

    :raises OsaiError: if the response is not a file.
    :raises httpx.HTTPError: if the connection breaks, before or during the response.
    """
    request.extensions[STREAM] = True
    with contextlib.ExitStack() as stack:
        response = _send(http, request, stack)
        for _ in range(MAX_REDIRECTS):
            if not response.has_redirect_location:
                break
            url = _redirect_target(call, response, settings)
            is_osai = _origin(url) == _origin(httpx.URL(settings.base_url)) == _origin(response.request.url)
            headers = {name: request.headers[name] for name in FORWARDED_HEADERS if name in request.headers}
            if is_osai:
                extensions = {STREAM: True, "retry": request.extensions["retry"]}
                response = _send(http, http.build_request("GET", url, headers=headers, extensions=extensions), stack)
            else:
                response = _get_from_storage(url, headers, stack, settings, bounds)
        _raise_for_invalid_file(call, response, settings)
        headers = {name.lower(): value for name, value in response.headers.items()}
        return consumer(Stream(response.status_code, headers, _enforce_min_rate(response, bounds)))


def stream_address(
    address: Any,
    headers: Mapping[str, str],
    call: Call[Any],
    consumer: Callable[[Stream], T],
    settings: OsaiSettings,
    bounds: RequestLimits,
) -> T:
    """Stream a file from the address in a response to *call*, without the JWT; return the result of *consumer*.

    :param address: https (http only if OSAI itself is on this machine); it is shown nowhere, since it may be signed.
    :param headers: of the request.
    :raises OsaiError: if there is no usable address, or no file.
    :raises httpx.HTTPError: if the connection breaks, before or during the response.
    """
    if not isinstance(address, str) or not address:
        raise OsaiContractError(f"{call.name}: the response has no address at {call.rules.url!r}, the contract's 'url'")
    base = httpx.URL(settings.base_url)
    url = _checked_url(call, base.join(address), settings)
    with contextlib.ExitStack() as stack:
        response = _get_from_storage(url, dict(headers), stack, settings, bounds)
        for _ in range(MAX_REDIRECTS):
            if not response.has_redirect_location:
                break
            target = _redirect_target(call, response, settings)
            response = _get_from_storage(target, dict(headers), stack, settings, bounds)
        if not response.is_success and response.status_code != httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
            msg = f"{call.name}: the storage at {url.host} returned {response.status_code}"
            raise OsaiUnreachable(msg, status=response.status_code)
        _raise_for_invalid_file(call, response, settings)
        lower = {name.lower(): value for name, value in response.headers.items()}
        return consumer(Stream(response.status_code, lower, _enforce_min_rate(response, bounds)))


def _send(http: httpx.Client, request: httpx.Request, stack: contextlib.ExitStack) -> httpx.Response:
    with convert_invalid_redirects():
        response = http.send(request, stream=True)
    stack.callback(response.close)
    return response


def _redirect_target(call: Call[Any], response: httpx.Response, settings: OsaiSettings) -> httpx.URL:
    """Return the URL of a redirect; raise OsaiContractError if it must not be followed."""
    try:
        url = response.request.url.join(response.headers["location"])
    except (httpx.InvalidURL, ValueError):  # UnicodeError is one, too
        raise OsaiContractError(f"{call.method} {call.path} was redirected to an invalid URL") from None
    return _checked_url(call, url, settings)


def _checked_url(call: Call[Any], url: httpx.URL, settings: OsaiSettings) -> httpx.URL:
    base = httpx.URL(settings.base_url)
    local = url.scheme == "http" and is_loopback(url.host) and base.scheme == "http" and is_loopback(base.host)
    if not url.host or url.userinfo or not (url.scheme == "https" or local):
        target = url.host or "a URL without a host"
        raise OsaiContractError(
            f"{call.method} {call.path} was redirected to {target}; only https without credentials is followed"
        )
    return url


def _get_from_storage(
    url: httpx.URL, headers: dict[str, str], stack: contextlib.ExitStack, settings: OsaiSettings, bounds: RequestLimits
) -> httpx.Response:
    """Send a request without the JWT to another host. Without an httpx client or retries, since these log URLs."""
    transport = httpx.HTTPTransport(verify=httpx.create_ssl_context(), proxy=proxy_for(str(url)))
    bounded = stack.enter_context(BoundedTransport(transport, bounds))
    extensions = {STREAM: True, "timeout": httpx.Timeout(settings.timeout).as_dict()}
    request = httpx.Request("GET", url, headers=headers, extensions=extensions)
    with convert_invalid_redirects():
        response = bounded.handle_request(request)
    response.request = request
    stack.callback(response.close)
    return response


def _raise_for_invalid_file(call: Call[Any], response: httpx.Response, settings: OsaiSettings) -> None:
    """Raise the error for a response that is not a file, or has an unsupported Content-Encoding."""
    request = f"{call.method} {call.path}"
    status = response.status_code
    url = response.request.url
    if response.has_redirect_location:
        raise OsaiContractError(f"{request} was redirected more than {MAX_REDIRECTS} times")
    if not response.is_success and _origin(url) != _origin(httpx.URL(settings.base_url)):
        # Do not show the text: storage services quote the request including its signature. Except for 416 the error is
        # retryable, since OSAI may redirect the next request to a new URL.
        if status == 416:
            raise OsaiRequestError(status, call.method, call.path, "")
        raise OsaiUnreachable(f"{request} was redirected to {url.host}, which returned {status}", status=status)
    if not response.is_success:
        raise error_from_response(response, call.method, call.path, call.rules)
    coding_of(response.headers)
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json" and "content-disposition" not in response.headers:
        raise OsaiContractError(
            f"{request} returned a JSON document instead of a file. If it contains the address of the file, add to the "
            f"contract where: {call.name}: {{url: ...}}"
        )
    if status not in (200, 206) or kind == "text/html":
        raise OsaiUnreachable(
            f"{request} returned {status} with {kind or 'no Content-Type'} instead of a file", status=status
        )


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port or {"http": 80, "https": 443}.get(url.scheme)


def _enforce_min_rate(response: httpx.Response, bounds: RequestLimits) -> Iterator[bytes]:
    """Yield the chunks of the body; raise LimitExceeded if fewer than :data:`MIN_PROGRESS_BYTES` arrive in time."""
    since = bounds.clock()
    received = 0
    for piece in response.iter_raw():
        received += len(piece)
        now = bounds.clock()
        if received >= MIN_PROGRESS_BYTES:
            since = now
            received = 0
        elif now - since > bounds.seconds:
            raise LimitExceeded(f"less than {MIN_PROGRESS_BYTES // 2**10} KiB received in {bounds.seconds:g} s")
        yield piece
