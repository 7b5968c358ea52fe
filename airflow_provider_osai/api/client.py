"""The HTTP clients: :class:`OsaiClient` blocks, :class:`AsyncOsaiClient` awaits. They share everything but sending.

Both have one method for each operation of the API, made from the method of the same name of
:class:`~airflow_provider_osai.api.calls.OsaiApi`, which documents it: ``client.get_job("training", "7")``.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import logging
import mimetypes
import ssl
import time
from contextvars import ContextVar
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Concatenate, ParamSpec, TypeVar, cast

import httpx
from httpx_retries import RetryTransport

from airflow_provider_osai import __version__
from airflow_provider_osai.api.auth import OnSecret, OsaiAuth, SignInFailed
from airflow_provider_osai.api.calls import OsaiApi, Received
from airflow_provider_osai.api.contract import NO_RULES
from airflow_provider_osai.api.decoding import ACCEPT_ENCODING
from airflow_provider_osai.api.error_mapping import (
    MAX_BACKOFF,
    RETRYABLE_STATUSES,
    RetryPolicy,
    convert_invalid_redirects,
    error_from_response,
    json_or_none,
    raise_for_error_rules,
    response_text,
)
from airflow_provider_osai.api.errors import (
    OsaiArgumentError,
    OsaiAuthError,
    OsaiContractError,
    OsaiError,
    OsaiUnreachable,
)
from airflow_provider_osai.api.limits import (
    FULL_LIST_LIMIT,
    LIST_LIMIT,
    OBJECT_LIMIT,
    Limit,
    TooManyValues,
    decode_json,
)
from airflow_provider_osai.api.misfits import raise_for_hidden_error, raise_for_more_pages
from airflow_provider_osai.api.pagination import MAX_PAGES, first_page, next_page
from airflow_provider_osai.api.proxies import proxy_for
from airflow_provider_osai.api.response_watch import watch_of
from airflow_provider_osai.api.secret import HoldsSecret
from airflow_provider_osai.api.streaming import FORWARDED_HEADERS, stream_address, stream_response
from airflow_provider_osai.api.transport import (
    LIMIT,
    SIGN_IN,
    TOTAL_TIMEOUT_FACTOR,
    UPLOAD,
    AsyncBoundedTransport,
    BoundedTransport,
    ChunkedStream,
    ReadOnlyTransport,
    RequestLimits,
    TooLarge,
    load_tls_context,
    ssl_context,
)
from airflow_provider_osai.api.wire_format import response_items

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator, Mapping
    from typing import Self

    from airflow_provider_osai.api.calls import Call
    from airflow_provider_osai.api.settings import OsaiSettings
    from airflow_provider_osai.api.streaming import Stream

__all__ = ["AsyncOsaiClient", "OsaiClient"]

T = TypeVar("T")
P = ParamSpec("P")

RETRY_BUDGET = 60.0
"""Maximum seconds that the retries of one request wait in total."""
LIMITS = httpx.Limits(max_connections=100, max_keepalive_connections=100)
"""Maximum number of connections, whatever the number of concurrent requests."""
PARSE_IN_THREAD_ABOVE = 64 * 2**10
"""Bytes of a response above which it is parsed in a thread, so that the event loop is not blocked."""
_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol)

USER_AGENT = f"airflow-provider-osai/{__version__} python-httpx/{httpx.__version__}"

_sending: ContextVar[bool] = ContextVar("osai_sending", default=False)


class _QuietPolls(logging.Filter):
    """Drops the line that httpx logs for each of our requests: thousands of polls, and URLs of signed downloads.

    It is added to httpx's logger when the first client is made. Requests of others are logged as before.
    """

    def filter(self, record: logging.LogRecord) -> bool:  # its signature
        return not _sending.get()


_quiet_polls = _QuietPolls()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    token = _sending.set(True)
    try:
        yield
    finally:
        _sending.reset(token)


class _Sender(HoldsSecret):
    """What both clients share: building, retrying and reading of requests."""

    _max_limit: ClassVar[Limit] = FULL_LIST_LIMIT

    def __init__(
        self,
        settings: OsaiSettings,
        *,
        retry_budget: float = RETRY_BUDGET,
        on_secret: OnSecret = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
        traceparent: Callable[[], str | None] = lambda: None,
    ) -> None:
        logging.getLogger("httpx").addFilter(_quiet_polls)  # once, however often it is added
        self.settings = settings
        self.limits = RequestLimits(TOTAL_TIMEOUT_FACTOR * settings.timeout, clock)
        self.calls = OsaiApi(settings.contract, watch_of(settings.base_url, settings.contract), traceparent)
        contract = settings.contract
        self.auth = OsaiAuth(
            self._sign_in_request if "auth.sign_in" in contract else None,
            settings.access_token,
            on_secret=on_secret,
            header=contract.token_header,
            token_path=contract.token_path,
        )
        total = 8 if retry_budget > 0 else 0
        budget: dict[str, Any] = {
            "backoff_factor": 0.5,
            "max_backoff_wait": MAX_BACKOFF,
            "total_timeout": retry_budget or None,
        }
        every = ("GET", "PUT", "PATCH", "DELETE", "POST")
        self._retry = RetryPolicy(total, every, RETRYABLE_STATUSES, **budget)
        self._once = RetryPolicy(0)
        # A request that creates something is retried only if OSAI certainly did not process it.
        self._retry_if_not_processed = RetryPolicy(total, every, (429,), _NOT_SENT[:2], **budget)

    def _options(self) -> dict[str, Any]:
        headers = {"Accept": "application/json", "Accept-Encoding": ACCEPT_ENCODING, "User-Agent": USER_AGENT}
        return {"auth": self.auth, "timeout": self.settings.timeout, "headers": headers}

    def _transport_options(self, verify: ssl.SSLContext | bool) -> dict[str, Any]:
        return {"limits": LIMITS, "verify": verify, "proxy": proxy_for(self.settings.base_url)}

    def _sign_in_request(self, access_token: str) -> httpx.Request:
        wire = self.settings.contract.sign_in_request(access_token)
        body: dict[str, Any] = {"json": wire.fields}
        if self.settings.contract["auth.sign_in"].rules.encoding == "form":
            body = {"data": wire.fields}
        return httpx.Request(
            wire.method,
            self.settings.base_url + wire.path,
            params=wire.query or None,
            headers={
                "Accept": "text/plain, application/json",
                "Accept-Encoding": ACCEPT_ENCODING,
                "User-Agent": USER_AGENT,
                **wire.headers,
            },
            **body,
            extensions={
                "retry": self._retry,
                "timeout": httpx.Timeout(self.settings.timeout).as_dict(),
                LIMIT: ("auth.sign_in", OBJECT_LIMIT),
                SIGN_IN: True,
            },
        )

    def _request(
        self,
        http: httpx.Client | httpx.AsyncClient,
        call: Call[Any],
        stack: contextlib.ExitStack,
        *,
        retry: bool = True,
    ) -> httpx.Request:
        policy = self._retry if call.idempotent else self._retry_if_not_processed
        files = {
            name: (part.name, stack.enter_context(part.open()), mimetypes.guess_type(part.name)[0])
            for name, part in call.files.items()
        }
        options = _body(call, files)
        try:
            request = http.build_request(
                call.method,
                self._url(call),
                headers=dict(call.headers),
                extensions={
                    "retry": policy if retry else self._once,
                    UPLOAD: bool(files),
                    LIMIT: (call.name, self._limit(call)),
                },
                **options,
            )
        except (httpx.InvalidURL, ValueError) as error:  # including UnicodeError
            raise OsaiArgumentError(f"{call.name}: a value cannot be sent: {error}") from None
        if files:
            request.stream = ChunkedStream(request.stream)
        return request

    def _url(self, call: Call[Any]) -> httpx.URL:
        """Return the URL, parsed once: a hundred ids make a long one."""
        text = self.settings.base_url + call.path
        if call.query and "?" not in text:
            return httpx.URL(text, params=call.query)
        return httpx.URL(text).copy_merge_params(call.query)

    def _limit(self, call: Call[Any]) -> Limit:
        """Return the limit of the response to *call*; on an event loop, at most that of a list."""
        return min(call.limit, self._max_limit)

    def _read(self, call: Call[T], response: httpx.Response) -> T:
        """Parse a response into the call's result, or raise the error of its status."""
        document = self._checked_document(call, response)
        if call.parse is None:
            return None  # type: ignore[return-value]  # such a call is a Call[None]
        if call.rules is not NO_RULES:
            parsed = call.parse(Received(document, response.headers))
        else:
            parsed = call.parse(document)
        if call.is_list and isinstance(parsed, list):
            raise_for_more_pages(call.name, document, response.headers, len(parsed))
        return parsed

    def _checked_document(self, call: Call[Any], response: httpx.Response) -> Any:
        """Return the document of a response, unless its status or the document is an error."""
        response = self._redacted(response)
        if not response.is_success:
            self.calls.watch.saw_status(call.name, response.status_code, call.rules.statuses)
            if response.status_code == httpx.codes.UNAUTHORIZED and "auth.sign_in" not in self.settings.contract:
                raise self._sign_in_error(response)
            raise error_from_response(response, call.method, call.path, call.rules)
        document = self._document(call, response)
        described = document if call.rules.answer in (None, "json") else json_or_none(response)
        if call.rules.error is not None and isinstance(described, (dict, list)) and response.content.strip():
            raise_for_error_rules(call.rules, described, response.status_code, call.method, call.path)
        elif call.method != "GET":
            raise_for_hidden_error(call.name, described, has_content=call.parse is not None)
        return document

    def _redacted(self, response: httpx.Response) -> httpx.Response:
        """Return the response without our tokens, should the server repeat them."""
        content = self.auth.redact(response.content)
        if content is response.content:
            return response
        headers = response.headers.copy()
        headers.pop("content-length", None)
        return httpx.Response(response.status_code, headers=headers, content=content)

    def _read_pages(self, call: Call[T]) -> Generator[Call[Any], httpx.Response, T]:
        """Yield the calls for the pages of a list and receive their responses; return the result of all."""
        endpoint, rule = self.calls.contract[call.name], call.rules.pages
        assert rule is not None and call.parse is not None  # noqa: S101, PT018 - the caller checks it
        items: list[Any] = []
        page = first_page(call, rule)
        for _ in range(MAX_PAGES):
            response = yield page
            document = self._checked_document(page, response)
            found = response_items(endpoint, document)
            if found and found == items[-len(found) :]:
                raise OsaiContractError(f"{call.name}: two pages are the same. Check 'pages' in the contract")
            items += found
            following = next_page(
                page,
                rule,
                document,
                response.headers,
                items=len(found),
                seen=len(items),
                base_url=self.settings.base_url,
            )
            if following is None:
                return call.parse(Received(items, response.headers, is_all=True))
            page = following
        raise OsaiContractError(f"{call.name}: the list has more than {MAX_PAGES} pages. Check 'pages' in the contract")

    def _document(self, call: Call[Any], response: httpx.Response) -> Any:
        """Return the JSON document of a response, or its text if the contract says that it is text.

        :raises OsaiUnreachable: if the response is something else.
        """
        if call.rules.answer == "text":
            if response.headers.get("content-type", "").startswith("text/html"):
                msg = f"{call.method} {call.path} returned a web page instead of a text"
                raise OsaiUnreachable(msg, status=response.status_code)
            return response_text(response).strip()
        has_result = call.parse is not None
        if call.rules.answer == "none" or not (response.content.strip() or has_result):
            return {}
        max_values = self._limit(call).values
        try:
            return decode_json(response.content, max_values)
        except TooManyValues:
            msg = f"{call.method} {call.path}: the response to {call.name} has more than {max_values} JSON values"
            raise OsaiUnreachable(msg, status=response.status_code, too_large=True) from None
        except (ValueError, RecursionError):
            kind = response.headers.get("content-type", "no type").partition(";")[0]
            if not has_result and kind != "text/html":
                return {}  # any text confirms it; a web page is what servers send for every unknown address
            msg = f"{call.method} {call.path} returned {kind} instead of JSON"
            raise OsaiUnreachable(msg, status=response.status_code) from None

    @contextlib.contextmanager
    def _converted_errors(self, call: Call[Any]) -> Iterator[None]:
        """Convert the exceptions of httpx to OsaiError, and keep its log lines away."""
        try:
            with _quiet(), convert_invalid_redirects():
                yield
        except (httpx.HTTPError, SignInFailed) as error:
            raise self._failed(call, error) from error

    def _failed(self, call: Call[Any], error: httpx.HTTPError | SignInFailed) -> OsaiError:
        """Return the OsaiError for an exception of httpx."""
        if isinstance(error, SignInFailed):
            return self._sign_in_error(error.response)
        may_have_been_processed = not isinstance(error, _NOT_SENT) and not _is_sign_in(error)
        reason = str(error) or type(error).__name__
        if isinstance(error, TooLarge):
            msg = f"The response to {call.method} {call.path} was not read: {reason}"
            return OsaiUnreachable(
                msg, may_have_been_processed=may_have_been_processed, status=httpx.codes.OK, too_large=True
            )
        return OsaiUnreachable(
            f"{call.method} {call.path} got no response from {self.settings.base_url}: {reason}",
            may_have_been_processed=may_have_been_processed,
        )

    def _sign_in_error(self, response: httpx.Response) -> OsaiError:
        """Return the error of a failed sign-in. It does not quote the server's text, which may contain the token."""
        status = response.status_code
        base = self.settings.base_url
        if status in (400, 401, 403):
            return OsaiAuthError(
                f"OSAI at {base} rejected the access token ({status}): it may be mistyped, expired, deleted, or of "
                "another region. Create a new one in OSAI under Settings, and set it as the connection's password."
            )
        if status in RETRYABLE_STATUSES or response.is_server_error:
            return OsaiUnreachable(
                f"OSAI at {base} cannot sign in at the moment ({status})",
                may_have_been_processed=False,
                status=status,
            )
        return OsaiContractError(
            f"There is no OSAI API at {base}: the sign-in returned {status}. Check the connection's region and base_url"
        )


def _blocking(build: Callable[Concatenate[OsaiApi, P], Call[T]]) -> Callable[Concatenate[OsaiClient, P], T]:
    """Return the method of :class:`OsaiClient` that sends the call that *build* makes."""

    @functools.wraps(build)
    def verb(self: OsaiClient, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.send(build(self.calls, *args, **kwargs))

    return verb


def _awaiting(
    build: Callable[Concatenate[OsaiApi, P], Call[T]],
) -> Callable[Concatenate[AsyncOsaiClient, P], Coroutine[Any, Any, T]]:
    """Return the method of :class:`AsyncOsaiClient` that sends the call that *build* makes."""

    @functools.wraps(build)
    async def verb(self: AsyncOsaiClient, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self.send(build(self.calls, *args, **kwargs))

    return verb


class OsaiClient(_Sender):
    """Sends requests and blocks until they are answered. A context manager: it holds a connection pool.

    :param settings: base URL, access token, timeout and contract.
    :param retry_budget: maximum seconds that the retries of one request wait in total, default 60; 0: no retries.
    :param on_secret: called with each new JWT, so that it can be masked in logs.
    :param clock: returns monotonic seconds, for the total timeout.
    :param traceparent: returns the current trace context (W3C), for contracts that give it a place.
    :param renew: returns the present settings; called when the access token is rejected, in case it has been replaced.
        :class:`AsyncOsaiClient` awaits it.
    :param transport: sends the requests instead of the network, for instance in a test.
    :param read_only: whether to refuse every request but GET and the sign-in.
    """

    def __init__(
        self,
        settings: OsaiSettings,
        *,
        renew: Callable[[], OsaiSettings] | None = None,
        transport: httpx.BaseTransport | None = None,
        read_only: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(settings, **options)
        self._renew = renew
        self.sleep: Callable[[float], object] = time.sleep
        """How functions over this client wait between requests; an operator sets one that a kill interrupts."""
        network = transport or httpx.HTTPTransport(**self._transport_options(ssl_context(settings)))
        bounded = BoundedTransport(ReadOnlyTransport(network) if read_only else network, self.limits)
        self._http = httpx.Client(transport=RetryTransport(bounded), **self._options())

    def send(self, call: Call[T], *, retry: bool = True) -> T:
        """Send one call, and return its result.

        :param retry: ``False``: send the request once, for a caller that polls anyway.
        :raises OsaiError: if there is no usable response.
        """
        try:
            return self._send(call, retry=retry)
        except OsaiAuthError as rejected:
            if self._renew is None:
                raise
            try:
                settings = self._renew()
            except Exception as error:  # a secrets backend may raise anything
                raise rejected from error
            if not self.auth.set_access_token(settings.access_token):
                raise
            return self._send(call, retry=retry)

    def exchange(self, call: Call[Any]) -> httpx.Response:
        """Send one call once; return its response, whatever its status is, without our tokens."""
        return self._redacted(self._respond(call, retry=False))

    def read(self, call: Call[T], response: httpx.Response) -> T:
        """Return the result of a call whose response is there; of a list with pages, that of this page.

        :raises OsaiError: if the response is an error, or does not fit the contract.
        """
        if call.rules.pages is None or call.parse is None:
            return self._read(call, response)
        return call.parse(Received(self._checked_document(call, response), response.headers))

    def _send(self, call: Call[T], *, retry: bool) -> T:
        if call.consumer is not None:
            return self._stream(call, call.consumer, retry=retry)
        if call.rules.pages is None:
            return self._read(call, self._respond(call, retry=retry))
        flow = self._read_pages(call)
        page, result = advance(flow, None)
        while page is not None:
            page, result = advance(flow, self._respond(page, retry=retry))
        return cast("T", result)

    def _stream(self, call: Call[T], consumer: Callable[[Stream], T], *, retry: bool) -> T:
        if call.rules.url is None:
            with contextlib.ExitStack() as stack, self._converted_errors(call):
                request = self._request(self._http, call, stack, retry=retry)
                return stream_response(self._http, request, call, consumer, self.settings, self.limits)
        ranges = {name.lower(): value for name, value in call.headers.items() if name.lower() in FORWARDED_HEADERS}
        asked = replace(
            call, headers={name: value for name, value in call.headers.items() if name.lower() not in ranges}
        )
        asked = replace(asked, consumer=None)
        document = self._checked_document(asked, self._respond(asked, retry=retry))
        address = asked.parse(document) if asked.parse is not None else None
        with self._converted_errors(call):
            return stream_address(address, ranges, call, consumer, self.settings, self.limits)

    def _respond(self, call: Call[Any], *, retry: bool) -> httpx.Response:
        with contextlib.ExitStack() as stack, self._converted_errors(call):
            return self._http.send(self._request(self._http, call, stack, retry=retry))

    def clone(self, timeout: float) -> OsaiClient:
        """Return a separate client with this one's sign-in, for use while this one is in a request. It does not retry.

        :param timeout: connect and read timeout in seconds, at most that of the settings.
        """
        settings = self.settings.model_copy(update={"timeout": min(timeout, self.settings.timeout)})
        other = OsaiClient(settings, retry_budget=0, traceparent=self.calls.traceparent)
        other.auth.copy_session(self.auth)
        return other

    def close(self) -> None:
        """Close the connection pool."""
        self._http.close()

    get_user = _blocking(OsaiApi.get_user)
    create_dataset = _blocking(OsaiApi.create_dataset)
    list_datasets = _blocking(OsaiApi.list_datasets)
    get_dataset = _blocking(OsaiApi.get_dataset)
    delete_dataset = _blocking(OsaiApi.delete_dataset)
    create_category = _blocking(OsaiApi.create_category)
    list_categories = _blocking(OsaiApi.list_categories)
    start_upload = _blocking(OsaiApi.start_upload)
    upload_image = _blocking(OsaiApi.upload_image)
    list_images = _blocking(OsaiApi.list_images)
    finish_upload = _blocking(OsaiApi.finish_upload)
    get_model = _blocking(OsaiApi.get_model)
    list_models = _blocking(OsaiApi.list_models)
    list_conversions = _blocking(OsaiApi.list_conversions)
    submit_job = _blocking(OsaiApi.submit_job)
    get_job = _blocking(OsaiApi.get_job)
    list_jobs = _blocking(OsaiApi.list_jobs)
    list_all_jobs = _blocking(OsaiApi.list_all_jobs)
    find_jobs = _blocking(OsaiApi.find_jobs)
    cancel_job = _blocking(OsaiApi.cancel_job)
    stop_job = _blocking(OsaiApi.stop_job)

    def download_model(
        self,
        model_id: str,
        target: str | None,
        consumer: Callable[[Stream], T],
        headers: Mapping[str, str] | None = None,
        *,
        conversion_id: str | None = None,
    ) -> T:
        """Stream a model's file to *consumer*; see :meth:`OsaiApi.download_model`."""
        call = self.calls.download_model(model_id, target, headers or {}, consumer, conversion_id=conversion_id)
        return self.send(call)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class AsyncOsaiClient(_Sender):
    """Sends requests and awaits their responses. Create it with :meth:`open`, which loads the TLS context in a thread.

    :param settings: base URL, access token, timeout and contract.
    :param verify: the TLS context.
    :param options: as for :class:`OsaiClient`.
    """

    _max_limit = LIST_LIMIT

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
        transport = AsyncBoundedTransport(httpx.AsyncHTTPTransport(**self._transport_options(verify)), self.limits)
        self._http = httpx.AsyncClient(transport=RetryTransport(transport), **self._options())

    @classmethod
    async def open(cls, settings: OsaiSettings, **options: Any) -> Self:
        """Return a client, without blocking the event loop."""
        return cls(settings, await asyncio.to_thread(load_tls_context, settings), **options)

    async def send(self, call: Call[T], *, retry: bool = True) -> T:
        """Send one call, and return its result.

        :param retry: ``False``: send the request once, for a caller that polls anyway.
        :raises OsaiError: if there is no usable response.
        """
        try:
            return await self._send(call, retry=retry)
        except OsaiAuthError as rejected:
            if self._renew is None:
                raise
            try:
                settings = await self._renew()
            except Exception as error:  # a secrets backend may raise anything
                raise rejected from error
            if not self.auth.set_access_token(settings.access_token):
                raise
            return await self._send(call, retry=retry)

    async def _send(self, call: Call[T], *, retry: bool) -> T:
        if call.consumer is not None:
            raise TypeError(f"{call.name}: only OsaiClient downloads files")
        if call.rules.pages is None:
            response = await self._respond(call, retry=retry)
            if len(response.content) > PARSE_IN_THREAD_ABOVE:
                return await asyncio.to_thread(self._read, call, response)
            return self._read(call, response)
        flow = self._read_pages(call)
        page, result = advance(flow, None)
        while page is not None:
            page, result = await asyncio.to_thread(advance, flow, await self._respond(page, retry=retry))
        return cast("T", result)

    async def _respond(self, call: Call[Any], *, retry: bool) -> httpx.Response:
        with contextlib.ExitStack() as stack, self._converted_errors(call):
            return await self._http.send(self._request(self._http, call, stack, retry=retry))

    async def aclose(self) -> None:
        """Close the connection pool."""
        await self._http.aclose()

    get_user = _awaiting(OsaiApi.get_user)
    create_dataset = _awaiting(OsaiApi.create_dataset)
    list_datasets = _awaiting(OsaiApi.list_datasets)
    get_dataset = _awaiting(OsaiApi.get_dataset)
    delete_dataset = _awaiting(OsaiApi.delete_dataset)
    create_category = _awaiting(OsaiApi.create_category)
    list_categories = _awaiting(OsaiApi.list_categories)
    start_upload = _awaiting(OsaiApi.start_upload)
    list_images = _awaiting(OsaiApi.list_images)
    finish_upload = _awaiting(OsaiApi.finish_upload)
    get_model = _awaiting(OsaiApi.get_model)
    list_models = _awaiting(OsaiApi.list_models)
    list_conversions = _awaiting(OsaiApi.list_conversions)
    submit_job = _awaiting(OsaiApi.submit_job)
    get_job = _awaiting(OsaiApi.get_job)
    list_jobs = _awaiting(OsaiApi.list_jobs)
    list_all_jobs = _awaiting(OsaiApi.list_all_jobs)
    find_jobs = _awaiting(OsaiApi.find_jobs)
    cancel_job = _awaiting(OsaiApi.cancel_job)
    stop_job = _awaiting(OsaiApi.stop_job)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()


def advance(flow: Generator[Call[Any], httpx.Response, T], response: Any) -> tuple[Call[Any] | None, T | None]:
    """Send a response to *flow*; return its next call, or its result. Can run in a thread, unlike ``flow.send``."""
    try:
        return flow.send(response), None
    except StopIteration as end:
        return None, end.value


def _body(call: Call[Any], files: dict[str, Any]) -> dict[str, Any]:
    """Return the options of httpx for the request's body."""
    encoding = call.rules.encoding or ("multipart" if files else "json")
    if encoding == "json" and not files:
        return {"json": call.body}
    fields = call.body if isinstance(call.body, dict) else {}
    texts = {name: json.dumps(value) if isinstance(value, (dict, bool)) else value for name, value in fields.items()}
    if encoding == "multipart" and not files:
        return {"files": {name: (None, str(value)) for name, value in texts.items()}}
    return {"data": texts, "files": files or None}


def _is_sign_in(error: httpx.HTTPError) -> bool:
    try:
        return bool(error.request.extensions.get(SIGN_IN))
    except RuntimeError:  # httpx did not set the request
        return False
