"""Malicious archives, built byte by byte, are rejected with the archive, the entry and the rule."""

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
from tests.data.archives.making import KINDS, MODES, make_archive, make_tar, make_zip

TARS = ["tar", "tar.gz"]

pytestmark = pytest.mark.slow


def assert_rejected(data, name, match, **limits):
    """Check that ``entries`` and ``walk`` reject the archive, and that the message contains its name."""
    with pytest.raises(OsaiArgumentError, match=match) as raised:
        Archive(io.BytesIO(data), name, Limits(**limits)).entries()
    assert f"archive {name!r}" in str(raised.value)
    assert_rejected_while_reading(data, name, match, **limits)


def assert_rejected_while_reading(data, name, match, **limits):
    with pytest.raises(OsaiArgumentError, match=match):
        drain(Archive(io.BytesIO(data), name, Limits(**limits)))


def drain(archive):
    """Read all files in chunks."""
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
        ("../a.png", "'..'"),
        ("a/../../b.png", "'..'"),
        ("a\\..\\..\\b.png", "'..'"),
        ("a/..", "'..'"),
        ("a/.. /b.png", "'..'"),
        (".hidden/../../b.png", "'..'"),
        ("a\nb.png", "control"),
        ("a\x1b[2Jb.png", "control"),
        ("a" * 5_000, "longer than 4,096"),
    ],
)
def test_an_unsafe_name_is_rejected(kind, name, rule):
    assert_rejected(make_archive(kind, [("ok.png", b"1"), (name, b"2")]), f"a.{kind}", rf"entry .*{rule}")


def test_a_zip_name_with_nul_is_rejected():
    """Rather than truncated there, as zipfile does."""
    data = make_zip([("a.pngX.exe", b"1")]).replace(b"a.pngX.exe", b"a.png\0.exe")
    assert_rejected(data, "a.zip", r"entry 'a.png\\x00.exe'.*control")


def test_a_tar_name_with_nul_is_rejected():
    """Only an extended header can contain one."""
    data = make_tar([("é.pngX.exe", b"1")]).replace("é.pngX.exe".encode(), "é.png\0.exe".encode())
    assert_rejected(data, "a.tar", r"x00.exe'.*control")


def test_a_tar_name_that_is_not_unicode_is_rejected():
    data = make_tar([(os.fsdecode(b"\xff.png"), b"1")], form=tarfile.GNU_FORMAT)
    assert_rejected(data, "a.tar", "not valid Unicode")


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("duplicate", ["a/1.png", "./a/1.png", "a\\1.png", "a//1.png"])
def test_a_duplicate_name_is_rejected(kind, duplicate):
    """Also if it is spelled differently."""
    assert_rejected(make_archive(kind, [("a/1.png", b"1"), (duplicate, b"2")]), f"a.{kind}", "duplicate")


@pytest.mark.parametrize("kind", TARS)
@pytest.mark.parametrize(
    ("type_flag", "description"),
    [
        (tarfile.SYMTYPE, "symbolic link"),
        (tarfile.LNKTYPE, "hard link"),
        (tarfile.CHRTYPE, "device"),
        (tarfile.BLKTYPE, "device"),
        (tarfile.FIFOTYPE, "pipe"),
        (b"V", "unknown type"),
    ],
)
@pytest.mark.parametrize("target", ["/etc/passwd", "x" * 300])
def test_a_tar_entry_other_than_a_file_or_folder_is_rejected(kind, type_flag, description, target):
    """Also if the link's target needs an extension header."""
    member = tarfile.TarInfo("a.png")
    member.type, member.linkname = type_flag, target
    for layout in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        assert_rejected(make_tar([(member, b"")], kind, layout), f"a.{kind}", f"entry 'a.png': .*{description}")


@pytest.mark.parametrize("mode", [0o120777, 0o020666, 0o010666, 0o140777])
def test_a_zip_entry_other_than_a_file_or_folder_is_rejected(mode):
    """Links, devices, pipes and sockets, by their Unix mode."""
    link = zipfile.ZipInfo("a.png")
    link.external_attr = mode << 16
    assert_rejected(make_zip([(link, b"/etc/passwd")]), "a.zip", "entry 'a.png': a link")


def test_a_sparse_tar_entry_is_rejected():
    """A few bytes can declare any size, in GNU's old and new format."""
    old = bytearray(make_tar([("a.png", b"")], form=tarfile.GNU_FORMAT))
    old[156:157] = b"S"
    old[148:156] = b"%06o\0 " % (sum(old[:148]) + 8 * 32 + sum(old[156:512]))
    assert_rejected(bytes(old), "a.tar", "sparse")
    member = tarfile.TarInfo("a.png")
    member.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.realsize": str(1 << 40)}
    assert_rejected(make_tar([(member, b"")]), "a.tar", "sparse")


@pytest.mark.parametrize("bit", [0x1, 0x41, 0x2000])
def test_a_zip_with_an_encryption_flag_in_the_central_directory_is_rejected(bit):
    data = bytearray(make_zip([("a.png", b"1")]))
    central = data.rindex(b"PK\x01\x02")
    data[central + 8 : central + 10] = struct.pack("<H", bit)
    assert_rejected(bytes(data), "a.zip", "entry 'a.png': encrypted")


def test_a_zip_with_an_encryption_flag_in_the_local_header_is_rejected():
    data = bytearray(make_zip([("a.png", b"1")]))
    data[6] |= 1
    assert_rejected_while_reading(bytes(data), "a.zip", "encrypted")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_zip_with_an_unsupported_compression_method_is_rejected(method):
    assert_rejected(make_zip([("a.png", b"1")], method), "a.zip", f"method {method}")


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_the_default_maximum_is_99_999_entries(kind):
    files = [(f"{n}", b"") for n in range(100_000)]
    assert_rejected(make_archive(kind, files), f"a.{kind}", "more than 99,999 entries")
    assert len(Archive(io.BytesIO(make_archive(kind, files[1:])), f"a.{kind}").entries()) == 99_999


def test_a_zip_with_a_wrong_entry_count_is_counted():
    """The central directory is scanned before it is loaded."""
    data = bytearray(make_zip([(f"{n}", b"") for n in range(20)]))
    data[-14:-10] = struct.pack("<2H", 1, 1)
    assert_rejected(bytes(data), "a.zip", "more than 19 entries", entries=19)


def test_a_zip_with_a_too_large_central_directory_is_not_loaded():
    """Here by a comment of an entry."""
    entry = zipfile.ZipInfo("a.png")
    entry.comment = b"x" * 60_000
    assert_rejected(make_zip([(entry, b"")]), "a.zip", "directory of 60,0.. bytes is too large", entries=10)


@pytest.mark.parametrize("kind", ["zip", "tar.gz", "tar.bz2", "tar.xz"])
def test_a_compression_ratio_above_200_is_rejected_above_1_mib(kind):
    """Here about 1,000; a smaller file may be a drawing."""
    bomb = make_archive(kind, [("a.png", bytes(20_000_000))])
    assert_rejected(bomb, f"a.{kind}", r"decompress to at least [\d,]+, a ratio of more than 200: suspected zip bomb")
    small = make_archive(kind, [("a.png", bytes(1_000_000))])
    assert len(Archive(io.BytesIO(small), f"a.{kind}").entries()) == 1


@pytest.mark.parametrize("kind", ["zip", "tar.gz", "tar.bz2", "tar.xz"])
def test_many_small_files_with_a_high_ratio_are_rejected(kind):
    """Each is smaller than the floor of 1 MiB."""
    assert_rejected(
        make_archive(kind, [(f"{n}.png", bytes(900_000)) for n in range(60)]), f"a.{kind}", "more than 200: suspected"
    )


@pytest.mark.parametrize("kind", ["zip", "tar.gz", "tar.bz2", "tar.xz"])
def test_a_bomb_after_incompressible_bytes_is_rejected(kind):
    """The ratio of each entry is checked, not only the total."""
    assert_rejected(
        make_archive(kind, [("a.png", os.urandom(500_000)), ("b.png", bytes(40_000_000))]), f"a.{kind}", "entry 'b.png'"
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_total_size_above_the_limit_is_rejected(kind):
    files = [(f"{n}.png", os.urandom(600)) for n in range(2)]
    assert_rejected(
        make_archive(kind, files),
        f"a.{kind}",
        "entry '1.png': the files up to this one exceed 1,000 bytes",
        bytes=1_000,
    )


def patched_sizes(data, size, crc=None):
    """Set the size, and optionally the checksum, in both headers of a zip with one entry."""
    data = bytearray(data)
    central = data.rindex(b"PK\x01\x02")
    for offset in (22, central + 24):
        data[offset : offset + 4] = struct.pack("<L", size)
    if crc is not None:
        for offset in (14, central + 16):
            data[offset : offset + 4] = struct.pack("<L", crc)
    return bytes(data)


def test_a_zip_entry_larger_than_its_declared_size_is_rejected():
    """Even if the checksum is that of the declared part."""
    content = bytes(range(256)) * 100
    honest = make_zip([("a.png", content)])
    for crc in (None, zlib.crc32(content[:1_000])):
        assert_rejected_while_reading(
            patched_sizes(honest, 1_000, crc), "a.zip", "entry 'a.png'.*(more than the 1,000|checksum)"
        )


def test_a_bomb_with_a_small_declared_size_is_decompressed_no_further():
    """So it takes little memory."""
    bomb = patched_sizes(make_zip([("a.png", bytes(50_000_000))]), 1_000, zlib.crc32(bytes(1_000)))
    tracemalloc.start()
    assert_rejected_while_reading(bomb, "a.zip", "more than the 1,000")
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()


def test_a_zip_entry_smaller_than_its_declared_size_is_rejected():
    assert_rejected_while_reading(
        patched_sizes(make_zip([("a.png", b"x" * 100)]), 101), "a.zip", "shorter than the size in its header"
    )
    assert_rejected_while_reading(
        patched_sizes(make_zip([("a.png", b"x" * 100)], 0), 101), "a.zip", "two different sizes"
    )


def overlapping():
    """Return a zip in which each entry's compressed data contains the entries after it."""
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


def test_overlapping_zip_entries_are_rejected():
    """The best zip bombs are built this way; the ratio of each entry is low."""
    assert_rejected(overlapping(), "a.zip", "overlap")


def test_a_zip_entry_that_overlaps_because_of_its_local_header_is_rejected():
    """The central directory does not show the overlap."""
    data = bytearray(make_zip([("a.png", os.urandom(100)), ("b.png", b"2")], 0))
    data[28:30] = struct.pack("<H", 50)
    assert_rejected_while_reading(bytes(data), "a.zip", "entry 'a.png'.*overlap")


def test_a_zip_entry_with_another_name_in_its_local_header_is_rejected():
    data = make_zip([("a.png", b"1")]).replace(b"a.png", b"b.png", 1)
    assert_rejected_while_reading(data, "a.zip", "differ")


def test_a_tar_extension_header_of_1_gib_is_rejected():
    for type_flag in (b"L", b"x", b"g", b"K"):
        header = tarfile.TarInfo("a.png")
        header.type, header.size = type_flag, 1 << 30
        assert_rejected(header.tobuf(tarfile.GNU_FORMAT) + bytes(10_240), "a.tar", "header is longer than 1,048,576")


def test_repeated_tar_extension_headers_are_rejected():
    """All would describe the same entry."""
    header = tarfile.TarInfo("a.png")
    header.type, header.size = b"L", 512
    assert_rejected((header.tobuf(tarfile.GNU_FORMAT) + b"b" * 512) * 1_000, "a.tar", "two long name headers in a row")


@pytest.mark.parametrize("kind", MODES)
def test_a_second_tar_after_the_first_is_rejected(kind):
    """Its files would be lost silently."""
    import bz2
    import gzip
    import lzma

    compress = {"": bytes, "gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}[MODES[kind]]
    assert_rejected(compress(make_tar([("a.png", b"1")]) * 2), f"a.{kind}", "second archive")


def test_an_xz_stream_with_a_dictionary_of_1_5_gib_is_rejected():
    import lzma

    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 1536 << 20}]
    try:
        data = lzma.compress(make_tar([("a.png", b"1")]), filters=filters)
    except MemoryError:
        pytest.skip("not enough memory to build the archive")
    assert_rejected(data, "a.tar.xz", "corrupt")


@pytest.mark.parametrize("kind", KINDS)
def test_memory_does_not_grow_with_the_size_of_the_archive(kind):
    """With 20 MB in one file and 3 MB in 3,000 files."""
    content = os.urandom(1_000)
    files = [("a.png", os.urandom(20_000_000)), *((f"{n}.png", content) for n in range(3_000))]
    source = io.BytesIO(make_archive(kind, files))
    tracemalloc.start()
    drain(Archive(source, f"a.{kind}"))
    assert tracemalloc.get_traced_memory()[1] < 12_000_000
    tracemalloc.stop()
