#!/bin/bash
# Does this CRIU work on this kernel? Dumps a process that holds an open TCP connection, restores it, and sends
# one more line through the same connection. Exit status 0 and silence mean yes; otherwise stderr says why not.
#
# usage: probe-criu.sh CRIU
#
# Everything happens in namespaces of its own (network, processes, mounts, IPC) and ends with them.
set -euo pipefail

readonly port=4711

fail() {
    echo "$1" >&2
    [[ -r ${2-} ]] && grep Error "$2" | grep -v -m 1 RLIMIT_NOFILE >&2
    exit 1
}

# A descriptor leaked by whoever started us would be dumped too, and its file is in none of our mounts.
close_inherited() {
    local link fd
    for link in /proc/self/fd/*; do
        fd=${link##*/}
        ((fd <= 2 || fd == 255)) || eval "exec $fd>&-"
    done
}

# Sends one line through fd 3 and expects it back.
echoed() {
    local answer=
    echo "$1" >&3
    read -r -t 5 -u 3 answer && [[ $answer == "$1" ]]
}

connect() {
    local try
    for ((try = 0; try < 100; try++)); do
        { exec 3<>"/dev/tcp/127.0.0.1/$port"; } 2>/dev/null && return
        sleep 0.02
    done
    fail "no connection to the probe's server"
}

await_end() {
    local try
    for ((try = 0; try < 100; try++)); do
        [[ ! -e /proc/$1 ]] && return
        sleep 0.02
    done
    return 1
}

# Runs as PID 1 of the namespaces.
probe() {
    local criu=$1 images=/run/images server
    close_inherited
    # A tmpfs of our own: CRIU caches its kernel probing in /run, and must not leave that on the machine.
    mount -t tmpfs tmpfs /run
    mkdir "$images"
    busybox ip link set lo up
    setsid busybox nc -l -p "$port" -e busybox cat </dev/null >/dev/null 2>&1 &
    server=$!
    connect
    echoed before || fail "the probe's server does not answer"

    local common=(--images-dir "$images" --tcp-established --network-lock skip)
    "$criu" dump --tree "$server" "${common[@]}" --log-file dump.log >&2 ||
        fail "dump of an open TCP connection failed" "$images/dump.log"
    await_end "$server" || fail "the dumped process still exists"
    # PID 1 would otherwise hand its end of the connection to CRIU.
    "$criu" restore --restore-detached "${common[@]}" --log-file restore.log 3>&- >&2 ||
        fail "restore of an open TCP connection failed" "$images/restore.log"
    echoed after || fail "the connection is dead after the restore"
}

if [[ ${1-} == --inside ]]; then
    probe "$2"
elif [[ $# -eq 1 && -x $1 ]]; then
    exec timeout 30 unshare --net --ipc --mount --pid --fork --kill-child --mount-proc "$0" --inside "$1"
else
    fail "usage: ${0##*/} CRIU"
fi
