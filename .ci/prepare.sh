#!/usr/bin/env bash
# Installs what a build (and the tests) need on Debian 12, only if it is missing. Asks nothing. Sourced by ./run and
# ./test: prepare_build and prepare_tests fail if something cannot be had; they set CARGO to a cargo of 1.95 or newer
# and SUDO to what makes a command root's.

CARGO_OLDEST=1.95

if [ "$(id -u)" -eq 0 ]; then SUDO=""; else SUDO="sudo --non-interactive"; fi

# Is this cargo there, and new enough?
new_enough() {
    local version
    version=$("$1" --version 2>/dev/null | awk '{print $2}') || return 1
    [ -n "$version" ] && [ "$(printf '%s\n' "$CARGO_OLDEST" "$version" | sort -V | head -n 1)" = "$CARGO_OLDEST" ]
}

# install PACKAGE...: those that are missing.
install_packages() {
    local missing=() package
    for package in "$@"; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
    done
    [ ${#missing[@]} -eq 0 ] && return 0
    echo "installing: ${missing[*]}"
    if [ -n "$SUDO" ] && ! $SUDO true 2>/dev/null; then
        echo "cannot become root to install them: run as root, or with a sudo that asks no password" >&2
        return 1
    fi
    $SUDO env DEBIAN_FRONTEND=noninteractive apt-get update -qq </dev/null || return
    $SUDO env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" </dev/null >/dev/null
}

prepare_build() {
    local candidate
    install_packages gcc libc6-dev make clang-19 libelf-dev zlib1g-dev pkg-config iproute2 iptables kmod || return
    CARGO=""
    for candidate in cargo "${HOME:-/root}/.cargo/bin/cargo" /usr/local/cargo/bin/cargo; do
        if new_enough "$candidate"; then
            CARGO=$candidate
            break
        fi
    done
    if [ -z "$CARGO" ]; then
        # Debian's newer Rust; it takes the place of Debian's cargo and rustc where those are installed.
        install_packages cargo-web rustc-web || return
        CARGO=cargo
        hash -r
        new_enough cargo || { echo "cargo $CARGO_OLDEST or newer is needed, and $(cargo --version) was found" >&2; return 1; }
    fi
    export CARGO
}

prepare_tests() {
    prepare_build || return
    install_packages docker.io busybox-static nftables systemd tar clamav-testfiles || return
    # rustfmt and clippy come with most toolchains; Debian has them apart.
    if ! "$CARGO" fmt --version >/dev/null 2>&1 || ! "$CARGO" clippy --version >/dev/null 2>&1; then
        install_packages rustfmt-web rust-web-clippy
    fi
}
