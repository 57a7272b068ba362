#!/bin/sh
# Installs premigrate @VERSION@: downloads the executable for this machine, compares it with the hash that stands below, and
# moves it to a folder.
#
#   sh install.sh [--yes] [--from URL] [FOLDER]
#
# FOLDER is ~/.local/bin if none is given. --from names a mirror of the release, such as file:///media/premigrate. If root
# pipes this script into a shell, --yes is required.
set -eu

downloads=@DOWNLOADS@
# System and processor, file, SHA-256.
executables='
@EXECUTABLES@
'

fail() {
    printf 'install.sh: %s\n' "$*" >&2
    exit 1
}

download() {
    if command -v curl >/dev/null; then
        curl --fail --silent --show-error --location --output "$2" "$1"
    elif command -v wget >/dev/null; then
        wget --quiet --output-document="$2" "$1"
    else
        fail "curl or wget is required"
    fi
}

sha256() {
    if command -v sha256sum >/dev/null; then
        sha256sum "$1"
    elif command -v shasum >/dev/null; then
        shasum -a 256 "$1"
    else
        openssl dgst -sha256 -r "$1"
    fi
}

# A function, so that of a script that was cut off in transit, nothing runs.
main() {
    folder=${HOME:-}/.local/bin yes=
    while [ $# -gt 0 ]; do
        case $1 in
            --yes) yes=1 ;;
            --from)
                [ $# -gt 1 ] || fail "--from needs a URL"
                downloads=$2
                shift
                ;;
            -*) fail "there is no option $1; the options are --yes and --from URL" ;;
            *) folder=$1 ;;
        esac
        shift
    done
    if [ "$(id -u)" = 0 ] && [ -z "$yes" ] && [ ! -f "$0" ]; then
        fail "root pipes this script into a shell; read it first, or add --yes: sh -s -- --yes"
    fi

    machine=$(uname -sm)
    found=$(printf '%s' "$executables" | grep "^$machine ") ||
        fail "this release has no executable for $machine"
    file=$(printf '%s' "$found" | cut -d ' ' -f 3)
    expected=$(printf '%s' "$found" | cut -d ' ' -f 4)

    mkdir -p "$folder"
    new=$folder/.premigrate.$$
    trap 'rm -f "$new"' EXIT
    trap 'exit 1' HUP INT TERM
    download "$downloads/$file" "$new" || fail "$downloads/$file could not be downloaded"
    actual=$(sha256 "$new" | cut -d ' ' -f 1)
    [ "$actual" = "$expected" ] ||
        fail "$downloads/$file has the SHA-256 $actual, not $expected; nothing was installed"
    chmod 755 "$new"
    mv -f "$new" "$folder/premigrate"
    printf 'premigrate @VERSION@ is now %s/premigrate\n' "$folder"
    case ":$PATH:" in
        *":$folder:"*) ;;
        *) printf 'To run it by its name, add %s to PATH.\n' "$folder" ;;
    esac
}

main "$@"
