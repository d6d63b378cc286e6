#!/bin/sh
# Makes this machine a node: fetches the agent from its server, checks it, and runs it as a service (systemd), in a
# privileged container (no systemd, or no root but the docker group), or in the foreground.
#
#   curl -ksSf --pinnedpubkey 'sha256//…' https://server/join | LONGSHORE_JOIN_TOKEN=… sh -s -- [options]
#
# The token may also be the first argument; then it can be seen in the process list while this runs.
# Options: --name NAME, --labels k=v,…, --docker-host unix://PATH, --data-dir DIR, --server URL, --service, --container,
# --foreground. Running it again updates the agent; the machine stays the node that it is.
set -eu

server=@SERVER@
pin=@PIN@

say() { printf 'longshore: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }
has() { command -v "$1" >/dev/null 2>&1; }

fetch() { # PATH FILE
    curl -ksSf --retry 3 --pinnedpubkey "sha256//$pin" -o "$2" "$server$1"
}

sum_of() { # FILE
    if has sha256sum; then sha256sum "$1"
    elif has shasum; then shasum -a 256 "$1"
    elif has openssl; then openssl dgst -r -sha256 "$1"
    else fail "none of sha256sum, shasum and openssl is here to check the download"
    fi | cut -d ' ' -f 1
}

# Everything happens in here, called by the last line: a script that arrives in part does nothing.
join_cluster() {
    token=${LONGSHORE_JOIN_TOKEN:-}
    unset LONGSHORE_JOIN_TOKEN
    name='' labels='' data='' mode='' docker_host=${DOCKER_HOST:-unix:///var/run/docker.sock}
    case "${1:-}" in '' | -*) ;; *) token=$1; shift ;; esac
    while [ $# -gt 0 ]; do
        case "$1" in
            --service | --container | --foreground) mode=${1#--}; shift; continue ;;
            --name | --labels | --data-dir | --docker-host | --server) [ $# -gt 1 ] || fail "$1 needs a value" ;;
            *) fail "unknown option $1" ;;
        esac
        case "$1" in
            --name) name=$2 ;;
            --labels) labels=$2 ;;
            --data-dir) data=$2 ;;
            --docker-host) docker_host=$2 ;;
            --server) server=$2 ;;
        esac
        shift 2
    done
    case "$token" in
        lsj.*.*.*) cluster=${token#lsj.}; cluster=${cluster%%.*} ;;
        *) fail "no join token: set LONGSHORE_JOIN_TOKEN, as in the line that the dashboard shows" ;;
    esac
    case "$cluster" in '' | *[!a-z0-9-]*) fail "this is no join token" ;; esac

    [ "$(uname -s)" = Linux ] || fail "a node runs Linux; this is $(uname -s)"
    arch=$(uname -m)
    case "$arch" in amd64) arch=x86_64 ;; arm64) arch=aarch64 ;; esac
    case "$docker_host" in unix://*) socket=${docker_host#unix://} ;; *) fail "--docker-host must be unix://PATH" ;; esac
    [ -S "$socket" ] || fail "Docker does not answer at $socket: install and start it, or name its socket by --docker-host"

    if [ -z "$mode" ]; then
        if [ "$(id -u)" != 0 ]; then mode=container
        elif [ -d /run/systemd/system ] && has systemctl; then mode=service
        else mode=container
        fi
    fi
    if [ "$mode" = service ] && [ "$(id -u)" != 0 ]; then fail "a service is made by root: run this as root (sudo)"; fi
    if [ "$mode" = container ]; then
        has docker || fail "neither systemd nor the docker command is here: run this as root with --foreground"
        docker --host "$docker_host" version >/dev/null 2>&1 ||
            fail "Docker at $socket refuses $(id -un): run this as root (sudo) or as a member of the docker group"
    fi

    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    trap 'exit 130' INT TERM
    agent=longshore-agent-linux-$arch
    say "fetching $agent from $server"
    fetch "/download/$agent" "$work/longshore-agent" || fail "$server has no agent for this machine ($arch), or could not be reached"
    fetch "/download/$agent.sha256" "$work/sum" || fail "the checksum of the agent could not be fetched"
    [ "$(sum_of "$work/longshore-agent")" = "$(cut -d ' ' -f 1 "$work/sum")" ] || fail "the agent arrived damaged: its checksum differs"
    chmod 755 "$work/longshore-agent"
    (umask 077 && printf '%s\n' "$token" >"$work/join-token")
    unset token

    data=${data:-/var/lib/longshore/$cluster}
    unit=longshore-agent-$cluster
    set -- run --server "$server" --data-dir "$data" --docker-host "$docker_host"
    [ -z "$name" ] || set -- "$@" --name "$name"
    [ -z "$labels" ] || set -- "$@" --labels "$labels"
    "run_as_$mode" "$@"
}

# Binary and token below the data folder, which belongs to root alone.
install_below() { # FOLDER
    (umask 077 && mkdir -p "$1")
    # Renamed into place: a running agent keeps the file it was started from.
    cp "$work/longshore-agent" "$1/longshore-agent.new" && mv -f "$1/longshore-agent.new" "$1/longshore-agent"
    (umask 077 && cp "$work/join-token" "$1/join-token.new" && mv -f "$1/join-token.new" "$1/join-token")
}

quote() { # ARGUMENTS, as systemd reads them
    for argument in "$@"; do
        printf ' "%s"' "$(printf '%s' "$argument" | sed -e 's/[\\"]/\\&/g' -e 's/[%$]/&&/g')"
    done
}

run_as_service() {
    install_below "$data"
    cat >"/etc/systemd/system/$unit.service" <<UNIT
[Unit]
Description=Longshore agent of cluster $cluster
Wants=network-online.target
After=network-online.target docker.service

[Service]
ExecStart=$(quote "$data/longshore-agent" "$@" --token-file "$data/join-token" | cut -c 2-)
Restart=always
RestartSec=2
KillMode=process
LimitNOFILE=1048576
TasksMax=infinity
OOMScoreAdjust=-900

[Install]
WantedBy=multi-user.target
UNIT
    systemctl daemon-reload
    systemctl enable --quiet "$unit.service"
    systemctl restart "$unit.service"
    say "the agent runs as service $unit (journalctl -u $unit -f)"
    say "to leave the cluster: systemctl disable --now $unit && $data/longshore-agent leave --data-dir $data"
}

start_container() { # RIGHTS, AGENT_ARGUMENTS
    rights=$1
    shift
    docker --host "$docker_host" rm -f "$unit" >/dev/null 2>&1 || true
    # The same paths inside and outside: what the agent mounts into pods is found by Docker on the host.
    # shellcheck disable=SC2086 # rights are several words
    docker --host "$docker_host" create --name "$unit" --restart always $rights --pid host --network host \
        -v "$socket:$socket" -v "$data:$data" -v /lib/modules:/lib/modules:ro \
        "$image" "$@" --token-file /join-token >/dev/null || return 1
    docker --host "$docker_host" cp "$work/join-token" "$unit:/join-token" >/dev/null &&
        docker --host "$docker_host" start "$unit" >/dev/null && return
    docker --host "$docker_host" rm -f "$unit" >/dev/null 2>&1 || true
    return 1
}

run_as_container() {
    # Inside, the host's name is another.
    [ -n "$name" ] || set -- "$@" --name "$(uname -n)"
    image=longshore/agent:$cluster
    tar -C "$work" -c longshore-agent | docker --host "$docker_host" import --change 'ENTRYPOINT ["/longshore-agent"]' - "$image" >/dev/null
    if ! start_container --privileged "$@" 2>/dev/null; then
        # A host that is a container itself has not got all rights to give; the agent does without CAP_SYS_RESOURCE.
        unconfined="--security-opt seccomp=unconfined --security-opt apparmor=unconfined --security-opt systempaths=unconfined"
        start_container "--cap-add ALL --cap-drop SYS_RESOURCE $unconfined" "$@" ||
            fail "Docker can't run a container with root's rights here: as root, --foreground does without"
    fi
    say "the agent runs as container $unit (docker logs -f $unit)"
}

run_as_foreground() {
    install_below "$data"
    rm -rf "$work"
    exec "$data/longshore-agent" "$@" --token-file "$data/join-token" </dev/null
}

join_cluster "$@"
