"""Debian packages: one file, a manual page and the licences; no dependencies and no scripts."""

import hashlib
import textwrap

from archive import File, ar, gzip, tar


def package(release, machine, executable):
    doc = "usr/share/doc/premigrate"
    files = [
        File("./usr/bin/premigrate", executable, 0o755),
        File(f"./{doc}/THIRD-PARTY.txt.gz", gzip(release.third_party)),
        File(f"./{doc}/changelog.gz", gzip(release.read("CHANGELOG.md"))),
        File(f"./{doc}/copyright", _copyright(release)),
        File("./usr/share/bash-completion/completions/premigrate", release.completions),
        File("./usr/share/man/man1/premigrate.1.gz", gzip(release.manual)),
    ]
    sums = "".join(f"{hashlib.md5(file.content).hexdigest()}  {file.path[2:]}\n" for file in files)
    size = sum(len(file.content) for file in files)
    control = [File("./control", _control(release, machine, size)), File("./md5sums", sums.encode())]
    return ar(
        [
            File("debian-binary", b"2.0\n"),
            File("control.tar.gz", gzip(tar(control, release.time, folders=True))),
            File("data.tar.gz", gzip(tar(files, release.time, folders=True))),
        ],
        release.time,
    )


def _control(release, machine, size):
    # Before its pre-releases, 1.0.0~rc.1, comes nothing; after them comes 1.0.0.
    version = release.version.replace("-", "~")
    return textwrap.dedent(f"""\
        Package: premigrate
        Version: {version}
        Architecture: {machine.architecture}
        Maintainer: the premigrate authors
        Installed-Size: {-(-size // 1024)}
        Section: database
        Priority: optional
        Homepage: {release.repository}
        Description: {release.description}
         One static executable, which needs no library and no other package.
        """).encode()


def _copyright(release):
    licence = "\n".join(f" {line or '.'}" for line in release.read("LICENSE").decode().splitlines())
    return textwrap.dedent(f"""\
        Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
        Upstream-Name: premigrate
        Source: {release.repository}
        Comment: THIRD-PARTY.txt.gz has the licences of what is linked into the executable.

        Files: *
        Copyright: 2026 the premigrate authors
        License: MIT
        """).encode() + licence.encode() + b"\n"
