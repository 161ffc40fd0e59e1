# shellcheck shell=bash
# Puts what the tests need beside Rust into .tools/ (which git ignores), pinned. Sourced by test and .ci/*,
# from the root of the repository. Each function ends at once where its tool is there already.

BUF_VERSION=1.75.0
CARGO_DENY_VERSION=0.20.2

say() { printf '\n== %s\n' "$*"; }

# Makes sure that a command is there, if need be from Debian's packages: need COMMAND PACKAGE…
need() {
    local command=$1
    shift
    command -v "$command" >/dev/null && return
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        echo "$command is missing: install it (Debian: apt-get install $*)" >&2
        return 1
    fi
    echo "installing $* with apt-get"
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$@" >/dev/null
}

# Python with what tests/python/requirements.txt names: .tools/python/bin/python
install_python() {
    local stamp=.tools/python/requirements.txt
    cmp -s tests/python/requirements.txt "$stamp" && return
    need python3 python3 python3-venv || return
    if ! python3 -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))'; then
        echo "Python 3.10 or later with venv and ensurepip is needed (Debian: apt-get install python3-venv)" >&2
        return 1
    fi
    echo "installing tests/python/requirements.txt into .tools/python"
    rm -rf .tools/python
    python3 -m venv .tools/python &&
        .tools/python/bin/pip install --quiet --disable-pip-version-check -r tests/python/requirements.txt &&
        cp tests/python/requirements.txt "$stamp"
}

# Redis, which the tests start by themselves: no service is left running.
install_redis() {
    command -v redis-server >/dev/null && command -v redis-cli >/dev/null && return
    # A package that starts its service would do so with the port and the files of a real one.
    local policy=/usr/sbin/policy-rc.d status=0
    [ "$(id -u)" = 0 ] && [ ! -e "$policy" ] && printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod +x "$policy" ||
        policy=
    need redis-server redis-server || status=$?
    [ -z "$policy" ] || rm -f "$policy"
    return "$status"
}

# Buf, the checker of protos, as the function `buf`. The package's install script is not run: it only makes
# the start faster, and the binary is a package of its own.
install_buf() {
    local stamp=.tools/buf/version
    [ "$(cat "$stamp" 2>/dev/null)" = "$BUF_VERSION" ] && return
    need node nodejs && need npm npm || return
    echo "installing buf $BUF_VERSION into .tools/buf"
    rm -rf .tools/buf && mkdir -p .tools/buf && echo '{ "private": true }' >.tools/buf/package.json &&
        npm install --prefix .tools/buf --no-save --package-lock=false --ignore-scripts --no-audit --no-fund \
            --loglevel=error "@bufbuild/buf@$BUF_VERSION" >/dev/null &&
        echo "$BUF_VERSION" >"$stamp"
}

buf() { .tools/buf/node_modules/.bin/buf "$@"; }

# cargo-deny, as the function `cargo_deny`: the one on the machine if it is of the right version. Compiled
# without optimization, which takes about a minute.
install_cargo_deny() {
    [ "$(cargo_deny --version 2>/dev/null)" = "cargo-deny $CARGO_DENY_VERSION" ] && return
    echo "installing cargo-deny $CARGO_DENY_VERSION into .tools/cargo-deny"
    cargo install --quiet --locked --debug --root .tools/cargo-deny "cargo-deny@$CARGO_DENY_VERSION"
}

cargo_deny() {
    if [ -x .tools/cargo-deny/bin/cargo-deny ]; then
        .tools/cargo-deny/bin/cargo-deny "$@"
    else
        cargo-deny "$@"
    fi
}
