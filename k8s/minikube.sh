#!/bin/sh
# From nothing to the sample organisation at a local URL: k8s/minikube.sh [port]. Again: it builds, applies and serves anew.
# Needs minikube and kubectl; the image is built inside minikube. `minikube delete --profile spendscope` removes everything.
set -eu
cd "$(dirname "$0")/.."
port=${1:-8050} profile=${MINIKUBE_PROFILE:-spendscope}

for tool in minikube kubectl; do
    command -v "$tool" >/dev/null 2>&1 || { echo "minikube.sh: $tool is not on PATH; install it and run this again" >&2; exit 2; }
done

kube() { kubectl --context "$profile" --namespace spendscope "$@"; }
random() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }

# secret NAME KEY=VALUE…
secret() {
    name=$1
    shift
    printf '%s\n' "$@" | kube create secret generic "$name" --from-env-file=/dev/stdin >/dev/null
}

# Network policies are enforced by calico only; minikube's own network ignores them.
minikube status --profile "$profile" >/dev/null 2>&1 ||
    minikube start --profile "$profile" --cpus=4 --memory=6g --cni=calico
minikube image build --profile "$profile" --tag spendscope:dev .

kubectl --context "$profile" apply -f k8s/base/app/namespace.yaml
# Made once: a second run keeps what the stores were set up with. `spendscope` comes last and says that all are there.
if ! kube get secret spendscope >/dev/null 2>&1; then
    redis=$(random) mongodb=$(random) token=$(random)
    kube delete secret --ignore-not-found redis mongodb influxdb grafana >/dev/null
    secret redis "password=$redis"
    secret mongodb "root-password=$(random)" "password=$mongodb"
    secret influxdb "admin-password=$(random)" "admin-token=$token"
    secret grafana "admin-password=$(random)" "influxdb-token=$token"
    secret spendscope "redis-url=redis://:$redis@redis:6379/0" "influxdb-token=$token" "secret-key=$(random)" \
        "mongodb-uri=mongodb://spendscope:$mongodb@mongodb:27017/spendscope?authSource=spendscope"
fi

kubectl --context "$profile" apply -k k8s/overlays/minikube
# The tag stays `dev`, so pods of an earlier run would keep the image they have.
kube rollout restart deployment/web deployment/worker deployment/scheduler >/dev/null
for part in statefulset/redis statefulset/mongodb statefulset/influxdb deployment/scheduler deployment/worker deployment/web; do
    kube rollout status "$part" --timeout=10m || { kube logs "$part" --all-containers --tail=5 >&2; exit 1; }
done

echo "Spendscope is ready at http://127.0.0.1:$port  (Ctrl-C ends the tunnel; the cluster stays)"
exec kubectl --context "$profile" --namespace spendscope port-forward deployment/web "$port:8050"
