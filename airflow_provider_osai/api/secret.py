"""Protect secrets from being shown, copied or serialized with the object that holds them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, NoReturn

from pydantic import AfterValidator, SecretStr

__all__ = ["HoldsSecret", "Sealed", "SealedStr", "sealed"]


class HoldsSecret:
    """Base of classes that cannot be pickled or deeply copied, since the copy would include the secret."""

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError(self._copy_error("pickled or copied"))

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> NoReturn:
        raise TypeError(self._copy_error("copied"))

    def _copy_error(self, action: str) -> str:
        return (
            f"{type(self).__name__} holds a secret and cannot be {action}. Pass the connection's id instead, and read "
            "the connection again where it is needed"
        )


class Sealed(HoldsSecret, SecretStr):
    """A pydantic ``SecretStr`` that does not store its value in an attribute.

    This protects against accidental disclosure by debuggers, error reporters and pickle, not against code that calls
    :meth:`get_secret_value`.
    """

    _get: Callable[[], str]

    def __init__(self, secret_value: str) -> None:
        super().__init__("*" * 10 if secret_value else "")
        self._get = lambda: secret_value

    def get_secret_value(self) -> str:
        """Return the secret."""
        return self._get()

    def __len__(self) -> int:
        return len(self._get())

    def __eq__(self, other: Any) -> bool:
        return isinstance(other, SecretStr) and self._get() == other.get_secret_value()

    def __hash__(self) -> int:
        return hash(self._get())


def sealed(secret: SecretStr) -> Sealed:
    """Return *secret* as a :class:`Sealed`."""
    return secret if isinstance(secret, Sealed) else Sealed(secret.get_secret_value())


SealedStr = Annotated[SecretStr, AfterValidator(sealed)]
"""A pydantic field that converts any ``SecretStr`` to a :class:`Sealed`."""
