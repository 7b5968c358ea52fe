"""The portal: a web page at ``/portal`` in which a person uploads images, trains, converts, predicts and downloads.

It uses the sandbox's API as the web page of a real OSAI would, so that it can be recorded with a browser.
"""

from __future__ import annotations

import json
from importlib import resources

from fastapi import APIRouter
from starlette.responses import HTMLResponse

from airflow_provider_osai.api.contract import Contract
from airflow_provider_osai.sandbox.portal_templates import portal_templates

__all__ = ["portal_routes"]

POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The page's Content-Security-Policy."""


def portal_routes(contract: Contract, base_path: str) -> APIRouter:
    """Return the routes of the portal.

    :param contract: the contract that the API speaks.
    :param base_path: the path of the API.
    """
    router = APIRouter(prefix="/portal", include_in_schema=False)

    @router.get("")
    async def page() -> HTMLResponse:
        return HTMLResponse(_page(contract, base_path), headers={"Content-Security-Policy": POLICY})

    return router


def _page(contract: Contract, base_path: str) -> str:
    html = resources.files(__package__).joinpath("portal.html").read_text(encoding="utf-8")
    templates = json.dumps(portal_templates(contract, base_path), separators=(",", ":"))
    return html.replace("TEMPLATES", templates.replace("<", "\\u003c"))
