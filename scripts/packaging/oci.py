"""Container images, made without an engine: one layer, with one file.

A registry gets an OCI layout for all machines, in which the layers are compressed. `docker load` reads only docker's own
description, and layers that are not; so the tar of a single machine is both, a layout and what `docker save` writes."""

import json
from datetime import UTC, datetime

from archive import File, gzip, sha256, tar

LAYOUT = File("oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
NAME = "org.opencontainers.image.ref.name"


def layout(release, executables):
    """For `skopeo copy --all`, which pushes it."""
    blobs, manifests = {}, []
    for machine, executable in executables:
        manifest = _image(blobs, release, machine, executable, compress=True)
        manifests.append(manifest | {"platform": _platform(machine)})
    index = _document({"mediaType": INDEX, "manifests": manifests, "annotations": _annotations(release)})
    top = _add(blobs, index, INDEX) | {"annotations": {NAME: release.version}}
    files = [*_files(blobs), File("index.json", _document({"mediaType": INDEX, "manifests": [top]})), LAYOUT]
    return tar(files, release.time)


def image(release, machine, executable):
    """For `docker load`, `podman load`, and `ctr images import`."""
    blobs = {}
    manifest = _image(blobs, release, machine, executable, compress=False)
    name = f"premigrate:{release.version}"
    names = {"io.containerd.image.name": f"docker.io/library/{name}", NAME: release.version}
    index = {"mediaType": INDEX, "manifests": [manifest | {"annotations": names, "platform": _platform(machine)}]}
    content = json.loads(blobs[manifest["digest"]])
    docker = [
        {
            "Config": _path(content["config"]["digest"]),
            "RepoTags": [name],
            "Layers": [_path(layer["digest"]) for layer in content["layers"]],
        }
    ]
    described = [
        File("index.json", _document(index)),
        File("manifest.json", json.dumps(docker).encode()),
        LAYOUT,
    ]
    return tar([*_files(blobs), *described], release.time)


def _image(blobs, release, machine, executable, compress):
    """Adds its blobs, and returns the descriptor of its manifest."""
    plain = tar([File("premigrate", executable, 0o755)], release.time)
    config = {
        "created": _created(release),
        "architecture": machine.architecture,
        "os": machine.system,
        "config": {"User": "65534:65534", "Entrypoint": ["/premigrate"], "Labels": _annotations(release)},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{sha256(plain)}"]},
        "history": [{"created": _created(release), "created_by": "COPY premigrate /premigrate"}],
    }
    layer = _add(blobs, gzip(plain), f"{LAYER}+gzip") if compress else _add(blobs, plain, LAYER)
    manifest = {
        "mediaType": MANIFEST,
        "config": _add(blobs, json.dumps(config).encode(), CONFIG),
        "layers": [layer],
        "annotations": _annotations(release),
    }
    return _add(blobs, _document(manifest), MANIFEST)


def _annotations(release):
    values = {
        "title": "premigrate",
        "description": release.description,
        "version": release.version,
        "revision": release.commit,
        "source": release.repository,
        "documentation": f"{release.repository}#readme",
        "licenses": "MIT",
        "created": _created(release),
    }
    return {f"org.opencontainers.image.{name}": value for name, value in values.items()}


def _created(release):
    return datetime.fromtimestamp(release.time, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _platform(machine):
    return {"architecture": machine.architecture, "os": machine.system}


def _document(fields):
    return json.dumps({"schemaVersion": 2} | fields).encode()


def _add(blobs, content, media_type):
    """Adds a blob, and returns its descriptor."""
    digest = f"sha256:{sha256(content)}"
    blobs[digest] = content
    return {"mediaType": media_type, "digest": digest, "size": len(content)}


def _path(digest):
    return "blobs/" + digest.replace(":", "/")


def _files(blobs):
    return [File(_path(digest), content) for digest, content in sorted(blobs.items())]
