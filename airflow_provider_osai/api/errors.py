"""All errors of this package, by what the caller should do about them.

::

    OsaiError
    |-- OsaiArgumentError      a value is wrong: mend it (never retried)
    |-- OsaiContractError      the contract does not fit the API: rebind it (never retried)
    |-- OsaiAuthError          the access token was refused: replace it (never retried)
    |-- OsaiRequestError       the API refused the request with 4xx (never retried)
    |-- OsaiUnreachable        no usable answer: try later
    |-- OsaiDownloadFailed     a file did not come whole, or could not be written: try later
    `-- OsaiJobError           something about one job
        |-- OsaiJobFailed      it ended as failed: submit anew
        |   `-- OsaiUnsupported   a conversion that is impossible (never retried)
        |-- OsaiJobCancelled   it was cancelled
        |-- OsaiJobTimeout     it was cancelled by us at the task's deadline
        `-- OsaiJobLost        we cannot see it any more; it may still run
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydantic import ValidationError

__all__ = [
    "OsaiArgumentError",
    "OsaiAuthError",
    "OsaiContractError",
    "OsaiDownloadFailed",
    "OsaiError",
    "OsaiJobCancelled",
    "OsaiJobError",
    "OsaiJobFailed",
    "OsaiJobLost",
    "OsaiJobTimeout",
    "OsaiRequestError",
    "OsaiUnreachable",
    "OsaiUnsupported",
]

MAX_SERVER_TEXT = 2_000
"""Characters of a server's answer that an error message quotes."""


class OsaiError(Exception):
    """Anything that this package raises on purpose."""

    retryable: ClassVar[bool] = True
    """Whether the same call may succeed later with nothing changed."""


class OsaiArgumentError(OsaiError, ValueError):
    """A value given by the user breaks a rule; the message names the value and the rule."""

    retryable = False

    @classmethod
    def from_validation(cls, subject: str, error: ValidationError) -> OsaiArgumentError:
        """Say in one line what pydantic found wrong with *subject*, naming each value.

        Secrets are safe: pydantic hands a ``SecretStr`` on masked.
        """
        return cls(f"{subject}: " + "; ".join(_sentences(error.errors(include_url=False))))


class OsaiContractError(OsaiError):
    """The contract is bound badly, or an answer of the API does not fit it; the message names the key."""

    retryable = False


class OsaiAuthError(OsaiError):
    """OSAI refused the access token, at sign-in or twice in a row on a request."""

    retryable = False


class OsaiRequestError(OsaiError):
    """The API refused a request with a 4xx status that waiting does not mend.

    :param status: the HTTP status, 400-499.
    :param method: the request's verb.
    :param path: the request's path, without the query.
    :param text: what the server said; quoted up to 2,000 characters.
    """

    retryable = False

    def __init__(self, status: int, method: str, path: str, text: str) -> None:
        self.status, self.method, self.path, self.text = status, method, path, text[:MAX_SERVER_TEXT]
        super().__init__(f"OSAI refused {method} {path} with {status}: {self.text or 'no reason given'}")


class OsaiUnreachable(OsaiError):
    """No usable answer: a network failure, a timeout, 408, 425, 429, 5xx, or something that is not the API's JSON.

    :param message: what happened.
    :param sent: ``False`` if it is certain that OSAI did not take the request; ``True`` if it may have.
    :param status: the HTTP status, if there was an answer.
    :param retry_after: seconds that the server asked us to wait, if it did.
    """

    def __init__(
        self, message: str, *, sent: bool = True, status: int | None = None, retry_after: float | None = None
    ) -> None:
        self.sent, self.status, self.retry_after = sent, status, retry_after
        super().__init__(message)

    @property
    def is_busy(self) -> bool:
        """Whether OSAI has answered that it has too much to do, and surely did not take the request."""
        return not self.sent and self.status is not None


class OsaiDownloadFailed(OsaiError):
    """A file did not come whole, is not what was announced, or could not be written. Nothing is under its name."""


class OsaiJobError(OsaiError):
    """Something about one job.

    :param message: what happened and what to do next.
    :param kind: the job's kind, for instance ``training``.
    :param job_id: OSAI's id of the job.
    """

    def __init__(self, message: str, *, kind: str, job_id: str) -> None:
        self.kind, self.job_id = str(kind), job_id
        super().__init__(f"{self.kind} job {job_id}: {message}")


class OsaiJobFailed(OsaiJobError):
    """The job ended as failed. A retry of the Airflow task submits a new one."""


class OsaiUnsupported(OsaiJobFailed):
    """The model cannot be converted for this target (docs.onestepai.com: impossible ones are marked UNSUPPORTED)."""

    retryable = False


class OsaiJobCancelled(OsaiJobError):
    """The job was cancelled: in the portal, by another client, or because the task was killed."""


class OsaiJobTimeout(OsaiJobError):
    """The task's ``execution_timeout`` passed before the job ended; the job was told to stop."""


class OsaiJobLost(OsaiJobError):
    """The job cannot be seen any more. It was not cancelled; a retry of the Airflow task adopts it if it lives."""


def _sentences(problems: Sequence[Any]) -> list[str]:
    """Turn pydantic's findings into ``field = value: rule``."""
    return [
        f"{'.'.join(str(part) for part in problem['loc']) or 'value'} = {_shown(problem)}"
        f"{problem['msg'].removeprefix('Value error, ')}"
        for problem in problems
    ]


def _shown(problem: Any) -> str:
    text = "nothing" if problem["type"] == "missing" else repr(problem["input"])
    return f"{text[:197]}...: " if len(text) > 200 else f"{text}: "


def quotable(text: str, most: int = MAX_SERVER_TEXT) -> str:
    """Return what a message may quote of a server's text: one line that can be written anywhere, not too long.

    :param most: characters at the most.
    """
    head = text[: 2 * most]
    if not head.isprintable():
        head = "".join(c if c.isprintable() else " " for c in head)
    return " ".join(head.split())[:most]
