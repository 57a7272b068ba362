"""Archives that are the same bytes whenever and wherever they are made: one owner, one time, no names of their own."""

import gzip as zlib_gzip
import hashlib
import io
import tarfile
from dataclasses import dataclass


@dataclass(frozen=True)
class File:
    path: str
    content: bytes
    mode: int = 0o644


def tar(files, time, folders=False):
    """With `folders`, each folder has an entry of its own, as dpkg wants it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        seen = set()
        for file in files:
            parts = file.path.split("/")[:-1]
            for depth in range(1, len(parts) + 1):
                folder = "/".join(parts[:depth])
                if folders and folder not in seen:
                    seen.add(folder)
                    archive.addfile(_entry(folder, tarfile.DIRTYPE, 0o755, time))
            entry = _entry(file.path, tarfile.REGTYPE, file.mode, time)
            entry.size = len(file.content)
            archive.addfile(entry, io.BytesIO(file.content))
    return buffer.getvalue()


def _entry(path, kind, mode, time):
    entry = tarfile.TarInfo(path)
    entry.type, entry.mode, entry.mtime = kind, mode, time
    return entry


def gzip(content):
    return zlib_gzip.compress(content, compresslevel=9, mtime=0)


def ar(files, time):
    """As dpkg-deb writes it."""
    archive = b"!<arch>\n"
    for file in files:
        size = len(file.content)
        archive += f"{file.path:<16}{time:<12}{0:<6}{0:<6}{0o100000 | file.mode:<8o}{size:<10}`\n".encode()
        archive += file.content + b"\n" * (size % 2)
    return archive


def sha256(content):
    return hashlib.sha256(content).hexdigest()
