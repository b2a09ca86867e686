#!/bin/bash
# The bench's baseline: Redis in plain namespaces, moved between two network namespaces with plain CRIU, as an
# administrator would do it. Three machines on one wire, each with a bridge over VXLAN; images on tmpfs.
#   by-hand.sh up DIR ROOT       Redis from the root file system ROOT runs on machine a
#   by-hand.sh move DIR FROM TO  moves it, keeping its TCP connections; prints the microseconds it took
#   by-hand.sh down DIR          removes everything
# A client connects from the namespace dray-hand-c to 10.88.100.1:6379.
set -euo pipefail

readonly prefix=dray-hand ip=10.88.100.1
readonly criu=${CRIU:-/opt/dray/criu/criu}

ns() { echo "/run/netns/$prefix-$1"; }
inside() {
    local name=$1
    shift
    nsenter --net="$(ns "$name")" "$@"
}

machine() {
    local name=$1 number=$2 other
    ip netns add "$prefix-$name"
    inside wire ip link add "to-$name" type veth peer name eth0 netns "$prefix-$name"
    inside wire ip link set "to-$name" master wire up
    inside "$name" ip -batch - <<END
link set lo up
addr add 10.77.0.$number/24 dev eth0
link set eth0 up
link add br0 type bridge
link set br0 up
addr add 10.88.0.$number/16 dev br0
link add vx0 type vxlan id 42 dstport 4789 local 10.77.0.$number nolearning dev eth0
link set vx0 master br0 up
END
    for other in 1 2 3; do
        [[ $other == "$number" ]] || inside "$name" bridge fdb append 00:00:00:00:00:00 dev vx0 dst "10.77.0.$other"
    done
}

# The container's own network, with the same address on every machine. Not yet on the bridge.
container_network() {
    local on=$1
    ip netns add "$prefix-ct-$on"
    inside "$on" ip link add to-ct type veth peer name eth0 netns "$prefix-ct-$on" address 02:d7:0a:58:64:01
    inside "ct-$on" ip -batch - <<END
link set lo up
addr add $ip/16 dev eth0
link set eth0 up
END
}

up() {
    local root=$1
    ip netns add "$prefix-wire"
    inside wire ip link add wire type bridge
    inside wire ip link set wire up
    machine a 1
    machine b 2
    machine c 3
    container_network a
    inside a ip link set to-ct master br0 up
    mkdir -p "$root"/{proc,dev,old}
    [[ -e $root/dev/null ]] || mknod -m 666 "$root/dev/null" c 1 3
    echo "$root" >"$dir/redis.root"
    # CRIU wants a root that is a mount of its own, and no file of the machine's left open.
    # shellcheck disable=SC2016
    inside ct-a unshare --pid --mount --uts --ipc --fork setsid /bin/bash -c '
        for fd in /proc/self/fd/*; do fd=${fd##*/}; ((fd < 3)) || eval "exec $fd>&-"; done
        mount --make-rprivate / && mount --bind "$1" "$1" && cd "$1" && pivot_root . old && umount -l /old &&
        mount -t proc proc /proc && exec </dev/null >/dev/null 2>&1 && exec /usr/bin/redis-server /etc/redis/redis.conf' \
        bash "$root" </dev/null >/dev/null 2>&1 &
    for _ in $(seq 200); do
        if inside ct-a ss -Hltn | grep -q :6379; then
            find_init >"$dir/pid"
            return
        fi
        sleep 0.02
    done
    echo "Redis does not listen" >&2
    return 1
}

# The only process whose network is the container's.
find_init() {
    local wanted proc
    wanted=$(stat -L -c %i "$(ns ct-a)")
    for proc in /proc/[0-9]*; do
        if [[ $(stat -L -c %i "$proc/ns/net" 2>/dev/null) == "$wanted" && $(<"$proc/comm") == redis-server ]]; then
            echo "${proc#/proc/}"
            return
        fi
    done
    return 1
}

move() {
    local from=$1 to=$2 images root pid inode began
    images=$(mktemp -d -p /dev/shm)
    root=$(<"$dir/redis.root")
    pid=$(<"$dir/pid")
    inode=$(stat -L -c %i "$(ns "ct-$from")")
    local common=(-W "$dir" -D "$images" -v2 --tcp-established --manage-cgroups=ignore --network-lock nftables
        --ext-mount-map auto)
    began=$(date +%s%N)
    inside "$from" "$criu" dump -t "$pid" "${common[@]}" -o dump.log --external "net[$inode]:cnet"
    inside "$from" ip link set to-ct down
    container_network "$to"
    # Not on the bridge yet: a reachable namespace without its sockets answers with a reset.
    inside "$to" "$criu" restore -d "${common[@]}" -o restore.log --inherit-fd "fd[7]:cnet" --root "$root" \
        --pidfile "$images/pid" 7<"$(ns "ct-$to")"
    inside "$to" ip link set to-ct master br0 up
    echo $((($(date +%s%N) - began) / 1000))
    cp "$images/pid" "$dir/pid"
    rm -rf "$images"
    # CRIU's rules in the old namespace are what kept it quiet; it goes with them.
    ip netns del "$prefix-ct-$from"
    inside "$from" ip link del to-ct 2>/dev/null || true
}

down() {
    local name
    if [[ -s $dir/pid ]]; then kill -9 "$(<"$dir/pid")" 2>/dev/null || true; fi
    for name in ct-a ct-b a b c wire; do
        [[ ! -e $(ns "$name") ]] || ip netns del "$prefix-$name"
    done
}

command=$1
dir=$2
shift 2
case $command in
up | move | down) "$command" "$@" ;;
*) exit 2 ;;
esac
