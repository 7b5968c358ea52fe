"""Archives to read, good and bad, and a file as remote storage gives it."""

from __future__ import annotations

import io
import tarfile
import zipfile

KINDS = ["zip", "tar", "tar.gz", "tgz", "tar.bz2", "tar.xz"]
MODES = {"tar": "", "tar.gz": "gz", "tgz": "gz", "tar.bz2": "bz2", "tar.xz": "xz"}


class Remote(io.RawIOBase):
    """A file that comes in small pieces, and counts what it gave and how often it went back."""

    def __init__(self, data: bytes, most: int = 1000) -> None:
        self._inner, self._most = io.BytesIO(data), most
        self.given = self.backwards = 0

    def readable(self):
        return True

    def seekable(self):
        return True

    def seek(self, offset, whence=0):
        before = self._inner.tell()
        after = self._inner.seek(offset, whence)
        self.backwards += after < before
        return after

    def tell(self):
        return self._inner.tell()

    def read(self, size=-1):
        piece = self._inner.read(self._most if size < 0 else min(size, self._most))
        self.given += len(piece)
        return piece


def zipped(files, method=zipfile.ZIP_DEFLATED) -> bytes:
    """Return a zip of the files; names may be ZipInfo objects."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", method) as archive:
        for name, data in files:
            archive.writestr(name, data)
    return target.getvalue()


def tarred(files, kind="tar", form=tarfile.PAX_FORMAT) -> bytes:
    """Return a tar of the files; names may be TarInfo objects."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode=f"w:{MODES[kind]}", format=form) as archive:
        for name, data in files:
            member = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return target.getvalue()


def packed(kind, files) -> bytes:
    return zipped(files) if kind == "zip" else tarred(files, kind)
