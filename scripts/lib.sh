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

# Whether the compiler on PATH has its own library for musl, which is a target of rustup.
has_musl() { [ -d "$(rustc --print target-libdir --target "$(musl_target)" 2>/dev/null)" ]; }

# cargo build of static executables: with rustup's target, else with Debian's compiler. Needs `scripts/setup rust static`.
cargo_build_static() {
    local target empty_unwinder linker
    target=$(musl_target)
    # OpenSSL is C, and is compiled for musl too.
    local -x "CC_${target//-/_}=musl-gcc"
    if has_musl; then
        cargo build --release --locked --target "$target" "$@"
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
        RUSTFLAGS="-C link-self-contained=no -C target-feature=+crt-static -C relocation-model=static -L native=$tools/lib" \
        /usr/bin/cargo build --release --locked --target "$target" \
        -Zbuild-std=std,panic_abort -Zbuild-std-features= "$@"
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
