"""Model downloads: complete, interrupted, resumed, changed on the server, corrupt, and in shared folders."""

from __future__ import annotations

import base64
import hashlib
import os
import tracemalloc

import pytest
from upath import UPath

from airflow_provider_osai.api.calls import OsaiApi
from airflow_provider_osai.api.errors import (
    OsaiArgumentError,
    OsaiDownloadFailed,
    OsaiRequestError,
    OsaiUnreachable,
)
from airflow_provider_osai.api.streaming import MIN_PROGRESS_BYTES, Stream
from airflow_provider_osai.downloads.download import MAX_STALLS, Download, download_model
from airflow_provider_osai.downloads.headers import safe_name

CHUNK_SIZE = 2**16
CONTENT = bytes(range(256)) * 4096  # 1 MiB


def sha256(content):
    return hashlib.sha256(content).hexdigest()


class Server:
    """Serves a file, with or without ranges; each of ``cuts`` breaks one response off after that many bytes."""

    def __init__(self, content=CONTENT, *, ranges=True, announced=None, extra=None):
        self.content, self.ranges, self.extra = content, ranges, extra or {}
        self.announced = hashlib.sha256(content).digest() if announced is None else announced
        self.cuts: list[int] = []
        self.requests: list[dict[str, str]] = []
        self.sent_ranges: list[tuple[int, int]] = []
        self.slept: list[float] = []

    @property
    def etag(self):
        return f'"{sha256(self.content)[:16]}"'

    def sleep(self, seconds):
        self.slept.append(seconds)

    calls = OsaiApi()

    def download_model(self, model_id, target, consumer, headers, *, conversion_id=None):
        return self.send(self.calls.download_model(model_id, target, headers, consumer, conversion_id=conversion_id))

    def send(self, call):
        headers = dict(call.headers)
        self.requests.append(headers)
        start = 0
        if self.ranges and headers.get("If-Range") == self.etag:
            start = int(headers["Range"].removeprefix("bytes=").removesuffix("-"))
        response_headers = {"content-length": str(len(self.content) - start), **self.extra}
        if self.ranges:
            response_headers |= {"accept-ranges": "bytes", "etag": self.etag}
        if self.announced:
            response_headers["repr-digest"] = f"sha-256=:{base64.b64encode(self.announced).decode()}:"
        if start:
            response_headers["content-range"] = f"bytes {start}-{len(self.content) - 1}/{len(self.content)}"
        return call.consumer(Stream(206 if start else 200, response_headers, self.chunks(start)))

    def chunks(self, start):
        end = min(len(self.content), start + self.cuts.pop(0)) if self.cuts else len(self.content)
        for offset in range(start, end, CHUNK_SIZE):
            yield self.content[offset : min(offset + CHUNK_SIZE, end)]
        self.sent_ranges.append((start, end))
        if end < len(self.content):
            raise OsaiUnreachable("the connection broke")

    def fetch(self, destination, **options):
        download = Download("m1", "onnx", destination, **options)
        return download_model(self, download)


@pytest.fixture
def final(tmp_path):
    return tmp_path / "models" / "model.onnx"


def files_beside(final):
    return sorted(path.name for path in final.parent.iterdir())


class TestUninterruptedDownload:
    def test_file_is_complete_and_result_describes_it(self, final):
        result = Server().fetch(final)
        assert final.read_bytes() == CONTENT
        ids = {"model_id": "m1", "target": "onnx", "path": str(final)}
        assert result == {**ids, "bytes": len(CONTENT), "sha256": sha256(CONTENT)}
        assert files_beside(final) == ["model.onnx"]

    def test_folder_destination_uses_the_sanitized_server_name(self, tmp_path):
        server = Server(extra={"content-disposition": 'attachment; filename="../../etc/evil.onnx"'})
        assert server.fetch(f"{tmp_path}/new/")["path"] == f"{tmp_path}/new/evil.onnx"
        assert Server().fetch(tmp_path)["path"] == f"{tmp_path}/m1-onnx"

    def test_existing_file_with_the_same_digest_is_not_downloaded_again(self, final):
        Server().fetch(final)
        server = Server()
        assert server.fetch(final)["sha256"] == sha256(CONTENT)
        assert server.sent_ranges == []

    def test_older_file_is_replaced(self, final):
        Server(b"old").fetch(final)
        Server().fetch(final)
        assert final.read_bytes() == CONTENT

    def test_object_store_gets_the_complete_file_and_no_temporary_file_remains(self, monkeypatch, tmp_path):
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        result = Server().fetch(UPath("memory://models/a/model.onnx"))
        assert UPath(result["path"]).read_bytes() == CONTENT
        assert [path for path in tmp_path.rglob("*") if path.is_file()] == []

    def test_large_file_needs_constant_memory(self, final):
        """Download 64 MiB with a peak of less than 8 MiB."""

        class Large(Server):
            def chunks(self, start):
                for _ in range(2**10):
                    yield bytes(CHUNK_SIZE)

        size = CHUNK_SIZE * 2**10
        server = Large(b"", announced=b"", extra={"content-length": str(size)})
        tracemalloc.start()
        try:
            assert server.fetch(final)["bytes"] == size
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 8 * 2**20


class TestInterruptedDownload:
    def test_broken_connection_resumes_with_a_range_and_sends_each_byte_once(self, final):
        server = Server()
        server.cuts = [300_000, 200_000]
        assert server.fetch(final)["sha256"] == sha256(CONTENT)
        assert server.sent_ranges == [(0, 300_000), (300_000, 500_000), (500_000, len(CONTENT))]
        assert server.requests[1]["Range"] == "bytes=300000-"
        assert final.read_bytes() == CONTENT

    def test_killed_download_leaves_a_partial_file_that_a_later_try_resumes(self, final):
        server = Server()
        killed = iter([False, False, True])
        with pytest.raises(OsaiDownloadFailed, match="killed"):
            server.fetch(final, stopped=lambda: next(killed))
        assert files_beside(final) == ["model.onnx.part", "model.onnx.part.json"]
        server.fetch(final)
        assert server.requests[-1]["Range"] == f"bytes={3 * CHUNK_SIZE}-"
        assert (final.read_bytes(), files_beside(final)) == (CONTENT, ["model.onnx"])

    def test_server_without_ranges_restarts_the_download(self, final):
        server = Server(ranges=False)
        server.cuts = [300_000]
        server.fetch(final)
        assert server.sent_ranges == [(0, 300_000), (0, len(CONTENT))]
        assert "Range" not in server.requests[1]
        assert final.read_bytes() == CONTENT

    def test_model_changed_during_an_interruption_restarts_the_download(self, final):
        """``If-Range`` detects the change, so no file mixes two models."""
        server = Server()
        server.cuts = [300_000]
        send_normally, new = server.send, CONTENT[::-1]

        def send(call):
            if server.requests:
                server.content, server.announced = new, hashlib.sha256(new).digest()
            return send_normally(call)

        server.send = send
        assert server.fetch(final)["sha256"] == sha256(new)
        assert (server.sent_ranges[-1], final.read_bytes()) == ((0, len(new)), new)

    @pytest.mark.parametrize("wrong", ["bytes 5-9/1048576", "bytes 300000-1048575/2000000", "nonsense", ""])
    def test_wrong_content_range_restarts_the_download(self, final, wrong):
        server = Server()
        server.cuts = [300_000]
        send_normally = server.send

        def send(call):
            if len(server.requests) == 1:
                server.requests.append(dict(call.headers))
                return call.consumer(Stream(206, {"content-range": wrong, "etag": server.etag}, iter([b"junk"])))
            return send_normally(call)

        server.send = send
        server.fetch(final)
        assert final.read_bytes() == CONTENT

    def test_416_for_a_file_that_became_shorter_restarts_the_download(self, final):
        server = Server()
        server.cuts = [300_000]
        send_normally = server.send

        def send(call):
            if len(server.requests) == 1:
                server.requests.append({})
                raise OsaiRequestError(416, "GET", "/Models/m1/Download", "")
            return send_normally(call)

        server.send = send
        server.fetch(final)
        assert final.read_bytes() == CONTENT

    def test_download_without_progress_fails_after_retries_with_growing_backoff(self, final):
        server = Server()
        server.cuts = [MIN_PROGRESS_BYTES, *[10] * (MAX_STALLS + 1)]
        with pytest.raises(OsaiDownloadFailed, match="stalled"):
            server.fetch(final)
        assert not final.exists()
        assert server.slept == sorted(server.slept)
        assert len(server.slept) == MAX_STALLS + 1


class TestInvalidDownload:
    @pytest.mark.parametrize("by", ["server", "caller"])
    def test_checksum_mismatch_leaves_no_file(self, final, by):
        server = Server(announced=hashlib.sha256(b"another").digest() if by == "server" else None)
        with pytest.raises(OsaiDownloadFailed, match="Checksum mismatch"):
            server.fetch(final, sha256=sha256(b"another") if by == "caller" else None)
        assert files_beside(final) == []

    def test_checksum_mismatch_keeps_the_existing_file(self, final):
        Server(b"old").fetch(final)
        with pytest.raises(OsaiDownloadFailed):
            Server(announced=hashlib.sha256(b"x").digest()).fetch(final)
        assert final.read_bytes() == b"old"

    def test_more_bytes_than_announced_are_rejected(self, final):
        with pytest.raises(OsaiDownloadFailed, match="Received more than"):
            Server(extra={"content-length": "5"}).fetch(final)
        assert not final.exists()

    def test_empty_file_is_rejected(self, final):
        with pytest.raises(OsaiDownloadFailed, match="empty"):
            Server(b"").fetch(final)
        assert files_beside(final) == []

    def test_second_concurrent_download_of_the_same_file_fails(self, final):
        server = Server()
        errors = []

        def download_again():
            if not errors:
                with pytest.raises(OsaiDownloadFailed, match="another process") as caught:
                    Server().fetch(final)
                errors.append(caught)
            return False

        server.fetch(final, stopped=download_again)
        assert (len(errors), final.read_bytes()) == (1, CONTENT)

    def test_destination_below_a_file_is_not_retryable(self, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(OsaiArgumentError):
            Server().fetch(tmp_path / "file" / "model.onnx")

    @pytest.mark.parametrize(
        ("name", "value"),
        [*(("destination", empty) for empty in ("", " ", "None", "null", None, UPath(""))), ("sha256", "12")],
    )
    def test_invalid_argument_fails_before_any_request(self, tmp_path, name, value):
        server = Server()
        with pytest.raises(OsaiArgumentError, match=name):
            server.fetch(**{"destination": tmp_path / "x", name: value})
        assert server.requests == []


@pytest.mark.parametrize(
    ("text", "name"),
    [("a/b\\c.onnx", "c.onnx"), ("..", None), (".hidden", "hidden"), ("x.part", None), ("a\x00\nb", "ab"), ("", None)],
)
def test_server_file_name_is_sanitized(text, name):
    assert safe_name(text) == name


FILE_NAMES = ["model.onnx.part", "model.onnx.part.json", "model.onnx.part.json.new", "model.onnx"]
"""All files that a download reads or writes."""


class TestSharedFolder:
    """Another user may write to the folder: links are not followed, foreign files neither written nor trusted."""

    @pytest.fixture
    def victim(self, tmp_path, final):
        """A file of this user outside the folder that must not change."""
        final.parent.mkdir()
        path = tmp_path / "authorized_keys"
        path.write_bytes(b"mine")
        return path

    def assert_fetched_or_error_names(self, final, *names):
        message = ""
        try:
            Server().fetch(final)
        except OsaiArgumentError as error:
            message = str(error)
        if message:
            assert "Remove it" in message
            assert any(repr(str(final.parent / name)) in message for name in names)
        else:
            assert (final.read_bytes(), final.is_symlink(), files_beside(final)) == (CONTENT, False, ["model.onnx"])

    @pytest.mark.parametrize("name", FILE_NAMES)
    @pytest.mark.parametrize("kind", ["symlink_to", "hardlink_to"])
    def test_link_in_the_folder_does_not_change_its_target(self, final, victim, name, kind):
        getattr(final.parent / name, kind)(victim)
        self.assert_fetched_or_error_names(final, name)
        assert victim.read_bytes() == b"mine"

    def test_links_at_all_names_do_not_change_their_target(self, final, victim):
        for name, kind in zip(FILE_NAMES, ["hardlink_to", "symlink_to"] * 2, strict=True):
            getattr(final.parent / name, kind)(victim)
        self.assert_fetched_or_error_names(final, *FILE_NAMES)
        assert victim.read_bytes() == b"mine"

    @pytest.mark.parametrize("name", FILE_NAMES)
    def test_dangling_link_does_not_create_its_target(self, final, victim, name):
        target = victim.with_name("made")
        (final.parent / name).symlink_to(target)
        self.assert_fetched_or_error_names(final, name)
        assert not target.exists()

    @pytest.mark.parametrize("name", FILE_NAMES[:3])
    @pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
    def test_pipe_or_folder_does_not_block(self, final, victim, name, make):
        make(final.parent / name)
        self.assert_fetched_or_error_names(final, name)

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
    @pytest.mark.parametrize("name", FILE_NAMES[:2])
    def test_partial_file_or_metadata_of_another_user_is_not_resumed(self, final, victim, name):
        server = Server()
        server.cuts = [300_000]
        with pytest.raises(OsaiDownloadFailed, match="killed"):
            server.fetch(final, stopped=lambda: True)
        os.chown(final.parent / name, 4711, 4711)
        with pytest.raises(OsaiArgumentError, match=rf"{name}'.*another user, uid 4711. Remove it"):
            Server().fetch(final)

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
    def test_identical_file_of_another_user_is_replaced(self, final, victim):
        """Its owner could change it later."""
        final.write_bytes(CONTENT)
        os.chown(final, 4711, 4711)
        Server().fetch(final)
        assert final.stat().st_uid == os.geteuid()

    def test_link_to_an_identical_file_is_replaced_by_the_file(self, final, victim):
        """The owner of its target could change it later."""
        victim.write_bytes(CONTENT)
        final.symlink_to(victim)
        Server().fetch(final)
        assert (final.is_symlink(), final.read_bytes()) == (False, CONTENT)

    def test_link_created_during_the_download_does_not_change_its_target(self, final, victim):
        """The link appears before the second response, whose headers update the metadata."""
        server = Server(announced=b"")
        server.cuts = [300_000]
        send_normally = server.send

        def send(call):
            if server.requests:
                server.announced = hashlib.sha256(CONTENT).digest()
                (final.parent / "model.onnx.part.json.new").symlink_to(victim)
            return send_normally(call)

        server.send = send
        server.fetch(final)
        assert (final.read_bytes(), victim.read_bytes(), files_beside(final)) == (CONTENT, b"mine", ["model.onnx"])

    @pytest.mark.parametrize("kind", ["symlink_to", "hardlink_to"])
    def test_partial_file_replaced_during_the_download_is_not_committed(self, final, victim, kind):
        """Even if the content is identical: the owner of the replacement could change it later."""
        victim.write_bytes(CONTENT)

        def swap():
            part = final.parent / "model.onnx.part"
            part.unlink()
            getattr(part, kind)(victim)
            return False

        with pytest.raises(OsaiDownloadFailed, match="was replaced during the download"):
            Server().fetch(final, stopped=swap)
        assert (final.exists(), victim.read_bytes()) == (False, CONTENT)

    def test_folder_replaced_by_a_link_during_the_download_is_not_written_to(self, final, victim):
        other = victim.with_name("other")
        other.mkdir()
        (other / "model.onnx.part").write_bytes(b"theirs")

        def swap():
            if not final.parent.is_symlink():
                final.parent.rename(victim.with_name("moved"))
                final.parent.symlink_to(other)
            return False

        with pytest.raises(OsaiDownloadFailed, match="or its folder was replaced"):
            Server().fetch(final, stopped=swap)
        assert [(path.name, path.read_bytes()) for path in other.iterdir()] == [("model.onnx.part", b"theirs")]

    @pytest.mark.parametrize("kind", ["link", "open to others", "file"])
    def test_object_store_download_rejects_a_temporary_folder_that_is_not_private(self, monkeypatch, tmp_path, kind):
        """Any user may create a folder of that name in the temporary folder first."""
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        folder = tmp_path / f"osai-downloads-{os.geteuid()}"
        if kind == "link":
            (tmp_path / "theirs").mkdir()
            folder.symlink_to(tmp_path / "theirs")
        elif kind == "file":
            folder.write_text("")
        else:
            folder.mkdir()
            folder.chmod(0o777)
        with pytest.raises(OsaiArgumentError, match=f"{folder}.*only this user can access.*Remove it"):
            Server().fetch(UPath("memory://models/a/other.onnx"))
