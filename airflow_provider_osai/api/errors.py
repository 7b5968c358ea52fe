"""All errors of this package, by what the caller should do about them.

::

    OsaiError
    |-- OsaiArgumentError      an argument is invalid: fix it (never retried)
    |-- OsaiContractError      the contract does not match the API: override it (never retried)
    |-- OsaiAuthError          the access token was rejected: replace it (never retried)
    |-- OsaiRequestError       the API rejected the request with 4xx (never retried)
    |-- OsaiUnreachable        no usable response: try again later
    |   `-- OsaiBusy              OSAI has no room now: busy, quota reached, no credit
    |-- OsaiDownloadFailed     a file is incomplete or could not be written: try again later
    |-- OsaiQualityCheckFailed images would spoil a training: correct them (never retried)
    `-- OsaiJobError           an error of one job
        |-- OsaiJobFailed      the job failed: submit it again
        |   |-- OsaiInvalidData   OSAI names the data or arguments as the reason (never retried)
        |   `-- OsaiUnsupported   an unsupported conversion (never retried)
        |-- OsaiJobCancelled   the job was cancelled
        |-- OsaiJobTimeout     the job was cancelled at the task's deadline
        |-- OsaiJobStopped     the job was cancelled by a rule of stop_when: submit it again
        `-- OsaiJobLost        the job is no longer visible; it may still run
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pydantic import ValidationError

__all__ = [
    "OsaiArgumentError",
    "OsaiAuthError",
    "OsaiBusy",
    "OsaiContractError",
    "OsaiDownloadFailed",
    "OsaiError",
    "OsaiInvalidData",
    "OsaiJobCancelled",
    "OsaiJobError",
    "OsaiJobFailed",
    "OsaiJobLost",
    "OsaiJobStopped",
    "OsaiJobTimeout",
    "OsaiQualityCheckFailed",
    "OsaiRequestError",
    "OsaiUnreachable",
    "OsaiUnsupported",
]

MAX_SERVER_TEXT = 2_000
"""Maximum characters of a response that an error message quotes."""


class OsaiError(Exception):
    """Base class of all errors that this package raises."""

    retryable: ClassVar[bool] = True
    """Whether the same call may succeed later without changes."""
    may_have_been_processed: bool = False
    """Whether OSAI may have taken the job although its submission ended with this error."""


class OsaiArgumentError(OsaiError, ValueError):
    """An argument or setting is invalid; the message names the value and the rule."""

    retryable = False

    @classmethod
    def from_validation(cls, subject: str, error: ValidationError) -> OsaiArgumentError:
        """Return the error for pydantic's findings about *subject*, on one line with each value.

        Secrets are safe: pydantic masks a ``SecretStr``.
        """
        return cls(f"{subject}: " + "; ".join(_describe_errors(error.errors(include_url=False))))


class OsaiContractError(OsaiError):
    """The contract override is invalid, or a response does not match the contract; the message names the key."""

    retryable = False


class OsaiAuthError(OsaiError):
    """OSAI rejected the access token at sign-in, or a request twice in a row."""

    retryable = False


class OsaiRequestError(OsaiError):
    """The API rejected a request with a 4xx status; a retry would not help.

    :param status: the HTTP status, 400-499; where a contract says what a response means, the status of that meaning.
    :param method: the HTTP method.
    :param path: the request's path, without the query.
    :param text: the text of the response; at most 2,000 characters are kept.
    :param received: the HTTP status of the response, if it is another.
    """

    retryable = False

    def __init__(self, status: int, method: str, path: str, text: str, received: int | None = None) -> None:
        self.status = status
        self.received = status if received is None else received
        self.method = method
        self.path = path
        self.text = text[:MAX_SERVER_TEXT]
        super().__init__(f"OSAI rejected {method} {path} with {self.received}: {self.text or 'no reason given'}")

    @property
    def is_not_found(self) -> bool:
        """Whether OSAI answered that it does not have the thing: 404 or 410."""
        return self.status in (404, 410)

    @property
    def is_unsupported_operation(self) -> bool:
        """Whether this may be how an API without the operation answers: 400, 404, 405 or 501 (assumed)."""
        return self.status in (400, 404, 405, 501)


class OsaiUnreachable(OsaiError):
    """No usable response: a network failure, a timeout, 408, 425, 429, 5xx, or a body that is not the API's JSON.

    :param message: what happened.
    :param may_have_been_processed: ``False`` if OSAI certainly did not process the request; ``True`` if it may have.
    :param status: the HTTP status, if there was a response.
    :param retry_after: the seconds of the ``Retry-After`` header, if present.
    :param too_large: whether the response exceeded the operation's limit.
    """

    def __init__(
        self,
        message: str,
        *,
        may_have_been_processed: bool = True,
        status: int | None = None,
        retry_after: float | None = None,
        too_large: bool = False,
    ) -> None:
        self.may_have_been_processed = may_have_been_processed
        self.status = status
        self.retry_after = retry_after
        self.too_large = too_large
        super().__init__(message)

    @property
    def is_busy(self) -> bool:
        """Whether OSAI reported that it is busy, and certainly did not process the request."""
        return not self.may_have_been_processed and self.status is not None


class OsaiBusy(OsaiUnreachable):
    """OSAI has no room for the request now, and certainly did not process it: 429, or what a contract calls so.

    :param message: what happened.
    :param reason: why there is no room: ``busy``, ``quota reached`` or ``no credit``.
    :param status: the HTTP status.
    :param retry_after: the seconds of the ``Retry-After`` header, if present.
    """

    def __init__(
        self, message: str, *, reason: str = "busy", status: int = 429, retry_after: float | None = None
    ) -> None:
        self.reason = reason
        super().__init__(message, may_have_been_processed=False, status=status, retry_after=retry_after)


class OsaiDownloadFailed(OsaiError):
    """A file is incomplete, not the announced one, or could not be written. No incomplete file is left."""


class OsaiQualityCheckFailed(OsaiError):
    """The check of the images before an upload found what would spoil a training; nothing was uploaded.

    :param message: what was found, and the remedy.
    :param summary: the verdict, and how often each finding occurred.
    """

    retryable = False

    def __init__(self, message: str, summary: Mapping[str, Any] | None = None) -> None:
        self.summary = summary or {}
        super().__init__(message)


class OsaiJobError(OsaiError):
    """An error of one job.

    :param message: what failed, and the remedy.
    :param kind: the job's kind, for instance ``training``.
    :param job_id: OSAI's id of the job.
    """

    def __init__(self, message: str, *, kind: str, job_id: str) -> None:
        self.kind, self.job_id = str(kind), job_id
        super().__init__(f"{self.kind} job {job_id}: {message}")


class OsaiJobFailed(OsaiJobError):
    """The job failed. A retry of the Airflow task submits a new one."""


class OsaiInvalidData(OsaiJobFailed):
    """The job failed, and OSAI names its data or arguments as the reason (``invalidData`` in the contract)."""

    retryable = False


class OsaiUnsupported(OsaiJobFailed):
    """The model cannot be converted for this target (docs.onestepai.com: such conversions are marked UNSUPPORTED)."""

    retryable = False


class OsaiJobCancelled(OsaiJobError):
    """The job was cancelled: in the portal, by another client, or because the task was killed."""


class OsaiJobTimeout(OsaiJobError):
    """The task's ``execution_timeout`` expired before the job ended; cancellation of the job was requested."""


class OsaiJobStopped(OsaiJobError):
    """A rule of ``stop_when`` held, such as a NaN loss; cancellation of the job was requested. A retry submits a new
    job.

    :param message: as for :class:`OsaiJobError`.
    :param reason: the rule that held, and the values that it saw.
    """

    def __init__(self, message: str, *, kind: str, job_id: str, reason: str = "") -> None:
        self.reason = reason
        super().__init__(message, kind=kind, job_id=job_id)


class OsaiJobLost(OsaiJobError):
    """The job is no longer visible. It was not cancelled; a retry of the task reconnects to it if it still runs."""


def _describe_errors(errors: Sequence[Any]) -> list[str]:
    """Format pydantic's errors as ``field = value: rule``."""
    return [
        f"{'.'.join(str(part) for part in error['loc']) or 'value'} = {_describe_value(error)}"
        f"{error['msg'].removeprefix('Value error, ')}"
        for error in errors
    ]


def _describe_value(error: Any) -> str:
    text = "nothing" if error["type"] == "missing" else repr(error["input"])
    return f"{text[:197]}...: " if len(text) > 200 else f"{text}: "


def sanitize_server_text(text: str, max_length: int = MAX_SERVER_TEXT) -> str:
    """Return *text* from a server as one printable line, with at most *max_length* characters.

    It cannot begin or end a group in Airflow's log viewer (``::group::``, ``::endgroup::``), which would hide lines.
    """
    head = text[: 2 * max_length]
    if not head.isprintable():
        head = "".join(c if c.isprintable() else " " for c in head)
    if "group" in head:
        head = head.replace("::group", ": :group").replace("::endgroup", ": :endgroup")
    return " ".join(head.split())[:max_length]
