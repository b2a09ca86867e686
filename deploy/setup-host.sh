#!/bin/bash
# Prepares a Debian 12 machine for building and running Dray. Idempotent: what is already there is left alone.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
readonly here

readonly packages=(
    iproute2 nftables busybox-static     # running: networks, firewalls, probes and the example images
    gcc libc6-dev protobuf-compiler git  # building: Rust's linker, C parts of dependencies, the wire contract
    ca-certificates debian-archive-keyring xz-utils zstd util-linux
)
readonly pipe_max_size=4194304
readonly minimum_rust=1.95

problems=0
say() { printf '%-9s %s\n' "$1:" "$2"; }
note() { say note "$1"; }
problem() {
    say PROBLEM "$1"
    problems=$((problems + 1))
}

usage() {
    cat <<EOF
usage: ${0##*/} [--check | --help]

Prepares this machine (Debian 12, as root) for Dray:
  * installs missing packages: ${packages[*]}
  * finds a CRIU that really dumps and restores an open TCP connection on this kernel, and puts it at
    /opt/dray/criu/criu: the system's, or one of a later Debian unpacked there with its libraries
    (the machine's own package sources stay as they are)
  * raises fs.pipe-max-size to $pipe_max_size
  * names kernel facilities that are missing, and what that means

  --check   only look and report; change nothing
Exit status: 0 when Dray can run with all it needs, 1 when a PROBLEM was reported, 2 for wrong usage.
EOF
}

. "$here/host/apt.sh"
. "$here/host/criu.sh"
. "$here/host/kernel.sh"

missing_packages() {
    local package status
    for package in "${packages[@]}"; do
        status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) || status=absent
        [[ $status == installed ]] || echo "$package"
    done
}

ensure_packages() {
    local missing
    mapfile -t missing < <(missing_packages)
    if [[ ${#missing[@]} -eq 0 ]]; then
        say packages "all ${#packages[@]} installed"
        return
    fi
    say packages "installing ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    {
        apt-get -qq update && apt-get -qq --yes --no-install-recommends install "${missing[@]}"
    } >"$work/packages.log" 2>&1 || { tail -n 5 "$work/packages.log"; problem "could not install ${missing[*]}"; }
}

check_packages() {
    local missing
    mapfile -t missing < <(missing_packages)
    if [[ ${#missing[@]} -eq 0 ]]; then
        say packages "all ${#packages[@]} installed"
    else
        problem "packages missing: ${missing[*]}"
    fi
}

check_rust() {
    local version
    if ! version=$(cargo --version 2>/dev/null | awk '{ print $2 }') || [[ -z $version ]]; then
        note "no cargo in PATH: building needs Rust $minimum_rust or newer; running does not"
    elif [[ $(printf '%s\n%s\n' "$minimum_rust" "$version" | sort -V | head -n 1) != "$minimum_rust" ]]; then
        note "cargo $version is too old: building needs Rust $minimum_rust or newer; running does not"
    else
        say rust "$version"
    fi
}

# CRIU's lazy page server wants a pipe of 3.3 MB.
ensure_pipe_size() {
    local size
    size=$(</proc/sys/fs/pipe-max-size)
    if ((size >= pipe_max_size)); then
        say sysctl "fs.pipe-max-size is $size"
    elif { echo "$pipe_max_size" >/proc/sys/fs/pipe-max-size; } 2>/dev/null; then
        mkdir -p /etc/sysctl.d
        echo "fs.pipe-max-size = $pipe_max_size" >/etc/sysctl.d/60-dray.conf
        say sysctl "raised fs.pipe-max-size from $size to $pipe_max_size (kept in /etc/sysctl.d/60-dray.conf)"
    else
        note "fs.pipe-max-size is $size and cannot be raised here: CRIU's lazy pages do not work"
    fi
}

check_pipe_size() {
    local size
    size=$(</proc/sys/fs/pipe-max-size)
    if ((size >= pipe_max_size)); then
        say sysctl "fs.pipe-max-size is $size"
    else
        note "fs.pipe-max-size is $size, below $pipe_max_size: CRIU's lazy pages do not work"
    fi
}

check_machine() {
    [[ $EUID -eq 0 ]] || { echo "${0##*/}: must run as root" >&2; exit 2; }
    local id version
    id=$(. /etc/os-release && echo "${ID-}")
    version=$(. /etc/os-release && echo "${VERSION_ID-}")
    say machine "$id $version, Linux $(uname -r), $(uname -m), $(nproc) processors"
    [[ $id == debian && $version == 12 ]] || note "made for Debian 12; elsewhere the packages may differ"
}

# Runs one step per concern; $1 is "ensure" or "check".
run() {
    local mode=$1
    check_machine
    "${mode}_packages"
    check_rust
    "${mode}_pipe_size"
    check_kernel
    check_limits
    "${mode}_criu"
    if ((problems > 0)); then
        say result "$problems problem(s)"
        exit 1
    fi
    say result "ready for Dray"
}

case ${1-} in
--help | -h) usage ;;
--check | '')
    [[ $# -le 1 ]] || { usage >&2; exit 2; }
    work=$(mktemp -d /var/tmp/dray-setup.XXXXXX)
    trap 'rm -rf "$work"' EXIT
    if [[ ${1-} == --check ]]; then run check; else run ensure; fi
    ;;
*)
    usage >&2
    exit 2
    ;;
esac
