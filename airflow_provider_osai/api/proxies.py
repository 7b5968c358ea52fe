"""Select the proxy for a URL from the environment; loopback addresses never use one.

httpx ignores the environment for clients with a custom transport, as here. A loopback address is never proxied,
regardless of ``NO_PROXY``: the proxy would connect to another machine or none, and could read the access token, since
plain http is allowed for loopback.
"""

from __future__ import annotations

import urllib.request
from importlib.util import find_spec
from urllib.parse import urlsplit

import httpx

from airflow_provider_osai.api.addresses import is_loopback
from airflow_provider_osai.api.errors import OsaiArgumentError

__all__ = ["proxy_for"]


def proxy_for(url: str) -> str | None:
    """Return the proxy URL for *url*, or ``None``.

    Reads ``HTTPS_PROXY``, ``HTTP_PROXY`` and ``NO_PROXY``, in upper and lower case.

    :raises OsaiArgumentError: if the proxy in the environment is invalid; its value is not shown, since it may contain
        credentials.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    if is_loopback(host) or urllib.request.proxy_bypass(host):
        return None
    proxy = urllib.request.getproxies().get(parts.scheme)
    if not proxy:
        return None
    address = proxy if "://" in proxy else f"http://{proxy}"
    try:
        scheme = httpx.Proxy(address).url.scheme
    except (ValueError, httpx.InvalidURL):
        scheme = ""
    if not scheme or (scheme.startswith("socks") and find_spec("socksio") is None):
        variable = f"{parts.scheme.upper()}_PROXY"
        raise OsaiArgumentError(
            f"{variable} is not a valid proxy URL; use http://host:port or https://host:port, or install httpx[socks] "
            "for socks5://host:port"
        )
    return address
