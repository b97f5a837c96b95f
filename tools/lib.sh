# shellcheck shell=bash
# Shared by the programs in tools/: what they need on a machine, found or installed, each step told in one line.
# Sourced by bash with `set -euo pipefail`; ROOT is the checkout. Made for Debian 12 or later.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
VENV=$ROOT/.venv
# Administrators' tools live in sbin, which neither sudo nor a minimal CI environment promises to search.
export PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
export PYTHONNOUSERSITE=1 PIP_DISABLE_PIP_VERSION_CHECK=1
unset PYTHONPATH # what is tested must be what is installed

if [ -t 1 ]; then BOLD=$'\e[1m' RED=$'\e[31m' GREEN=$'\e[32m' OFF=$'\e[0m'; else BOLD='' RED='' GREEN='' OFF=''; fi

say() { printf '%s==>%s %s\n' "$BOLD" "$OFF" "$*"; }

die() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

require_root() {
    [ "$(id -u)" -eq 0 ] || die "needs root to make namespaces and interfaces; run: sudo $0 $*"
}

require_tun() {
    [ -c /dev/net/tun ] || modprobe tun 2>/dev/null || true
    [ -c /dev/net/tun ] || die "/dev/net/tun is missing: this kernel or container does not offer TAP devices"
}

# run_logged LOG COMMAND...: quiet while all is well, the end of the log when it is not.
run_logged() {
    local log=$1
    shift
    "$@" >"$log" 2>&1 </dev/null && return
    tail -n 30 "$log" >&2
    return 1
}

# apt_install PACKAGE...: with a fresh index if there is none, or if the one at hand is too old to serve. A new machine may
# still be busy with packages of its own.
apt_install() {
    command -v apt-get >/dev/null || die "please install: $* (no apt-get here to do it)"
    [ "$(id -u)" -eq 0 ] || die "please install: $* (sudo apt-get install $*)"
    local log
    log=$(mktemp)
    export DEBIAN_FRONTEND=noninteractive
    say "installing Debian packages: $*"
    forbid_services
    trap allow_services EXIT
    if ! compgen -G '/var/lib/apt/lists/*_Packages*' >/dev/null ||
        ! apt-get install -o DPkg::Lock::Timeout=300 -y -q --no-install-recommends "$@" >"$log" 2>&1 </dev/null; then
        say "refreshing the package index (apt-get update)"
        run_logged "$log" apt-get update -q || die "apt-get update failed"
        run_logged "$log" apt-get install -o DPkg::Lock::Timeout=300 -y -q --no-install-recommends "$@" || die "apt-get install failed"
    fi
    rm -f "$log"
    allow_services
}

# forbid_services, allow_services: programs are wanted, not the servers their packages start (invoke-rc.d's policy-rc.d).
POLICY=/usr/sbin/policy-rc.d
forbid_services() {
    [ -e "$POLICY" ] && return
    printf '#!/bin/sh\n# of natgw, while it installs packages\nexit 101\n' >"$POLICY" && chmod 755 "$POLICY"
}
allow_services() { if grep -qs 'of natgw' "$POLICY"; then rm -f "$POLICY"; fi; }

# need_programs PROGRAM:PACKAGE...: installs the packages of those programs that are missing.
need_programs() {
    local pair missing=()
    for pair in "$@"; do
        command -v "${pair%%:*}" >/dev/null || missing+=("${pair#*:}")
    done
    [ ${#missing[@]} -eq 0 ] || apt_install "${missing[@]}"
}

# Whether the interpreter is new enough; with "venv", whether it can make a virtual environment as well (Debian
# packs ensurepip apart).
python_can() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || return
    [ "${2-}" != venv ] || "$1" -c 'import ensurepip, venv' 2>/dev/null
}

# The distribution's own is preferred: it is compiled with profile-guided optimization, which one that was built from source
# often is not (docs/decisions/0033-the-distributions-python.md).
find_python() {
    local python
    for python in /usr/bin/python3 python3 python3.13 python3.12 python3.11; do
        if python_can "$python" venv; then
            command -v "$python"
            return
        fi
    done
    return 1
}

# make_venv [EXTRA...]: natgw in development mode with these extras, in .venv of the checkout. A stamp for each of them,
# made of what the install depends on, spares the work when nothing has changed.
make_venv() {
    local wanted extra stale='' list=''
    [ $# -eq 0 ] || list="[$(IFS=, && echo "$*")]"
    # An environment does not survive being moved: its programs name its first place. Without pip, its making was interrupted.
    if ! python_can "$VENV/bin/python" || [ ! -e "$VENV/bin/pip" ] || ! grep -qF "$VENV" "$VENV/pyvenv.cfg"; then
        new_venv
    fi
    wanted=$(cat "$ROOT/setup.cfg" "$ROOT/natgw/__init__.py" | sha256sum)
    for extra in itself "$@"; do
        [ "$(cat "$VENV/installed-$extra" 2>/dev/null)" = "$wanted" ] || stale=yes
    done
    if [ -n "$stale" ] || ! "$VENV/bin/python" -I -c 'import natgw' 2>/dev/null; then
        say "installing natgw and its Python packages${*:+ (extras: $*)}"
        run_logged "$VENV/pip.log" "$VENV/bin/python" -m pip install -e "$ROOT$list" || die "pip install failed"
        for extra in itself "$@"; do
            echo "$wanted" >"$VENV/installed-$extra"
        done
    fi
    compile_natgw
    export PATH=$VENV/bin:$PATH
}

# Once, by the owner of the checkout: where PYTHONDONTWRITEBYTECODE is set, each start of natgw would compile all of it again.
compile_natgw() {
    local owner=()
    [ "$(id -u)" -ne 0 ] || owner=(setpriv --reuid "$(stat -c %u "$ROOT")" --regid "$(stat -c %g "$ROOT")" --clear-groups)
    "${owner[@]}" "$VENV/bin/python" -m compileall -q "$ROOT/natgw" >/dev/null 2>&1 || true
}

new_venv() {
    local python
    if ! python=$(find_python); then
        apt_install python3 python3-venv
        python=$(find_python) || die "needs Python 3.11 or newer; python3 here is $(python3 --version 2>&1)"
    fi
    say "making a virtual environment in $VENV with $("$python" --version)"
    "$python" -m venv --clear "$VENV"
}
