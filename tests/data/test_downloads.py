"""Files that come whole or not at all: broken off, resumed, changed in between, wrong, and large."""

from __future__ import annotations

import base64
import hashlib
import tracemalloc

import pytest
from upath import UPath

from airflow_provider_osai.api.calls import Calls
from airflow_provider_osai.api.errors import (
    OsaiArgumentError,
    OsaiDownloadFailed,
    OsaiRequestError,
    OsaiUnreachable,
)
from airflow_provider_osai.api.pieces import STEADY, Stream
from airflow_provider_osai.data.downloads import MOST_IDLE, Download, download_model
from airflow_provider_osai.data.headers import safe_name
from airflow_provider_osai.jobs.flow import run

PIECE = 2**16
CONTENT = bytes(range(256)) * 4096  # 1 MiB


def sha256(content):
    return hashlib.sha256(content).hexdigest()


class Server:
    """Gives a file by the rules of HTTP, and breaks off where it is told to."""

    def __init__(self, content=CONTENT, *, ranges=True, announced=None, extra=None):
        self.content, self.ranges, self.extra = content, ranges, extra or {}
        self.announced = hashlib.sha256(content).digest() if announced is None else announced
        self.cuts: list[int] = []
        self.asked: list[dict[str, str]] = []
        self.given: list[tuple[int, int]] = []
        self.slept: list[float] = []

    @property
    def etag(self):
        return f'"{sha256(self.content)[:16]}"'

    def send(self, call):
        headers = dict(call.headers)
        self.asked.append(headers)
        start = 0
        if self.ranges and headers.get("If-Range") == self.etag:
            start = int(headers["Range"].removeprefix("bytes=").removesuffix("-"))
        told = {"content-length": str(len(self.content) - start), **self.extra}
        if self.ranges:
            told |= {"accept-ranges": "bytes", "etag": self.etag}
        if self.announced:
            told["repr-digest"] = f"sha-256=:{base64.b64encode(self.announced).decode()}:"
        if start:
            told["content-range"] = f"bytes {start}-{len(self.content) - 1}/{len(self.content)}"
        return call.sink(Stream(206 if start else 200, told, self.pieces(start)))

    def pieces(self, start):
        end = min(len(self.content), start + self.cuts.pop(0)) if self.cuts else len(self.content)
        for at in range(start, end, PIECE):
            yield self.content[at : min(at + PIECE, end)]
        self.given.append((start, end))
        if end < len(self.content):
            raise OsaiUnreachable("the connection broke")

    def fetch(self, destination, **options):
        wish = Download("m1", "onnx", destination, **options)
        return run(download_model(Calls(), wish), self.send, self.slept.append)


@pytest.fixture
def final(tmp_path):
    return tmp_path / "models" / "model.onnx"


def left(final):
    """What lies in the folder."""
    return sorted(path.name for path in final.parent.iterdir())


class TestWhole:
    """Nothing breaks."""

    def test_the_file_is_there_and_nothing_else(self, final):
        """With what a later task wants to know of it."""
        told = Server().fetch(final)
        assert final.read_bytes() == CONTENT
        ids = {"model_id": "m1", "target": "onnx", "path": str(final)}
        assert told == {**ids, "bytes": len(CONTENT), "sha256": sha256(CONTENT)}
        assert left(final) == ["model.onnx"]

    def test_a_folder_takes_the_servers_name_made_safe(self, tmp_path):
        """A name is no path."""
        server = Server(extra={"content-disposition": 'attachment; filename="../../etc/evil.onnx"'})
        assert server.fetch(f"{tmp_path}/new/")["path"] == f"{tmp_path}/new/evil.onnx"
        assert Server().fetch(tmp_path)["path"] == f"{tmp_path}/m1-onnx"

    def test_what_is_already_there_is_not_sent_again(self, final):
        """The headers say so."""
        Server().fetch(final)
        server = Server()
        assert server.fetch(final)["sha256"] == sha256(CONTENT)
        assert server.given == []

    def test_an_older_file_is_replaced(self, final):
        """At once."""
        Server(b"old").fetch(final)
        Server().fetch(final)
        assert final.read_bytes() == CONTENT

    def test_a_storage_gets_the_whole_file(self, monkeypatch, tmp_path):
        """It is put there when it is whole on this machine, and nothing stays behind here."""
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        told = Server().fetch(UPath("memory://models/a/model.onnx"))
        assert UPath(told["path"]).read_bytes() == CONTENT
        assert [path for path in tmp_path.rglob("*") if path.is_file()] == []

    def test_memory_does_not_grow_with_the_file(self, final):
        """64 MiB through less than 8."""

        class Large(Server):
            def pieces(self, start):
                for _ in range(2**10):
                    yield bytes(PIECE)

        size = PIECE * 2**10
        server = Large(b"", announced=b"", extra={"content-length": str(size)})
        tracemalloc.start()
        try:
            assert server.fetch(final)["bytes"] == size
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 8 * 2**20


class TestBroken:
    """The connection breaks in the middle."""

    def test_it_goes_on_by_a_range_and_the_first_part_is_not_sent_again(self, final):
        """Each byte comes once."""
        server = Server()
        server.cuts = [300_000, 200_000]
        assert server.fetch(final)["sha256"] == sha256(CONTENT)
        assert server.given == [(0, 300_000), (300_000, 500_000), (500_000, len(CONTENT))]
        assert server.asked[1]["Range"] == "bytes=300000-"
        assert final.read_bytes() == CONTENT

    def test_a_later_try_goes_on_with_what_an_earlier_one_left(self, final):
        """A try that was killed leaves no file under the final name."""
        server = Server()
        killed = iter([False, False, True])
        with pytest.raises(OsaiDownloadFailed, match="killed"):
            server.fetch(final, stopped=lambda: next(killed))
        assert left(final) == ["model.onnx.part", "model.onnx.part.json"]
        server.fetch(final)
        assert server.asked[-1]["Range"] == f"bytes={3 * PIECE}-"
        assert (final.read_bytes(), left(final)) == (CONTENT, ["model.onnx"])

    def test_a_server_without_ranges_starts_over(self, final):
        """It is asked for all, and what came is thrown away."""
        server = Server(ranges=False)
        server.cuts = [300_000]
        server.fetch(final)
        assert server.given == [(0, 300_000), (0, len(CONTENT))]
        assert "Range" not in server.asked[1]
        assert final.read_bytes() == CONTENT

    def test_a_model_that_changed_in_between_starts_over(self, final):
        """If-Range tells; no file is of two models."""
        server = Server()
        server.cuts = [300_000]
        ask, new = server.send, CONTENT[::-1]

        def send(call):
            if server.asked:
                server.content, server.announced = new, hashlib.sha256(new).digest()
            return ask(call)

        server.send = send
        assert server.fetch(final)["sha256"] == sha256(new)
        assert (server.given[-1], final.read_bytes()) == ((0, len(new)), new)

    @pytest.mark.parametrize("wrong", ["bytes 5-9/1048576", "bytes 300000-1048575/2000000", "nonsense", ""])
    def test_another_part_than_was_asked_for_is_never_glued_on(self, final, wrong):
        """It starts over."""
        server = Server()
        server.cuts = [300_000]
        ask = server.send

        def send(call):
            if len(server.asked) == 1:
                server.asked.append(dict(call.headers))
                return call.sink(Stream(206, {"content-range": wrong, "etag": server.etag}, iter([b"junk"])))
            return ask(call)

        server.send = send
        server.fetch(final)
        assert final.read_bytes() == CONTENT

    def test_a_part_that_the_server_finds_too_long_is_thrown_away(self, final):
        """416: the file has become shorter."""
        server = Server()
        server.cuts = [300_000]
        ask = server.send

        def send(call):
            if len(server.asked) == 1:
                server.asked.append({})
                raise OsaiRequestError(416, "GET", "/Models/m1/Download", "")
            return ask(call)

        server.send = send
        server.fetch(final)
        assert final.read_bytes() == CONTENT

    def test_patience_ends_where_nothing_moves(self, final):
        """With growing pauses, and what came is kept."""
        server = Server()
        server.cuts = [STEADY, *[10] * (MOST_IDLE + 1)]
        with pytest.raises(OsaiDownloadFailed, match="stood still"):
            server.fetch(final)
        assert not final.exists()
        assert server.slept == sorted(server.slept)
        assert len(server.slept) == MOST_IDLE + 1


class TestWrong:
    """What came is not what it should be."""

    @pytest.mark.parametrize("by", ["server", "caller"])
    def test_a_wrong_checksum_leaves_no_file(self, final, by):
        """Neither under its name nor beside it."""
        server = Server(announced=hashlib.sha256(b"another").digest() if by == "server" else None)
        with pytest.raises(OsaiDownloadFailed, match="checksum"):
            server.fetch(final, sha256=sha256(b"another") if by == "caller" else None)
        assert left(final) == []

    def test_a_wrong_file_leaves_an_older_one_alone(self, final):
        """Users of the old model notice nothing."""
        Server(b"old").fetch(final)
        with pytest.raises(OsaiDownloadFailed):
            Server(announced=hashlib.sha256(b"x").digest()).fetch(final)
        assert final.read_bytes() == b"old"

    def test_more_than_was_announced_is_refused(self, final):
        """Whatever it is."""
        with pytest.raises(OsaiDownloadFailed, match="more came"):
            Server(extra={"content-length": "5"}).fetch(final)
        assert not final.exists()

    def test_an_empty_file_is_none(self, final):
        """No model has no bytes."""
        with pytest.raises(OsaiDownloadFailed, match="empty"):
            Server(b"").fetch(final)
        assert left(final) == []

    def test_two_at_once_do_not_mix(self, final):
        """The second is told, and may try again."""
        server = Server()
        failed = []

        def at_once():
            if not failed:
                with pytest.raises(OsaiDownloadFailed, match="another process") as caught:
                    Server().fetch(final)
                failed.append(caught)
            return False

        server.fetch(final, stopped=at_once)
        assert (len(failed), final.read_bytes()) == (1, CONTENT)

    def test_a_place_that_is_none_fails_for_good(self, tmp_path):
        """No retry makes a folder of a file."""
        (tmp_path / "file").write_text("")
        with pytest.raises(OsaiArgumentError):
            Server().fetch(tmp_path / "file" / "model.onnx")

    @pytest.mark.parametrize(("name", "value"), [("destination", ""), ("destination", None), ("sha256", "12")])
    def test_bad_values_are_found_before_anything_is_asked(self, tmp_path, name, value):
        """They are mistakes of the Dag."""
        server = Server()
        with pytest.raises(OsaiArgumentError, match=name):
            server.fetch(**{"destination": tmp_path / "x", name: value})
        assert server.asked == []


@pytest.mark.parametrize(
    ("text", "name"),
    [("a/b\\c.onnx", "c.onnx"), ("..", None), (".hidden", "hidden"), ("x.part", None), ("a\x00\nb", "ab"), ("", None)],
)
def test_a_servers_name_is_one_file_in_one_folder(text, name):
    """Nothing that it says leads elsewhere."""
    assert safe_name(text) == name
