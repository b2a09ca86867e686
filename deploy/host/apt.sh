# shellcheck shell=bash
# Fetches Debian packages without touching the machine's package sources, lists or cache: everything lives in one
# directory with an apt configuration of its own. Sourced by setup-host.sh and examples/images/build.sh.

readonly debian_keyring=/usr/share/keyrings/debian-archive-keyring.gpg

# The archive this machine takes Debian from, out of its own configuration.
debian_mirror() {
    apt-get indextargets 'Created-By: Packages' --format '$(ORIGIN) $(CODENAME) $(REPO_URI)' |
        awk '$1 == "Debian" && $2 !~ /-/ && !found { print $3; found = 1 }'
}

# Writes an apt configuration into $1 for suite $2 that shares nothing with the machine's but how to reach the network.
write_apt_config() {
    local dir=$1 suite=$2 mirror
    mirror=$(debian_mirror)
    [[ -n $mirror ]] || { echo "no Debian archive among the machine's package sources" >&2; return 1; }
    mkdir -p "$dir"/{lists,archives}/partial "$dir/empty"
    : >"$dir/status"
    {
        apt-config dump Acquire | grep -v '^Acquire::IndexTargets'
        printf 'Dir::State "%s";\nDir::State::lists "%s/lists";\nDir::State::status "%s/status";\n' \
            "$dir" "$dir" "$dir"
        printf 'Dir::Cache "%s";\nDir::Cache::archives "%s/archives";\n' "$dir" "$dir"
        printf 'Dir::Etc::sourcelist "%s/archive.sources";\nDir::Etc::sourceparts "%s/empty";\n' "$dir" "$dir"
        printf 'Dir::Etc::parts "%s/empty";\nDir::Etc::preferencesparts "%s/empty";\n' "$dir" "$dir"
        printf 'APT::Sandbox::User "root";\nAcquire::Languages "none";\n'
    } >"$dir/apt.conf"
    printf 'Types: deb\nURIs: %s\nSuites: %s\nComponents: main\nSigned-By: %s\n' \
        "$mirror" "$suite" "$debian_keyring" >"$dir/archive.sources"
}

# Downloads packages $3... of suite $2, with all they depend on, into $1/archives. Because this apt believes that
# nothing is installed, the closure is whole, libc included.
fetch_packages() {
    local dir=$1 suite=$2
    shift 2
    write_apt_config "$dir" "$suite" || return
    (
        export APT_CONFIG=$dir/apt.conf DEBIAN_FRONTEND=noninteractive
        apt-get -qq update && apt-get -qq --no-install-recommends --download-only --yes install "$@"
    ) >"$dir/apt.log" 2>&1 || { tail -n 2 "$dir/apt.log" >&2; return 1; }
}
