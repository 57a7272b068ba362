"""Makes all files of a release from its executables. scripts/release runs this.

    release.py VERSION REPOSITORY STATIC_LIBC EXECUTABLES OUTPUT

EXECUTABLES is a folder with a file premigrate-TARGET for each machine; those for Linux must be there."""

import json
import os
import re
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import archive
import contents
import debian
import machines
import npm
import oci
from archive import File

ROOT = Path(__file__).parents[2]


@dataclass
class Release:
    version: str
    repository: str
    # Of the commit, as the time of everything in the release.
    time: int
    commit: str
    help: str
    third_party: bytes = b""

    sha256 = staticmethod(archive.sha256)

    @staticmethod
    def read(path):
        return (ROOT / path).read_bytes()

    @staticmethod
    def packaging(path):
        return (Path(__file__).parent / path).read_bytes()

    @cached_property
    def cargo(self):
        return tomllib.loads(self.read("Cargo.toml").decode())["package"]

    @property
    def description(self):
        return self.cargo["description"]

    @property
    def downloads(self):
        return f"{self.repository}/releases/download/v{self.version}"

    @property
    def owner_and_name(self):
        """As in OWNER/premigrate."""
        return "/".join(self.repository.split("/")[3:])

    @property
    def manual(self):
        """A manual page: the help, as it is."""
        text = self.help.replace("\\", "\\e").replace("-", "\\-")
        lines = (f"\\&{line}" if line.startswith((".", "'")) else line for line in text.splitlines())
        head = f'.TH PREMIGRATE 1 "" "premigrate {self.version}"\n.SH NAME\npremigrate \\- {self.description}\n'
        tail = f".SH SEE ALSO\n{self.repository}#readme\n"
        return (f"{head}.SH DESCRIPTION\n.nf\n" + "\n".join(lines) + f"\n.fi\n{tail}").encode()

    @property
    def completions(self):
        """For bash: the words of the help that begin a line."""
        words = re.findall(r"^  ([a-z]+|--[a-z-]+)", self.help, re.MULTILINE)
        return f'complete -o default -W "{" ".join(words)} --version" premigrate\n'.encode()

    def filled(self, path, **values):
        """A template with these values in place of @NAME@."""
        values |= {
            "version": self.version,
            "repository": self.repository,
            "downloads": self.downloads,
            "description": self.description,
            "owner_and_name": self.owner_and_name,
            "owner": self.owner_and_name.split("/")[0],
        }
        text = self.packaging(f"templates/{path}").decode()
        return re.sub("@([A-Z_]+)@", lambda found: values[found[1].lower()], text).encode()


def main(version, repository, static_libc, executables_folder, output):
    executables = list(_executables(Path(executables_folder)))
    release = Release(
        version,
        repository,
        int(os.environ["SOURCE_DATE_EPOCH"]),
        _git("rev-parse", "HEAD"),
        _help(Path(executables_folder)),
    )
    parts = contents.parts(ROOT, [machine.target for machine, _ in executables], static_libc)
    release.third_party = contents.third_party(parts)

    files = list(_for_machines(release, executables))
    bill = contents.bill_of_materials(release, executables, parts)
    files.append(File(f"premigrate-{version}.cdx.json", _json(bill)))
    files.append(File("THIRD-PARTY.txt", release.third_party))
    files.extend(_for_installers(release, files))
    files.append(File("RELEASE.md", _instructions(release, files)))
    files.append(File("provenance.json", _json(_provenance(release, files))))
    sums = "".join(f"{archive.sha256(file.content)}  {file.path}\n" for file in sorted(files, key=lambda it: it.path))
    files.append(File("SHA256SUMS", sums.encode()))
    for file in files:
        path = Path(output, file.path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file.content)
        path.chmod(file.mode)


def _executables(folder):
    for machine in machines.LINUX + machines.MAC:
        path = folder / f"premigrate-{machine.target}"
        if machine in machines.LINUX or path.exists():
            yield machine, path.read_bytes()


def _help(folder):
    """Of the executable for the machine that this is."""
    here = f"{os.uname().machine}-unknown-linux-musl"
    command = [folder / f"premigrate-{here}", "--help"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _git(*words):
    return subprocess.run(["git", *words], cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()


def _json(value):
    return json.dumps(value, indent=2).encode() + b"\n"


def _for_machines(release, executables):
    version = release.version
    for machine, executable in executables:
        yield File(machine.executable, executable, 0o755)
        yield File(f"premigrate-{version}-{machine.target}.tar.gz", _tar_gz(release, machine, executable))
        if machine in machines.LINUX:
            name = f"premigrate_{version.replace('-', '~')}_{machine.architecture}.deb"
            yield File(name, debian.package(release, machine, executable))
            name = f"premigrate-{version}-{machine.system}-{machine.architecture}-image.tar"
            yield File(name, oci.image(release, machine, executable))
    for_linux = [(machine, executable) for machine, executable in executables if machine in machines.LINUX]
    yield File(f"premigrate-{version}-oci.tar", oci.layout(release, for_linux))
    for name, content in npm.packages(release, executables):
        yield File(f"npm/{name}", content)


def _tar_gz(release, machine, executable):
    folder = f"premigrate-{release.version}-{machine.target}"
    files = [
        File("LICENSE", release.read("LICENSE")),
        File("README.md", release.read("README.md")),
        File("THIRD-PARTY.txt", release.third_party),
        File("completions/premigrate.bash", release.completions),
        File("man/premigrate.1", release.manual),
        File("premigrate", executable, 0o755),
    ]
    entries = [File(f"{folder}/{file.path}", file.content, file.mode) for file in files]
    return archive.gzip(archive.tar(entries, release.time))


def _for_installers(release, files):
    """What downloads one of the files, and knows their hashes."""
    sums = {file.path: archive.sha256(file.content) for file in files}
    everywhere = [machine for machine in machines.LINUX + machines.MAC if machine.executable in sums]
    lines = [f"{name} {it.executable} {sums[it.executable]}" for it in everywhere for name in it.uname]
    script = release.filled("install.sh", executables="\n".join(lines))
    yield File("install.sh", script, 0o755)

    yield File("premigrate.rb", release.filled("premigrate.rb", machines=_formula(release, everywhere, sums)))

    yield File("flake.nix", release.filled("flake.nix", archives=_archives(release, everywhere, sums)))

    yield File("action/action.yml", release.filled("action/action.yml"))
    yield File("action/README.md", release.filled("action/README.md"))
    yield File("action/install.sh", script, 0o755)


def _formula(release, everywhere, sums):
    """The part of the Homebrew formula that is for systems and processors."""
    lines = []
    for system in ("linux", "darwin"):
        ours = [machine for machine in everywhere if machine.system == system]
        if not ours:
            continue
        lines.append(f"  on_{'macos' if system == 'darwin' else system} do")
        for machine in ours:
            name = f"premigrate-{release.version}-{machine.target}.tar.gz"
            lines += [
                f"    on_{'arm' if machine.cpu == 'arm64' else 'intel'} do",
                f'      url "{release.downloads}/{name}"',
                f'      sha256 "{sums[name]}"',
                "    end",
            ]
        lines.append("  end")
    return "\n".join(lines)


def _archives(release, everywhere, sums):
    """The part of the flake that is for systems and processors, by the names that Nix has for them."""
    lines = []
    for machine in everywhere:
        name = f"premigrate-{release.version}-{machine.target}.tar.gz"
        lines += [
            f"        {machine.nix} = {{",
            f'          url = "{release.downloads}/{name}";',
            f'          sha256 = "{sums[name]}";',
            "        };",
        ]
    return "\n".join(lines)


def _instructions(release, files):
    names = sorted(file.path for file in files)
    uploads = [name for name in names if "/" not in name] + ["provenance.json", "RELEASE.md", "SHA256SUMS"]
    return release.filled(
        "RELEASE.md",
        uploads=" \\\n    ".join(uploads),
        npm="\n".join(f"npm publish {name}" for name in names if name.startswith("npm/")),
        minor=".".join(release.version.split(".")[:2]),
    )


def _provenance(release, files):
    """An in-toto statement with a SLSA predicate. It is not signed here."""
    lock = archive.sha256(release.read("Cargo.lock"))
    rustc = subprocess.run(["rustc", "-vV"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    commit_hash = re.search("commit-hash: (.+)", rustc)[1]
    source = f"git+{release.repository}@refs/tags/v{release.version}"
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": file.path, "digest": {"sha256": archive.sha256(file.content)}} for file in files],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": f"{release.repository}/blob/v{release.version}/scripts/release",
                "externalParameters": {"version": release.version, "source": source},
                "resolvedDependencies": [
                    {"uri": source, "digest": {"gitCommit": release.commit}},
                    {"uri": f"{source}#Cargo.lock", "digest": {"sha256": lock}},
                    {"uri": f"pkg:generic/rustc@{rustc.split()[1]}", "digest": {"gitCommit": commit_hash}},
                ],
            },
            "runDetails": {"builder": {"id": f"{release.repository}/blob/v{release.version}/scripts/release"}},
        },
    }


if __name__ == "__main__":
    main(*sys.argv[1:])
