"""A closed deployment of real embedded parts: two accounts, one of them full of canaries, and somebody of each kind."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, cast

import pytest
from flask.testing import FlaskClient

from app import access
from app.backends import Backends, open_identities
from app.core.reconciliation import KeptReference, Reference
from app.core.restatements import Move, Notice
from app.gate import Gate
from app.web import create_app
from tests.api.conftest import Charge, empty_backends, take, write_day

FIRST, END = date(2026, 10, 20), date(2026, 11, 5)
NOW = datetime(2026, 11, 6, 9, tzinfo=UTC)
MINE, OTHER = "111111111111", "987650123456"
OTHER_AMOUNT = Decimal("7313.377331")
CANARIES = (OTHER, "CanaryService", "canary-region-7", "CanaryCategory", "CanaryUnit", "7313.37", "731337")
"""What stands nowhere but in the other account's rows."""
PASSWORD = "correct horse battery"
ROLES = ("viewer", "analyst", "editor", "admin")


def charges_of(day: date) -> list[Charge]:
    chance = random.Random(day.toordinal())
    mine = Decimal(chance.randrange(100, 9_000)) / 100
    return [
        Charge(day, MINE, "Amazon S3", "eu-west-1", "Usage", mine, mine, mine, Decimal(3)),
        Charge(day, MINE, "Amazon EC2", "us-east-1", "Usage", mine, None, mine, Decimal(5)),
        Charge(day, OTHER, "Amazon S3", "eu-west-1", "Usage", Decimal(11), Decimal(11), Decimal(11), Decimal(1)),
        Charge(
            day, OTHER, "CanaryService", "canary-region-7", "CanaryCategory", *[OTHER_AMOUNT] * 3, Decimal("731337")
        ),
    ]


@dataclass(eq=False)
class Clock:
    now: datetime = NOW

    def __call__(self) -> datetime:
        return self.now


@dataclass
class Door:
    """The app, its gate with a clock of its own, and ways in."""

    backends: Backends
    app: Any
    clock: Clock
    tokens: dict[str, str] = field(default_factory=dict)

    @property
    def gate(self) -> Gate:
        found: Gate = self.app.server.extensions["spendscope-gate"]
        return found

    def client(self) -> FlaskClient:
        client: FlaskClient = self.app.server.test_client()
        return client

    def wait(self, **delta: float) -> None:
        """Let time pass for everything; each limit starts anew after a minute."""
        self.clock.now += timedelta(**delta)

    def sign_in(self, name: str, password: str = PASSWORD, client: FlaskClient | None = None, **headers: str) -> Any:
        client = client or self.client()
        values = {"form_token": form_token(client, "/login"), "name": name, "password": password}
        return client.post("/login", data=values, headers=headers)

    def client_of(self, name: str) -> FlaskClient:
        """A browser in which this user is signed in; for `token …` a program with that token."""
        client = self.client()
        if name.startswith("token "):
            client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {self.tokens[name]}"
        elif name != "nobody":
            user = self.backends.metadata.user_named(name)
            assert user is not None
            secret = access.start_session(self.backends, user, access.Visitor("192.0.2.1"), "test")
            client.set_cookie(self.gate.cookie, secret)
        return client


def form_token(client: FlaskClient, path: str) -> str:
    found = re.search(r'name="form_token" value="([0-9a-f]+)"', client.get(path).get_data(as_text=True))
    assert found, path
    return found[1]


def closed(root: Path, *, days: int = 0, **settings: Any) -> Door:
    clock = Clock()
    plain = empty_backends(root)
    given = plain.settings.model_copy(update=settings)
    backends = replace(plain, clock=clock, settings=given, identities=open_identities(given, clock))
    for n in range(days):
        take(
            backends,
            with_units(root / "costs" / write_day(root / "costs", day := FIRST + timedelta(days=n), charges_of(day))),
        )
    return Door(backends, create_app(backends), clock)


def with_units(path: Path) -> str:
    head, *rows = path.read_text("utf-8").splitlines()
    units = [row + (",CanaryUnit" if "CanaryService" in row else ",GB") for row in rows]
    path.write_text("\n".join([head + ",usage_unit", *units, ""]), "utf-8")
    return path.name


def people(door: Door) -> None:
    """`viewer` … `admin` who see all accounts, `… of mine` who see one, and tokens."""
    for role in ROLES:
        access.add_user(door.backends, role, role, None, PASSWORD)
        if role != "admin":
            access.add_user(door.backends, f"{role}-mine", role, frozenset({MINE}), PASSWORD)
    for name, user, scopes in (
        ("token read", "admin", ["read"]),
        ("token operate", "editor", ["read", "operate"]),
        ("token metrics", "admin", ["metrics"]),
        ("token alerts", "editor", ["alerts"]),
        ("token mine", "viewer-mine", ["read"]),
    ):
        door.tokens[name] = access.create_token(door.backends, user, name, scopes, 30)[0]


def restated(door: Door, costs: Path, day: date) -> None:
    """A day both accounts had more on than was said when it was complete; and a notice that names the other one."""
    more = [replace(found, amortized_cost=found.amortized_cost * 3) for found in charges_of(day)]
    assert take(door.backends, with_units(costs / write_day(costs, day, more))) == "done"
    moves = {name: Move(Decimal(1), OTHER_AMOUNT if name == OTHER else Decimal(5)) for name in (MINE, OTHER)}
    for name, kind, about in (
        ("n1", "restated", moves),
        ("n2", "restated", {OTHER: moves[OTHER]}),
        ("n3", "reference", {}),
    ):
        door.backends.metadata.add_notice(Notice(name, cast(Any, kind), NOW, day, f"{OTHER} moved by 7313.37", about))


def told_by_cost_explorer(door: Door) -> None:
    days = {FIRST: {"Usage": (OTHER_AMOUNT,), "CanaryCategory": (OTHER_AMOUNT,)}}
    accounts = {MINE: {FIRST: {"Usage": (Decimal(7),)}}, OTHER: days}
    reference = Reference(FIRST.replace(day=1), NOW, "USD", ("amortized_cost",), accounts)
    kept = KeptReference(door.backends.source.root, FIRST.replace(day=1), "v", f"{OTHER} cannot be read", reference)
    door.backends.metadata.put_reference(kept)


@pytest.fixture(scope="session")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """With data and people; for asking only."""
    root = tmp_path_factory.mktemp("access")
    door = closed(root, days=(END - FIRST).days)
    broken = f"account,service,region,amortized_cost,blended_cost,unblended_cost,usage_quantity\n{OTHER},CanaryService,r,{OTHER}x,1,1,1\n"
    (root / "costs" / f"{END}.csv").write_text(broken)
    assert take(door.backends, f"{END}.csv") == "quarantined"
    restated(door, root / "costs", FIRST)
    told_by_cost_explorer(door)
    people(door)
    yield door
    door.backends.metadata.close()


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Door]:
    """Without data; one admin, `ada`; may be changed."""
    found = closed(tmp_path)
    access.add_user(found.backends, "ada", "admin", None, PASSWORD)
    yield found
    found.backends.metadata.close()
