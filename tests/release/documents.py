"""Checks what a release says of itself: documents.py PROJECT RELEASE VERSION."""

import hashlib
import json
import re
import sys
import tarfile
import tomllib
from pathlib import Path

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

project, release, version = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
sums = dict(reversed(line.split("  ")) for line in (release / "SHA256SUMS").read_text().splitlines())


def equal(actual, expected, what):
    assert actual == expected, f"{what}: {actual!r} is not {expected!r}"


# The bill of materials.
text = (release / f"premigrate-{version}.cdx.json").read_text()
problem = JsonStrictValidator(SchemaVersion.V1_5).validate_str(text)
assert problem is None, problem
bill = json.loads(text)
parts = {part["name"]: part for part in bill["components"]}
lock = tomllib.loads((project / "Cargo.lock").read_text())["package"]
for crate in lock:
    if crate["name"] != "premigrate":
        same = [it for it in bill["components"] if (it["name"], it["version"]) == (crate["name"], crate["version"])]
        equal(len(same), 1, crate["name"])
        equal(same[0]["hashes"][0]["content"], crate["checksum"], crate["name"])
        assert same[0]["licenses"][0]["expression"], crate["name"]
openssl_src = next(crate["version"] for crate in lock if crate["name"] == "openssl-src")
equal(parts["openssl"]["version"], openssl_src.split("+")[1], "OpenSSL")
for name, shape in {"musl": r"1\.\d+\.\d+", "rust-std": r"1\.\d+\.\d+", "mozilla-roots": r"\d{4}-\d\d-\d\d"}.items():
    assert re.fullmatch(shape, parts[name]["version"]), parts[name]
equal(parts["tokio-postgres"]["scope"], "required", "a crate that is linked")
equal(parts["expect-test"]["scope"], "excluded", "a crate of the tests")
equal(parts["windows-sys"]["scope"], "excluded", "a crate for other systems")

# The licences: of each crate that is linked, and of what else is.
licences = (release / "THIRD-PARTY.txt").read_text()
for part in bill["components"]:
    if part["scope"] == "required" and part["type"] == "library":
        assert f"\n{part['name']} {part['version']} (" in licences, part["name"]
for words in ["Rich Felker", "Rust Project", "LLVM Exceptions", "openssl 3", "Community Data License Agreement"]:
    assert words in licences, words

# The provenance has every file but itself, SHA256SUMS and the signature.
provenance = json.loads((release / "provenance.json").read_text())
subjects = {subject["name"]: subject["digest"]["sha256"] for subject in provenance["subject"]}
equal(subjects, {name: value for name, value in sums.items() if name != "provenance.json"}, "subjects")

# Whoever downloads finds the files, with their hashes.
script = (release / "install.sh").read_text()
formula = (release / "premigrate.rb").read_text()
for machine in ("linux-amd64", "linux-arm64", "darwin-arm64"):
    assert f" premigrate-{machine} {sums[f'premigrate-{machine}']}\n" in script, machine
for url, value in re.findall(r'url "(.*)"\n\s+sha256 "(.*)"', formula):
    equal(sums[url.rsplit("/", 1)[1]], value, url)
equal(len(re.findall("url", formula)), 3, "URLs of the formula")
binstall = tomllib.loads((project / "Cargo.toml").read_text())["package"]["metadata"]["binstall"]
for target in ("x86_64-unknown-linux-musl", "aarch64-unknown-linux-musl", "aarch64-apple-darwin"):

    def filled(template):
        values = {"repo": "", "name": "premigrate", "version": version, "target": target, "binary-ext": ""}
        return re.sub(r"\{ ?([a-z-]+) ?\}", lambda found: values[found[1]], template)

    archive = release / filled(binstall["pkg-url"]).rsplit("/", 1)[1]
    with tarfile.open(archive) as files:
        assert filled(binstall["bin-dir"]) in files.getnames(), files.getnames()
equal(binstall["pkg-fmt"], "tgz", "the format for binstall")

# npm: exactly the machines of this release, each with an executable; no scripts.
packages = []
for path in sorted((release / "npm").iterdir()):
    with tarfile.open(path) as files:
        packages.append(json.load(files.extractfile("package/package.json")))
        for banned in ("scripts", "libc", "dependencies"):
            assert banned not in packages[-1], f"{path.name}: {banned}"
*platforms, main = packages
machines = {package["name"]: version for package in platforms}
equal(sorted(machines), ["@premigrate/darwin-arm64", "@premigrate/linux-arm64", "@premigrate/linux-x64"], "packages")
equal(main["optionalDependencies"], machines, "optional dependencies")
equal({package["version"] for package in packages}, {version}, "versions")
assert "os" not in main and "cpu" not in main, main

# The instructions name every file that is uploaded, and no other.
instructions = (release / "RELEASE.md").read_text()
for name in [*sums, "SHA256SUMS"]:
    if not name.startswith("action/"):
        assert name in instructions, name
print(f"{len(sums)} files; {len(parts)} parts, {sum(it['scope'] == 'required' for it in parts.values())} of them linked")
