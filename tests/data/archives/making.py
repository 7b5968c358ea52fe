"""Builders of test archives, and a file with the short reads of remote storage."""

from __future__ import annotations

import io
import tarfile
import zipfile

KINDS = ["zip", "tar", "tar.gz", "tgz", "tar.bz2", "tar.xz"]
MODES = {"tar": "", "tar.gz": "gz", "tgz": "gz", "tar.bz2": "bz2", "tar.xz": "xz"}


class Remote(io.RawIOBase):
    """A file that returns short reads, and counts the bytes read and the backward seeks."""

    def __init__(self, data: bytes, max_read: int = 1000) -> None:
        self._inner = io.BytesIO(data)
        self._max_read = max_read
        self.bytes_read = 0
        self.backward_seeks = 0

    def readable(self):
        return True

    def seekable(self):
        return True

    def seek(self, offset, whence=0):
        before = self._inner.tell()
        after = self._inner.seek(offset, whence)
        self.backward_seeks += after < before
        return after

    def tell(self):
        return self._inner.tell()

    def read(self, size=-1):
        chunk = self._inner.read(self._max_read if size < 0 else min(size, self._max_read))
        self.bytes_read += len(chunk)
        return chunk


def make_zip(files, method=zipfile.ZIP_DEFLATED) -> bytes:
    """Return a zip of the (name, content) pairs; names may be ZipInfo objects."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", method) as archive:
        for name, data in files:
            archive.writestr(name, data)
    return target.getvalue()


def make_tar(files, kind="tar", form=tarfile.PAX_FORMAT) -> bytes:
    """Return a tar of the (name, content) pairs; names may be TarInfo objects."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode=f"w:{MODES[kind]}", format=form) as archive:
        for name, data in files:
            member = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return target.getvalue()


def make_archive(kind, files) -> bytes:
    return make_zip(files) if kind == "zip" else make_tar(files, kind)
