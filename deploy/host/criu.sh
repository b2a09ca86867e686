# shellcheck shell=bash
# Finds a CRIU that works on this kernel, or unpacks one from a later Debian. Sourced by setup-host.sh.
#
# The result is $criu_prefix/criu: a link to the system's CRIU, or a launcher that starts the unpacked one through
# its own dynamic linker, because it needs a newer libc than Debian 12 has.

readonly criu_prefix=${DRAY_CRIU_PREFIX:-/opt/dray/criu}
readonly criu_suites=(trixie sid)

# Prints why the CRIU at $1 does not work here, on one line; fails exactly then.
probe_criu() {
    local reason
    if ! reason=$("$here/host/probe-criu.sh" "$1" 2>&1); then
        tr '\n' ' ' <<<"$reason" | cut -c -240
        return 1
    fi
}

criu_version() { "$1" --version 2>/dev/null | awk '/^Version/ { print $2 }'; }

# The system's own CRIU, if there is one outside of our prefix.
system_criu() { PATH=/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin type -P criu; }

# Unpacks CRIU of suite $1 with every library it needs into $2.
unpack_criu() {
    local suite=$1 root=$2 deb
    fetch_packages "$work/apt-$suite" "$suite" criu || return
    for deb in "$work/apt-$suite/archives"/*.deb; do
        dpkg-deb --fsys-tarfile "$deb" | tar -x -C "$root" --exclude='./usr/share/*' --exclude='*/gconv/*'
    done
}

# The launcher is relocatable, replaces itself (no process in between), and keeps inherited descriptors, which
# `criu swrk FD` needs. --library-path, unlike LD_LIBRARY_PATH, is not inherited by programs that CRIU starts.
write_launcher() {
    local dir=$1 linker libraries
    linker=$(cd "$dir" && find root/ -path '*/ld-linux*.so.*' \( -type f -o -type l \) | sort | head -n 1)
    libraries=$(cd "$dir" && dirname "$(find root/ -name libc.so.6 | head -n 1)")
    [[ -n $linker && -x $dir/root/usr/sbin/criu ]] || { echo "the packages hold no CRIU or no dynamic linker"; return 1; }
    cat >"$dir/criu" <<EOF
#!/bin/sh
# Written by Dray's setup-host.sh: starts this directory's CRIU with its own libraries.
d=\${0%/*}
exec "\$d/$linker" --library-path "\$d/$libraries" "\$d/root/usr/sbin/criu" "\$@"
EOF
    chmod 755 "$dir/criu"
}

# Puts a finished directory in place of the prefix; an old one goes away only afterwards.
install_criu() {
    local new=$1
    chmod 755 "$new"
    mkdir -p "$(dirname "$criu_prefix")"
    if [[ -e $criu_prefix ]]; then mv "$criu_prefix" "$work/old-criu"; fi
    mv "$new" "$criu_prefix"
}

try_system_criu() {
    local criu reason
    criu=$(system_criu) || { say criu "the system has none installed"; return 1; }
    if reason=$(probe_criu "$criu"); then
        mkdir "$work/system" && ln -s "$criu" "$work/system/criu"
        install_criu "$work/system"
        say criu "the system's $(criu_version "$criu") works: linked from $criu_prefix/criu"
    else
        say criu "the system's $(criu_version "$criu") does not work here: $reason"
        return 1
    fi
}

try_suite_criu() {
    local suite=$1 dir=$work/$1 reason
    mkdir -p "$dir/root"
    if reason=$(unpack_criu "$suite" "$dir/root" 2>&1 && write_launcher "$dir" && probe_criu "$dir/criu"); then
        install_criu "$dir"
        say criu "Debian $suite's $(criu_version "$criu_prefix/criu") works: unpacked into $criu_prefix"
    else
        say criu "Debian $suite's does not work here: $reason"
        return 1
    fi
}

# Makes $criu_prefix/criu work, trying the nearest source first.
ensure_criu() {
    local suite reason
    if [[ -x $criu_prefix/criu ]]; then
        if reason=$(probe_criu "$criu_prefix/criu"); then
            say criu "$(criu_version "$criu_prefix/criu") at $criu_prefix/criu dumps and restores an open TCP connection"
            return
        fi
        say criu "$criu_prefix/criu no longer works: $reason"
    fi
    try_system_criu && return
    for suite in "${criu_suites[@]}"; do try_suite_criu "$suite" && return; done
    problem "no CRIU works on this kernel: containers run, but cannot be migrated or checkpointed"
}

# Says what ensure_criu would find, changing nothing.
check_criu() {
    local criu reason
    for criu in "$criu_prefix/criu" "$(system_criu || true)"; do
        [[ -x $criu ]] || continue
        if reason=$(probe_criu "$criu"); then
            say criu "$(criu_version "$criu") at $criu dumps and restores an open TCP connection"
            return
        fi
        say criu "$criu does not work here: $reason"
    done
    problem "no working CRIU: run ${0##*/} without --check to install one; without it nothing can be migrated"
}
