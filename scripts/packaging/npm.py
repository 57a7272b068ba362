"""npm packages: `premigrate`, which is a few lines of JavaScript, and the executable in one package for each machine. npm
installs only the one for its own."""

import json

from archive import File, gzip, tar


def packages(release, executables):
    """The file names and contents, in publishing order: the main package needs the others."""
    packed = [_platform(release, machine, executable) for machine, executable in executables]
    packed.append(_main(release, [machine for machine, _ in executables]))
    for number, (manifest, files) in enumerate(packed, start=1):
        manifest = File("package.json", json.dumps(manifest, indent=2).encode() + b"\n")
        entries = [File(f"package/{file.path}", file.content, file.mode) for file in [manifest, *files]]
        name = json.loads(manifest.content)["name"].removeprefix("@").replace("/", "-")
        yield f"{number}-{name}-{release.version}.tgz", gzip(tar(entries, release.time))


def _manifest(release, name, description):
    return {
        "name": name,
        "version": release.version,
        "description": description,
        "license": "MIT",
        "repository": {"type": "git", "url": f"git+{release.repository}.git"},
        "homepage": f"{release.repository}#readme",
        "bugs": f"{release.repository}/issues",
        "publishConfig": {"access": "public", "provenance": True},
    }


def _main(release, machines):
    manifest = _manifest(release, "premigrate", release.description) | {
        "keywords": ["postgresql", "postgres", "migrations", "migrate", "drizzle", "drizzle-orm", "docker"],
        "bin": {"premigrate": "bin/premigrate.cjs"},
        "main": "bin/premigrate.cjs",
        "files": ["bin"],
        "engines": {"node": ">=18"},
        "optionalDependencies": {machine.npm_package: release.version for machine in machines},
    }
    return manifest, [
        File("bin/premigrate.cjs", release.packaging("npm/premigrate.cjs"), 0o755),
        File("README.md", release.read("README.md")),
        File("LICENSE", release.read("LICENSE")),
    ]


def _platform(release, machine, executable):
    # No `libc`: a static executable needs none. No `bin`: it would compete with that of the main package.
    manifest = _manifest(
        release, machine.npm_package, f"The executable of premigrate for {machine.system} on {machine.cpu}"
    ) | {
        "os": [machine.system],
        "cpu": [machine.cpu],
        "preferUnplugged": True,
        "files": ["bin", "THIRD-PARTY.txt"],
    }
    return manifest, [
        File("bin/premigrate", executable, 0o755),
        File("LICENSE", release.read("LICENSE")),
        File("THIRD-PARTY.txt", release.third_party),
    ]
