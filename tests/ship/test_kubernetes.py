"""Every manifest of k8s/, built and checked offline: schemas, the restricted profile, names, networks, settings."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import SecretStr

import app
from app.adapters.rq import QUEUE
from app.backends import open_identities
from app.config import Settings, environment_name, read_settings
from app.core.access import Permission
from app.errors import CannotStart
from app.gate import RULES
from app.launcher import check_address
from tests.ship.kustomize import Object, build, containers_of, documents, pod_of, with_component

K8S = Path(__file__).parent.parent.parent / "k8s"
BUILT = ("base", "overlays/minikube", "overlays/production")
SCHEMAS = ("1.31.0", "1.37.0")
"""The oldest and the newest Kubernetes that the manifests are for."""

OURS_ELSEWHERE = frozenset({"keda.sh/v1alpha1", "external-secrets.io/v1", "monitoring.coreos.com/v1"})
"""Kinds that operators define: kubernetes-validate has no schema for them."""

READ_BY_BOTO3 = frozenset({"AWS_DEFAULT_REGION"})


@cache
def built(name: str) -> tuple[Object, ...]:
    return tuple(build(K8S / name))


def everywhere(kind: str = "") -> list[Any]:
    """pytest parameters: every object (of a kind) of everything that can be built."""
    return [
        pytest.param(found, id=f"{name}-{found['kind']}-{found['metadata']['name']}")
        for name in BUILT
        for found in built(name)
        if kind in ("", found["kind"])
    ]


def pods() -> list[Any]:
    return [parameter for parameter in everywhere() if pod_of(parameter.values[0])]  # type: ignore[arg-type]


def named(name: str, kind: str, of: str) -> Object:
    (found,) = [found for found in built(of) if found["kind"] == kind and found["metadata"]["name"] == name]
    return found


# --- schemas -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def schemas() -> Any:
    """Imported late: it takes seconds, which every process that only collects the tests would spend as well."""
    import kubernetes_validate

    return kubernetes_validate


@pytest.mark.parametrize("version", SCHEMAS)
@pytest.mark.parametrize("found", everywhere())
def test_every_object_is_what_kubernetes_takes(schemas: Any, found: Object, version: str) -> None:
    if found["apiVersion"] not in OURS_ELSEWHERE:
        schemas.validate(found, version, strict=True)


def test_the_schemas_refuse_what_is_wrong(schemas: Any) -> None:
    wrong = yaml.safe_load("apiVersion: v1\nkind: Service\nmetadata: {name: x}\nspec: {ports: [{port: http}]}")
    with pytest.raises(schemas.ValidationError):
        schemas.validate(wrong, SCHEMAS[-1], strict=True)


def test_the_operators_objects_have_what_their_definitions_require() -> None:
    objects = built("overlays/production")
    for found in objects:
        if found["kind"] == "ExternalSecret":
            spec = found["spec"]
            assert spec["target"]["name"] == found["metadata"]["name"]
            assert set(spec["secretStoreRef"]) == {"kind", "name"}
            assert [list(part["extract"]) for part in spec["dataFrom"]] == [["key"]]
    scaled = named("worker", "ScaledObject", "overlays/production")["spec"]
    assert named(scaled["scaleTargetRef"]["name"], "Deployment", "overlays/production")
    (trigger,) = scaled["triggers"]
    assert trigger["type"] == "redis"
    assert trigger["metadata"]["listName"] == f"rq:queue:{QUEUE}"
    assert int(trigger["metadata"]["listLength"]) > 0
    assert named(trigger["authenticationRef"]["name"], "TriggerAuthentication", "overlays/production")


def test_prometheus_finds_the_web_pods_and_brings_its_token() -> None:
    spec = named("spendscope-web", "PodMonitor", "overlays/production")["spec"]
    web = named("web", "Deployment", "overlays/production")["spec"]["template"]
    assert spec["selector"]["matchLabels"].items() <= web["metadata"]["labels"].items()
    (endpoint,) = spec["podMetricsEndpoints"]
    ports = {port["name"] for container in web["spec"]["containers"] for port in container["ports"]}
    assert endpoint["port"] in ports
    assert RULES["GET", endpoint["path"]] is Permission.METRICS, "which is why it needs a token"
    assert endpoint["authorization"]["type"] == "Bearer"
    secret = endpoint["authorization"]["credentials"]
    guide = (K8S.parent / "docs/operations.md").read_text("utf-8")
    assert f"create secret generic {secret['name']} --from-file={secret['key']}=" in guide


def without_hashes(text: str) -> str:
    """kubectl names a generated ConfigMap by its content, too."""
    names = {
        name
        for found in yaml.safe_load_all(text)
        if found["kind"] == "ConfigMap"
        for name in [found["metadata"]["name"]]
    }
    for name in names:
        text = text.replace(name, re.sub(r"-[a-z0-9]{10}$", "", name))
    return text


def comparable(objects: list[Object]) -> list[Object]:
    """In one order: a strategic merge promises none for the volumes and variables it joins."""
    for found in objects:
        if pod := pod_of(found):
            pod["volumes"].sort(key=lambda volume: volume["name"])
        for container in containers_of(found):
            container.get("env", []).sort(key=lambda variable: variable["name"])
    return sorted(objects, key=lambda found: (found["kind"], found["metadata"]["name"]))


@pytest.mark.parametrize("name", [*BUILT, *(f"base/{store}" for store in ("redis", "mongodb", "influxdb", "grafana"))])
def test_kubectl_builds_the_same(name: str) -> None:
    program = [["kubectl", "kustomize"]] if shutil.which("kubectl") else [["kustomize", "build"]]
    if shutil.which(program[0][0]) is None:
        pytest.skip("neither kubectl nor kustomize is installed: only this suite's own builder was used")
    said = subprocess.run([*program[0], str(K8S / name)], capture_output=True, text=True, check=True)
    theirs = list(yaml.safe_load_all(without_hashes(said.stdout)))

    assert comparable(theirs) == comparable(build(K8S / name))


# --- every pod is locked down --------------------------------------------------------------------------------------


@pytest.mark.parametrize("found", pods())
def test_a_pod_keeps_to_the_restricted_profile(found: Object) -> None:
    """The fields of the Pod Security Standard `restricted` (with `baseline` in it), and a read-only root beside them."""
    pod = pod_of(found)
    assert pod is not None
    for name in ("hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace"):
        assert not pod.get(name), name
    allowed = {
        "configMap",
        "emptyDir",
        "persistentVolumeClaim",
        "secret",
        "projected",
        "downwardAPI",
        "csi",
        "ephemeral",
    }
    for volume in pod.get("volumes", []):
        assert set(volume) - {"name"} <= allowed, volume
    context = pod["securityContext"]
    assert context["runAsNonRoot"] is True
    assert context["runAsUser"] > 0
    assert context["runAsGroup"] > 0
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    for name in ("sysctls", "seLinuxOptions", "windowsOptions", "appArmorProfile"):
        assert name not in context
    for container in containers_of(found):
        own = container["securityContext"]
        assert own["allowPrivilegeEscalation"] is False
        assert own["readOnlyRootFilesystem"] is True
        assert own["capabilities"] == {"drop": ["ALL"]}
        assert not own.get("privileged")
        assert "procMount" not in own
        assert own.get("runAsUser", 1) > 0
        assert own.get("runAsNonRoot", True) is True
        assert all("hostPort" not in port for port in container.get("ports", []))


@pytest.mark.parametrize("found", pods())
def test_a_pod_gets_no_token_no_service_names_and_no_more_than_its_share(found: Object) -> None:
    pod = pod_of(found)
    assert pod is not None
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False
    for container in containers_of(found):
        assert set(container["resources"]["requests"]) == set(container["resources"]["limits"]) == {"cpu", "memory"}
    for volume in pod["volumes"]:
        if "emptyDir" in volume:
            assert volume["emptyDir"].get("sizeLimit"), f"{volume['name']} may fill the node's disk"


@pytest.mark.parametrize("found", pods())
def test_an_image_is_pinned(found: Object) -> None:
    for container in containers_of(found):
        name, _, tag = container["image"].partition(":")
        assert re.fullmatch(r"\d+\.\d+\.\d+", tag) or (name, tag) == ("spendscope", "dev"), container["image"]
        assert container["imagePullPolicy"] == "IfNotPresent"


@pytest.mark.parametrize("name", ["base", "overlays/production"])
def test_our_image_is_this_version(name: str) -> None:
    ours = {c["image"] for found in built(name) for c in containers_of(found) if c["image"].startswith("spendscope")}
    assert ours == {f"spendscope:{app.__version__}"}


def test_the_namespace_enforces_the_profile() -> None:
    labels = named("spendscope", "Namespace", "base")["metadata"]["labels"]
    for mode in ("enforce", "audit", "warn"):
        assert labels[f"pod-security.kubernetes.io/{mode}"] == "restricted"


@pytest.mark.parametrize("found", everywhere())
def test_everything_is_in_the_namespace(found: Object) -> None:
    assert found["kind"] == "Namespace" or found["metadata"]["namespace"] == "spendscope"


def test_no_secret_and_no_static_key_is_in_the_files() -> None:
    for path in K8S.rglob("*.yaml"):
        assert not any(found.get("kind") == "Secret" for found in documents(path)), path
        assert "AWS_ACCESS_KEY_ID" not in path.read_text("utf-8"), path


# --- references ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BUILT)
def test_what_is_named_is_there(name: str) -> None:
    """ConfigMaps, claims and service accounts; Secrets are those of the example, made by nobody here."""
    objects = built(name)
    there = {(found["kind"], found["metadata"]["name"]) for found in objects}
    secrets = {
        found["metadata"]["name"] for found in documents(K8S / "components/external-secrets/externalsecrets.yaml")
    }
    for found in objects:
        pod = pod_of(found)
        for volume in pod["volumes"] if pod else ():
            if "configMap" in volume and not volume["configMap"].get("optional"):
                assert ("ConfigMap", volume["configMap"]["name"]) in there
            if "persistentVolumeClaim" in volume:
                assert ("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]) in there
            if "secret" in volume:
                assert volume["secret"]["secretName"] in secrets
        if pod and "serviceAccountName" in pod:
            assert ("ServiceAccount", pod["serviceAccountName"]) in there


def test_every_file_that_grafana_reads_is_mounted() -> None:
    given = {
        f"{found['metadata']['name']}/{name}"
        for found in built("base")
        if found["kind"] == "ConfigMap" and found["metadata"]["name"].startswith("grafana-")
        for name in found["data"]
    }
    folders = {
        "provisioning/datasources": "grafana-datasources",
        "provisioning/dashboards": "grafana-providers",
        "provisioning/alerting": "grafana-alerting",
        "dashboards": "grafana-dashboards",
    }
    grafana = K8S.parent / "grafana"
    there = {f"{name}/{path.name}" for folder, name in folders.items() for path in (grafana / folder).glob("*.*")}
    assert there == given
    mounted = {
        volume["configMap"]["name"]
        for volume in pod_of(named("grafana", "StatefulSet", "base"))["volumes"]
        if "configMap" in volume
    }  # type: ignore[index]
    assert mounted == set(folders.values())


@pytest.mark.parametrize("found", everywhere("ConfigMap"))
def test_a_config_map_is_smaller_than_etcd_takes(found: Object) -> None:
    assert sum(len(name) + len(text.encode()) for name, text in found["data"].items()) < 900_000


@pytest.mark.parametrize("found", pods())
def test_every_mount_has_its_volume(found: Object) -> None:
    pod = pod_of(found)
    assert pod is not None
    claims = {claim["metadata"]["name"] for claim in found["spec"].get("volumeClaimTemplates", [])}
    volumes = {volume["name"] for volume in pod["volumes"]} | claims
    mounted = {mount["name"] for container in containers_of(found) for mount in container["volumeMounts"]}
    assert mounted == volumes


def test_every_file_of_a_secret_is_a_key_that_the_example_lists() -> None:
    text = (K8S / "components/external-secrets/externalsecrets.yaml").read_text("utf-8")
    listed = {
        f"/run/secrets/{name}/{key}"
        for keys, name in re.findall(r"^# ([a-z, -]+)\n(?:.*\n){3}  name: ([a-z]+)$", text, re.MULTILINE)
        for key in keys.split(", ")
    }
    used = set(re.findall(r"/run/secrets/[a-z]+/[a-z-]+", yaml.safe_dump_all(built("base"), width=10_000)))
    assert used == listed - {"/run/secrets/grafana/influxdb-token"}, "the one that Grafana has in its environment"


@pytest.mark.parametrize("found", everywhere("Service"))
def test_a_service_finds_its_pods(found: Object) -> None:
    selector = found["spec"]["selector"]
    chosen = [
        f
        for f in built("base")
        if pod_of(f) and selector.items() <= f["spec"]["template"]["metadata"]["labels"].items()
    ]
    assert len(chosen) == 1
    ports = {port["name"] for container in containers_of(chosen[0]) for port in container["ports"]}
    assert {port["targetPort"] for port in found["spec"]["ports"]} <= ports


# --- settings ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BUILT)
def test_every_setting_is_one_of_ours(name: str) -> None:
    ours = {environment_name(field) for field in Settings.model_fields}
    for variable in named("spendscope", "ConfigMap", name)["data"]:
        assert variable.removesuffix("_FILE") in ours or variable in READ_BY_BOTO3, variable


@pytest.mark.parametrize("found", pods())
def test_what_is_set_beside_the_settings_is_for_another_program(found: Object) -> None:
    ours = {"spendscope"}
    for container in containers_of(found):
        given = [variable["name"] for variable in container.get("env", [])]
        if container["image"].partition(":")[0] in ours:
            assert not given, "ours come from the ConfigMap alone"
        for variable in given:
            known = ("MONGO_INITDB_", "DOCKER_INFLUXDB_INIT_", "INFLUXD_", "GF_", "INFLUXDB_", "PROMETHEUS_URL", "HOME")
            assert variable.startswith(known), variable


def settings_of(name: str, tmp_path: Path) -> Settings:
    """What a pod of ours would read, with a made-up secret wherever a file is named."""
    secret = tmp_path / "secret"
    secret.write_text("redis://made-up")
    given = named("spendscope", "ConfigMap", name)["data"]
    return read_settings({key: str(secret) if key.endswith("_FILE") else value for key, value in given.items()})


@pytest.mark.parametrize("name", BUILT)
def test_the_settings_are_read(name: str, tmp_path: Path) -> None:
    settings = settings_of(name, tmp_path)
    assert settings.redis_url
    assert settings.mongodb_uri
    assert settings.influxdb_token
    assert str(settings.data_dir) == "/var/lib/spendscope"
    assert settings.serves_demo == (name != "overlays/production")


def test_single_sign_on_is_a_component_whose_settings_are_read(tmp_path: Path) -> None:
    objects = with_component(build(K8S / "overlays/production"), K8S / "components/sign-on")
    (data,) = (f["data"] for f in objects if f["kind"] == "ConfigMap" and f["metadata"]["name"] == "spendscope")
    added = set(data) - set(named("spendscope", "ConfigMap", "overlays/production")["data"])
    assert {variable.removesuffix("_FILE") for variable in added} <= {
        environment_name(f) for f in Settings.model_fields
    }
    # Every pod of ours mounts the whole Secret; the example of it names the key.
    secret = data["SPENDSCOPE_OIDC_CLIENT_SECRET_FILE"].removeprefix("/run/secrets/spendscope/")
    assert secret in (K8S / "components/external-secrets/externalsecrets.yaml").read_text("utf-8")
    file = tmp_path / "secret"
    file.write_text("redis://made-up")
    settings = read_settings({key: str(file) if key.endswith("_FILE") else value for key, value in data.items()})
    assert settings.behind_tls
    assert open_identities(settings) is not None


def test_the_web_server_may_listen_for_its_service_because_somebody_can_sign_in(tmp_path: Path) -> None:
    """Its users are in MongoDB, which is not here: an empty store of the embedded kind stands for an empty one there."""
    settings = settings_of("overlays/production", tmp_path)
    assert not settings.on_loopback
    key = SecretStr("0123456789abcdef0123456789abcdef")
    new = {"port": 0, "mongodb_uri": None, "data_dir": tmp_path, "secret_key": key}
    check_address(settings.model_copy(update=new))
    with pytest.raises(CannotStart, match="nobody could sign in"):
        check_address(settings.model_copy(update={**new, "secret_key": None}))


def test_the_sample_on_minikube_listens_on_loopback_only(tmp_path: Path) -> None:
    settings = settings_of("overlays/minikube", tmp_path)
    check_address(settings.model_copy(update={"port": 0}))
    assert settings.retention == 0, "the sample is older than InfluxDB's default retention"
    kinds = {found["kind"] for found in built("overlays/minikube")}
    assert "Ingress" not in kinds


# --- probes, rollouts, disruptions ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BUILT)
def test_web_is_alive_by_healthz_and_ready_by_readyz(name: str) -> None:
    (container,) = containers_of(named("web", "Deployment", name))
    for probe, path in (("startupProbe", "/healthz"), ("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")):
        assert path in str(container[probe])
        assert len({"httpGet", "exec", "tcpSocket"} & set(container[probe])) == 1
    assert container["readinessProbe"]["timeoutSeconds"] > 6, "app.health.CHECK_SECONDS"


@pytest.mark.parametrize("name", BUILT)
@pytest.mark.parametrize("component", ["worker", "scheduler"])
def test_nothing_pretends_to_probe_what_serves_nothing(component: str, name: str) -> None:
    containers = pod_of(named(component, "Deployment", name))["containers"]  # type: ignore[index]
    assert not any("Probe" in key for container in containers for key in container)


def test_rollouts_lose_nothing() -> None:
    for name in ("web", "worker"):
        rolling = named(name, "Deployment", "base")["spec"]["strategy"]["rollingUpdate"]
        assert (rolling["maxUnavailable"], rolling["maxSurge"]) == (0, 1)
    assert named("scheduler", "Deployment", "base")["spec"]["strategy"] == {"type": "Recreate"}
    from workers.worker import FINISH_SECONDS, GIVE_BACK_SECONDS

    worker = pod_of(named("worker", "Deployment", "base"))
    assert worker is not None
    assert worker["terminationGracePeriodSeconds"] > 2 * (FINISH_SECONDS + GIVE_BACK_SECONDS)


def test_a_budget_never_blocks_a_drain() -> None:
    for found in (f for name in BUILT for f in built(name) if f["kind"] == "PodDisruptionBudget"):
        assert found["spec"]["maxUnavailable"] == 1


def test_nobody_sets_a_number_that_an_autoscaler_sets() -> None:
    for name in ("web", "worker"):
        assert "replicas" not in named(name, "Deployment", "overlays/production")["spec"]
    scaler = named("web", "HorizontalPodAutoscaler", "overlays/production")["spec"]["scaleTargetRef"]
    assert (scaler["kind"], scaler["name"]) == ("Deployment", "web")


@pytest.mark.parametrize("found", everywhere("Deployment") + everywhere("StatefulSet"))
def test_a_selector_holds_no_version_and_matches_its_pods(found: Object) -> None:
    labels = found["spec"]["template"]["metadata"]["labels"]
    selector = found["spec"]["selector"]["matchLabels"]
    assert selector.items() <= labels.items()
    assert "app.kubernetes.io/version" not in selector


# --- networks ------------------------------------------------------------------------------------------------------


def policies(name: str) -> list[Object]:
    return [
        found["spec"] | {"name": found["metadata"]["name"]} for found in built(name) if found["kind"] == "NetworkPolicy"
    ]


@pytest.mark.parametrize("name", BUILT)
def test_everything_is_denied_first(name: str) -> None:
    (denied,) = [policy for policy in policies(name) if policy["name"] == "default-deny"]
    assert denied["podSelector"] == {}
    assert set(denied["policyTypes"]) == {"Ingress", "Egress"}
    assert not {"ingress", "egress"} & set(denied)


def labels_of(name: str, workload: str) -> dict[str, str]:
    (found,) = [f for f in built(name) if pod_of(f) and f["metadata"]["name"] == workload]
    labels: dict[str, str] = found["spec"]["template"]["metadata"]["labels"]
    return labels


def chosen(selector: Object, labels: dict[str, str]) -> bool:
    return bool(selector.get("matchLabels", {}).items() <= labels.items())


def peers(rule: Object) -> list[Object]:
    return [end["podSelector"] for end in rule.get("to", rule.get("from", [])) if set(end) == {"podSelector"}]


def may(name: str, direction: str, own: str, other: str, port: int) -> bool:
    """Whether the policies on `own` let it connect to `other` (egress), or let `other` in (ingress)."""
    rules = [
        rule
        for policy in policies(name)
        if chosen(policy["podSelector"], labels_of(name, own))
        for rule in policy.get(direction, [])
    ]
    labels = labels_of(name, other)
    return any(
        port in [p["port"] for p in rule["ports"]] and any(chosen(peer, labels) for peer in peers(rule))
        for rule in rules
    )


WORKLOADS = ("web", "worker", "scheduler", "redis", "mongodb", "influxdb", "grafana")
LISTENS = {"web": 8050, "redis": 6379, "mongodb": 27017, "influxdb": 8086, "grafana": 3000}
TALKS = {
    *((source, target) for source in ("web", "worker", "scheduler") for target in ("redis", "mongodb", "influxdb")),
    ("grafana", "influxdb"),
    ("grafana", "web"),
}


@pytest.mark.parametrize("name", BUILT)
def test_pods_reach_what_they_need_and_nothing_else(name: str) -> None:
    """On either end: no policy leans on another one's."""
    pairs = {(a, b) for a in WORKLOADS for b in LISTENS if a != b}
    assert {(a, b) for a, b in pairs if may(name, "egress", a, b, LISTENS[b])} == TALKS
    assert {(a, b) for a, b in pairs if may(name, "ingress", b, a, LISTENS[b])} == TALKS


@pytest.mark.parametrize("name", BUILT)
def test_nothing_outside_is_reached_but_https_and_never_the_metadata_service(name: str) -> None:
    for policy in policies(name):
        for rule in policy.get("egress", []):
            for end in rule["to"]:
                block = end.get("ipBlock")
                if block and block["cidr"] == "0.0.0.0/0":
                    assert [port["port"] for port in rule["ports"]] == [443]
                    assert "169.254.0.0/16" in block["except"]


@pytest.mark.parametrize("name", BUILT)
def test_everybody_may_ask_for_names(name: str) -> None:
    (dns,) = [policy for policy in policies(name) if policy["name"] == "dns"]
    assert dns["podSelector"] == {}
    assert {(port["protocol"], port["port"]) for port in dns["egress"][0]["ports"]} == {("UDP", 53), ("TCP", 53)}


# --- the script ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["k8s/minikube.sh", "scripts/environment", "scripts/system-packages"])
def test_shellcheck_finds_nothing(path: str) -> None:
    program = str(Path(sys.executable).with_name("shellcheck"))
    found = subprocess.run([program, str(K8S.parent / path)], capture_output=True, text=True, check=False)
    assert (found.stdout, found.returncode) == ("", 0)


def test_the_script_makes_every_secret_with_every_key() -> None:
    script = (K8S / "minikube.sh").read_text("utf-8").replace("\\\n", " ")
    made = {
        f"/run/secrets/{name}/{key}"
        for name, rest in re.findall(r"^    secret ([a-z]+) (.*)$", script, re.MULTILINE)
        for key in re.findall(r'"([a-z-]+)=', rest)
    }
    used = set(re.findall(r"/run/secrets/[a-z]+/[a-z-]+", yaml.safe_dump_all(built("base"), width=10_000)))
    assert made == used | {"/run/secrets/grafana/influxdb-token"}
