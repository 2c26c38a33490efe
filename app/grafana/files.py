"""The folder `grafana/` as Grafana mounts it: provisioning files and dashboards. Equal choices give equal bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from app.errors import CannotStart
from app.grafana import contacts
from app.grafana.alerts import FOLDER, FOLDER_TITLE, cost_rules, group_file, operation_rules
from app.grafana.choices import Choices
from app.grafana.dashboards import COSTS, OPERATIONS, costs, operations
from app.grafana.panels import INFLUXDB, PROMETHEUS, Json

MOUNT: Final = "/var/lib/spendscope-dashboards"
"""Where the folder `dashboards` is expected inside Grafana's container."""
NAMESPACE: Final = "spendscope"
GENERATED: Final = "# Written by `spendscope grafana export`; change app/grafana and export again.\n"


def influxdb_source() -> Json:
    """The variables are those of Grafana's own environment. Its token should only read the bucket: whoever may query a
    data source may use all that its token may."""
    return {
        "name": "Spendscope InfluxDB",
        "uid": INFLUXDB,
        "type": "influxdb",
        "access": "proxy",
        "url": "$INFLUXDB_URL",
        "jsonData": {
            "version": "Flux",
            "organization": "$INFLUXDB_ORG",
            "defaultBucket": "$INFLUXDB_BUCKET",
            "maxSeries": 10_000,
            "timeInterval": "1d",
        },
        "secureJsonData": {"token": "$INFLUXDB_TOKEN"},
    }


def prometheus_source() -> Json:
    return {
        "name": "Spendscope Prometheus",
        "uid": PROMETHEUS,
        "type": "prometheus",
        "access": "proxy",
        "url": "$PROMETHEUS_URL",
        "jsonData": {"httpMethod": "POST", "timeInterval": "30s"},
    }


def provider() -> Json:
    return {
        "name": "spendscope",
        "orgId": 1,
        "type": "file",
        "folder": FOLDER_TITLE,
        "folderUid": FOLDER,
        "disableDeletion": True,
        "allowUiUpdates": False,
        "updateIntervalSeconds": 30,
        "options": {"path": MOUNT, "foldersFromFilesStructure": False},
    }


def files(choices: Choices) -> dict[str, bytes]:
    """Path below the folder → content."""
    return {**_costs(choices), **_operations(choices), **_notifications()}


def _costs(choices: Choices) -> dict[str, bytes]:
    """What a Grafana with InfluxDB provisions, and the ConfigMaps of it."""
    dashboard = f"dashboards/{COSTS}.json"
    source, rules = "provisioning/datasources/influxdb.yaml", "provisioning/alerting/costs.yaml"
    providers = "provisioning/dashboards/spendscope.yaml"
    config_maps = {
        "grafana-datasources": source,
        "grafana-providers": providers,
        "grafana-alerting": rules,
        "grafana-dashboards": dashboard,
    }
    return {
        dashboard: json_bytes(costs(choices)),
        source: yaml_bytes({"datasources": [_provisioned(influxdb_source())]}),
        providers: yaml_bytes({"providers": [provider()]}),
        rules: yaml_bytes({"groups": [group_file(cost_rules(choices))]}),
        "kustomization.yaml": kustomization("Kustomization", "kustomize.config.k8s.io/v1beta1", config_maps, {}),
    }


def _operations(choices: Choices) -> dict[str, bytes]:
    """Apart, for a Grafana that also has Prometheus: without it every one of these rules would fail every minute."""
    config_maps = {
        "grafana-datasources": "prometheus.yaml",
        "grafana-alerting": "operations.yaml",
        "grafana-dashboards": f"{OPERATIONS}.json",
    }
    found = {
        "prometheus.yaml": yaml_bytes({"datasources": [_provisioned(prometheus_source())]}),
        "operations.yaml": yaml_bytes({"groups": [group_file(operation_rules())]}),
        f"{OPERATIONS}.json": json_bytes(operations(choices)),
        "kustomization.yaml": kustomization(
            "Component", "kustomize.config.k8s.io/v1alpha1", config_maps, {"behavior": "merge"}
        ),
    }
    return {f"operations/{name}": content for name, content in found.items()}


def _notifications() -> dict[str, bytes]:
    """Apart, one file a channel: Grafana does not start with a receiver whose variable is unset."""
    receivers = {
        f"notifications/{receiver['uid'].removeprefix('spendscope-')}.yaml": yaml_bytes(
            {"contactPoints": [{"orgId": 1, "name": contacts.CONTACT, "receivers": [receiver]}]}
        )
        for receiver in contacts.receivers()
    }
    return receivers | {"notifications/policy.yaml": yaml_bytes({"policies": [{"orgId": 1, **contacts.policy()}]})}


def _provisioned(source: Json) -> Json:
    return {"orgId": 1, **source, "editable": False}


def kustomization(kind: str, version: str, config_maps: Mapping[str, str], more: Json) -> bytes:
    """ConfigMaps, one for each folder that Grafana reads."""
    generated = [{"name": name, "namespace": NAMESPACE, **more, "files": [path]} for name, path in config_maps.items()]
    return _dumped({"apiVersion": version, "kind": kind, "configMapGenerator": generated})


def json_bytes(document: Json) -> bytes:
    return (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()


def yaml_bytes(document: Mapping[str, Any]) -> bytes:
    """A provisioning file."""
    return _dumped({"apiVersion": 1, **document})


def _dumped(document: Mapping[str, Any]) -> bytes:
    """Keys in the order given, texts of several lines as they are, so that a person can read the queries."""
    import yaml

    class Dumper(yaml.SafeDumper):
        def ignore_aliases(self, _data: Any) -> bool:
            return True

    def text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)

    Dumper.add_representer(str, text)
    body = yaml.dump(dict(document), Dumper=Dumper, sort_keys=False, allow_unicode=True, width=1000)
    return (GENERATED + body).encode()


def export(folder: Path, choices: Choices) -> list[str]:
    """Write what is not there or differs; the paths that were written. Other files in the folder stay.

    Raises CannotStart when the folder cannot be written.
    """
    return [name for name, content in files(choices).items() if _write(folder / name, content)]


def _write(path: Path, content: bytes) -> bool:
    try:
        if path.is_file() and path.read_bytes() == content:
            return False
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    except OSError as error:
        raise CannotStart(f"{path} cannot be written ({error.strerror}). Choose another folder with --out.") from None
    return True
