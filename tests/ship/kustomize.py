"""Builds the kustomizations of k8s/ without kubectl: the features they use, and an error for any other.

Names of generated ConfigMaps get no hash here: what is checked on the objects does not depend on it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import yaml

Object = dict[str, Any]

KNOWN: Final = frozenset(
    {"apiVersion", "kind", "namespace", "resources", "components", "images", "configMapGenerator", "patches"}
)
CLUSTER_WIDE: Final = frozenset({"Namespace"})
MERGED_BY: Final = {
    "containers": "name",
    "initContainers": "name",
    "env": "name",
    "volumes": "name",
    "volumeMounts": "mountPath",
    "ports": "containerPort",
}
"""Lists that a strategic merge joins by a key; any other list is replaced."""


def build(folder: Path) -> list[Object]:
    """The objects of a kustomization, resources first, then what it generates, all patched."""
    given = read(folder)
    objects = [found for name in given.get("resources", []) for found in _resource(folder / name)]
    for component in given.get("components", []):
        objects = with_component(objects, folder / component)
    return _apply(objects, folder, given)


def read(folder: Path) -> Object:
    given: Object = yaml.safe_load((folder / "kustomization.yaml").read_text("utf-8"))
    if unknown := set(given) - KNOWN:
        raise NotImplementedError(f"{folder}/kustomization.yaml uses {', '.join(sorted(unknown))}")
    return given


def _resource(path: Path) -> Iterator[Object]:
    yield from build(path) if path.is_dir() else documents(path)


def documents(path: Path) -> list[Object]:
    return [found for found in yaml.safe_load_all(path.read_text("utf-8")) if found]


def with_component(objects: list[Object], component: Path) -> list[Object]:
    given = read(component)
    added = [found for name in given.get("resources", []) for found in _resource(component / name)]
    return _apply([*objects, *added], component, given)


def _apply(objects: list[Object], folder: Path, given: Object) -> list[Object]:
    for generator in given.get("configMapGenerator", []):
        _generate(objects, folder, generator)
    for patch in given.get("patches", []):
        for change in documents(folder / patch["path"]):
            _merge(_named(objects, change["kind"], change["metadata"]["name"]), change)
    for image in given.get("images", []):
        _set_image(objects, image)
    for found in objects if "namespace" in given else ():
        if found["kind"] not in CLUSTER_WIDE:
            found["metadata"]["namespace"] = given["namespace"]
    return objects


def _named(objects: list[Object], kind: str, name: str) -> Object:
    (found,) = [found for found in objects if found["kind"] == kind and found["metadata"]["name"] == name]
    return found


def _generate(objects: list[Object], folder: Path, generator: Object) -> None:
    data = {Path(name).name: (folder / name).read_text("utf-8") for name in generator.get("files", [])}
    lines = [line for name in generator.get("envs", []) for line in (folder / name).read_text("utf-8").splitlines()]
    for line in [line for line in lines if line and not line.startswith("#")] + generator.get("literals", []):
        key, _, value = line.partition("=")
        data[key] = value
    if generator.get("behavior") == "merge":
        _named(objects, "ConfigMap", generator["name"])["data"] |= data
        return
    metadata = {name: generator[name] for name in ("name", "namespace") if name in generator}
    objects.append({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})


def _merge(into: Object, change: Object) -> None:
    """Strategic merge: null takes a field away, objects are joined, lists as MERGED_BY says."""
    for name, value in change.items():
        if value is None:
            into.pop(name, None)
        elif isinstance(value, dict) and isinstance(into.get(name), dict):
            _merge(into[name], value)
        elif isinstance(value, list) and name in MERGED_BY and name in into:
            _merge_list(into[name], value, MERGED_BY[name])
        else:
            into[name] = _without_nulls(value)


def _merge_list(into: list[Object], change: list[Object], key: str) -> None:
    known = {item[key]: item for item in into}
    for item in change:
        if item[key] in known:
            _merge(known[item[key]], item)
        else:
            into.append(_without_nulls(item))


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nulls(part) for name, part in value.items() if part is not None}
    return [_without_nulls(part) for part in value] if isinstance(value, list) else value


def _set_image(objects: list[Object], image: Object) -> None:
    for found in objects:
        for container in containers_of(found):
            name, _, tag = container["image"].partition(":")
            if name == image["name"]:
                container["image"] = f"{image.get('newName', name)}:{image.get('newTag', tag)}"


def pod_of(found: Object) -> Object | None:
    """The pod's spec of a workload, None for anything else."""
    spec = found.get("spec", {})
    template = spec.get("jobTemplate", {}).get("spec", spec).get("template", {}) if isinstance(spec, dict) else {}
    pod: Object | None = found["spec"] if found["kind"] == "Pod" else template.get("spec")
    return pod


def containers_of(found: Object) -> list[Object]:
    pod = pod_of(found) or {}
    return [*pod.get("initContainers", []), *pod.get("containers", [])]
