"""Evaluates the flake of a release without a network, and installs with it for each system that it names:
flake.py RELEASE. A few words stand for what the flake takes from nixpkgs."""

import hashlib
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

release = Path(sys.argv[1]).resolve()
NIXPKGS = """{ legacyPackages = builtins.listToAttrs (map (name: { inherit name; value = {
  fetchurl = words: words; stdenvNoCC.mkDerivation = words: words; lib.licenses.mit = "MIT";
}; }) [ "x86_64-linux" "aarch64-linux" "x86_64-darwin" "aarch64-darwin" ]); }"""
PACKAGES = f"((import {release}/flake.nix).outputs {{ self = {{ }}; nixpkgs = {NIXPKGS}; }}).packages"

command = ["nix-instantiate", "--eval", "--strict", "--json", "--store", "dummy://", "--expr", PACKAGES]
packages = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
for system, package in packages.items():
    derivation = package["default"]
    archive = release / derivation["src"]["url"].rsplit("/", 1)[1]
    assert hashlib.sha256(archive.read_bytes()).hexdigest() == derivation["src"]["sha256"], system
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "out")
        with tarfile.open(archive) as files:
            files.extractall(folder)
        # Nix goes into the only folder of an archive.
        (inside,) = (it for it in Path(folder).iterdir())
        environment = os.environ | {"out": str(out)}
        subprocess.run(["bash", "-euc", derivation["installPhase"]], cwd=inside, env=environment, check=True)
        assert (out / "bin/premigrate").read_bytes() == (inside / "premigrate").read_bytes(), system
        installed = sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())
    print(f"{system}: {' '.join(installed)}")
assert set(packages) >= {"x86_64-linux", "aarch64-linux"}, packages.keys()
