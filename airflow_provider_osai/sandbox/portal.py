"""The portal: a web page at ``/portal`` in which a person uploads images, trains, converts, predicts and downloads.

It uses the sandbox's API as the web page of a real OSAI would, so that it can be recorded with a browser. Options in
the page's query: ``poll`` (milliseconds between two polls), ``push`` (progress over a WebSocket instead of polls) and
``cookies`` (a session cookie and an anti-forgery token besides the API's token).
"""

from __future__ import annotations

import hmac
import json
import secrets
from importlib import resources
from typing import Any, Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from airflow_provider_osai.api.contract import Contract
from airflow_provider_osai.sandbox.messages import plain_error
from airflow_provider_osai.sandbox.portal_push import JobHub
from airflow_provider_osai.sandbox.portal_templates import portal_templates

__all__ = ["portal_routes"]

POLICY: Final = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The page's Content-Security-Policy."""
FORGERY_COOKIE: Final = "XSRF-TOKEN"
FORGERY_HEADER: Final = "X-XSRF-TOKEN"
SESSION_COOKIE: Final = "portal.session"


def portal_routes(contract: Contract, base_path: str, hub: JobHub) -> APIRouter:
    """Return the routes of the portal.

    :param contract: the contract that the API speaks.
    :param base_path: the path of the API.
    :param hub: sends the progress of jobs.
    """
    router = APIRouter(prefix="/portal", include_in_schema=False)

    @router.get("")
    async def page(request: Request) -> Response:
        response = HTMLResponse(_page(contract, base_path), headers={"Content-Security-Policy": POLICY})
        if "cookies" in request.query_params:
            response.set_cookie(FORGERY_COOKIE, secrets.token_urlsafe(24), samesite="strict")
        return response

    @router.post("/session")
    async def start_session(request: Request) -> Response:
        """Set a session cookie, which has no effect."""
        token = request.cookies.get(FORGERY_COOKIE, "")
        if not token or not hmac.compare_digest(token.encode(), request.headers.get(FORGERY_HEADER, "").encode()):
            return plain_error(403, f"{FORGERY_HEADER}: must be the value of the cookie {FORGERY_COOKIE}")
        response = JSONResponse({"isSignedIn": False})
        response.set_cookie(SESSION_COOKIE, secrets.token_urlsafe(32), httponly=True, samesite="strict")
        return response

    @router.post("/jobs/negotiate")
    async def negotiate() -> dict[str, Any]:
        return hub.negotiate()

    router.add_api_websocket_route("/jobs", hub.serve)
    return router


def _page(contract: Contract, base_path: str) -> str:
    html = resources.files(__package__).joinpath("portal.html").read_text(encoding="utf-8")
    templates = json.dumps(portal_templates(contract, base_path), separators=(",", ":"))
    return html.replace("TEMPLATES", templates.replace("<", "\\u003c"))
