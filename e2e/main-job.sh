#!/usr/bin/env bash
# The main job from outside: release binaries, fresh folders, only commands that docs promise. Prints the seconds to three
# ready replicas. Needs root, Docker and kubectl (scripts/setup installs them). Leaves nothing behind.
# Usage: e2e/main-job.sh    builds first; SKIP_BUILD=1 takes the binaries that are there, BIN=FOLDER others
set -euo pipefail
cd "$(dirname "$0")/.."
[ -n "${SKIP_BUILD:-}" ] || make -s build
. scripts/env
scripts/kubectl >/dev/null
bin=${BIN:-$CARGO_TARGET_DIR/release}
work=$(mktemp -d /tmp/longshore-main-job.XXXXXX)
server='' agent='' daemon=''
socket=unix://$work/docker.sock

step() { printf '%s\n' "main-job: $*"; }
fail() {
  printf '%s\n' "main-job: FAILED: $*" >&2
  kubectl get pods,nodes -o wide >&2 2>/dev/null || true
  kubectl get events >&2 2>/dev/null || true
  tail -n 40 "$work"/server.log "$work"/agent.log >&2 2>/dev/null || true
  exit 1
}
finish() {
  status=$?
  trap - EXIT
  set +e
  [ -n "$agent" ] && kill "$agent" 2>/dev/null && wait "$agent" 2>/dev/null
  [ -d "$work/agent" ] && "$bin/longshore-agent" leave --data-dir "$work/agent" >>"$work/agent.log" 2>&1
  [ -n "$server" ] && kill "$server" 2>/dev/null && wait "$server" 2>/dev/null
  [ -n "$daemon" ] && kill "$daemon" 2>/dev/null && wait "$daemon" 2>/dev/null
  ip link delete "${bridge:-}" 2>/dev/null
  awk -v w="$work" 'index($2, w) == 1 { print $2 }' /proc/self/mounts | sort -r | xargs -r -n1 umount -l
  rm -rf "$work"
  exit $status
}
trap finish EXIT

# until_ok SECONDS WHAT COMMAND…: until COMMAND succeeds.
until_ok() {
  local deadline=$(($(date +%s) + $1)) what=$2
  shift 2
  until "$@" >/dev/null 2>&1; do
    [ "$(date +%s)" -lt "$deadline" ] || fail "$what"
    sleep 0.1
  done
}
running() { # the containers of pods, pause containers left out
  docker --host "$socket" ps -q --no-trunc --filter label=io.kubernetes.container.name | sort >"$work/all"
  docker --host "$socket" ps -q --no-trunc --filter label=io.kubernetes.container.name=POD | sort | comm -23 "$work/all" -
}
are_running() { [ "$(running | wc -l)" = "$1" ]; }
none_left() { [ -z "$(kubectl get pods -o name)" ]; }
replaced() { ! kubectl get pods -o jsonpath='{.items[*].status.containerStatuses[*].containerID}' | grep -q "$1"; }

step "a Docker daemon of its own"
# With a bridge of its own: one that is told to have none takes docker0 away from the daemon beside it.
bridge=lsd$$
ip link add "$bridge" type bridge && ip address add 198.51.100.1/30 dev "$bridge"
dockerd --data-root "$work/docker" --exec-root "$work/exec" --pidfile "$work/docker.pid" --host "$socket" \
  --bridge "$bridge" --iptables=false --ip-masq=false >"$work/docker.log" 2>&1 &
daemon=$!
until_ok 30 "dockerd answers" docker --host "$socket" version
scripts/sample-image "$socket"

port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
"$bin/longshore-server" dev --data-dir "$work/server" --listen "127.0.0.1:$port" >>"$work/server.log" 2>&1 &
server=$!
until_ok 60 "the server is ready" grep -qx "$server" "$work/server/ready"
export KUBECONFIG=$work/server/kubeconfig
step "the server is ready"

"$bin/longshore-agent" run --server "https://127.0.0.1:$port" --token-file "$work/server/join-token" --name main-job \
  --data-dir "$work/agent" --docker-host "$socket" >>"$work/agent.log" 2>&1 &
agent=$!
until_ok 60 "the node registers" kubectl get node main-job
kubectl wait --for=condition=Ready node/main-job --timeout=60s >/dev/null || fail "the node is Ready"
step "the node is Ready"

begin=$(date +%s%N)
kubectl apply -f - >/dev/null <<'Y'
apiVersion: apps/v1
kind: Deployment
metadata: {name: hello}
spec:
  replicas: 3
  selector: {matchLabels: {app: hello}}
  template:
    metadata: {labels: {app: hello}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: hello
        image: longshore/hello:v1
        ports: [{containerPort: 8080}]
        readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1}
Y
kubectl rollout status deployment/hello --timeout=60s >/dev/null || fail "three replicas"
end=$(date +%s%N)
are_running 3 || fail "three containers run"
seconds=$(awk -v a="$begin" -v b="$end" 'BEGIN { printf "%.2f", (b - a) / 1e9 }')
step "three ready replicas after $seconds s"

all=$(running)
victim=${all%%$'\n'*}
docker --host "$socket" kill "$victim" >/dev/null
until_ok 30 "a killed container is replaced" replaced "$victim"
kubectl wait --for=condition=Ready pod -l app=hello --timeout=30s >/dev/null || fail "the pod is ready again"
step "one container killed and replaced"

kubectl scale deployment/hello --replicas=5 >/dev/null
kubectl rollout status deployment/hello --timeout=60s >/dev/null || fail "five replicas"
are_running 5 || fail "five containers run"
step "five after scaling"

kubectl set image deployment/hello hello=longshore/hello:v2 >/dev/null
kubectl rollout status deployment/hello --timeout=90s >/dev/null || fail "the new image"
kubectl rollout undo deployment/hello >/dev/null 2>&1
kubectl rollout status deployment/hello --timeout=90s >/dev/null || fail "the old image"
until_ok 60 "pods of the other image are gone" are_running 5
all=$(kubectl get pods -l app=hello -o name)
pod=${all%%$'\n'*}
logs=$(kubectl logs "$pod")
[[ $logs == *"hello v1"* ]] || fail "logs: $logs"
[ "$(kubectl exec "$pod" -- sh -c 'echo $((6*7))')" = 42 ] || fail "exec"
step "rolled out and back; logs and exec answer"

before=$(running)
kill -9 "$server"; wait "$server" 2>/dev/null || true
"$bin/longshore-server" dev --data-dir "$work/server" --listen "127.0.0.1:$port" >>"$work/server.log" 2>&1 &
server=$!
until_ok 60 "the server is ready again" grep -qx "$server" "$work/server/ready"
until_ok 60 "the deployment is there" kubectl get deployment hello
kubectl wait --for=condition=Ready node/main-job --timeout=60s >/dev/null || fail "the node is back"
[ "$(running)" = "$before" ] || fail "containers are untouched by a server that was killed"
step "the server was killed (-9) and came back: nothing lost, containers untouched"

kubectl delete deployment hello >/dev/null
until_ok 60 "no pod is left" none_left
until_ok 30 "no container is left" are_running 0
step "none after deleting"
printf '%s\n' "main-job: passed; $seconds seconds to three ready replicas"
