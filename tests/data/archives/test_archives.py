"""Archives written by several tools are read in one pass; corrupt ones are rejected."""

from __future__ import annotations

import contextlib
import io
import os
import random
import shutil
import struct
import subprocess
import tarfile
import zipfile
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_osai.api.errors import OsaiArgumentError
from airflow_provider_osai.data.archives import Archive, ArchiveEntry, Limits, is_archive
from airflow_provider_osai.data.scan import scan_source
from airflow_provider_osai.data.sources import open_source
from tests.data.archives.making import KINDS, Remote, make_archive, make_tar, make_zip

FILES = {
    "0.png": b"",
    "big cat/1.png": os.urandom(70_001),
    "a/b/c/d/2.png": b"x" * 512,
    "Ünï/猫 猫\u202f.png": b"y" * 100_000,
    f"{'long/' * 50}3.png": b"z",
}


def read(data, name, **limits):
    with Archive(io.BytesIO(data), name, Limits(**limits)) as archive:
        return {entry.name: file.read() for entry, file in archive.walk()}


@pytest.fixture
def folder(tmp_path):
    for name, data in FILES.items():
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return tmp_path / "data"


@pytest.mark.parametrize("name", ["a.zip", "A.ZIP", "a.tar", "x/a.tar.gz", "a.tgz", "a.tar.bz2", "a.tar.xz"])
def test_archives_are_recognised_by_suffix_in_any_case(name):
    assert is_archive(name)


@pytest.mark.parametrize("name", ["zip", "a.png", "a.gz", "a.zip.png", "a.rar", ""])
def test_a_name_without_an_archive_suffix_is_rejected(name):
    assert not is_archive(name)
    with pytest.raises(OsaiArgumentError, match=r"archive '.*': unsupported suffix, use one of \.zip"):
        Archive(io.BytesIO(), name)


@pytest.mark.parametrize("kind", KINDS)
def test_files_of_the_standard_library_writers_are_read_unchanged(kind):
    """Including nested, long and non-ASCII names."""
    data = make_archive(kind, FILES.items())
    assert read(data, f"a.{kind}") == FILES
    with Archive(io.BytesIO(data), f"a.{kind}") as archive:
        assert archive.entries() == [ArchiveEntry(name, len(content)) for name, content in FILES.items()]


@pytest.mark.parametrize(("form", "suffix"), [("zip", "zip"), ("tar", "tar"), ("gztar", "tar.gz"), ("xztar", "tar.xz")])
def test_archives_of_shutil_are_read(folder, form, suffix):
    """shutil prefixes each name with ``./``."""
    made = shutil.make_archive(str(folder.parent / "made"), form, folder)
    with open(made, "rb") as file, Archive(file, f"made.{suffix}") as archive:
        assert {entry.name: part.read() for entry, part in archive.walk()} == FILES


@pytest.mark.parametrize("options", [["-r"], ["-r", "-0"], ["-r", "-fd"], ["-r", "-fz"]], ids=str)
@pytest.mark.skipif(not shutil.which("zip"), reason="needs the command zip")
def test_archives_of_the_zip_command_are_read(folder, options):
    """Compressed, stored, with data descriptors, and as zip64."""
    subprocess.run(
        ["zip", "-q", *options, "../a.zip", "."], cwd=folder, check=True, env={**os.environ, "LC_ALL": "C.UTF-8"}
    )
    assert read((folder.parent / "a.zip").read_bytes(), "a.zip") == FILES


@pytest.mark.parametrize("form", ["gnu", "pax", "posix"])
@pytest.mark.parametrize(("suffix", "option"), [("tar", ""), ("tgz", "z")])
@pytest.mark.skipif(not shutil.which("tar"), reason="needs the command tar")
def test_archives_of_the_tar_command_are_read(folder, form, suffix, option):
    """In GNU and POSIX format, which store long names differently."""
    subprocess.run(["tar", f"-c{option}f", f"../a.{suffix}", f"--format={form}", "."], cwd=folder, check=True)
    assert read((folder.parent / f"a.{suffix}").read_bytes(), f"a.{suffix}") == FILES


@pytest.mark.skipif(not shutil.which("zip"), reason="needs the command zip")
def test_a_zip_written_to_a_pipe_is_read(folder):
    """Its sizes are in the central directory only, not in the local headers."""
    made = subprocess.run(["zip", "-q", "-r", "-", "."], cwd=folder, check=True, stdout=subprocess.PIPE)
    assert read(made.stdout, "a.zip") == FILES


@pytest.mark.parametrize("kind", KINDS)
def test_hidden_files_and_folders_are_skipped(kind):
    """Including macOS's; which other files to ignore is not decided here."""
    names = ["a/1.png", ".a", "a/.b", ".c/d", "__MACOSX/a/._1.png", "x/__MACOSX/y", "Thumbs.db"]
    assert list(read(make_archive(kind, [(name, b"1") for name in names]), f"a.{kind}")) == ["a/1.png", "Thumbs.db"]


@pytest.mark.parametrize("kind", KINDS)
def test_names_are_normalized_to_relative_paths_with_slashes(kind):
    files = [("./a/1.png", b""), ("b\\2.png", b""), ("c//3.png", b"")]
    assert list(read(make_archive(kind, files), f"a.{kind}")) == ["a/1.png", "b/2.png", "c/3.png"]


@pytest.mark.parametrize("kind", KINDS)
def test_names_that_differ_only_in_case_are_not_duplicates(kind):
    """Nothing is written to a file system where they could clash."""
    assert len(read(make_archive(kind, [("a.png", b"1"), ("A.png", b"2")]), f"a.{kind}")) == 2


@pytest.mark.parametrize("kind", KINDS)
def test_walk_yields_only_the_requested_files_in_archive_order(kind):
    """Also if they are not read completely."""
    data = make_archive(kind, FILES.items())
    with Archive(io.BytesIO(data), f"a.{kind}") as archive:
        names = list(FILES)[1:3]
        assert [(e.name, f.read(10)) for e, f in archive.walk(set(names))] == [(n, FILES[n][:10]) for n in names]


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_is_closed_when_the_next_one_is_requested(kind):
    """And when the archive is closed or a new walk starts."""
    with Archive(io.BytesIO(make_archive(kind, FILES.items())), f"a.{kind}") as archive:
        walk = archive.walk()
        first, second = next(walk)[1], next(walk)[1]
        assert (first.closed, second.closed) == (True, False)
        assert next(archive.walk())[0].name == "0.png"
        assert second.closed
        last = next(archive.walk())[1]
    assert last.closed


@pytest.mark.parametrize("kind", KINDS)
def test_a_remote_file_is_read_once_from_front_to_back(kind):
    """With short reads; of a zip, the end is read first."""
    files = [(f"{n}.png", os.urandom(5_000)) for n in range(40)]
    data = make_archive(kind, files)
    remote = Remote(data)
    with Archive(remote, f"a.{kind}") as archive:
        assert [(entry.name, file.read()) for entry, file in archive.walk()] == files
    ends = 2 * (0xFFFF + 22 + 76) + 40 * 100 * 2 if kind == "zip" else 0
    assert remote.bytes_read <= len(data) + ends + 2_000
    assert remote.backward_seeks <= (12 if kind == "zip" else 1)


@pytest.mark.slow
def test_a_decompressor_without_output_at_the_end_of_a_chunk_is_not_truncated():
    """For three in a hundred archives xz needs no input there and has no output yet."""
    for seed in range(100):
        generator = random.Random(seed)
        files = [(f"{n}.png", generator.randbytes(5_000)) for n in range(40)]
        with Archive(Remote(make_archive("tar.xz", files)), "a.tar.xz") as archive:
            assert [(entry.name, file.read()) for entry, file in archive.walk()] == files


def test_skipped_content_of_an_uncompressed_tar_is_not_read():
    remote = Remote(make_tar([(f"{n}.png", b"x" * 100_000) for n in range(20)]))
    with Archive(remote, "a.tar") as archive:
        assert len(archive.entries()) == 20
    assert remote.bytes_read < 30_000


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("keep", [0, 1, 100, 511, 2_000, 30_000, -1, -30])
def test_a_truncated_archive_is_rejected(kind, keep):
    """At any offset except in the zeros at the end of a tar."""
    data = make_archive(kind, [("a.png", os.urandom(50_000)), ("b.png", os.urandom(50))])
    if kind == "tar" and keep < 0:
        keep -= 10_240
    with pytest.raises(OsaiArgumentError, match=rf"archive 'a\.{kind}'.*(truncated|corrupt|not a zip)"):
        read(data[:keep], f"a.{kind}")


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_is_not_an_archive_is_rejected(kind):
    for data in (b"", b"\x89PNG\r\n\x1a\n" * 1_000, os.urandom(5_000)):
        with pytest.raises(OsaiArgumentError, match=rf"archive 'a\.{kind}'"):
            read(data, f"a.{kind}")


EMPTY_ZIP64 = (
    struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, 0, 0, 0, 0)
    + struct.pack("<4sLQL", b"PK\6\7", 0, 0, 1)
    + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
)


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_archive_has_no_files(kind):
    """As tools write it for an empty folder; a zip also with a comment, behind a script, or as zip64."""
    empty = make_archive(kind, [])
    commented = empty[:-2] + b"\x05\x00empty"
    for data in [empty, *([commented, b"#!/bin/sh\n" + empty, EMPTY_ZIP64] if kind == "zip" else [])]:
        assert read(data, f"a.{kind}") == {}
        assert Archive(io.BytesIO(data), f"a.{kind}").entries() == []


def folders(kind):
    if kind == "zip":
        return make_zip([("a/", b""), ("a/b/", b"")])
    names = [tarfile.TarInfo("a"), tarfile.TarInfo("a/b")]
    for name in names:
        name.type = tarfile.DIRTYPE
    return make_tar([(name, b"") for name in names], kind)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "content", ["empty", "folders", "hidden", "text", "nothing", "garbage", "truncated", "the end only"]
)
def test_an_archive_without_an_image_is_rejected_with_its_name(tmp_path, kind, content):
    valid = make_archive(kind, [("a/1.png", os.urandom(5_000)), ("a/2.png", os.urandom(5_000))])
    data = {
        "empty": make_archive(kind, []),
        "folders": folders(kind),
        "hidden": make_archive(kind, [(".a/1.png", b"\x89PNG\r\n\x1a\n")]),
        "text": make_archive(kind, [("notes.txt", b"remember the milk")]),
        "nothing": b"",
        "garbage": b"\xff" * 3_000,
        "truncated": valid[: len(valid) // 2],
        "the end only": valid[-100:],
    }[content]
    path = tmp_path / f"images.{kind}"
    path.write_bytes(data)
    if (kind, content) == ("tar", "the end only"):
        path.write_bytes(valid[1_000:])
    with pytest.raises(OsaiArgumentError, match=rf"images\.{kind}'"):
        scan_source(open_source(str(path)))


@pytest.mark.parametrize("kind", ["zip", "tar.gz", "tar.bz2", "tar.xz"])
def test_a_changed_byte_is_detected_by_the_checksum(kind):
    data = bytearray(make_archive(kind, [("a.png", os.urandom(50_000))]))
    data[25_000] ^= 1
    with pytest.raises(OsaiArgumentError, match="corrupt|truncated"):
        read(bytes(data), f"a.{kind}")


def test_corrupt_data_that_looks_like_the_end_of_the_archive_is_reported_as_corrupt():
    """The first block decompresses to zeros here; only the checksum shows that they are wrong."""
    data = bytearray(make_archive("tar.bz2", [("a.png", random.Random(1663).randbytes(2000))]))
    data[len(data) // 2] ^= 1
    with pytest.raises(OsaiArgumentError, match="corrupt"):
        read(bytes(data), "a.tar.bz2")


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
@settings(max_examples=60)
def test_random_corruption_raises_only_our_error(kind, data):
    """Or yields files of exactly the size of their headers."""
    content = bytearray(make_archive(kind, [("a/1.png", b"1" * 700), ("b.png", bytes(range(256)))]))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(OsaiArgumentError), Archive(io.BytesIO(content), f"a.{kind}") as archive:
        for entry, file in archive.walk():
            assert len(file.read()) == entry.size


@pytest.mark.parametrize("kind", KINDS)
def test_storage_errors_are_not_converted(kind):
    """The archive may be valid, and a retry may succeed."""

    class Broken(Remote):
        def read(self, size=-1):
            raise ConnectionResetError("gone")

    with pytest.raises(ConnectionResetError):
        Archive(Broken(make_archive(kind, FILES.items())), f"a.{kind}").entries()


def test_concatenated_gzip_streams_are_read_as_one():
    """As gzip does, with zero padding at the end."""
    import gzip

    plain = make_tar(FILES.items())
    data = gzip.compress(plain[:5_000]) + gzip.compress(plain[5_000:]) + bytes(100)
    assert read(data, "a.tgz") == FILES


def test_a_zip_after_other_bytes_is_read():
    """As in a self-extracting archive."""
    assert read(b"#!/bin/sh\n" * 50 + make_zip(FILES.items()), "a.zip") == FILES


def test_a_zip_with_a_comment_is_read():
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("a.png", b"1")
        archive.comment = b"a comment"
    assert read(target.getvalue(), "a.zip") == {"a.png": b"1"}


@pytest.mark.parametrize("field", [False, True])
def test_a_zip_name_in_utf8_without_the_flag_is_read(field):
    """macOS omits the flag; other tools repeat the name in an extra field."""
    entry = zipfile.ZipInfo("x.png" if field else "猫.png")
    if field:
        name = struct.pack("<BL", 1, zlib.crc32(b"x.png")) + "猫.png".encode()
        entry.extra = struct.pack("<HH", 0x7075, len(name)) + name
    data = bytearray(make_zip([(entry, b"1")]))
    for offset in (6, data.rindex(b"PK\x01\x02") + 8):
        data[offset + 1] &= ~0x8
    assert read(bytes(data), "a.zip") == {"猫.png": b"1"}


def test_a_ustar_archive_is_read():
    assert read(make_tar([("a/1.png", b"1")], form=tarfile.USTAR_FORMAT), "a.tar") == {"a/1.png": b"1"}
