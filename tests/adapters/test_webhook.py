from __future__ import annotations

import ipaddress
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.adapters.webhook import MOST_ANSWER, Reach, Webhook, is_public, may_be_internal
from app.errors import Refused, SpendscopeError, Unavailable
from tests.receivers import (
    HOST,
    AnyName,
    Receiver,
    certificate,
    cut,
    dripping,
    huge,
    receiver,
    say,
    silent,
    webhook_to,
)

SECRET = "T0/B0/very-secret"

NAMES = {
    "inside.example.org": ["127.0.0.1"],
    "inside6.example.org": ["::1"],
    "mixed.example.org": ["93.184.216.34", "127.0.0.1"],
    "mixed6.example.org": ["2606:2800:220:1::1", "::ffff:127.0.0.1"],
    "mapped.example.org": ["::ffff:127.0.0.1"],
    "nat64.example.org": ["64:ff9b::7f00:1"],
    "sixtofour.example.org": ["2002:7f00:1::"],
    "compatible.example.org": ["::127.0.0.1"],
    "metadata.example.org": ["169.254.169.254"],
    "metadata6.example.org": ["fd00:ec2::254"],
    "scoped.example.org": ["fe80::1%1"],
    "nothing.example.org": [],
    "localhost": ["127.0.0.1"],
    "localhost.localdomain": ["127.0.0.1"],
    "ip6-localhost": ["::1"],
    "metadata.google.internal": ["169.254.169.254"],
    "127.0.0.1.nip.io": ["127.0.0.1"],
    "xn--bcher-kva.example": ["127.0.0.1"],
}


def as_the_system_does(host: str, port: int) -> list[str]:
    """The names above; everything else as the C library reads it, without asking any server."""
    if host in NAMES:
        return NAMES[host]
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    return [str(place[0]) for *_, place in found]


FORMS = [
    # this machine, as it is usually written and as a C library reads it too
    "https://127.0.0.1:P/",
    "https://127.1:P/",
    "https://127.0.1:P/",
    "https://127.127.127.127:P/",
    "https://2130706433:P/",
    "https://0x7f000001:P/",
    "https://0x7f.0x0.0x0.0x1:P/",
    "https://0x7f.1:P/",
    "https://017700000001:P/",
    "https://0177.0.0.1:P/",
    "https://0177.0.0x0.1:P/",
    "https://127.0.0.1.:P/",
    "https://0.0.0.0:P/",
    "https://0:P/",
    "https://[::1]:P/",
    "https://[::]:P/",
    "https://[0:0:0:0:0:0:0:1]:P/",
    "https://[::ffff:127.0.0.1]:P/",
    "https://[::ffff:7f00:1]:P/",
    "https://[::127.0.0.1]:P/",
    "https://[64:ff9b::127.0.0.1]:P/",
    "https://[64:ff9b::7f00:1]:P/",
    "https://[2002:7f00:1::]:P/",
    "https://[fe80::1%251]:P/",
    "https://[::1%25lo]:P/",
    # letters that are normalised into dots and digits
    "https://127。0。0。1:P/",
    "https://①②⑦.⓪.⓪.①:P/",
    "https://１２７.０.０.１:P/",
    "https://ⓛocalhost:P/",
    "https://ＬＯＣＡＬＨＯＳＴ:P/",
    "https://bücher.example:P/",
    # names
    "https://localhost:P/",
    "https://LOCALHOST.:P/",
    "https://localhost.localdomain:P/",
    "https://ip6-localhost:P/",
    "https://127.0.0.1.nip.io:P/",
    *(f"https://{name}:P/" for name in NAMES if name.endswith(".example.org")),
    # metadata services and private networks
    "https://169.254.169.254:P/latest/meta-data/",
    "https://[fd00:ec2::254]:P/",
    "https://metadata.google.internal:P/computeMetadata/v1/",
    "https://100.100.100.200:P/",
    "https://192.0.0.192:P/",
    "https://10.0.0.1:P/",
    "https://172.16.0.1:P/",
    "https://192.168.0.1:P/",
    "https://100.64.0.1:P/",
    "https://224.0.0.1:P/",
    "https://255.255.255.255:P/",
    "https://[ff02::1]:P/",
    "https://[fc00::1]:P/",
    # other schemes, and addresses that two readers read differently
    "http://127.0.0.1:P/",
    "file:///etc/passwd",
    "gopher://127.0.0.1:P/_x",
    "ftp://127.0.0.1:P/",
    "//127.0.0.1:P/",
    "127.0.0.1:P",
    "https:127.0.0.1:P",
    "https:///127.0.0.1:P/",
    "https://hooks.slack.com@127.0.0.1:P/",
    "https://user:password@127.0.0.1:P/",
    "https://@127.0.0.1:P/",
    "https://127.0.0.1:P\\@hooks.slack.com/",
    "https://hooks.slack.com\\@127.0.0.1:P/",
    "https://127.0.0.1:P#@hooks.slack.com/",
    "https://hooks.slack.com:80@127.0.0.1:P/",
    "https://127.0.0.1:P /",
    "https://127.0.0.1\t:P/",
    "https://127.0.0.1:P/\r\nHost: x",
    "https://127.0.0.1%00.slack.com:P/",
    "https://127.0.0.1%2f@slack.com:P/",
    "https://[::1]@slack.com:P/",
    "https://[127.0.0.1]:P/",
    "https://127.0.0.1:0/",
    "https://127.0.0.1:-1/",
    "https://127.0.0.1:99999/",
    "https://:P/",
    "https://",
    "",
]


@pytest.fixture(scope="module")
def canary() -> Iterator[Receiver]:
    """Listens on this machine, over IPv4 and IPv6, where every form above leads."""
    with receiver() as found, receiver(host="::1", port=found.port) as six:
        yield found
        assert six.connections == 0
    assert found.connections == 0


@pytest.mark.parametrize("form", FORMS)
def test_no_form_of_an_address_reaches_anything_inside(canary: Receiver, form: str) -> None:
    # The production rule for addresses; only the port is the canary's.
    reach = Reach(AnyName(canary.port), is_fine_allowed=is_public)  # type: ignore[arg-type]
    with pytest.raises((Refused, Unavailable)) as raised:
        Webhook(reach, as_the_system_does, 3.0).post(form.replace("P", str(canary.port)), {}, b"x")
    assert canary.connections == 0
    assert "127.0.0.1" not in raised.value.message


def test_there_are_sixty_forms() -> None:
    assert len(set(FORMS)) >= 60


def test_the_canary_would_have_sung() -> None:
    """The same call with the rule broken: so the test above tests the rule and not a dead server."""
    with receiver() as found:
        reach = Reach(AnyName(found.port), frozenset({"http"}), is_fine_allowed=lambda _: True)  # type: ignore[arg-type]
        for form in ("http://127.0.0.1:P/", "http://inside.example.org:P/"):
            Webhook(reach, as_the_system_does, 3.0).post(form.replace("P", str(found.port)), {}, b"x")
        assert len(found.requests) == 2


def test_a_name_that_resolves_to_something_else_a_moment_later_is_asked_once() -> None:
    """DNS rebinding: the address that was looked at is the one connected to."""
    answers = iter([["127.0.0.2"], *[["127.0.0.1"]] * 9])
    with receiver() as canary, receiver(host="127.0.0.2", port=canary.port) as ours:
        fine = ipaddress.ip_address("127.0.0.2")
        reach = Reach(AnyName(ours.port), frozenset({"http"}), is_fine_allowed=lambda address: address == fine)  # type: ignore[arg-type]
        sender = Webhook(reach, lambda *_: next(answers), 3.0)
        sender.post(f"http://{HOST}:{ours.port}/", {}, b"x")
        assert (len(ours.requests), canary.connections) == (1, 0)
        with pytest.raises(Refused):
            sender.post(f"http://{HOST}:{ours.port}/", {}, b"x")
        assert canary.connections == 0


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_not_followed(status: int) -> None:
    with receiver() as canary, receiver(say(status, Location=f"http://127.0.0.1:{canary.port}/")) as found:
        answered = webhook_to(found).post(f"http://{HOST}:{found.port}/", {}, b"x")
        assert answered.status == status
        assert canary.connections == 0


def test_only_443_unless_it_is_allowed() -> None:
    for url in ("https://93.184.216.34:8443/", "https://93.184.216.34:80/"):
        with pytest.raises(Refused, match="port"):
            Reach().place(url, as_the_system_does)
    assert Reach().place("https://93.184.216.34/x?y=z", as_the_system_does).target == "/x?y=z"


def test_an_allowed_name_may_be_internal_and_never_a_metadata_service() -> None:
    reach = Reach(frozenset({("chat.corp", 8443)}))
    found = reach.place("https://Chat.Corp:8443/", lambda *_: ["10.1.2.3", "fd12::1"])
    assert (found.host, found.addresses) == ("chat.corp", ("10.1.2.3", "fd12::1"))
    for inside in ("169.254.169.254", "127.0.0.1", "::1", "fd00:ec2::254", "100.100.100.200", "192.0.0.192", "0.0.0.0"):
        with pytest.raises(Refused):
            reach.place("https://chat.corp:8443/", lambda *_, inside=inside: ["10.1.2.3", inside])  # type: ignore[misc]
    with pytest.raises(Refused):
        reach.place("https://other.corp/", lambda *_: ["10.1.2.3"])


@pytest.mark.parametrize("text", ["8.8.8.8", "93.184.216.34", "2606:2800:220:1::1", "2a00:1450:4001::1"])
def test_public_addresses_are_public(text: str) -> None:
    assert is_public(ipaddress.ip_address(text))


@pytest.mark.parametrize(
    "text",
    [
        "64:ff9b::808:808",
        "2002:808:808::1",
        "192.0.0.8",
        "224.0.0.1",
        "ff0e::1",
        "100.64.0.1",
        "::ffff:8.8.8.8",
        "::8.8.8.8",
    ],
)
def test_addresses_that_python_calls_global_or_that_hide_another(text: str) -> None:
    assert not is_public(ipaddress.ip_address(text))


def test_internal_addresses_for_allowed_names() -> None:
    assert may_be_internal(ipaddress.ip_address("10.0.0.1"))
    assert not may_be_internal(ipaddress.ip_address("::ffff:169.254.169.254"))


def test_tls_is_checked_against_the_name_and_the_address_is_pinned(tmp_path: Path) -> None:
    server, client = certificate(tmp_path, HOST)
    with receiver(tls=server) as found:
        answered = webhook_to(found, tls=client).post(f"https://{HOST}:{found.port}/{SECRET}", {"X-A": "b"}, b"{}")
        assert (answered.status, answered.body) == (200, b"ok")
        [(path, headers, body)] = found.requests
        assert (path, headers["host"], headers["x-a"], body) == (f"/{SECRET}", f"{HOST}:{found.port}", "b", b"{}")
        with pytest.raises(Unavailable, match="certificate is not accepted"):
            webhook_to(found, tls=client).post(f"https://other.example.org:{found.port}/", {}, b"{}")
        assert len(found.requests) == 1


def test_a_certificate_of_nobody_we_trust_or_of_the_past_is_refused(tmp_path: Path) -> None:
    (tmp_path / "past").mkdir()
    server, _ = certificate(tmp_path, HOST)
    past, believes = certificate(tmp_path / "past", HOST, days=-1)
    with receiver(tls=server) as found, pytest.raises(Unavailable, match="certificate is not accepted"):
        webhook_to(found, tls=Webhook().tls).post(f"https://{HOST}:{found.port}/", {}, b"{}")
    with receiver(tls=past) as found, pytest.raises(Unavailable, match="certificate is not accepted"):
        webhook_to(found, tls=believes).post(f"https://{HOST}:{found.port}/", {}, b"{}")
    assert found.requests == []


def test_a_receiver_without_tls_is_no_answer() -> None:
    with receiver() as found, pytest.raises(Unavailable):
        webhook_to(found, tls=Webhook().tls, seconds=1.0).post(f"https://{HOST}:{found.port}/", {}, b"{}")


BODY = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 60000\r\n\r\n"


@pytest.mark.alone
@pytest.mark.parametrize(
    "script", [silent(5), dripping(5), dripping(5, BODY)], ids=["silent", "dripping head", "dripping body"]
)
def test_a_slow_receiver_is_left_when_time_is_over(script: object) -> None:
    with receiver(script) as found:  # type: ignore[arg-type]
        began = time.monotonic()
        with pytest.raises(Unavailable):
            webhook_to(found, seconds=0.6).post(f"http://{HOST}:{found.port}/{SECRET}", {}, b"{}")
        assert time.monotonic() - began < 2


def test_a_resolver_that_does_not_answer_is_left_too() -> None:
    with receiver() as found, pytest.raises(Unavailable, match="in time"):
        webhook_to(found, seconds=0.3, resolve=lambda *_: time.sleep(1) or []).post(
            f"http://{HOST}:{found.port}/", {}, b""
        )


def test_a_cut_answer_is_no_answer() -> None:
    with receiver(cut) as found, pytest.raises(Unavailable):
        webhook_to(found).post(f"http://{HOST}:{found.port}/", {}, b"{}")


def test_of_an_endless_answer_the_beginning_is_read() -> None:
    with receiver(huge) as found:
        assert len(webhook_to(found).post(f"http://{HOST}:{found.port}/", {}, b"{}").body) == MOST_ANSWER


def test_no_error_repeats_the_address() -> None:
    with receiver() as found:
        port = found.port
    for url in (f"http://{HOST}:{port}/{SECRET}", f"https://{HOST}/{SECRET}#x", f"https://{HOST}:9/{SECRET}"):
        with pytest.raises(SpendscopeError) as raised:
            webhook_to(found).post(url, {}, b"{}")
        assert SECRET not in raised.value.message
        assert HOST not in raised.value.message


def test_a_refused_connection_is_unavailable_and_the_next_address_is_tried() -> None:
    with receiver() as found:
        sender = webhook_to(found, resolve=lambda *_: ["127.0.0.3", "127.0.0.1"])
        assert sender.post(f"http://{HOST}:{found.port}/", {}, b"{}").status == 200
    with pytest.raises(Unavailable):
        sender.post(f"http://{HOST}:{found.port}/", {}, b"{}")
