"""The way from an Airflow task to its job in the OSAI portal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseOperatorLink, XCom

if TYPE_CHECKING:
    from airflow_provider_osai.api.models import JobKind
    from airflow_provider_osai.api.settings import OsaiSettings

__all__ = ["OsaiPortalLink"]


class OsaiPortalLink(BaseOperatorLink):
    """Opens the job's page in the portal. It is there as soon as the job is submitted, and stays when the task fails.

    The pages' addresses are assumed; rebind ``<kind>.page`` in the connection's contract, or bind it to ``null`` for a
    link to the portal itself.
    """

    name = "OSAI portal"

    @property
    def xcom_key(self) -> str:
        """Under which key the operator stores the link."""
        return "osai_portal_link"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:  # noqa: ARG002 - Airflow's signature
        """Return what the operator stored: Airflow asks again when the task's process ends, on a fresh operator."""
        return XCom.get_value(ti_key=ti_key, key=self.xcom_key) or ""

    @staticmethod
    def url(settings: OsaiSettings, kind: JobKind, job_id: str) -> str:
        """Return the address of a job's page."""
        name = f"{kind}.page"
        path = settings.contract[name].outgoing({"id": job_id}).path if name in settings.contract else ""
        return settings.portal_url + path
