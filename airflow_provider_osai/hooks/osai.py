"""From an Airflow connection of type ``osai`` to a client."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.connection import get_async_connection, get_async_extra_dejson
from airflow.providers.common.compat.sdk import BaseHook, mask_secret
from asgiref.sync import sync_to_async

from airflow_provider_osai.api.client import AsyncOsaiClient, OsaiClient
from airflow_provider_osai.api.errors import OsaiAuthError, OsaiError, OsaiUnreachable
from airflow_provider_osai.api.settings import REGIONS, OsaiSettings, unknown_extras
from airflow_provider_osai.hooks.form import field_behaviour, form_widgets

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["OsaiHook"]


class OsaiHook(BaseHook):
    """Makes clients from an Airflow connection of type ``osai``.

    The connection's password is the access token. Its extra fields: ``region`` (``eu``, the default, or ``us``),
    ``base_url`` (overrides the region; https, or http on this machine), ``timeout`` (seconds, 30), ``contract`` (JSON
    that rebinds assumed operations), ``webhook_base_url``, ``webhook_secret``. Others are ignored with a warning.

    :param osai_conn_id: the connection's id.
    """

    conn_name_attr = "osai_conn_id"
    default_conn_name = "osai_default"
    conn_type = "osai"
    hook_name = "OSAI"

    def __init__(self, osai_conn_id: str = default_conn_name) -> None:
        super().__init__()
        self.osai_conn_id = osai_conn_id

    def settings(self) -> OsaiSettings:
        """Read the connection and check it.

        :raises OsaiArgumentError: naming the field that is wrong.
        :raises OsaiContractError: if its contract does not hold.
        """
        connection = self.get_connection(self.osai_conn_id)
        return self._checked(connection.password, connection.extra_dejson)

    def get_conn(self) -> OsaiClient:
        """Return a client that blocks; use it as a context manager."""
        return OsaiClient(self.settings(), on_secret=mask_secret, renew=self.settings)

    async def async_settings(self) -> OsaiSettings:
        """Do the same as :meth:`settings` without holding the event loop."""
        connection = await get_async_connection(self.osai_conn_id, self)
        return self._checked(connection.password, await get_async_extra_dejson(connection))

    async def get_async_conn(self, settings: OsaiSettings | None = None, **options: Any) -> AsyncOsaiClient:
        """Return a client that awaits; nothing in its making holds the event loop.

        :param settings: of this connection, if they have just been read.
        :param options: as for the client.
        """
        settings = settings or await self.async_settings()
        return await AsyncOsaiClient.open(settings, on_secret=_mask_off_the_loop, renew=self.async_settings, **options)

    def test_connection(self) -> tuple[bool, str]:
        """Sign in and ask who we are; say in one line how that went."""
        try:
            settings = self.settings()
            with OsaiClient(settings, patience=0, on_secret=mask_secret) as client:
                user = client.send(client.calls.me())
        except OsaiAuthError as error:
            return False, self._other_region(settings) or str(error)
        except OsaiUnreachable as error:
            return False, _unreachable(error, settings)
        except OsaiError as error:
            return False, str(error)
        who = user.email or user.name or user.id or "a user without a name"
        return True, f"Signed in to OSAI at {settings.base_url} as {who}."

    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """Return the form's extra fields; asked by Airflow 3.1 only."""
        return form_widgets()

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Return how the form's standard fields look; asked by Airflow 3.1 only."""
        return field_behaviour()

    def _checked(self, password: str | None, extra: Mapping[str, Any]) -> OsaiSettings:
        if warning := unknown_extras(extra):
            self.log.warning(warning)
        return OsaiSettings.from_connection(password, extra)

    def _other_region(self, settings: OsaiSettings) -> str | None:
        """Say so if the token that was refused is good in another of OSAI's regions."""
        for region in REGIONS if settings.region else ():
            if region == settings.region:
                continue
            elsewhere = settings.model_copy(update={"base_url": REGIONS[region], "region": region})
            try:
                with OsaiClient(elsewhere, patience=0, on_secret=mask_secret) as client:
                    client.send(client.calls.me())
            except OsaiError:
                continue
            return (
                f"Wrong region: OSAI {settings.region} refuses this access token and OSAI {region} accepts it; "
                f"set the connection's region to {region!r}."
            )
        return None


def _unreachable(error: OsaiUnreachable, settings: OsaiSettings) -> str:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLError):
            reason = getattr(cause, "verify_message", "") or cause.reason or cause
            return (
                f"TLS with {settings.base_url} failed: {reason}. "
                "Check the address, and that this machine trusts the certificate (SSL_CERT_FILE)."
            )
        cause = cause.__cause__ or cause.__context__
    return f"OSAI is unreachable: {error}. Check the address, the network and the proxy."


async def _mask_off_the_loop(secret: str) -> None:
    # Airflow passes the secret on to its supervisor with a blocking call. Before 3.3 that call must come from one of
    # asgiref's threads: from any other it would read the answers of the triggerer's own calls, and bring it down.
    await sync_to_async(mask_secret)(secret)
