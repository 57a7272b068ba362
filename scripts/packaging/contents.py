"""What the executables contain: crates, and what no crate says of itself. As a CycloneDX bill of materials, and as a text
with all licences."""

import json
import re
import subprocess
import tomllib
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

LICENCES = Path(__file__).parent / "licenses"


@dataclass(frozen=True)
class Part:
    name: str
    version: str
    # A package URL, by which scanners know it.
    purl: str
    licence: str
    texts: tuple = ()
    sha256: str = ""
    # Whether it is in the executables. Else it only builds or tests them, or is for other systems.
    linked: bool = True
    kind: str = "library"
    properties: dict = field(default_factory=dict)
    needs: tuple = ()


def parts(root, targets, static_libc):
    """All parts of the executables for these targets, crates first. `static_libc` is the C library that is linked."""
    crates = _crates(root, targets)
    by_name = {crate.name: crate for crate in crates}
    openssl = by_name["openssl-src"]
    roots = by_name["webpki-root-certs"]
    rust = dict(line.split(": ", 1) for line in _output(root, "rustc", "-vV").splitlines()[1:])
    openssl_version = openssl.version.split("+")[1]
    published = re.search(r"Mozilla's roots of (\S+)", (root / "src/postgres/tls/roots.rs").read_text())[1]
    return [
        *crates,
        Part(
            "openssl",
            openssl_version,
            f"pkg:generic/openssl@{openssl_version}",
            "Apache-2.0",
            texts=((_folder_of(root, "openssl-src") / "openssl/LICENSE.txt").read_text(),),
            properties={"premigrate:source": f"the crate openssl-src {openssl.version}"},
        ),
        Part(
            "musl",
            musl_version(static_libc),
            f"pkg:generic/musl@{musl_version(static_libc)}",
            "MIT",
            texts=((LICENCES / "musl.txt").read_text(),),
        ),
        Part(
            "rust-std",
            rust["release"],
            f"pkg:generic/rust@{rust['release']}",
            "(MIT OR Apache-2.0) AND Apache-2.0 WITH LLVM-exception",
            texts=((LICENCES / "rust.txt").read_text(),),
            properties={"premigrate:commit": rust["commit-hash"], "premigrate:llvm": rust["LLVM version"]},
        ),
        Part(
            "mozilla-roots",
            published,
            f"pkg:generic/mozilla-roots@{published}",
            "CDLA-Permissive-2.0",
            kind="data",
            properties={"premigrate:source": f"the crate webpki-root-certs {roots.version}"},
        ),
    ]


def musl_version(static_libc):
    """musl's archive has its version as a string of its own."""
    members = subprocess.run(["ar", "p", static_libc, "version.lo"], check=True, capture_output=True).stdout
    return re.search(rb"\0?(\d+\.\d+\.\d+)\0", members)[1].decode()


def _output(root, *command):
    return subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout


def _metadata(root, *options):
    return json.loads(_output(root, "cargo", "metadata", "--locked", "--format-version", "1", *options))


def _folder_of(root, name):
    crates = _metadata(root)["packages"]
    return next(Path(crate["manifest_path"]).parent for crate in crates if crate["name"] == name)


def _crates(root, targets):
    linked = set().union(*(_linked(root, target) for target in targets))
    lock = tomllib.loads((root / "Cargo.lock").read_text())["package"]
    sums = {(crate["name"], crate["version"]): crate.get("checksum", "") for crate in lock}
    metadata = _metadata(root)
    needs = {node["id"]: node["dependencies"] for node in metadata["resolve"]["nodes"]}
    purls = {crate["id"]: _purl(crate) for crate in metadata["packages"]}
    own = metadata["resolve"]["root"]
    return [
        Part(
            crate["name"],
            crate["version"],
            _purl(crate),
            (crate["license"] or "").replace("/", " OR "),
            texts=_licence_texts(crate) if crate["id"] in linked else (),
            sha256=sums[crate["name"], crate["version"]],
            linked=crate["id"] in linked,
            needs=tuple(sorted(purls[other] for other in needs[crate["id"]])),
        )
        for crate in sorted(metadata["packages"], key=lambda crate: (crate["name"], crate["version"]))
        if crate["id"] != own
    ]


def _linked(root, target):
    """The crates whose code is in an executable for this target."""
    metadata = _metadata(root, "--filter-platform", target)
    macros = {
        crate["id"] for crate in metadata["packages"] if any("proc-macro" in it["kind"] for it in crate["targets"])
    }
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    found, open_ids = set(), [metadata["resolve"]["root"]]
    while open_ids:
        node = open_ids.pop()
        for other in nodes[node]["deps"]:
            is_normal = any(kind["kind"] is None for kind in other["dep_kinds"])
            if is_normal and other["pkg"] not in found | macros:
                found.add(other["pkg"])
                open_ids.append(other["pkg"])
    return found


def _purl(crate):
    return f"pkg:cargo/{crate['name']}@{crate['version'].replace('+', '%2B')}"


def _licence_texts(crate):
    folder = Path(crate["manifest_path"]).parent
    is_licence = re.compile("(licen[cs]e|copying|notice|unlicense)", re.IGNORECASE).match
    texts = tuple(
        path.read_text().strip() + "\n" for path in sorted(folder.iterdir()) if path.is_file() and is_licence(path.name)
    )
    if not texts and "Apache-2.0" in crate["license"]:
        # Which has no line of its own for who holds the copyright.
        return ((LICENCES / "Apache-2.0.txt").read_text(),)
    if not texts:
        raise SystemExit(f"release: {crate['name']} {crate['version']} has no licence text in {folder}")
    return texts


def bill_of_materials(release, executables, all_parts):
    own = f"pkg:cargo/premigrate@{release.version}"
    component = {
        "type": "application",
        "bom-ref": own,
        "name": "premigrate",
        "version": release.version,
        "description": release.description,
        "licenses": [{"license": {"id": "MIT"}}],
        "purl": own,
        "externalReferences": [{"type": "vcs", "url": release.repository}],
        "properties": [
            {"name": f"premigrate:sha256:{machine.executable}", "value": release.sha256(executable)}
            for machine, executable in executables
        ],
    }
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.5.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, f'{release.repository}@{release.commit}')}",
        "version": 1,
        "metadata": {
            "timestamp": datetime.fromtimestamp(release.time, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "component": component,
        },
        "components": [_component(part) for part in all_parts],
        "dependencies": [
            {"ref": own, "dependsOn": [part.purl for part in all_parts if part.linked]},
            *({"ref": part.purl, "dependsOn": list(part.needs)} for part in all_parts),
        ],
    }


def _component(part):
    component = {
        "type": part.kind,
        "bom-ref": part.purl,
        "name": part.name,
        "version": part.version,
        "scope": "required" if part.linked else "excluded",
        "licenses": [{"expression": part.licence}],
        "purl": part.purl,
    }
    if part.sha256:
        component["hashes"] = [{"alg": "SHA-256", "content": part.sha256}]
    if part.properties:
        component["properties"] = [{"name": name, "value": value} for name, value in part.properties.items()]
    return component


def third_party(all_parts):
    """Each text once, under the names of the parts that it is for."""
    users = {}
    for part in all_parts:
        for text in part.texts:
            users.setdefault(text, []).append(f"{part.name} {part.version} ({part.licence})")
    head = "premigrate is under the MIT licence (LICENSE). Its executables contain the following, under these licences.\n"
    rule = "=" * 80
    sections = (f"{rule}\n" + "\n".join(names) + f"\n{rule}\n\n{text}" for text, names in users.items())
    return "\n".join([head, *sections]).encode()
