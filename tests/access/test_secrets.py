"""I9: secrets planted in every setting, form, header and cookie are in no log, answer, job, export or record."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from pydantic import SecretStr

from app import access
from app.adapters.rq import RqQueue, connect
from app.config import Settings, environment_name, read_settings
from app.core.jobs import Job
from app.grafana.choices import choices_from
from app.grafana.files import export
from app.health import examine, status_of
from app.launcher import child_environment
from app.redisserver import PrivateRedis
from app.web import create_app
from tests.access.conftest import NOW, PASSWORD, Door, closed, form_token
from tests.access.test_rules import QUESTIONS
from tests.identityprovider import CLIENT, SECRET, fake_provider, led_back
from tests.pages.conftest import body_for


def planted_settings() -> dict[str, str]:
    """Every setting that is a secret, with a canary inside."""
    found = {}
    for name, field in Settings.model_fields.items():
        if "SecretStr" in str(field.annotation):
            canary = f"canary-{name.replace('_', '-')}-0123456789abcdef"
            shapes = {"redis_url": "redis://:{}@127.0.0.1:1/0", "mongodb_uri": "mongodb://u:{}@127.0.0.1:1/x"}
            found[name] = shapes.get(name, "https://hooks.example/{}" if name.endswith("_url") else "{}").format(canary)
    return found


def canary_in(value: str) -> str:
    return "canary-" + value.split("canary-")[1].split("@")[0].split("/")[0]


@pytest.fixture
def busy(tmp_path: Path) -> tuple[Door, list[str]]:
    """A deployment with secrets everywhere, and all of them; each was used once, right or wrong."""
    settings = planted_settings()
    secrets = [canary_in(value) for value in settings.values()]
    door = closed(tmp_path, days=3)
    given = door.backends.settings.model_copy(update={name: SecretStr(value) for name, value in settings.items()})
    door.backends = replace(door.backends, settings=given)
    door.app = create_app(door.backends)
    for n, role in enumerate(("admin", "editor", "analyst", "viewer")):
        password = f"canary password {n} of {role}"
        access.add_user(door.backends, role, role, None, password)
        client = door.client()
        door.sign_in(role, password, client=client)
        held = client.get_cookie(door.gate.cookie)
        assert held
        token, _ = access.create_token(door.backends, role, "t", ["read"], 1)
        door.tokens[f"token {role}"] = token
        assert door.client_of(f"token {role}").get("/api/v1/jobs").status_code == 200
        secrets += [password, held.value, token]
    for wrong in ("canary wrong password", "canary-password-as-name"):
        door.sign_in("admin" if "wrong" in wrong else wrong, wrong)
        secrets.append(wrong)
    wrong_token = "spsc_canary-wrong-token"
    door.client().get("/api/v1/jobs", headers={"Authorization": f"Bearer {wrong_token}"})
    claim, _ = access.offer_claim(door.backends)
    return door, [*secrets, wrong_token, claim]


def everything_told(door: Door) -> dict[str, str]:
    told: dict[str, str] = {}
    client = door.client_of("admin")
    for question in (*QUESTIONS, "/metrics", "/login", "/nothing", "/api/v1/jobs/none", "/api/v1/costs?start=x"):
        answer = client.get(question)
        told[question] = answer.get_data(as_text=True) + str(answer.headers)
    answer = client.post("/_dash-update-component", json=body_for(door.app, ""))
    told["page"] = answer.get_data(as_text=True) + str(answer.headers)
    answer = client.post("/api/v1/jobs", json={"kind": "ingest", "params": {"key": "2026-11-01.csv"}})
    told["job"] = answer.get_data(as_text=True)
    told["queue"] = repr(door.backends.queue)
    told["pushed"] = repr(getattr(door.backends.queue, "pushed", {}))
    told["jobs"] = repr(door.backends.metadata.jobs(limit=100))
    told["audit"] = repr(door.backends.metadata.audit(limit=1000))
    told["users"] = repr(door.backends.metadata.users()) + repr(door.backends.metadata.tokens())
    told["settings"] = repr(door.backends.settings) + str(door.backends.settings)
    told["status"] = repr(status_of(door.backends, door.backends.settings))
    return told


def test_25_secrets_are_told_nowhere(
    busy: tuple[Door, list[str]], tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level("DEBUG")
    door, secrets = busy
    assert len(set(secrets)) >= 25
    told = everything_told(door)
    export(tmp_path / "grafana", choices_from(door.backends.settings, None))
    told["exports"] = "".join(path.read_text("utf-8") for path in (tmp_path / "grafana").rglob("*") if path.is_file())
    # Its client of a MongoDB that does not answer would outlive the test.
    told["doctor"] = repr(examine(door.backends.settings.model_copy(update={"mongodb_uri": None})))
    told["log"] = caplog.text
    said = capfd.readouterr()
    told["console"] = said.out + said.err
    found = [(secret, place) for place, text in told.items() for secret in secrets if secret in text]
    assert found == []


def test_what_was_planted_would_be_found(busy: tuple[Door, list[str]]) -> None:
    door, secrets = busy
    shown = repr(
        {
            name: value.get_secret_value()
            for name, value in vars(door.backends.settings).items()
            if isinstance(value, SecretStr)
        }
    )
    assert sum(secret in shown for secret in secrets) == len(planted_settings()) >= 9


def test_wrong_settings_are_told_without_their_secrets() -> None:
    given = {environment_name(name): value for name, value in planted_settings().items()}
    with pytest.raises(Exception, match="SPENDSCOPE_PORT") as wrong:
        read_settings({**given, "SPENDSCOPE_PORT": "none"})
    assert "canary" not in str(wrong.value)


def test_no_command_line_of_a_child_has_a_secret(tmp_path: Path) -> None:
    settings = read_settings({environment_name(n): v for n, v in planted_settings().items()}, data_dir=tmp_path)
    environment = child_environment(settings)
    assert environment["SPENDSCOPE_SECRET_KEY"].startswith("canary")
    assert os.environ.get("SPENDSCOPE_SECRET_KEY") is None


def test_jobs_are_shown_without_what_was_found_in_them() -> None:
    from app.core.access import narrowed_job

    params: dict[str, Any] = {"source": "s3://b/costs/", "key": "2026-11-01.csv", "accounts": ["999"]}
    job = Job("j", "ingest", params, "k", "done", NOW, message="999 released", result={"accounts": ["999"]})
    seen = narrowed_job(job)
    assert seen
    assert "999" not in repr(seen)
    for kind in ("collect", "backfill", "detect", "scan"):
        assert narrowed_job(replace(job, kind=kind)) is None


def test_a_password_of_any_kind_is_not_on_the_form_again(tmp_path: Path) -> None:
    door = closed(tmp_path)
    access.add_user(door.backends, "ada", "admin", None, PASSWORD)
    client = door.client()
    values = {"form_token": form_token(client, "/login"), "name": "ada", "password": "canary wrong password"}
    assert "canary wrong" not in client.post("/login", data=values).get_data(as_text=True)


def test_what_a_queue_keeps_in_redis_holds_no_secret(busy: tuple[Door, list[str]], tmp_path: Path) -> None:
    """The job hashes of a real Redis, all else in it, and its append-only file; not what a queue of ours would say of itself."""
    door, secrets = busy
    private = PrivateRedis(tmp_path / "queue")
    private.start()
    try:
        queue = RqQueue(private.url, job_timeout=60)
        door.backends = replace(door.backends, queue=queue, limits=open_limits_of(private.url))
        door.app = create_app(door.backends)
        client = door.client_of("admin")
        answer = client.post("/api/v1/jobs", json={"kind": "ingest", "params": {"key": "2026-11-01.csv"}})
        assert answer.status_code == 202
        door.sign_in("admin", secrets[-3])
        with connect(private.url) as held:
            told = {str(key): repr(dumped(held, key)) for key in held.keys("*")}
        queue._client.close()
        assert any("rq:job:" in key for key in told)
        assert any("limit" in key for key in told)
    finally:
        private.stop()
    files = {
        str(path): path.read_bytes().decode("latin1") for path in (tmp_path / "queue").rglob("*") if path.is_file()
    }
    assert any("appendonly" in path for path in files)
    found = [(secret, place) for place, text in (told | files).items() for secret in secrets if secret in place + text]
    assert found == []


def open_limits_of(url: str) -> Any:
    from app.adapters.redislimits import RedisLimits

    return RedisLimits(url)


def dumped(client: Any, key: Any) -> Any:
    kind = client.type(key).decode()
    read = {"hash": client.hgetall, "list": lambda k: client.lrange(k, 0, -1), "set": client.smembers}
    read |= {"zset": lambda k: client.zrange(k, 0, -1), "string": client.get}
    return read[kind](key)


def test_secrets_of_signing_on_and_of_the_pages_are_told_nowhere(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level("DEBUG")
    with fake_provider(lambda: NOW.timestamp()) as provider:
        door = closed(
            tmp_path,
            oidc_issuer=provider.issuer,
            oidc_client_id=CLIENT,
            oidc_client_secret=SecretStr(SECRET),
            oidc_roles="finops=admin",
            public_url="http://127.0.0.1:8050",
        )
        access.add_user(door.backends, "admin", "admin", None, PASSWORD)
        client = door.client()
        there = client.get("/login/sso").headers["Location"]
        back = led_back(there)
        seed = client.get_cookie("spendscope-signon")
        client.get(back.removeprefix("http://127.0.0.1:8050"))
        held = client.get_cookie("spendscope")
        assert seed
        assert held
        asked, answered = (dict(parse_qsl(urlsplit(url).query)) for url in (there, back))
        made = {"form_token": form_token(client, "/users"), "name": "bob", "role": "viewer"}
        code = shown_once(client.post("/users", data=made)).split("code=")[1]
        chosen = "nine canary lanterns float"
        bob = door.client()
        bob.post(
            "/welcome",
            data={"form_token": form_token(bob, "/welcome"), "code": code, "name": "bob", "password": chosen},
        )
        values = {"form_token": form_token(bob, "/account"), "name": "t", "days": "3", "scope": "read"}
        token = shown_once(bob.post("/account/tokens", data=values))
        # What goes wrong is told, and must not tell more.
        provider.token_answer = lambda answer: {**answer, "id_token": "canary.broken.token"}
        wrong = led_back(client.get("/login/sso").headers["Location"])
        client.get(wrong.removeprefix("http://127.0.0.1:8050"))
        secrets = [
            *(seed.value, held.value, asked["state"], asked["nonce"], answered["code"], code, chosen, token, SECRET),
            *(provider.token_requests[0]["code_verifier"], "canary-access-token", "canary.broken.token", "eyJhbGci"),
        ]
        told = everything_told(door)
        for path in ("/users", "/audit", "/account", f"/users/{door.backends.metadata.users()[0].id}"):
            told[path] = client.get(path).get_data(as_text=True)
        told["bob"] = bob.get("/account").get_data(as_text=True)
        told["sessions"] = repr([door.backends.metadata.sessions(user.id) for user in door.backends.metadata.users()])
        told["provider"] = repr(door.backends.identities) + repr(getattr(door.backends.identities, "client", None))
    told["log"] = caplog.text
    said = capfd.readouterr()
    told["console"] = said.out + said.err
    assert "an ID token was refused" in told["log"]
    assert [(secret, place) for place, text in told.items() for secret in secrets if secret in text] == []
    door.backends.metadata.close()


def shown_once(answer: Any) -> str:
    return str(answer.get_data(as_text=True).split('people-secret" tabindex="0">')[1].split("<")[0])
