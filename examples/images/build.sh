#!/bin/bash
# Makes the example images out of Debian 12's packages: OCI layout tars, no registry, no container tool, no root.
# The same packages give the same bytes. An image that is there and was made by this script is not made again.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
readonly here root=$here/../..
readonly debian=bookworm all_images=(busybox redis)
out=$root/target/images

usage() {
    cat <<EOF
usage: ${0##*/} [--force] [IMAGE...]

Makes OCI layout tars of the example images in target/images. Images: ${all_images[*]} (default: all)

  --force   make them anew, with the archive's current packages
EOF
}

. "$root/deploy/host/apt.sh"

# --- packages -------------------------------------------------------------------------------------------------------

# Unpacks packages $2... with their closure into a tree of their own, once per run; prints nothing.
ensure_packages() {
    local tree=$1 deb
    shift
    [[ ! -d $tree ]] || return 0
    fetch_packages "$work/apt" "$debian" "$@"
    mkdir -p "$tree"/usr/{bin,sbin,lib,lib64}
    ln -s usr/bin "$tree/bin"
    ln -s usr/sbin "$tree/sbin"
    ln -s usr/lib "$tree/lib"
    ln -s usr/lib64 "$tree/lib64"
    for deb in "$work/apt/archives"/*.deb; do
        dpkg-deb --fsys-tarfile "$deb" |
            tar -x -C "$tree" --keep-directory-symlink --no-same-owner --exclude='./usr/share/doc/*' --exclude='./usr/share/locale/*'
    done
}

# Copies programs $3... from the tree to a layer, with exactly the libraries they load.
install_programs() {
    local tree=$1 layer=$2 libraries linker program library
    shift 2
    linker=$(find "$tree/usr/lib" -name 'ld-linux*.so.*' -type f | head -n 1)
    libraries=$(dirname "$linker")
    for program in "$@"; do
        install -D -m 755 "$(realpath "$tree/$program")" "$layer/$program"
        "$linker" --library-path "$libraries" --list "$tree/$program" >"$work/libraries"
        for library in $(awk '{ for (i = 1; i <= NF; i++) if ($i ~ /^\// && $i ~ /\.so/) print $i }' "$work/libraries"); do
            install -D -m 755 "$(realpath "$library")" "$layer/${libraries#"$tree/"}/${library##*/}"
        done
    done
    # Programs name their dynamic linker by an absolute path in /lib64 or /lib.
    mkdir -p "$layer/usr/lib64"
    ln -sf "../${libraries#"$tree/usr/"}/${linker##*/}" "$layer/usr/lib64/${linker##*/}"
}

# --- image layout ---------------------------------------------------------------------------------------------------

# Writes stdin as a blob of the layout; prints its digest.
add_blob() {
    local digest
    cat >"$work/blob"
    digest=$(sha256sum <"$work/blob" | cut -d ' ' -f 1)
    mv "$work/blob" "$layout/blobs/sha256/$digest"
    echo "$digest"
}

# Adds the directory $1 as a layer; paths $2... belong to user 999 instead of root.
# Names sorted, times zero, owners given: equal content makes an equal layer.
add_layer() {
    local dir=$1 tar=$work/layer.tar digest path
    local flags=(--format=gnu --sort=name --mtime=@0 --numeric-owner -C "$dir")
    shift
    local excludes=()
    for path in "$@"; do excludes+=(--exclude="./$path"); done
    tar -cf "$tar" "${flags[@]}" --owner=0 --group=0 --anchored "${excludes[@]}" .
    if [[ $# -gt 0 ]]; then tar -rf "$tar" "${flags[@]}" --owner=999 --group=999 "${@/#/./}"; fi
    diff_ids+=("sha256:$(sha256sum <"$tar" | cut -d ' ' -f 1)")
    digest=$(gzip -n -6 <"$tar" | add_blob)
    layers+=("$(descriptor application/vnd.oci.image.layer.v1.tar+gzip "$digest")")
}

descriptor() {
    printf '{"mediaType":"%s","digest":"sha256:%s","size":%d' "$1" "$2" "$(stat -c %s "$layout/blobs/sha256/$2")"
    printf '%s}' "${3-}"
}

joined() { local IFS=,; echo "$*"; }

machine() {
    case $(uname -m) in
    x86_64) echo amd64 ;;
    aarch64) echo arm64 ;;
    *) uname -m ;;
    esac
}

# Finishes the image called $1 with the execution defaults $2 (a JSON object) and moves it to $3.
finish_image() {
    local name=$1 config=$2 tar=$3 ids digest annotation
    ids=$(joined "${diff_ids[@]/%/\"}")
    digest=$(printf '{"architecture":"%s","os":"linux","config":%s,"rootfs":{"type":"layers","diff_ids":[%s]}}' \
        "$(machine)" "$config" "${ids//sha256:/\"sha256:}" | add_blob)
    digest=$(printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":%s,"layers":[%s]}' \
        "$(descriptor application/vnd.oci.image.config.v1+json "$digest")" "$(joined "${layers[@]}")" | add_blob)
    annotation=$(printf ',"annotations":{"org.opencontainers.image.ref.name":"%s"}' "$name")
    printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[%s]}' \
        "$(descriptor application/vnd.oci.image.manifest.v1+json "$digest" "$annotation")" >"$layout/index.json"
    printf '{"imageLayoutVersion":"1.0.0"}' >"$layout/oci-layout"
    tar -cf "$tar.new" --format=gnu --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -C "$layout" .
    mv "$tar.new" "$tar"
}

# --- the images -----------------------------------------------------------------------------------------------------

# What every image starts from: the usual directories, root and nobody, and busybox for all commands.
base_layer() {
    local layer=$work/base applet
    if [[ ! -d $layer ]]; then
        mkdir -p "$layer"/{dev,etc,home,mnt,proc,root,run,srv,sys,tmp,usr,var} "$layer"/usr/{bin,sbin,lib,lib64} \
            "$layer"/var/{lib,log,tmp}
        chmod 1777 "$layer/tmp" "$layer/var/tmp"
        chmod 700 "$layer/root"
        for applet in bin sbin lib lib64; do ln -s "usr/$applet" "$layer/$applet"; done
        printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n' >"$layer/etc/passwd"
        printf 'root:x:0:\nnogroup:x:65534:\n' >"$layer/etc/group"
        touch "$layer"/etc/{hosts,hostname,resolv.conf}
        printf 'passwd: files\ngroup: files\nhosts: files dns\n' >"$layer/etc/nsswitch.conf"
        install -m 755 "$(realpath "$packages/bin/busybox")" "$layer/usr/bin/busybox"
        for applet in $("$layer/usr/bin/busybox" --list); do
            [[ $applet == busybox ]] || ln -s busybox "$layer/usr/bin/$applet"
        done
    fi
    add_layer "$layer"
}

image_busybox() {
    local layer=$work/busybox
    base_layer
    mkdir -p "$layer/srv/www"
    echo "Hello from Dray." >"$layer/srv/www/index.html"
    add_layer "$layer"
    finish_image busybox:1 '{"Cmd":["/bin/sh"],"Env":["PATH=/usr/sbin:/usr/bin:/sbin:/bin"],"WorkingDir":"/"}' "$1"
}

image_redis() {
    local layer=$work/redis
    base_layer
    install_programs "$packages" "$layer" usr/bin/redis-server usr/bin/redis-cli usr/bin/redis-benchmark
    mkdir -p "$layer/etc/redis" "$layer/data"
    cp "$work/base/etc/passwd" "$work/base/etc/group" "$layer/etc/"
    echo 'redis:x:999:999:redis:/data:/bin/false' >>"$layer/etc/passwd"
    echo 'redis:x:999:' >>"$layer/etc/group"
    # In a cluster's own network, without a password: this is an example. Nothing is saved, so that what survives a
    # migration is what was in memory.
    printf '%s\n' 'bind 0.0.0.0' 'protected-mode no' 'port 6379' 'dir /data' 'save ""' 'appendonly no' \
        >"$layer/etc/redis/redis.conf"
    add_layer "$layer" data
    finish_image redis:7 '{"Entrypoint":["/usr/bin/redis-server"],"Cmd":["/etc/redis/redis.conf"],"User":"999:999","Env":["PATH=/usr/sbin:/usr/bin:/sbin:/bin"],"WorkingDir":"/data","ExposedPorts":{"6379/tcp":{}},"StopSignal":"SIGTERM"}' "$1"
}

# --- what to do -----------------------------------------------------------------------------------------------------

# A made image is as good as the script that made it.
recipe() { cat "$here/build.sh" "$root/deploy/host/apt.sh" | sha256sum | cut -d ' ' -f 1; }

make_image() {
    local image=$1 tar=$out/$1.tar
    if [[ $force == no && -f $tar && $(cat "$tar.recipe" 2>/dev/null) == "$(recipe)" ]]; then
        echo "$image: target/images/$image.tar is there"
        return
    fi
    ensure_packages "$packages" busybox-static redis-server redis-tools
    layout=$work/layout-$image
    mkdir -p "$layout/blobs/sha256"
    diff_ids=() layers=()
    "image_$image" "$tar"
    recipe >"$tar.recipe"
    echo "$image: made target/images/$image.tar ($(stat -c %s "$tar") bytes, $(sha256sum <"$tar" | cut -c -12))"
}

force=no
images=()
for argument in "$@"; do
    case $argument in
    --help | -h) usage; exit ;;
    --force) force=yes ;;
    *)
        [[ " ${all_images[*]} " == *" $argument "* ]] || { usage >&2; exit 2; }
        images+=("$argument")
        ;;
    esac
done
umask 022
mkdir -p "$out"
work=$(mktemp -d "$out/build.XXXXXX")
trap 'rm -rf "$work"' EXIT
packages=$work/packages
for image in "${images[@]:-${all_images[@]}}"; do make_image "$image"; done
