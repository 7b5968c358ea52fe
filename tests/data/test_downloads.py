"""Files come whole or not at all: resumed by range where that is safe, begun again where it is not, and checked."""

from __future__ import annotations

import base64
import hashlib
import os
import re
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from airflow_provider_osai.api.client import OsaiClient
from airflow_provider_osai.api.errors import OsaiArgumentError, OsaiContractError, OsaiDownloadFailed
from airflow_provider_osai.data.downloads import MOST_IDLE, Download, download_model
from airflow_provider_osai.jobs.flow import run
from tests.conftest import settings_for
from tests.serving import served

CONTENT = os.urandom(300_000)


class Depot:
    """Serves one file in the ways that servers do, some of them bad; ``asked`` holds the headers of each request."""

    def __init__(self) -> None:
        self.content, self.etag = CONTENT, '"one"'
        self.ranges, self.announce = True, True
        self.cuts: list[int] = []
        self.extra: dict[str, str] = {}
        self.asked: list[dict[str, str]] = []
        self.sent = 0
        self.before = lambda: None
        self.redirect: str | None = None
        routes = [
            Route("/api/Users/SignIn", lambda _: PlainTextResponse("jwt"), methods=["POST"]),
            Route("/api/Models/{id}/Download", self.download),
            Route("/elsewhere", self.download),
        ]
        self.app = Starlette(routes=routes)

    async def download(self, request: Request) -> Response:
        self.asked.append(dict(request.headers))
        if self.redirect and request.url.path != "/elsewhere":
            return RedirectResponse(self.redirect)
        self.before()
        wanted = re.fullmatch(r"bytes=(\d+)-", request.headers.get("range", ""))
        same = request.headers.get("if-range") in (None, self.etag)
        start = int(wanted[1]) if wanted and self.ranges and same else 0
        body, total = self.content[start:], len(self.content)
        headers = {"content-length": str(len(body)), "etag": self.etag} if self.announce else {}
        if not self.ranges:
            headers["accept-ranges"] = "none"
        if start:
            headers["content-range"] = f"bytes {start}-{total - 1}/{total}"
        if self.cuts:
            body = body[: self.cuts.pop(0)]
        self.sent += len(body)
        return _Short(body, 206 if start else 200, headers | self.extra)


class _Short(Response):
    """An answer that may be shorter than it says: the server closes the connection then."""

    def init_headers(self, headers=None):
        self.raw_headers = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]


@pytest.fixture
def depot():
    made = Depot()
    with served(made.app) as url:
        made.url = url
        yield made


@pytest.fixture
def fetch(depot, tmp_path):
    """Fetch a model's file; pauses take no time."""

    def do(destination=None, *, pauses=None, **options):
        with OsaiClient(settings_for(f"{depot.url}/api"), patience=0) as client:
            wish = Download("1", "onnx", destination or tmp_path / "out" / "model.onnx", **options)
            return run(download_model(client.calls, wish), client.send, ([] if pauses is None else pauses).append)

    return do


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_file_comes_whole_under_its_name_and_nothing_beside_it(fetch, tmp_path):
    """With what it takes to check it later."""
    told = fetch()
    assert Path(told["path"]).read_bytes() == CONTENT
    assert (told["bytes"], told["sha256"]) == (len(CONTENT), hashlib.sha256(CONTENT).hexdigest())
    assert files(tmp_path) == ["out/model.onnx"]


def test_a_broken_connection_is_resumed_where_it_broke(fetch, depot):
    """The first part is not sent again."""
    depot.cuts = [100_000, 120_000]
    told = fetch()
    assert Path(told["path"]).read_bytes() == CONTENT
    assert [asked.get("range") for asked in depot.asked] == [None, "bytes=100000-", "bytes=220000-"]
    assert depot.sent == len(CONTENT)


def test_a_later_try_goes_on_where_an_earlier_one_ended(fetch, depot, tmp_path):
    """Its process was killed meanwhile: the part and its note are on the disk, and nothing is under the name."""
    seen = []

    def stopped():
        seen.append(1)
        return len(seen) > 2

    with pytest.raises(OsaiDownloadFailed, match="a retry on this machine goes on"):
        fetch(stopped=stopped)
    assert "out/model.onnx" not in files(tmp_path)
    assert len(files(tmp_path)) == 2
    assert Path(fetch()["path"]).read_bytes() == CONTENT
    assert depot.asked[-1]["range"].startswith("bytes=")
    assert files(tmp_path) == ["out/model.onnx"]


@pytest.mark.parametrize("why", ["no ranges", "no validator"])
def test_a_server_that_cannot_resume_sends_all_again(fetch, depot, why):
    """Nothing of the first answer is left in the file."""
    depot.cuts = [100_000]
    if why == "no ranges":
        depot.ranges = False
    else:
        depot.etag = 'W/"weak"'
    assert Path(fetch()["path"]).read_bytes() == CONTENT
    assert [asked.get("range") for asked in depot.asked] == [None, None]


def test_a_file_that_changed_meanwhile_is_begun_again(fetch, depot):
    """The rest of another file is never put behind the beginning of this one."""
    depot.cuts = [100_000]
    other = os.urandom(200_000)

    def change():
        if len(depot.asked) == 2:
            depot.content, depot.etag = other, '"two"'

    depot.before = change
    assert Path(fetch()["path"]).read_bytes() == other
    assert depot.asked[1]["if-range"] == '"one"'


def test_a_checksum_that_differs_leaves_nothing_behind(fetch, depot, tmp_path):
    """Given by the user, or announced by OSAI."""
    with pytest.raises(OsaiDownloadFailed, match="checksum"):
        fetch(sha256="0" * 64)
    assert files(tmp_path) == []
    wrong = base64.b64encode(hashlib.sha256(b"other").digest()).decode()
    depot.extra = {"repr-digest": f"sha-256=:{wrong}:"}
    with pytest.raises(OsaiDownloadFailed, match="checksum"):
        fetch()
    assert files(tmp_path) == []


def test_what_is_there_already_is_not_fetched_again(fetch, depot):
    """By the announced digest: the answer is left before its body is read."""
    right = base64.b64encode(hashlib.sha256(CONTENT).digest()).decode()
    depot.extra = {"repr-digest": f"sha-256=:{right}:"}
    first = fetch()
    before = os.stat(first["path"]).st_mtime_ns
    assert fetch() == first
    assert os.stat(first["path"]).st_mtime_ns == before


def test_an_older_file_stays_until_the_new_one_is_whole(fetch, depot, tmp_path):
    """Whoever reads it meanwhile reads the old one."""
    (tmp_path / "out").mkdir()
    target = tmp_path / "out" / "model.onnx"
    target.write_bytes(b"old")
    depot.cuts = [50] * 100
    depot.ranges = False
    with pytest.raises(OsaiDownloadFailed, match="stood still"):
        fetch()
    assert target.read_bytes() == b"old"


def test_a_download_that_stands_still_ends_after_growing_pauses(fetch, depot):
    """Not after so many that brought something."""
    pauses: list[float] = []
    depot.cuts = [0] * 100
    with pytest.raises(OsaiDownloadFailed, match=f"stood still {MOST_IDLE + 1} times"):
        fetch(pauses=pauses)
    assert pauses == [1.0, 2.0, 4.0, 8.0, 10.0]


def test_a_name_of_the_servers_is_made_safe(fetch, depot, tmp_path):
    """No path leads out of the folder."""
    depot.extra = {"content-disposition": 'attachment; filename="../../evil.onnx"'}
    assert fetch(f"{tmp_path}/models/")["path"] == str(tmp_path / "models" / "evil.onnx")


def test_a_redirect_is_followed_without_the_sign_in(fetch, depot):
    """To another place, which gets no token."""
    depot.redirect = depot.url.replace("127.0.0.1", "localhost") + "/elsewhere?signature=s3cret"
    assert Path(fetch()["path"]).read_bytes() == CONTENT
    assert ("authorization" in depot.asked[0], "authorization" in depot.asked[1]) == (True, False)


def test_a_redirect_to_an_open_connection_elsewhere_is_refused(fetch, depot):
    """Only the host is named: the rest may be signed."""
    depot.redirect = "http://example.com/model?signature=s3cret"
    with pytest.raises(OsaiContractError, match=r"example\.com; only https") as refused:
        fetch()
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize(("options", "word"), [({"sha256": "12"}, "sha256"), ({"destination": " "}, "destination")])
def test_a_bad_value_is_refused_before_anything_is_sent(fetch, depot, options, word):
    """By its name."""
    with pytest.raises(OsaiArgumentError, match=word):
        fetch(**options)
    assert depot.asked == []
