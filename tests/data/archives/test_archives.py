"""Good archives of each kind, made by several tools, are read in one pass; broken ones are refused."""

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
from airflow_provider_osai.data.archives import Archive, Entry, Limits, is_archive
from tests.data.archives.making import KINDS, Remote, packed, tarred, zipped

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
def test_archives_are_known_by_their_names(name):
    """In any case."""
    assert is_archive(name)


@pytest.mark.parametrize("name", ["zip", "a.png", "a.gz", "a.zip.png", "a.rar", ""])
def test_other_files_are_no_archives(name):
    """And are refused as such."""
    assert not is_archive(name)
    with pytest.raises(OsaiArgumentError, match=r"archive '.*': choose one of \.zip"):
        Archive(io.BytesIO(), name)


@pytest.mark.parametrize("kind", KINDS)
def test_what_went_in_comes_out(kind):
    """Python's own writers; names are nested, long and not ASCII."""
    data = packed(kind, FILES.items())
    assert read(data, f"a.{kind}") == FILES
    with Archive(io.BytesIO(data), f"a.{kind}") as archive:
        assert archive.entries() == [Entry(name, len(content)) for name, content in FILES.items()]


@pytest.mark.parametrize(("form", "suffix"), [("zip", "zip"), ("tar", "tar"), ("gztar", "tar.gz"), ("xztar", "tar.xz")])
def test_what_shutil_packs_is_read(folder, form, suffix):
    """With its ``./`` before each name."""
    made = shutil.make_archive(str(folder.parent / "made"), form, folder)
    with open(made, "rb") as file, Archive(file, f"made.{suffix}") as archive:
        assert {entry.name: part.read() for entry, part in archive.walk()} == FILES


@pytest.mark.parametrize("options", [["-r"], ["-r", "-0"], ["-r", "-fd"], ["-r", "-fz"]], ids=str)
@pytest.mark.skipif(not shutil.which("zip"), reason="needs the command zip")
def test_what_the_command_zip_packs_is_read(folder, options):
    """Compressed, stored, with data descriptors, and as zip64."""
    subprocess.run(
        ["zip", "-q", *options, "../a.zip", "."], cwd=folder, check=True, env={**os.environ, "LC_ALL": "C.UTF-8"}
    )
    assert read((folder.parent / "a.zip").read_bytes(), "a.zip") == FILES


@pytest.mark.parametrize("form", ["gnu", "pax", "posix"])
@pytest.mark.parametrize(("suffix", "option"), [("tar", ""), ("tgz", "z")])
@pytest.mark.skipif(not shutil.which("tar"), reason="needs the command tar")
def test_what_the_command_tar_packs_is_read(folder, form, suffix, option):
    """In GNU's and in POSIX' format, which write long names differently."""
    subprocess.run(["tar", f"-c{option}f", f"../a.{suffix}", f"--format={form}", "."], cwd=folder, check=True)
    assert read((folder.parent / f"a.{suffix}").read_bytes(), f"a.{suffix}") == FILES


@pytest.mark.skipif(not shutil.which("zip"), reason="needs the command zip")
def test_a_zip_that_was_written_to_a_pipe_is_read(folder):
    """Its headers say nothing of sizes; its directory does."""
    made = subprocess.run(["zip", "-q", "-r", "-", "."], cwd=folder, check=True, stdout=subprocess.PIPE)
    assert read(made.stdout, "a.zip") == FILES


@pytest.mark.parametrize("kind", KINDS)
def test_hidden_files_and_folders_are_passed_over(kind):
    """macOS's too; other files stay, for it is not the archive's matter what they are."""
    names = ["a/1.png", ".a", "a/.b", ".c/d", "__MACOSX/a/._1.png", "x/__MACOSX/y", "Thumbs.db"]
    assert list(read(packed(kind, [(name, b"1") for name in names]), f"a.{kind}")) == ["a/1.png", "Thumbs.db"]


@pytest.mark.parametrize("kind", KINDS)
def test_names_are_relative_with_slashes(kind):
    """Windows writes backslashes; ``./`` and doubled slashes say nothing."""
    files = [("./a/1.png", b""), ("b\\2.png", b""), ("c//3.png", b"")]
    assert list(read(packed(kind, files), f"a.{kind}")) == ["a/1.png", "b/2.png", "c/3.png"]


@pytest.mark.parametrize("kind", KINDS)
def test_names_that_differ_in_case_are_two(kind):
    """Nothing is written where they could meet."""
    assert len(read(packed(kind, [("a.png", b"1"), ("A.png", b"2")]), f"a.{kind}")) == 2


@pytest.mark.parametrize("kind", KINDS)
def test_only_what_is_wanted_is_opened(kind):
    """In the archive's order, read or not."""
    data = packed(kind, FILES.items())
    with Archive(io.BytesIO(data), f"a.{kind}") as archive:
        some = list(FILES)[1:3]
        assert [(e.name, f.read(10)) for e, f in archive.walk(set(some))] == [(n, FILES[n][:10]) for n in some]


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_is_closed_when_the_next_is_asked_for(kind):
    """And when the archive is left, or walked anew."""
    with Archive(io.BytesIO(packed(kind, FILES.items())), f"a.{kind}") as archive:
        walk = archive.walk()
        first, second = next(walk)[1], next(walk)[1]
        assert (first.closed, second.closed) == (True, False)
        assert next(archive.walk())[0].name == "0.png"
        assert second.closed
        last = next(archive.walk())[1]
    assert last.closed


@pytest.mark.parametrize("kind", KINDS)
def test_a_remote_file_is_read_once_from_front_to_back(kind):
    """In pieces as it gives them; a zip's end is looked at first."""
    files = [(f"{n}.png", os.urandom(5_000)) for n in range(40)]
    data = packed(kind, files)
    remote = Remote(data)
    with Archive(remote, f"a.{kind}") as archive:
        assert [(entry.name, file.read()) for entry, file in archive.walk()] == files
    ends = 2 * (0xFFFF + 22 + 76) + 40 * 100 * 2 if kind == "zip" else 0
    assert remote.given <= len(data) + ends + 2_000
    assert remote.backwards <= (12 if kind == "zip" else 1)


def test_an_unpacker_that_pauses_at_the_end_of_a_piece_is_not_cut_off():
    """xz does so for three in a hundred archives: not hungry, and nothing to give yet."""
    for seed in range(100):
        chance = random.Random(seed)
        files = [(f"{n}.png", chance.randbytes(5_000)) for n in range(40)]
        with Archive(Remote(packed("tar.xz", files)), "a.tar.xz") as archive:
            assert [(entry.name, file.read()) for entry, file in archive.walk()] == files


def test_what_is_not_wanted_of_a_plain_tar_is_not_read():
    """It is passed by."""
    remote = Remote(tarred([(f"{n}.png", b"x" * 100_000) for n in range(20)]))
    with Archive(remote, "a.tar") as archive:
        assert len(archive.entries()) == 20
    assert remote.given < 30_000


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("keep", [0, 1, 100, 511, 2_000, 30_000, -1, -30])
def test_an_archive_that_is_cut_off_is_refused(kind, keep):
    """Wherever, but for the zeros that end a tar."""
    data = packed(kind, [("a.png", os.urandom(50_000)), ("b.png", os.urandom(50))])
    if kind == "tar" and keep < 0:
        keep -= 10_240
    with pytest.raises(OsaiArgumentError, match=rf"archive 'a\.{kind}'.*(cut off|broken|no zip)"):
        read(data[:keep], f"a.{kind}")


@pytest.mark.parametrize("kind", KINDS)
def test_an_archive_that_is_something_else_is_refused(kind):
    """By its name."""
    for data in (b"", b"\x89PNG\r\n\x1a\n" * 1_000, os.urandom(5_000)):
        with pytest.raises(OsaiArgumentError, match=rf"archive 'a\.{kind}'"):
            read(data, f"a.{kind}")


@pytest.mark.parametrize("kind", ["zip", "tar.gz", "tar.bz2", "tar.xz"])
def test_a_file_with_a_changed_byte_is_refused(kind):
    """Its checksum tells."""
    data = bytearray(packed(kind, [("a.png", os.urandom(50_000))]))
    data[25_000] ^= 1
    with pytest.raises(OsaiArgumentError, match="broken|cut off"):
        read(bytes(data), f"a.{kind}")


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_damage_is_refused_or_does_no_harm(kind, data):
    """Nothing but our own error comes out, and no file of another size than stated."""
    good = bytearray(packed(kind, [("a/1.png", b"1" * 700), ("b.png", bytes(range(256)))]))
    for _ in range(data.draw(st.integers(1, 4))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(OsaiArgumentError), Archive(io.BytesIO(good), f"a.{kind}") as archive:
        for entry, file in archive.walk():
            assert len(file.read()) == entry.size


@pytest.mark.parametrize("kind", KINDS)
def test_errors_of_the_storage_pass_through(kind):
    """They are no fault of the archive, and a retry may mend them."""

    class Broken(Remote):
        def read(self, size=-1):
            raise ConnectionResetError("gone")

    with pytest.raises(ConnectionResetError):
        Archive(Broken(packed(kind, FILES.items())), f"a.{kind}").entries()


def test_gzip_files_in_a_row_are_one():
    """As gzip itself has it, with zeros after them."""
    import gzip

    plain = tarred(FILES.items())
    data = gzip.compress(plain[:5_000]) + gzip.compress(plain[5_000:]) + bytes(100)
    assert read(data, "a.tgz") == FILES


def test_a_zip_behind_other_bytes_is_read():
    """As a self-unpacking one."""
    assert read(b"#!/bin/sh\n" * 50 + zipped(FILES.items()), "a.zip") == FILES


def test_a_zip_with_a_comment_is_read():
    """Which may hold anything."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("a.png", b"1")
        archive.comment = b"a comment"
    assert read(target.getvalue(), "a.zip") == {"a.png": b"1"}


@pytest.mark.parametrize("field", [False, True])
def test_a_zip_name_in_utf8_without_the_flag_is_read(field):
    """macOS writes nothing more; others give the name anew in an extra field."""
    entry = zipfile.ZipInfo("x.png" if field else "猫.png")
    if field:
        name = struct.pack("<BL", 1, zlib.crc32(b"x.png")) + "猫.png".encode()
        entry.extra = struct.pack("<HH", 0x7075, len(name)) + name
    data = bytearray(zipped([(entry, b"1")]))
    for at in (6, data.rindex(b"PK\x01\x02") + 8):
        data[at + 1] &= ~0x8
    assert read(bytes(data), "a.zip") == {"猫.png": b"1"}


def test_an_old_tar_is_read():
    """Without any of the later formats' marks."""
    assert read(tarred([("a/1.png", b"1")], form=tarfile.USTAR_FORMAT), "a.tar") == {"a/1.png": b"1"}
