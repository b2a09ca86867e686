# shellcheck shell=bash
# Names the kernel facilities Dray uses that are missing here, and what each absence means. Sourced by
# setup-host.sh. Changes nothing: every test happens in namespaces that end with it.

in_namespaces() { unshare --net --mount bash -euc "$1" >/dev/null 2>&1; }
kernel_probe() { perl "$here/host/probe-kernel.pl" "$@" 2>/dev/null; }

has_user_namespaces() { unshare --user --map-root-user true 2>/dev/null; }
has_time_namespaces() { [[ -e /proc/self/ns/time ]]; }
has_overlayfs() {
    in_namespaces 'mount -t tmpfs t /mnt; cd /mnt; mkdir l u w m
        mount -t overlay o -o lowerdir=l,upperdir=u,workdir=w m'
}
has_idmapped_mounts() { kernel_probe idmapped-mounts /; }
has_veth() { in_namespaces 'ip link add probe0 type veth peer name probe1'; }
has_bridge() { in_namespaces 'ip link add probe0 type bridge'; }
has_vxlan() { in_namespaces 'ip link add probe0 type vxlan id 1 dstport 4789 nolearning'; }
has_nftables() { in_namespaces 'nft add table inet t; nft "add chain inet t c { type nat hook prerouting priority 0; }"'; }
has_nftables_bridge() { in_namespaces 'nft add table bridge t; nft "add chain bridge t c { type filter hook forward priority 0; }"'; }
has_seccomp() { [[ -e /proc/sys/kernel/seccomp/actions_avail ]]; }
has_userfaultfd() { kernel_probe userfaultfd-wp-async; }
has_pagemap_scan() { kernel_probe pagemap-scan; }

cgroup_layout() {
    if [[ $(stat -f -c %T /sys/fs/cgroup 2>/dev/null) == cgroup2fs ]]; then
        echo v2
    elif [[ -d /sys/fs/cgroup/memory && -d /sys/fs/cgroup/freezer ]]; then
        echo "v1 controllers (hybrid)"
    fi
}

# feature | what its absence means
readonly required_features='
user_namespaces|containers cannot start: each gets a private range of user ids
overlayfs|containers cannot start: their root is an overlay over shared layers
idmapped_mounts|containers cannot start: layers are stored with plain ids and mapped at mount (Linux 5.12 or newer)
veth|containers get no network
bridge|containers get no network
vxlan|containers on different nodes cannot reach each other
nftables|published ports and service addresses do not work
seccomp|containers run without a system call filter'
readonly optional_features='
time_namespaces|a migrated process sees the monotonic clock of the target jump
nftables_bridge|packets for a frozen container cannot be shielded on the bridge
userfaultfd|no asynchronous write protection (Linux 6.7 or newer): memory cannot be pre-copied that way
pagemap_scan|no PAGEMAP_SCAN (Linux 6.7 or newer): memory cannot be pre-copied that way'

# Calls report ($1) with every absent feature of table $2; counts the present ones in $present.
test_features() {
    local report=$1 feature meaning
    while IFS='|' read -r feature meaning; do
        [[ -n $feature ]] || continue
        if "has_$feature"; then
            present=$((present + 1))
        else
            "$report" "no ${feature//_/ }: $meaning"
        fi
    done <<<"$2"
}

check_kernel() {
    local present=0 layout
    test_features problem "$required_features"
    test_features note "$optional_features"
    say kernel "$(uname -r): $present features present"
    layout=$(cgroup_layout)
    if [[ -n $layout ]]; then say cgroups "$layout"; else problem "no usable cgroup hierarchy: containers cannot start"; fi
}

check_limits() {
    local hard
    hard=$(ulimit -H -n)
    [[ $hard == unlimited || $hard -ge 20000 ]] || note "open files are limited to $hard: a busy node needs 20000 or more"
    setpriv --dump 2>/dev/null | grep -q '^Capability bounding set:.*sys_resource' ||
        note "no CAP_SYS_RESOURCE: limits of containers stay within this machine's own; they need a user namespace to be dumped"
    [[ $(stat -f -c %T /run) == tmpfs ]] ||
        note "/run is not a tmpfs: CRIU cannot cache its kernel probing; 'clusterctl local' gives each node a tmpfs of its own"
}
