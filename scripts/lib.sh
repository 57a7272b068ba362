# shellcheck shell=bash disable=SC2034
# The other scripts source this file: paths, messages, Debian packages, static builds, and the image engine that works.
# In the project, the scripts write only to target/ and node_modules/.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
tools=$root/target/tools
cargo_target=${CARGO_TARGET_DIR:-$root/target}
static=$root/target/static/premigrate
# Debian keeps pgbouncer and runc where an ordinary user's PATH does not look.
PATH=$tools/bin:$PATH:/usr/sbin:/sbin

say() { printf '\n==> %s\n' "$*" >&2; }

fail() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

have() { command -v "$1" >/dev/null; }

# Runs a command, and shows its output only if it fails.
quietly() {
    local log code=0
    log=$(mktemp)
    "$@" >"$log" 2>&1 || code=$?
    [ "$code" = 0 ] || cat "$log" >&2
    rm -f "$log"
    return "$code"
}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; elif have sudo; then sudo "$@"; else fail "needs root, or sudo, for: $*"; fi
}

install_packages() {
    have apt-get || fail "this is not Debian; please install: $*"
    say "installing $*"
    # Once: the lists of a fresh machine are empty, and those of an old one name files that are gone.
    [ -n "${lists_are_fresh:-}" ] || quietly as_root apt-get update
    lists_are_fresh=1
    quietly as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@"
}

# The directory of the newest PostgreSQL server; Debian keeps it out of PATH.
postgres_bin() {
    local newest
    newest=$(printf '%s\n' /usr/lib/postgresql/*/bin/postgres | sort -V | tail -n 1)
    if [ -x "$newest" ]; then dirname "$newest"; elif have postgres; then dirname "$(command -v postgres)"; fi
}

# The target of a static executable for this machine.
musl_target() { echo "$(uname -m)-unknown-linux-musl"; }

# Whether the compiler on PATH has its own library for this target, which rustup installs.
has_target() { [ -d "$(rustc --print target-libdir --target "$1" 2>/dev/null)" ]; }
has_musl() { has_target "$(musl_target)"; }

# The static executable for a target. That for this machine is $static.
static_of() { if [ "$1" = "$(musl_target)" ]; then echo "$static"; else echo "$root/target/static/$1/premigrate"; fi; }

# cargo build of static executables for a target: with rustup's library; for this machine also with Debian's compiler.
# Needs `scripts/setup rust static`, and `cross` for another machine. What is built depends on neither the home nor the
# project's folder.
cargo_build_static() {
    local target=$1 variable=${1//-/_} empty_unwinder linker
    shift
    # OpenSSL would otherwise contain the time, and the folder that it is built in.
    local -x SOURCE_DATE_EPOCH=0
    local -x GNUMAKEFLAGS="ENGINESDIR=/usr/local/lib/engines-3 MODULESDIR=/usr/local/lib/ossl-modules"
    # The names of source files, in the messages of panics. Those of the project are relative.
    local paths=--remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/cargo
    if [ "$target" != "$(musl_target)" ]; then
        # zig has musl's headers for every machine, and Rust its library.
        local -x "CC_$variable=$target-cc" "AR_$variable=$target-ar" "RANLIB_$variable=$target-ranlib"
        local -x "CARGO_TARGET_$(tr a-z- A-Z_ <<<"$target")_LINKER=rust-lld"
    else
        # OpenSSL is C, and is compiled for musl too.
        local -x "CC_$variable=musl-gcc"
    fi
    if has_target "$target"; then
        cargo build --release --locked --target "$target" --config "target.$target.rustflags='$paths'" "$@"
        return
    fi
    # Debian's compiler has no library for musl, but brings its source, and RUSTC_BOOTSTRAP lets cargo compile it.
    # A panic aborts without a backtrace, so nothing ever unwinds, and an empty library can stand for the unwinder. With
    # musl-gcc, a position-independent executable would be dynamically linked.
    empty_unwinder=$tools/lib/libunwind.a
    mkdir -p "$tools/lib"
    [ -f "$empty_unwinder" ] || ar rc "$empty_unwinder"
    linker=CARGO_TARGET_$(tr a-z- A-Z_ <<<"$target")_LINKER
    env RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 "$linker=musl-gcc" \
        RUSTFLAGS="-C link-self-contained=no -C target-feature=+crt-static -C relocation-model=static -L native=$tools/lib $paths" \
        /usr/bin/cargo build --release --locked --target "$target" \
        -Zbuild-std=std,panic_abort -Zbuild-std-features= "$@"
}

# FOLDER VERSION: a clone of the present commit in which this version is dated and tagged, as it is for a release; each time
# the same commit.
clone_for_release() {
    git clone --quiet "$root" "$1"
    (
        cd "$1" || exit
        git config user.name release
        git config user.email release@git.invalid
        time=$(git log -1 --format=%cI)
        sed -i "s/^## \[$2\] - .*/## [$2] - ${time%%T*}/" CHANGELOG.md
        GIT_AUTHOR_DATE=$time GIT_COMMITTER_DATE=$time git commit --quiet --all --allow-empty --message "Release $2"
        git tag --force "v$2" >/dev/null
    )
}

# ENGINE: sets container_command and container_options, to run containers that are locked down as far as possible, and
# build_options, to build images.
container_words() {
    container_command=("$1") build_options=()
    container_options=(--rm --pull never --network host --env DATABASE_URL
        --read-only --cap-drop ALL --security-opt no-new-privileges --user 65534:65534)
    if [ "$1" = podman ]; then
        # Inside a container, such as a CI job's, it may not raise limits.
        ! have runc || container_command+=(--runtime runc)
        container_options+=(--read-only-tmpfs=false --ulimit nofile=1024:1024 --ulimit nproc=1000:1000)
    fi
    # Nor make namespaces to build in. Only Docker's format has health checks.
    [ "$1" = docker ] || build_options=(--isolation chroot --format docker)
}

# The first engine that works; a docker client without an engine does not.
image_engine() {
    local engine
    for engine in docker podman buildah; do
        if have "$engine" && "$engine" info >/dev/null 2>&1; then
            echo "$engine"
            return
        fi
    done
}
