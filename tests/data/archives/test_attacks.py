"""Each attack by archive, built for real, is refused with the archive, the entry and the rule."""

from __future__ import annotations

import io
import os
import struct
import tarfile
import tracemalloc
import zipfile
import zlib

import pytest

from airflow_provider_osai.api.errors import OsaiArgumentError
from airflow_provider_osai.data.archives import Archive, Limits
from tests.data.archives.making import KINDS, MODES, packed, tarred, zipped

TARS = ["tar", "tar.gz"]


def refused(data, name, match, **limits):
    """Check that both ways to read refuse it, and that the message names the archive."""
    with pytest.raises(OsaiArgumentError, match=match) as raised:
        Archive(io.BytesIO(data), name, Limits(**limits)).entries()
    assert f"archive {name!r}" in str(raised.value)
    refused_on_the_way(data, name, match, **limits)


def refused_on_the_way(data, name, match, **limits):
    with pytest.raises(OsaiArgumentError, match=match):
        drain(Archive(io.BytesIO(data), name, Limits(**limits)))


def drain(archive):
    """Read all of all files, a piece at a time."""
    for _, file in archive.walk():
        while file.read(10_000):
            pass


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("/etc/passwd", "absolute"),
        ("\\\\server\\share\\a.png", "absolute"),
        ("C:\\a.png", "absolute"),
        ("c:a.png", "absolute"),
        ("../a.png", "upwards"),
        ("a/../../b.png", "upwards"),
        ("a\\..\\..\\b.png", "upwards"),
        ("a/..", "upwards"),
        ("a/.. /b.png", "upwards"),
        (".hidden/../../b.png", "upwards"),
        ("a\nb.png", "control"),
        ("a\x1b[2Jb.png", "control"),
        ("a" * 5_000, "longer than 4,096"),
    ],
)
def test_names_that_lead_elsewhere_are_refused(kind, name, rule):
    """With the entry's name, short enough to be read."""
    refused(packed(kind, [("ok.png", b"1"), (name, b"2")]), f"a.{kind}", rf"entry .*{rule}")


def test_a_zip_name_with_nul_is_refused():
    """Rather than cut there, as zipfile does."""
    data = zipped([("a.pngX.exe", b"1")]).replace(b"a.pngX.exe", b"a.png\0.exe")
    refused(data, "a.zip", r"entry 'a.png\\x00.exe'.*control")


def test_a_tar_name_with_nul_is_refused():
    """Only an extended header can hold one."""
    data = tarred([("é.pngX.exe", b"1")]).replace("é.pngX.exe".encode(), "é.png\0.exe".encode())
    refused(data, "a.tar", r"x00.exe'.*control")


def test_a_tar_name_that_is_no_unicode_is_refused():
    """It could be neither shown nor sent."""
    data = tarred([(os.fsdecode(b"\xff.png"), b"1")], form=tarfile.GNU_FORMAT)
    refused(data, "a.tar", "no Unicode")


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("again", ["a/1.png", "./a/1.png", "a\\1.png", "a//1.png"])
def test_names_that_come_twice_are_refused(kind, again):
    """Also when they are written differently."""
    refused(packed(kind, [("a/1.png", b"1"), (again, b"2")]), f"a.{kind}", "twice")


@pytest.mark.parametrize("kind", TARS)
@pytest.mark.parametrize(
    ("form", "what"),
    [
        (tarfile.SYMTYPE, "symbolic link"),
        (tarfile.LNKTYPE, "hard link"),
        (tarfile.CHRTYPE, "device"),
        (tarfile.BLKTYPE, "device"),
        (tarfile.FIFOTYPE, "pipe"),
        (b"V", "unknown kind"),
    ],
)
@pytest.mark.parametrize("target", ["/etc/passwd", "x" * 300])
def test_a_tar_with_anything_but_files_is_refused(kind, form, what, target):
    """Also when the link's target needs a header of its own."""
    member = tarfile.TarInfo("a.png")
    member.type, member.linkname = form, target
    for layout in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        refused(tarred([(member, b"")], kind, layout), f"a.{kind}", f"entry 'a.png': it is .*{what}")


@pytest.mark.parametrize("mode", [0o120777, 0o020666, 0o010666, 0o140777])
def test_a_zip_with_anything_but_files_is_refused(mode):
    """Links, devices, pipes and sockets, as Unix marks them."""
    link = zipfile.ZipInfo("a.png")
    link.external_attr = mode << 16
    refused(zipped([(link, b"/etc/passwd")]), "a.zip", "entry 'a.png': it is a link")


def test_a_sparse_tar_is_refused():
    """A few bytes state a size of any number, in GNU's old way and in the newer one."""
    old = bytearray(tarred([("a.png", b"")], form=tarfile.GNU_FORMAT))
    old[156:157] = b"S"
    old[148:156] = b"%06o\0 " % (sum(old[:148]) + 8 * 32 + sum(old[156:512]))
    refused(bytes(old), "a.tar", "sparse")
    member = tarfile.TarInfo("a.png")
    member.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.realsize": str(1 << 40)}
    refused(tarred([(member, b"")]), "a.tar", "sparse")


@pytest.mark.parametrize("bit", [0x1, 0x41, 0x2000])
def test_an_encrypted_zip_is_refused(bit):
    """Marked in the directory."""
    data = bytearray(zipped([("a.png", b"1")]))
    central = data.rindex(b"PK\x01\x02")
    data[central + 8 : central + 10] = struct.pack("<H", bit)
    refused(bytes(data), "a.zip", "entry 'a.png': it is encrypted")


def test_a_zip_that_is_encrypted_before_the_bytes_only_is_refused():
    """When it is opened."""
    data = bytearray(zipped([("a.png", b"1")]))
    data[6] |= 1
    refused_on_the_way(bytes(data), "a.zip", "encrypted")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_zip_with_another_compression_is_refused(method):
    """By its number."""
    refused(zipped([("a.png", b"1")], method), "a.zip", f"method {method}")


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_a_hundred_thousand_entries_are_refused_and_one_fewer_is_not(kind):
    """The default limit; made small enough to be made for a test."""
    files = [(f"{n}", b"") for n in range(100_000)]
    refused(packed(kind, files), f"a.{kind}", "more than 99,999 entries")
    assert len(Archive(io.BytesIO(packed(kind, files[1:])), f"a.{kind}").entries()) == 99_999


def test_a_zip_that_counts_its_entries_wrongly_is_counted():
    """Its directory is walked before it is loaded."""
    data = bytearray(zipped([(f"{n}", b"") for n in range(20)]))
    data[-14:-10] = struct.pack("<2H", 1, 1)
    refused(bytes(data), "a.zip", "more than 19 entries", entries=19)


def test_a_zip_with_a_directory_that_is_too_large_is_not_loaded():
    """Whatever it consists of."""
    entry = zipfile.ZipInfo("a.png")
    entry.comment = b"x" * 60_000
    refused(zipped([(entry, b"")]), "a.zip", "directory of 60,0.. bytes is too large", entries=10)


@pytest.mark.parametrize("kind", ["zip", "tar.gz", "tar.bz2", "tar.xz"])
def test_a_bomb_is_refused(kind):
    """About a thousand-fold; below a mebibyte it may be a drawing."""
    bomb = packed(kind, [("a.png", bytes(20_000_000))])
    refused(bomb, f"a.{kind}", r"unpack to [\d,]+ or more, over 200 times")
    small = packed(kind, [("a.png", bytes(1_000_000))])
    assert len(Archive(io.BytesIO(small), f"a.{kind}").entries()) == 1


@pytest.mark.parametrize("kind", ["zip", "tar.gz", "tar.bz2", "tar.xz"])
def test_many_small_bombs_are_one(kind):
    """Each is below the floor."""
    refused(packed(kind, [(f"{n}.png", bytes(900_000)) for n in range(60)]), f"a.{kind}", "over 200 times")


@pytest.mark.parametrize("kind", ["zip", "tar.gz", "tar.bz2", "tar.xz"])
def test_a_bomb_behind_honest_bytes_is_refused(kind):
    """Each entry is measured, not only the whole."""
    refused(packed(kind, [("a.png", os.urandom(500_000)), ("b.png", bytes(40_000_000))]), f"a.{kind}", "entry 'b.png'")


@pytest.mark.parametrize("kind", KINDS)
def test_too_many_bytes_are_refused(kind):
    """All files together."""
    files = [(f"{n}.png", os.urandom(600)) for n in range(2)]
    refused(packed(kind, files), f"a.{kind}", "entry '1.png': all files to here are larger than 1,000", bytes=1_000)


def patched_sizes(data, size, crc=None):
    """State another size, and checksum, in both headers of a zip's only entry."""
    data = bytearray(data)
    central = data.rindex(b"PK\x01\x02")
    for at in (22, central + 24):
        data[at : at + 4] = struct.pack("<L", size)
    if crc is not None:
        for at in (14, central + 16):
            data[at : at + 4] = struct.pack("<L", crc)
    return bytes(data)


def test_a_zip_entry_that_yields_more_than_it_states_is_refused():
    """Even if the checksum is that of the part that is stated."""
    content = bytes(range(256)) * 100
    honest = zipped([("a.png", content)])
    for crc in (None, zlib.crc32(content[:1_000])):
        refused_on_the_way(patched_sizes(honest, 1_000, crc), "a.zip", "entry 'a.png'.*(more than the 1,000|checksum)")


def test_a_bomb_that_states_a_small_size_unpacks_no_further_than_that():
    """Memory stays small, too."""
    lie = patched_sizes(zipped([("a.png", bytes(50_000_000))]), 1_000, zlib.crc32(bytes(1_000)))
    tracemalloc.start()
    refused_on_the_way(lie, "a.zip", "more than the 1,000")
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()


def test_a_zip_entry_that_yields_less_than_it_states_is_refused():
    """Nothing short is handed on as whole."""
    refused_on_the_way(patched_sizes(zipped([("a.png", b"x" * 100)]), 101), "a.zip", "shorter than it states")
    refused_on_the_way(patched_sizes(zipped([("a.png", b"x" * 100)], 0), 101), "a.zip", "two sizes")


def overlapping():
    """Return a zip whose entries are quoted by the one before, so that its bytes count for each."""
    kernel = zlib.compressobj(9, zlib.DEFLATED, -15)
    body = kernel.compress(bytes(500_000)) + kernel.flush()
    crc, names = zlib.crc32(bytes(500_000)), [b"a.png", b"b.png", b"c.png"]
    local = [struct.pack("<4s5H3L2H", b"PK\3\4", 20, 0, 8, 0, 0x21, crc, len(body), 500_000, 5, 0) + n for n in names]
    data, offsets = b"", []
    for head in local:
        offsets.append(len(data))
        data += head
    central = b""
    for name, offset in zip(names, offsets, strict=True):
        size = len(data) + len(body) - offset - 35
        fields = (b"PK\1\2", 20, 20, 0, 8, 0, 0x21, crc, size, 500_000, 5, 0, 0, 0, 0, 0, offset)
        central += struct.pack("<4s6H3L5H2L", *fields) + name
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 3, 3, len(central), len(data) + len(body), 0)
    return data + body + central + end


def test_zip_entries_that_overlap_are_refused():
    """The way of the best bombs, which no ratio of one entry tells."""
    refused(overlapping(), "a.zip", "overlap")


def test_a_zip_entry_that_overlaps_by_a_longer_local_header_is_refused():
    """Which the directory does not show."""
    data = bytearray(zipped([("a.png", os.urandom(100)), ("b.png", b"2")], 0))
    data[28:30] = struct.pack("<H", 50)
    refused_on_the_way(bytes(data), "a.zip", "entry 'a.png'.*overlap")


def test_a_zip_with_two_names_for_one_entry_is_refused():
    """One in the directory, another before the bytes."""
    data = zipped([("a.png", b"1")]).replace(b"a.png", b"b.png", 1)
    refused_on_the_way(data, "a.zip", "differ")


def test_a_tar_header_that_would_fill_memory_is_refused():
    """A name of a gigabyte."""
    for form in (b"L", b"x", b"g", b"K"):
        note = tarfile.TarInfo("a.png")
        note.type, note.size = form, 1 << 30
        refused(note.tobuf(tarfile.GNU_FORMAT) + bytes(10_240), "a.tar", "header is longer than 1,048,576")


def test_tar_headers_without_end_are_refused():
    """Each would be about the same entry."""
    note = tarfile.TarInfo("a.png")
    note.type, note.size = b"L", 512
    refused((note.tobuf(tarfile.GNU_FORMAT) + b"b" * 512) * 1_000, "a.tar", "two long name headers in a row")


@pytest.mark.parametrize("kind", MODES)
def test_a_tar_behind_a_tar_is_refused(kind):
    """Its files would be missed without a word."""
    import bz2
    import gzip
    import lzma

    pack = {"": bytes, "gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}[MODES[kind]]
    refused(pack(tarred([("a.png", b"1")]) * 2), f"a.{kind}", "second archive")


def test_an_xz_that_asks_for_much_memory_is_refused():
    """Its dictionary, of a gigabyte and a half."""
    import lzma

    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 1536 << 20}]
    try:
        data = lzma.compress(tarred([("a.png", b"1")]), filters=filters)
    except MemoryError:
        pytest.skip("needs memory to be made")
    refused(data, "a.tar.xz", "broken")


@pytest.mark.parametrize("kind", KINDS)
def test_memory_does_not_grow_with_what_is_in_it(kind):
    """Thirty megabytes in one file and in many."""
    piece = os.urandom(1_000)
    files = [("a.png", os.urandom(20_000_000)), *((f"{n}.png", piece) for n in range(3_000))]
    source = io.BytesIO(packed(kind, files))
    tracemalloc.start()
    drain(Archive(source, f"a.{kind}"))
    assert tracemalloc.get_traced_memory()[1] < 12_000_000
    tracemalloc.stop()
