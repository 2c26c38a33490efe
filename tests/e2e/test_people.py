"""Signing on and the pages about people in a real browser: policies that only a browser enforces, keyboard, axe, narrow."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from app import access
from app.backends import Backends
from tests.access.conftest import PASSWORD, Door, closed
from tests.e2e.conftest import Served
from tests.e2e.test_overview import AXE, violations
from tests.identityprovider import CLIENT, SECRET, FakeProvider, fake_provider

pytestmark = pytest.mark.browser


@dataclass
class House:
    door: Door
    served: Served
    provider: FakeProvider

    @property
    def backends(self) -> Backends:
        return self.door.backends


class _Secret:
    def get_secret_value(self) -> str:
        return SECRET


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with fake_provider(lambda: 0.0) as provider:
        door = closed(
            tmp_path_factory.mktemp("people"),
            oidc_issuer=provider.issuer,
            oidc_client_id=CLIENT,
            oidc_client_secret=_Secret(),
            oidc_roles="finops=editor; admins=admin",
            oidc_name="Example Login",
            public_url=f"http://127.0.0.1:{port}",
        )
        provider.clock = lambda: door.clock.now.timestamp()
        access.add_user(door.backends, "ada", "admin", None, PASSWORD)
        access.add_user(door.backends, "bob", "viewer", frozenset({"111111111111", "222222222222"}), PASSWORD)
        access.add_user(door.backends, "eve", "analyst", None, PASSWORD)
        access.set_disabled(door.backends, "eve", True)
        access.create_token(door.backends, "ada", "nightly export", ["read"], 30)
        served = Served(door.backends, port)
        yield House(door, served, provider)
        served.stop()
        door.backends.metadata.close()


@pytest.fixture
def page(house: House, browser: Any) -> Iterator[Any]:
    context = browser.new_context(color_scheme="light")
    page = context.new_page()
    page.set_default_timeout(20_000)
    page.told = []

    def hear(message: Any) -> None:
        # The provider's pages are its own.
        if message.type == "error" and not message.location["url"].startswith(house.provider.issuer):
            page.told.append(message.text)

    page.on("console", hear)
    yield page
    context.close()


def sign_in(house: House, page: Any, name: str = "ada") -> None:
    house.door.wait(minutes=1)
    page.goto(f"{house.served.url}/login?next=/account")
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(PASSWORD)
    page.keyboard.press("Enter")
    page.wait_for_url("**/account")


def test_one_signs_on_and_out_through_the_provider(house: House, page: Any) -> None:
    """The whole way, with the policies that a browser holds against it."""
    house.provider.answers["/logout"] = (200, {"Content-Type": "text/html"}, b"<h1>Bye at Example Login</h1>")
    page.goto(f"{house.served.url}/account")
    assert page.url.endswith("/login?next=/account")
    page.get_by_role("link", name="Sign in with Example Login").focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**/account")
    assert page.locator("h1").inner_text() == "ada.lovelace"
    assert "from your groups" in page.locator("main").inner_text()
    cookies = {cookie["name"]: cookie for cookie in page.context.cookies()}
    assert cookies["spendscope"]["httpOnly"]
    assert cookies["spendscope"]["sameSite"] == "Lax"
    page.get_by_role("button", name="Sign out").click()
    page.wait_for_url(f"{house.provider.issuer}/logout?**")
    assert "Bye" in page.locator("h1").inner_text()
    page.goto(f"{house.served.url}/account")
    assert "/login" in page.url
    assert page.told == []


def test_an_admin_adds_somebody_who_comes_in_by_the_link(house: House, page: Any, browser: Any) -> None:
    sign_in(house, page)
    page.get_by_role("link", name="Users").click()
    page.get_by_label("Name").fill("grace")
    page.get_by_label("Role").select_option("analyst")
    page.keyboard.press("Enter")
    link = page.locator(".people-secret").inner_text()
    other = browser.new_context()
    tab = other.new_page()
    tab.goto(link)
    tab.get_by_label("Your name here").fill("grace")
    tab.get_by_label("New password").fill("nine purple lanterns float")
    tab.keyboard.press("Enter")
    tab.wait_for_url(f"{house.served.url}/")
    tab.goto(f"{house.served.url}/account")
    assert tab.locator("h1").inner_text() == "grace"
    assert tab.get_by_role("link", name="Users").count() == 0
    other.close()
    page.get_by_role("link", name="Back to grace").click()
    page.get_by_role("button", name="Shut out").click()
    assert "Shut out" in page.get_by_role("status").inner_text()
    page.get_by_role("link", name="What grace did").click()
    assert "one-time link" in page.locator("tbody").inner_text()
    assert page.told == []


def test_a_token_is_made_by_keyboard_alone(house: House, page: Any) -> None:
    sign_in(house, page)
    page.get_by_label("What it is for").focus()
    page.keyboard.type("ci")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.value") == "read"
    page.keyboard.press("Enter")
    assert page.locator(".people-secret").inner_text().startswith("spsc_")
    page.locator("body").press("Tab")
    page.keyboard.press("Shift+Tab")
    page.goto(f"{house.served.url}/account")
    assert page.locator(".people-secret").count() == 0


PLACES = ("/login", "/account", "/users", "/users/bob", "/audit")


def place(house: House, path: str) -> str:
    if path != "/users/bob":
        return house.served.url + path
    bob = house.backends.metadata.user_named("bob")
    assert bob
    return f"{house.served.url}/users/{bob.id}"


def test_axe_finds_nothing_and_nothing_scrolls_sideways(house: House, page: Any) -> None:
    if not AXE.exists():
        pytest.skip("axe-core is not installed; npm ci --ignore-scripts to run the accessibility tests")
    script = AXE.read_text("utf-8")
    for path in PLACES:
        if path == "/account":
            sign_in(house, page)
        for theme, width in (("light", 1280), ("dark", 320)):
            page.emulate_media(color_scheme=theme)
            page.set_viewport_size({"width": width, "height": 900})
            page.goto(place(house, path))
            assert page.evaluate("document.documentElement.dataset.theme") == theme
            assert page.evaluate("document.documentElement.scrollWidth") <= width, path
            page.evaluate(script)
            assert violations(page) == [], (path, theme)
