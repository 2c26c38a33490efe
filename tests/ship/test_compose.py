"""compose.yaml and its overlays: valid, locked down, loopback only, every name known."""

from __future__ import annotations

import os
import re
import socket
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import redis
import yaml
from compose_spec import PyCompose, PyOptions

import app
from app.config import Settings, environment_name, read_settings
from app.redisserver import find_binary
from tests.ship.test_kubernetes import K8S, built, containers_of, pod_of

ROOT: Final = Path(__file__).parent.parent.parent
OURS: Final = ("web", "worker", "scheduler")
STORES: Final = ("redis", "mongodb", "influxdb", "grafana")


class Loader(yaml.SafeLoader):
    """Knows !reset: the merged service loses what the first file gave it."""


class Reset:
    pass


Loader.add_constructor("!reset", lambda *_: Reset())


def loaded(name: str) -> Any:
    return yaml.load((ROOT / name).read_text("utf-8"), Loader)


def merged(*names: str) -> Any:
    """The services as Compose joins files: mappings by key, lists added up, !reset taken out."""
    first, *others = (loaded(name) for name in names)
    for other in others:
        for name, change in other["services"].items():
            service = first["services"][name]
            for key, value in change.items():
                service[key] = joined(service.get(key), value)
                if isinstance(value, Reset):
                    del service[key]
        first["name"] = other.get("name", first["name"])
    return first


def joined(before: Any, after: Any) -> Any:
    if isinstance(before, dict) and isinstance(after, dict):
        return before | after
    if isinstance(before, list) and isinstance(after, list) and after and ":" in after[0]:
        return before + after
    return after


@pytest.fixture(scope="module")
def compose() -> Any:
    return loaded("compose.yaml")


def specified(text: str) -> PyCompose:
    """Parsed by the specification, YAML merge keys followed."""
    parsed: PyCompose = PyOptions(apply_merge=True).from_yaml(text)
    return parsed


def test_it_is_what_the_specification_takes() -> None:
    parsed = specified((ROOT / "compose.yaml").read_text("utf-8"))
    parsed.validate()
    assert set(parsed.service_names()) == {*OURS, *STORES, "sample"}
    overlay = specified((ROOT / "compose.s3.yaml").read_text("utf-8"))
    assert set(overlay.service_names()) <= {*OURS, *STORES, "sample"}


def test_the_specification_refuses_what_is_wrong() -> None:
    with pytest.raises(ValueError, match="portz"):
        specified("services: {web: {image: x, portz: [1]}}").validate()


@pytest.mark.parametrize("name", [*OURS, *STORES, "sample"])
def test_a_container_is_locked_down(compose: Any, name: str) -> None:
    service = compose["services"][name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", service["user"])
    assert not {"privileged", "cap_add", "pid", "ipc", "devices"} & set(service)
    assert service["mem_limit"]
    assert all(mount.startswith("/tmp:") and "size=" in mount for mount in service["tmpfs"])
    assert not any("docker.sock" in str(volume) for volume in service["volumes"])


@pytest.mark.parametrize("files", [(), ("compose.s3.yaml",), ("compose.sso.yaml",)])
def test_nothing_is_published_beyond_loopback(files: tuple[str, ...]) -> None:
    services = merged("compose.yaml", *files)["services"]
    published = {name: port for name, service in services.items() for port in service.get("ports", [])}
    assert all(port.startswith("127.0.0.1:") for port in published.values()), published
    assert not [name for name, service in services.items() if service.get("network_mode") == "host"]
    if not files:
        assert set(published) == {"web", "grafana"}


def test_stores_reach_nobody_outside(compose: Any) -> None:
    assert compose["networks"]["stores"] == {"internal": True}
    for name in ("redis", "mongodb", "influxdb"):
        assert compose["services"][name]["networks"] == ["stores"]


def test_what_is_named_is_there(compose: Any) -> None:
    services = compose["services"]
    for service in services.values():
        for volume in service["volumes"]:
            source = volume.split(":")[0]
            known = source in compose["volumes"]
            assert known or not source.startswith("./") or (ROOT / source).exists() or source.startswith("./grafana/")
            assert known or volume.endswith(":ro")
        assert {secret["source"] for secret in service.get("secrets", [])} <= set(compose["secrets"])
        assert set(service.get("networks", [])) <= set(compose["networks"])
        assert set(service.get("depends_on", {})) <= set(services)
        for other, how in service.get("depends_on", {}).items():
            healthy = how["condition"] == "service_healthy"
            assert healthy == (other != "sample")
            assert not healthy or "test" in services[other]["healthcheck"]


def test_images_are_those_of_kubernetes(compose: Any) -> None:
    there = {container["image"] for found in built("base") for container in containers_of(found)}
    assert {service["image"] for service in compose["services"].values()} == there
    assert f"spendscope:{app.__version__}" in there


def test_a_store_is_set_up_as_in_kubernetes(compose: Any) -> None:
    """The same users, the same settings, the same files of secrets: one guide holds for both."""
    for name in STORES:
        (found,) = [f for f in built("base") if pod_of(f) and f["metadata"]["name"] == name]
        (container,) = containers_of(found)
        service = compose["services"][name]
        plain = {item["name"]: item["value"] for item in container.get("env", []) if "value" in item}
        assert service.get("environment", {}) == plain
        pod = pod_of(found)
        assert pod is not None
        assert service["user"] == f"{pod['securityContext']['runAsUser']}:{pod['securityContext']['runAsGroup']}"
    assert [line.replace("$$", "$") for line in compose["services"]["redis"]["command"]] == redis_command()


def redis_command() -> list[str]:
    (found,) = [f for f in built("base") if f["kind"] == "StatefulSet" and f["metadata"]["name"] == "redis"]
    command: list[str] = containers_of(found)[0]["command"]
    return command


@pytest.mark.parametrize("files", [(), ("compose.s3.yaml",), ("compose.sso.yaml",)])
@pytest.mark.parametrize("name", OURS)
def test_every_setting_is_one_of_ours_and_is_read(name: str, files: tuple[str, ...], tmp_path: Path) -> None:
    given = merged("compose.yaml", *files)["services"][name]["environment"]
    ours = {environment_name(field) for field in Settings.model_fields}
    for variable in given:
        assert variable.removesuffix("_FILE") in ours or variable.startswith("AWS_"), variable
    secret = tmp_path / "secret"
    secret.write_text("redis://made-up")
    filled = {key: str(secret) if key.endswith("_FILE") else filled_in(value) for key, value in given.items()}
    settings = read_settings(filled)
    assert settings.serves_demo == (files != ("compose.s3.yaml",))


def filled_in(value: str) -> str:
    """As Compose does with an empty environment, but for what it asks for."""
    asked_for = {
        "SOURCE": "s3://bucket/costs/",
        "OIDC_ISSUER": "https://login.example.org",
        "OIDC_CLIENT_ID": "x",
        "OIDC_ROLES": "finops=editor",
    }
    value = re.sub(r"\$\{SPENDSCOPE_(\w+):\?[^}]*\}", lambda found: asked_for[found[1]], value)
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value)


def test_single_sign_on_gets_its_secret_as_a_file() -> None:
    overlay = loaded("compose.sso.yaml")
    assert specified((ROOT / "compose.sso.yaml").read_text("utf-8"))
    [secret] = overlay["services"]["web"]["secrets"]
    assert overlay["services"]["web"]["environment"]["SPENDSCOPE_OIDC_CLIENT_SECRET_FILE"] == secret["target"]
    assert secret["source"] in overlay["secrets"]


def test_every_file_of_a_secret_is_given_to_who_reads_it(compose: Any) -> None:
    for name, service in compose["services"].items():
        said = yaml.safe_dump({key: service.get(key) for key in ("environment", "command", "entrypoint")}, width=10_000)
        read = set(re.findall(r"/run/secrets/[a-z]+/[a-z-]+", said))
        given = {secret["target"] for secret in service.get("secrets", [])}
        if name == "mongodb":
            read |= set(re.findall(r"/run/secrets/[a-z]+/[a-z-]+", (K8S / "base/mongodb/users.js").read_text("utf-8")))
        assert read == given, name


def test_real_data_never_meets_the_sample() -> None:
    sample, real = merged("compose.yaml"), merged("compose.yaml", "compose.s3.yaml")
    assert sample["name"] != real["name"], "the project's name is the prefix of its volumes"
    assert real["services"]["sample"]["command"] == ["--version"]


def test_only_what_serves_is_asked_for_its_health(compose: Any) -> None:
    for name in ("worker", "scheduler", "sample"):
        assert compose["services"][name]["healthcheck"] == {"disable": True}
    assert "healthcheck" not in compose["services"]["web"], "the image's own"


def test_secrets_are_made_once_and_only_for_us(tmp_path: Path) -> None:
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts/secrets").write_text((ROOT / "scripts/secrets").read_text())
    for _ in range(2):
        subprocess.run(["sh", str(tmp_path / "scripts/secrets")], check=True, capture_output=True)
        kept = {path.name: path.read_text() for path in (tmp_path / "secrets").iterdir()}
    subprocess.run(["sh", str(tmp_path / "scripts/secrets")], check=True, capture_output=True)
    assert {path.name: path.read_text() for path in (tmp_path / "secrets").iterdir()} == kept
    assert set(kept) == set(loaded("compose.yaml")["secrets"])
    assert stat.S_IMODE((tmp_path / "secrets").stat().st_mode) == 0o700
    assert len(set(kept.values())) == len(kept)
    assert kept["redis_password"] in kept["redis_url"]
    assert kept["mongodb_password"] in kept["mongodb_uri"]
    assert "/secrets/" in (ROOT / ".gitignore").read_text().splitlines()


# --- the Redis of the manifests, for real -------------------------------------------------------------------------


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[str, str]]:
    """(URL with the password, URL without) of a server started by the manifests' own command, in folders of the test."""
    password, port = "a secret of the test", free_port()
    (tmp_path / "data").mkdir()
    (tmp_path / "password").write_text(password + "\n")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/redis-server").symlink_to(find_binary())
    config = (K8S / "base/redis/redis.conf").read_text("utf-8")
    (tmp_path / "redis.conf").write_text(config.replace("/data", str(tmp_path / "data")) + f"port {port}\n")
    shell, options, script = redis_command()
    for place, here in (
        ("/etc/redis/redis.conf", tmp_path / "redis.conf"),
        ("/run/secrets/redis/password", tmp_path / "password"),
        ("/tmp/redis.conf", tmp_path / "made.conf"),
    ):
        script = script.replace(place, f'"{here}"')
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    process = subprocess.Popen([shell, options, script], env={"PATH": path}, stdout=subprocess.DEVNULL)
    try:
        wait_for(port)
        yield f"redis://:{password.replace(' ', '%20')}@127.0.0.1:{port}/0", f"redis://127.0.0.1:{port}/0"
    finally:
        process.terminate()
        assert process.wait(10) == 0, "SIGTERM reaches the server itself, which writes its log"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(port: int) -> None:
    until = time.monotonic() + 30
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            assert time.monotonic() < until
            time.sleep(0.05)


def test_the_redis_of_the_manifests_wants_its_password_and_loses_no_job(
    served: tuple[str, str], tmp_path: Path
) -> None:
    from app.adapters.rq import RqQueue
    from app.errors import BadCredentials

    known, unknown = served
    RqQueue(known, job_timeout=60).check()
    with pytest.raises(BadCredentials):
        RqQueue(unknown, job_timeout=60).check()
    assert stat.S_IMODE((tmp_path / "made.conf").stat().st_mode) == 0o600
    client = redis.Redis.from_url(known)
    assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
    client.set("kept", "1")
    assert list((tmp_path / "data/appendonlydir").iterdir())
    client.close()
