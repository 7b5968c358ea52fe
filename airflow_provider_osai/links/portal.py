"""The operator extra link from an Airflow task to its job in the OSAI portal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseOperatorLink, XCom

from airflow_provider_osai.api.errors import OsaiArgumentError

if TYPE_CHECKING:
    from airflow_provider_osai.api.models import JobKind
    from airflow_provider_osai.api.settings import OsaiSettings

__all__ = ["OsaiPortalLink", "leave_links_as_pushed"]


class OsaiPortalLink(BaseOperatorLink):
    """Opens the job's page in the portal. Available from the submission of the job on, also if the task fails later.

    The URLs of the pages are assumed. Override ``<kind>.page`` in the connection's contract, or set it to ``null`` for
    a link to the portal itself.
    """

    name = "OSAI portal"

    @property
    def xcom_key(self) -> str:
        """The XCom key under which the operator stores the link."""
        return "osai_portal_link"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:  # Airflow's signature
        """Return the stored link from XCom: Airflow also calls this on a new operator when the task's process ends."""
        return XCom.get_value(ti_key=ti_key, key=self.xcom_key) or ""

    @staticmethod
    def url(settings: OsaiSettings, kind: JobKind, job_id: str) -> str:
        """Return the URL of a job's page; that of the portal if the contract has no page for the kind or the id."""
        endpoint = f"{kind}.page"
        if endpoint not in settings.contract:
            return settings.portal_url
        try:
            return settings.portal_url + settings.contract[endpoint].to_wire({"id": job_id}).path
        except OsaiArgumentError:  # an id without the parts that the page's path needs
            return settings.portal_url


def leave_links_as_pushed(task: Any) -> None:
    """Keep Airflow from reading and pushing a task's links again when this process ends.

    That costs two requests for each link, and an error in the log if there is none: a task that failed before it
    submitted a job, or a gate that evaluated nothing.
    """
    task.operator_extra_links = ()
