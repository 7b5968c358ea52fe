"""Write a recording as other tools do: ``python -m tests.learning.other_tools``.

Each converter changes what a tool is known to write in another way than Playwright: which headers, cookies, bodies and
fields of its own an entry has. The exchanges stay those of one recording.
"""

from __future__ import annotations

import copy
import json
import re
import shutil
from collections.abc import Callable
from datetime import datetime
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from tests.learning.styles import RECORDINGS, STYLES, load

__all__ = ["FORMATS", "main"]

FOLDER = RECORDINGS / "formats"
SOURCE = STYLES["aspnet_envelope-cookies"]
"""The style whose success is written in all formats."""
PUSHED = STYLES["aspnet_envelope-push"]
"""The style whose success has messages of a WebSocket."""
HIDDEN = {"authorization", "cookie", "set-cookie"}
"""Headers that Chrome leaves out by default."""
OWN_HEADERS = re.compile("sec-ch-ua.*|sec-fetch-.*")
PART = re.compile(
    r"""\r\ncontent-disposition\s*:\s*form-data\s*;\s*name="([^"]*)"(?:\s*;\s*filename="([^"]*)")?"""
    r"(?:\r\ncontent-type\s*:\s*([^\r\n]*))?\r\n\r\n(.*)\r\n",
    re.IGNORECASE | re.DOTALL,
)
"""A part of a multipart form."""
FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"

Recording = dict[str, Any]


def main() -> None:
    """Write all formats."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir()
    for name, (convert, style) in FORMATS.items():
        path = FOLDER / f"{name}.har"
        path.write_text(json.dumps(convert(load(style.folder / "success.har")), indent=1, ensure_ascii=False) + "\n")
    shutil.copy(SOURCE.folder / "secrets.json", FOLDER)
    shutil.copy(PUSHED.folder / "secrets.json", FOLDER / "secrets_push.json")


def chrome(recording: Recording) -> Recording:
    """Return what Chrome's developer tools save with "Export HAR (sanitized)", which is the default."""
    entries = []
    for number, entry in enumerate(recording["log"]["entries"]):
        request, response = entry["request"], entry["response"]
        address = urlsplit(request["url"])
        is_socket = address.scheme == "ws"
        kind = "websocket" if is_socket else "document" if entry["_resourceType"] == "document" else "fetch"
        written: Recording = {
            "_connectionId": str(100 + number % 6),
            "_initiator": {"type": "other"} if kind == "document" else _initiator(request["url"]),
            "_priority": "VeryHigh" if kind == "document" else "High",
            "_resourceType": kind,
        }
        if is_socket:
            messages = entry["_webSocketMessages"]
            written["_webSocketMessages"] = [{**each, "time": each["time"] / 1000} for each in messages]
        written |= {
            "cache": {},
            "connection": str(address.port),
            "pageref": "page_1",
            "request": _chrome_request(request),
            "response": {
                **{key: response[key] for key in ("status", "statusText")},
                "httpVersion": "http/1.1",
                "headers": _without(response["headers"]),
                "cookies": [],
                "content": {key: value for key, value in response["content"].items() if key != "compression"},
                "redirectURL": "",
                "headersSize": response["headersSize"],
                "bodySize": response["bodySize"],
                "_transferSize": response.get("_transferSize", 0),
                "_error": None,
                "_fetchedViaServiceWorker": False,
            },
            "serverIPAddress": "127.0.0.1",
            "startedDateTime": entry["startedDateTime"],
            "time": entry["time"],
            "timings": {"blocked": 1.5, **entry["timings"], "_blocked_queueing": 1.1},
        }
        entries.append(written)
    title = recording["log"]["entries"][0]["request"]["url"]
    page = {
        "startedDateTime": recording["log"]["pages"][0]["startedDateTime"],
        "id": "page_1",
        "title": title,
        "pageTimings": {"onContentLoad": 60.1, "onLoad": 60.9},
    }
    creator = {"name": "WebInspector", "version": "537.36"}
    return {"log": {"version": "1.2", "creator": creator, "pages": [page], "entries": entries}}


def _initiator(url: str) -> Recording:
    address = urlsplit(url)
    page = f"http://{address.netloc}/portal"
    frame = {"functionName": "send", "scriptId": "5", "url": page, "lineNumber": 150, "columnNumber": 25}
    return {"type": "script", "stack": {"callFrames": [frame]}}


def _chrome_request(request: Recording) -> Recording:
    written = {key: request[key] for key in ("method", "url")}
    written |= {"httpVersion": "http/1.1", "headers": _without(request["headers"])}
    written |= {"queryString": request["queryString"], "cookies": [], "headersSize": request["headersSize"]}
    written["bodySize"] = request["bodySize"]
    if "postData" in request:
        data = request["postData"]
        written["postData"] = {"mimeType": data["mimeType"], "text": data["text"]}
        if params := _form_params(data):
            written["postData"]["params"] = params
    return written


def _form_params(data: Recording) -> list[Recording]:
    """Return the fields of a form as Chrome shows them: of a file, only that it is one."""
    if data["mimeType"].startswith("application/x-www-form-urlencoded"):
        return _url_params(data)
    if not data["mimeType"].startswith("multipart/"):
        return []
    boundary = data["mimeType"].partition("boundary=")[2]
    found = []
    for part in data["text"].split(f"--{boundary}"):
        if match := PART.fullmatch(part):
            name, file, kind, value = match.groups()
            found.append({"name": name, "value": "(binary)" if file or kind else value})
    return found


def _url_params(data: Recording) -> list[Recording]:
    if not data["mimeType"].startswith("application/x-www-form-urlencoded"):
        return []
    return [{"name": name, "value": value} for name, value in parse_qsl(data["text"], keep_blank_values=True)]


def _without(headers: list[Recording]) -> list[Recording]:
    return [header for header in headers if header["name"].lower() not in HIDDEN]


def firefox(recording: Recording) -> Recording:
    """Return what Firefox saves with "Save All As HAR": everything, also cookies and the token."""
    entries = []
    for entry in recording["log"]["entries"]:
        request, response = copy.deepcopy(entry["request"]), copy.deepcopy(entry["response"])
        headers = [header for header in request["headers"] if not OWN_HEADERS.fullmatch(header["name"].lower())]
        for header in headers:
            if header["name"].lower() == "user-agent":
                header["value"] = FIREFOX
        request |= {"headers": headers, "httpVersion": "HTTP/1.1"}
        if data := request.get("postData"):
            request["postData"] = {"mimeType": data["mimeType"], "params": _url_params(data), "text": data["text"]}
        response["content"].pop("compression", None)
        response = {key: value for key, value in response.items() if not key.startswith("_")}
        entries.append(
            {
                "startedDateTime": entry["startedDateTime"].replace("Z", "+00:00"),
                "request": request,
                "response": response,
                "cache": {},
                "timings": {"blocked": 0, "dns": 0, "connect": 0, "ssl": 0, "send": 0, "wait": 14, "receive": 0},
                "time": 14,
                "_securityState": "insecure",
                "serverIPAddress": "127.0.0.1",
                "connection": str(urlsplit(request["url"]).port),
                "pageref": "page_1",
            }
        )
    about = {"name": "Firefox", "version": "128.0"}
    page = {
        "id": "page_1",
        "pageTimings": {"onContentLoad": 61, "onLoad": 63},
        "startedDateTime": entries[0]["startedDateTime"],
        "title": "OSAI sandbox portal",
    }
    log = {"version": "1.2", "creator": about, "browser": about, "pages": [page], "entries": entries}
    return _with_boundaries({"log": log})


def _with_boundaries(recording: Recording) -> Recording:
    """Return a recording with the boundaries of forms as Firefox makes them."""

    def boundary(match: re.Match[str]) -> str:
        return "-" * 27 + str(int.from_bytes(match[1].encode()) % 10**30)

    return json.loads(re.sub(r"----WebKitFormBoundary(\w{16})", boundary, json.dumps(recording)))


def mitmproxy(recording: Recording) -> Recording:
    """Return what mitmproxy's ``save.har`` writes of a server with TLS: HTTP/2, and no pages."""
    address = urlsplit(recording["log"]["entries"][0]["request"]["url"])
    text = json.dumps(recording).replace(f"http://{address.netloc}", "https://portal.osai.example")
    entries = []
    for entry in json.loads(text.replace(f"ws://{address.netloc}", "wss://portal.osai.example"))["log"]["entries"]:
        request, response = entry["request"], entry["response"]
        written = {
            "method": request["method"],
            "url": request["url"],
            "httpVersion": "HTTP/2.0",
            "cookies": [{"name": each["name"], "value": each["value"]} for each in request["cookies"]],
            "headers": _lower(request["headers"]),
            "queryString": request["queryString"],
            "headersSize": request["headersSize"],
            "bodySize": request["bodySize"],
        }
        if request["method"] in ("POST", "PUT", "PATCH"):
            data = request.get("postData", {"mimeType": "", "text": ""})
            written["postData"] = {"mimeType": data["mimeType"], "text": data["text"], "params": _url_params(data)}
        content = response["content"]
        entries.append(
            {
                "startedDateTime": datetime.fromisoformat(entry["startedDateTime"]).isoformat(),
                "time": entry["time"],
                "request": written,
                "response": {
                    "status": response["status"],
                    "statusText": "",
                    "httpVersion": "HTTP/2.0",
                    "cookies": [
                        {"domain": "", "secure": False, "httpOnly": False, **each} for each in response["cookies"]
                    ],
                    "headers": _lower(response["headers"]),
                    "content": content,
                    "redirectURL": "",
                    "headersSize": response["headersSize"],
                    "bodySize": response["bodySize"],
                },
                "cache": {},
                "timings": {"connect": -1, "ssl": -1, "send": 1.0, "receive": 2.0, "wait": entry["time"]},
                "serverIPAddress": "192.0.2.7",
            }
        )
    creator = {"name": "mitmproxy", "version": "11.0.2", "comment": ""}
    return {"log": {"version": "1.2", "creator": creator, "pages": [], "entries": entries}}


def _lower(headers: list[Recording]) -> list[Recording]:
    """Return headers as HTTP/2 has them."""
    names = {"host", "connection"}
    lower = [{"name": header["name"].lower(), "value": header["value"]} for header in headers]
    return [header for header in lower if header["name"] not in names]


def playwright(recording: Recording) -> Recording:
    """Return what Playwright writes, without the bodies of forms with files that our recorder adds."""
    written = copy.deepcopy(recording)
    for entry in written["log"]["entries"]:
        if entry["request"].get("postData", {}).get("mimeType", "").startswith("multipart/"):
            del entry["request"]["postData"]
    return written


def without_bodies(recording: Recording) -> Recording:
    """Return what Firefox and proxies write if bodies are switched off, or were too large: no response has a text."""
    written = copy.deepcopy(recording)
    for entry in written["log"]["entries"]:
        content = entry["response"]["content"]
        entry["response"]["content"] = {"size": content["size"], "mimeType": content["mimeType"]}
    return written


FORMATS: dict[str, tuple[Callable[[Recording], Recording], Any]] = {
    "chrome": (chrome, SOURCE),
    "chrome_push": (chrome, PUSHED),
    "firefox": (firefox, SOURCE),
    "mitmproxy": (mitmproxy, SOURCE),
    "playwright": (playwright, SOURCE),
    "without_bodies": (without_bodies, SOURCE),
}
"""Name -> the converter, and the style of the recording that it converts."""

if __name__ == "__main__":
    main()
