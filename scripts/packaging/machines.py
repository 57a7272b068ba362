"""The machines that a release is for, by each name that others have for them. Run by itself, it prints the Rust targets
that are built on Linux."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Machine:
    # As in rustc and in the names of the archives.
    target: str
    # As in Node's process.platform and process.arch, and so in the names of the npm packages.
    system: str
    cpu: str
    # As in Debian and in container images.
    architecture: str
    # As `uname -sm` prints them.
    uname: tuple

    @property
    def executable(self):
        return f"premigrate-{self.system}-{self.architecture}"

    @property
    def nix(self):
        return f"{self.target.split('-')[0]}-{self.system}"

    @property
    def npm_package(self):
        return f"@premigrate/{self.system}-{self.cpu}"


LINUX = (
    Machine("x86_64-unknown-linux-musl", "linux", "x64", "amd64", ("Linux x86_64", "Linux amd64")),
    Machine("aarch64-unknown-linux-musl", "linux", "arm64", "arm64", ("Linux aarch64", "Linux arm64")),
)
# Built on a Mac, and taken from there if it was.
MAC = (
    Machine("aarch64-apple-darwin", "darwin", "arm64", "arm64", ("Darwin arm64",)),
    Machine("x86_64-apple-darwin", "darwin", "x64", "amd64", ("Darwin x86_64",)),
)

if __name__ == "__main__":
    for machine in LINUX:
        print(machine.target)
