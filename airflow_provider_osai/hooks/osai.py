"""The hook: creates OSAI clients from an Airflow connection of type ``osai``."""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from airflow.providers.common.compat.connection import get_async_connection, get_async_extra_dejson
from airflow.providers.common.compat.sdk import BaseHook, mask_secret

from airflow_provider_osai.api.client import AsyncOsaiClient, OsaiClient
from airflow_provider_osai.api.contract_document import is_path
from airflow_provider_osai.api.error_mapping import tls_error_message
from airflow_provider_osai.api.errors import OsaiArgumentError, OsaiAuthError, OsaiError, OsaiUnreachable
from airflow_provider_osai.api.misfits import observe_misfits
from airflow_provider_osai.api.settings import REGIONS, OsaiSettings, unknown_extras
from airflow_provider_osai.hooks.background_tasks import in_airflow_thread
from airflow_provider_osai.hooks.form import field_behaviour, form_widgets
from airflow_provider_osai.observability import metrics, tracing

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from airflow.sdk import Connection

__all__ = ["OsaiHook"]

P = ParamSpec("P")
T = TypeVar("T")
observe_misfits(metrics.count_misfit)

REGION_TIMEOUT = 3.0
"""Maximum seconds to wait for another region, which only makes an error message better."""


def _with_client(verb: Callable[Concatenate[OsaiClient, P], T]) -> Callable[Concatenate[OsaiHook, P], T]:
    """Return the hook's method of the same name, which opens a client for the one request."""

    @functools.wraps(verb)
    def method(self: OsaiHook, /, *args: P.args, **kwargs: P.kwargs) -> T:
        with self.get_conn() as client:
            return verb(client, *args, **kwargs)

    return method


class OsaiHook(BaseHook):
    """Creates clients from an Airflow connection of type ``osai``.

    The connection's password is the access token. Its extra fields: ``region`` (``eu``, the default, or ``us``),
    ``base_url`` (overrides the region; https, or http on localhost), ``timeout`` (seconds, default 30), ``contract``
    (overrides assumed endpoints: JSON or YAML, or the absolute path of a file), ``deployment``, ``webhook_base_url``
    and ``webhook_secret``. Unknown fields are ignored with a warning.

    The common requests are methods (``hook.get_job("training", "7")``), each with a client of its own; for several
    requests, take one client with :meth:`get_conn`, which has a method for every operation.

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
        """Read and validate the connection.

        :raises OsaiArgumentError: if the connection has another type or an invalid field, which the message names.
        :raises OsaiContractError: if its contract is invalid.
        """
        return self.settings_from(self.get_connection(self.osai_conn_id))

    def settings_from(self, connection: Connection) -> OsaiSettings:
        """Validate a connection that was read already; raises as :meth:`settings`."""
        self._require_type(connection)
        return self._validate(connection.password, connection.extra_dejson)

    def get_conn(self) -> OsaiClient:
        """Return a blocking client; use it as a context manager."""
        return OsaiClient(self.settings(), on_secret=mask_secret, renew=self.settings, traceparent=tracing.traceparent)

    async def async_settings(self) -> OsaiSettings:
        """Read and validate the connection without blocking the event loop; see :meth:`settings`."""
        connection = await get_async_connection(self.osai_conn_id, self)
        self._require_type(connection)
        extra = await get_async_extra_dejson(connection)
        if is_path(extra.get("contract")):
            return await asyncio.to_thread(self._validate, connection.password, extra)
        return self._validate(connection.password, extra)

    async def get_async_conn(self, settings: OsaiSettings | None = None, **options: Any) -> AsyncOsaiClient:
        """Return an asynchronous client; creating it does not block the event loop.

        :param settings: settings of this connection, if they have just been read.
        :param options: further arguments of the client.
        """
        settings = settings or await self.async_settings()
        return await AsyncOsaiClient.open(
            settings, on_secret=_mask_in_thread, renew=self.async_settings, traceparent=tracing.traceparent, **options
        )

    def test_connection(self) -> tuple[bool, str]:
        """Sign in and get the current user; return whether that succeeded, and a one-line message."""
        try:
            settings = self.settings()
        except OsaiError as error:
            return False, str(error)
        return self.test_settings(settings)

    def test_settings(self, settings: OsaiSettings) -> tuple[bool, str]:
        """Do the same as :meth:`test_connection` with settings that were read already."""
        try:
            with OsaiClient(settings, retry_budget=0, on_secret=mask_secret) as client:
                user = client.get_user()
        except OsaiAuthError as error:
            return False, self._wrong_region_message(settings) or str(error)
        except OsaiUnreachable as error:
            message = f"OSAI is unreachable: {error}. Check the base URL, the network and the proxy."
            return False, tls_error_message(error, settings.base_url) or message
        except OsaiError as error:
            return False, str(error)
        user_name = user.email or user.name or user.id or "a user without a name"
        return True, f"Signed in to OSAI at {settings.base_url} as {user_name}."

    get_dataset = _with_client(OsaiClient.get_dataset)
    list_datasets = _with_client(OsaiClient.list_datasets)
    get_model = _with_client(OsaiClient.get_model)
    list_models = _with_client(OsaiClient.list_models)
    list_conversions = _with_client(OsaiClient.list_conversions)
    submit_job = _with_client(OsaiClient.submit_job)
    get_job = _with_client(OsaiClient.get_job)
    list_jobs = _with_client(OsaiClient.list_jobs)
    find_jobs = _with_client(OsaiClient.find_jobs)
    cancel_job = _with_client(OsaiClient.cancel_job)

    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """Return the widgets of the form's extra fields. Used only by Airflow 3.1."""
        return form_widgets()

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Return the behaviour of the form's standard fields. Used only by Airflow 3.1."""
        return field_behaviour()

    def _require_type(self, connection: Any) -> None:
        """Reject a connection of another type: its password is for another service and must not be sent to OSAI.

        :raises OsaiArgumentError: if the type differs; the message has nothing of the connection but its id and type.
        """
        if connection.conn_type != self.conn_type:
            msg = (
                f"Connection {self.osai_conn_id!r} has the type {connection.conn_type or None!r} instead of "
                f"{self.conn_type!r}. Check osai_conn_id and the connection's type"
            )
            raise OsaiArgumentError(msg)

    def _validate(self, password: str | None, extra: Mapping[str, Any]) -> OsaiSettings:
        if warning := unknown_extras(extra):
            self.log.warning(warning)
        return OsaiSettings.from_connection(password, extra)

    def _wrong_region_message(self, settings: OsaiSettings) -> str | None:
        """Return a message if another region of OSAI accepts the rejected access token."""
        for region in REGIONS if settings.region else ():
            if region == settings.region:
                continue
            timeout = min(settings.timeout, REGION_TIMEOUT)
            other_settings = settings.model_copy(
                update={"base_url": REGIONS[region], "region": region, "timeout": timeout}
            )
            try:
                with OsaiClient(other_settings, retry_budget=0, on_secret=mask_secret) as client:
                    client.get_user()
            except OsaiError:
                continue
            return (
                f"Wrong region: OSAI {settings.region} rejects this access token, but OSAI {region} accepts it. "
                f"Set the connection's region to {region!r}."
            )
        return None


async def _mask_in_thread(secret: str) -> None:
    await in_airflow_thread(mask_secret, secret)
