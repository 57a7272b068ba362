"""Compares two folders, file by file, and archives member by member: compare.py FOLDER FOLDER. Fails if they differ."""

import gzip
import io
import sys
import tarfile
from pathlib import Path


def files_in(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


def members(content):
    """The files in an archive, or None if it is none."""
    if content.startswith(b"\x1f\x8b"):
        return {"uncompressed": gzip.decompress(content)}
    if content[257:262] == b"ustar":
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            return {it.name: archive.extractfile(it).read() for it in archive.getmembers() if it.isfile()}
    return None


def differences(name, one, other):
    """Sentences that say where two contents of this name differ."""
    if one == other:
        return
    inside, other_inside = members(one), members(other)
    if inside is None or other_inside is None:
        at = next((at for at, (a, b) in enumerate(zip(one, other)) if a != b), min(len(one), len(other)))
        yield f"{name} differs from byte {at} on: {one[at - 40:at + 40]!r}, {other[at - 40:at + 40]!r}"
    elif inside == other_inside:
        yield f"{name} has the same files, but differs in what describes them"
    else:
        yield from compared(inside, other_inside, f"{name}: ")


def compared(one, other, prefix=""):
    for name in sorted(one.keys() | other.keys()):
        if name in one and name in other:
            yield from differences(prefix + name, one[name], other[name])
        else:
            yield f"{prefix}{name} is in only one of the two"


if __name__ == "__main__":
    first, second = files_in(sys.argv[1]), files_in(sys.argv[2])
    found = list(compared(first, second))
    print("\n".join(found) or f"all {len(first)} files are the same")
    sys.exit(bool(found) or not first)
