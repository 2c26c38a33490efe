"""What becomes of a notification when sending fails: cells N1 to N11 of docs/faults.md.

Receivers are real servers over TLS that answer as they are told; the outbox is the real embedded one; a clock is moved
by hand. Addresses are checked as in production but for the port and that they lead to this machine.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import ssl
import threading
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.adapters.smtp import Smtp
from app.adapters.webhook import Reach, Webhook
from app.backends import Backends
from app.channels import Channel, OpsgenieChannel, PagerdutyChannel, SlackChannel, TeamsChannel, WebhookChannel
from app.core.messages import resolution
from app.core.notifications import Delivery, Notification, Severity
from app.errors import Unavailable
from app.notifications import met, notify, send_next, send_test, tidy
from app.ports import Answered
from tests.forking import context
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
)
from tests.workers.world import Clock, world_of
from workers.notifying import Notifying

SECRET = "very-secret-path"


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    return certificate(tmp_path_factory.mktemp("tls"), HOST)


def slack(found: Receiver, name: str = "slack", **changes: Any) -> SlackChannel:
    return SlackChannel(name=name, type="slack", url=f"https://{HOST}:{found.port}/{SECRET}", **changes)


def hook(found: Receiver, name: str = "hook", **changes: Any) -> WebhookChannel:
    url = f"https://{HOST}:{found.port}/{SECRET}"
    return WebhookChannel(name=name, type="webhook", url=url, secret=SECRET, **changes)


def event(number: int = 0, severity: Severity = "warning", **changes: Any) -> Notification:
    given: dict[str, Any] = {"facts": (("Account", "1"),), **changes}
    return Notification("anomaly", severity, f"Event {number}", f"anomaly/{number}", Clock().now, **given)


def to_here(tls: ssl.SSLContext, seconds: float = 2.0, address: str = "127.0.0.1") -> Webhook:
    return Webhook(Reach(AnyName(), is_fine_allowed=lambda _: True), lambda *_: [address], seconds, tls)  # type: ignore[arg-type]


@dataclass
class Deployment:
    world: Backends
    clock: Clock

    def tell(self, *events: Notification) -> int:
        return notify(self.world, events or [event()])

    def send(self, times: int = 1, *, every: float = 1.01) -> int:
        """Passes of a scheduler, every so many seconds; how many messages were tried."""
        tried = 0
        for _ in range(times):
            tried += sum(send_next(self.world, one, draw=lambda: 0.5) for one in self.world.channels.values())
            self.clock.forward(every)
        return tried

    @property
    def deliveries(self) -> list[Delivery]:
        return list(self.world.metadata.deliveries(limit=1000).items)

    @property
    def statuses(self) -> Counter[str]:
        return Counter(one.status for one in self.deliveries)

    def one(self) -> Delivery:
        [found] = self.deliveries
        return found


def deployment(folder: Path, webhooks: Any, *channels: Channel) -> Deployment:
    clock = Clock()
    world = replace(
        world_of(folder, clock=clock), channels={one.name: one for one in channels}, webhooks=webhooks, mail=Smtp()
    )
    for one in channels:
        met(world, one.name)
    return Deployment(world, clock)


def ids_of(found: Receiver) -> list[str]:
    return [json.loads(body)["id"] for body in found.bodies]


# --- N1 -----------------------------------------------------------------------------------------------------------------


def test_n1_a_receiver_that_is_down_is_tried_eight_times_in_a_day_then_given_up_and_shown(
    tmp_path: Path, tls: Any
) -> None:
    with receiver(tls=tls[0]) as found:
        pass
    here = deployment(tmp_path, to_here(tls[1]), hook(found))
    here.tell()
    tries, began = [], here.clock.now
    for _ in range(2 * 24 * 4):
        if here.send(every=15 * 60):
            tries.append(here.clock.now)
    assert len(tries) == 8
    assert timedelta(hours=20) < tries[-1] - began < timedelta(hours=28)
    ended_so = here.one()
    assert (ended_so.status, ended_so.attempts) == ("failed", 8)
    assert "does not answer" in (ended_so.message or "")
    assert "Given up after 8 tries" in (ended_so.message or "")


def test_n1_a_name_that_cannot_be_found_is_tried_again(tmp_path: Path, tls: Any) -> None:
    def unknown(*_: object) -> list[str]:
        raise OSError("no such host")

    with receiver(tls=tls[0]) as found:
        sender = Webhook(Reach(AnyName()), unknown, 2.0, tls[1])  # type: ignore[arg-type]
        here = deployment(tmp_path, sender, hook(found))
        here.tell()
        here.send()
        assert here.one().status == "pending"
        here.world = replace(here.world, webhooks=to_here(tls[1]))
        here.clock.forward(90)
        here.send()
        assert here.one().status == "sent"


# --- N2 -----------------------------------------------------------------------------------------------------------------


def test_n2_an_answer_that_breaks_off_is_sent_again_with_the_same_id(tmp_path: Path, tls: Any) -> None:
    with receiver(cut, say(), tls=tls[0]) as found:
        here = deployment(tmp_path, to_here(tls[1]), hook(found))
        here.tell()
        here.send()
        assert here.one().status == "pending"
        here.clock.forward(90)
        here.send()
        assert here.one().status == "sent"
        first, second = ids_of(found)
        assert first == second == here.one().id


# --- N3 -----------------------------------------------------------------------------------------------------------------


@pytest.mark.alone
@pytest.mark.parametrize("script", [silent(4), dripping(4)], ids=["silent", "dripping"])
def test_n3_a_slow_channel_keeps_no_other_waiting(tmp_path: Path, tls: Any, script: Any) -> None:
    with receiver(script, tls=tls[0]) as slow, receiver(tls=tls[0]) as quick:
        here = deployment(tmp_path, to_here(tls[1], 1.5), hook(slow, "a-slow"), hook(quick, "quick"))
        here.tell()
        began = time.monotonic()
        notifying = Notifying(here.world)
        notifying.once(began)
        while not quick.requests:
            assert time.monotonic() - began < 1.2, "before the slow one is given up"
            time.sleep(0.01)
        for thread in notifying._sending.values():
            thread.join(5)
        assert {one.channel: one.status for one in here.deliveries} == {"a-slow": "pending", "quick": "sent"}


# --- N4 -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_n4_three_refusals_disable_a_channel_until_a_test_succeeds(
    tmp_path: Path, tls: Any, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    with receiver(say(status), tls=tls[0]) as found:
        here = deployment(tmp_path, to_here(tls[1]), hook(found))
        here.tell(*map(event, range(5)))
        with caplog.at_level(logging.INFO):
            here.send(9)
        assert len(found.requests) == 3
        assert here.statuses == {"failed": 3, "pending": 2}
        state = here.world.metadata.channel_state("hook")
        assert str(status) in (state.disabled or "")
        assert "Channel hook is disabled" in caplog.text
        assert send_test(here.world, "hook").status == "failed"
        found.scripts = [say(204, b"")]
        assert send_test(here.world, "hook").status == "sent"
        here.send(9)
        assert here.statuses == {"failed": 4, "sent": 3}, "what waited is told"


def test_n4_a_message_that_is_not_taken_fails_at_once_and_the_next_one_goes(tmp_path: Path, tls: Any) -> None:
    with receiver(say(400), say(), tls=tls[0]) as found:
        here = deployment(tmp_path, to_here(tls[1]), hook(found))
        here.tell(event(0), event(1))
        here.send(3)
        assert here.statuses == {"failed": 1, "sent": 1}
        assert here.world.metadata.channel_state("hook").disabled is None


def test_n4_what_waits_for_a_disabled_channel_fails_after_days_with_the_reason(tmp_path: Path, tls: Any) -> None:
    with receiver(say(403), tls=tls[0]) as found:
        here = deployment(tmp_path, to_here(tls[1]), hook(found))
        here.tell(*map(event, range(4)))
        here.send(5)
        assert tidy(here.world) == 0
        here.clock.forward(3 * 86400)
        assert tidy(here.world) == 1
        assert here.statuses == {"failed": 4}
        assert any("is disabled" in (one.message or "") for one in here.deliveries)


# --- N5 -----------------------------------------------------------------------------------------------------------------


def test_n5_an_error_with_200_is_none_delivered_and_500_after_accepting_repeats_the_id(
    tmp_path: Path, tls: Any
) -> None:
    words = b"Webhook message delivery failed with error: Microsoft Teams endpoint returned HTTP error 500"
    with (
        receiver(say(200, b"invalid_payload"), say(), tls=tls[0]) as chat,
        receiver(say(200, words), say(202, b""), tls=tls[0]) as team,
        receiver(say(500), say(), tls=tls[0]) as own,
    ):
        teams = TeamsChannel(name="teams", type="teams", url=f"https://{HOST}:{team.port}/{SECRET}")  # type: ignore[arg-type]
        here = deployment(tmp_path, to_here(tls[1]), slack(chat), teams, hook(own))
        here.tell()
        here.send()
        assert here.statuses == {"pending": 3}
        here.clock.forward(90)
        here.send()
        assert here.statuses == {"sent": 3}
        assert len(set(ids_of(own))) == 1
        assert chat.bodies[0] == chat.bodies[1]
        assert team.bodies[0] == team.bodies[1]


# --- N6 -----------------------------------------------------------------------------------------------------------------


@dataclass
class Recording:
    """Webhooks in memory: answers what it is told to, and keeps what was accepted."""

    answers: list[int | None] = field(default_factory=list)
    accepted: list[str] = field(default_factory=list)

    def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Answered:
        answer = self.answers.pop(0) if self.answers else 200
        if answer is None:
            raise Unavailable("notifications", "It does not answer.")
        if answer != 400:
            self.accepted.append(headers["X-Spendscope-Id"])
        return Answered(answer, {}, b"")


# --- those who wake people ------------------------------------------------------------------------------------------


@dataclass
class Waking:
    """A service that answers as it is told; what it got is kept. Each of them has one address and no other."""

    answers: list[tuple[int, dict[str, str]] | None] = field(default_factory=list)
    got: list[tuple[str, dict[str, str], dict[str, Any]]] = field(default_factory=list)

    def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Answered:
        self.got.append((url, dict(headers), json.loads(body)))
        answer = self.answers.pop(0) if self.answers else (202, {})
        if answer is None:
            raise Unavailable("notifications", "It does not answer.")
        return Answered(answer[0], answer[1], b'{"result": "Request will be processed"}')

    def incidents(self) -> list[tuple[str, str]]:
        """(what was done, to which incident), in order."""
        return [
            (body["event_action"], body["dedup_key"]) if "event_action" in body
            else ("resolve", url.split("/")[-2]) if "/close" in url
            else ("trigger", body["alias"])
            for url, _, body in self.got
        ]  # fmt: skip


WAKING = [
    PagerdutyChannel(name="pager", type="pagerduty", routing_key=SECRET),  # type: ignore[arg-type]
    OpsgenieChannel(name="genie", type="opsgenie", api_key=SECRET),  # type: ignore[arg-type]
    OpsgenieChannel(name="genie-eu", type="opsgenie", api_key=SECRET, region="eu"),  # type: ignore[arg-type]
    OpsgenieChannel(name="jira", type="opsgenie", api_key=SECRET, region="jsm"),  # type: ignore[arg-type]
]
EACH_WAKING = pytest.mark.parametrize("channel", WAKING, ids=lambda one: one.name)


@EACH_WAKING
def test_waking_n1_n2_what_is_sent_again_is_the_same_incident_and_its_end_closes_it(
    tmp_path: Path, channel: Channel
) -> None:
    sender = Waking([None, (500, {}), (202, {})])
    here = deployment(tmp_path, sender, channel)
    here.tell()
    here.send(3, every=700)
    assert here.one().status == "sent"
    here.tell(resolution(event(), here.clock.now))
    here.send(2)
    assert here.statuses == {"sent": 2}
    done = sender.incidents()
    assert [what for what, _ in done] == ["trigger"] * 3 + ["resolve"]
    assert len({incident for _, incident in done}) == 1


@EACH_WAKING
def test_waking_n4_refusals_disable_the_channel_and_no_key_is_told(
    tmp_path: Path, channel: Channel, caplog: pytest.LogCaptureFixture
) -> None:
    sender = Waking([(403, {})] * 3)
    here = deployment(tmp_path, sender, channel)
    here.tell(*map(event, range(4)))
    with caplog.at_level(logging.DEBUG):
        here.send(8)
    assert len(sender.got) == 3
    state = here.world.metadata.channel_state(channel.name)
    assert "403" in (state.disabled or "")
    assert SECRET not in caplog.text + repr(here.deliveries) + repr(state)


@EACH_WAKING
def test_waking_n6_retry_after_is_kept_and_uses_up_no_try(tmp_path: Path, channel: Channel) -> None:
    sender = Waking([(429, {"Retry-After": "120"})])
    here = deployment(tmp_path, sender, channel)
    here.tell()
    here.send(2, every=110)
    assert (len(sender.got), here.one().attempts) == (1, 0)
    here.send(1)
    assert (len(sender.got), here.one().status) == (2, "sent")


@EACH_WAKING
def test_waking_what_is_not_taken_fails_at_once(tmp_path: Path, channel: Channel) -> None:
    here = deployment(tmp_path, Waking([(422, {})]), channel)
    here.tell(event(0), event(1))
    here.send(3)
    assert here.statuses == {"failed": 1, "sent": 1}


@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("tell"), st.integers(0, 9)),
            st.tuples(st.just("send"), st.sampled_from([200, 200, 200, None, 500, 429])),
            st.tuples(st.just("wait"), st.sampled_from([1, 61, 900, 4000])),
        ),
        max_size=40,
    )
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_n6_the_same_event_is_one_message_whatever_fails(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, Any]]
) -> None:
    sender = Recording()
    channel = WebhookChannel(name="hook", type="webhook", url="https://x.example/", digest_minutes=0)  # type: ignore[arg-type]
    here = deployment(tmp_path_factory.mktemp("n6"), sender, channel)
    told, failures = set(), 0
    for what, value in steps:
        if what == "tell":
            assert here.tell(event(value)) == (0 if value in told else 1)
            told.add(value)
        elif what == "send":
            sender.answers = [value]
            failures += here.send() and value in (500, 429)
        else:
            here.clock.forward(value)
    sender.answers = []
    here.send(60, every=3700)
    assert here.statuses == ({"sent": len(told)} if told else {})
    counts = Counter(sender.accepted)
    assert set(counts) == {one.id for one in here.deliveries}, "one id an event"
    assert sum(counts.values()) <= len(told) + failures, "again only after an answer that said it was not taken"


# --- N7 -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_n7_too_many_waits_as_long_as_it_is_asked_and_keeps_the_order(tmp_path: Path, tls: Any, form: str) -> None:
    asked = {"seconds": "120", "date": "Tue, 24 Nov 2026 12:02:00 GMT"}[form]
    with receiver(say(429, Retry_After=asked), say(), tls=tls[0]) as found:
        here = deployment(tmp_path, to_here(tls[1]), hook(found))
        for number in range(3):
            here.tell(event(number))
            here.clock.forward(0.01)
        here.send(100)
        assert len(found.requests) == 1, "nothing is sent before the time it asked for"
        here.send(40)
        titles = [json.loads(body)["title"] for body in found.bodies]
        assert titles == ["Event 0", "Event 0", "Event 1", "Event 2"]
        assert all(one.attempts == 1 for one in here.deliveries), "being asked to wait uses up no try"


def test_n7_a_receiver_that_is_busy_is_given_the_time_it_asks_for(tmp_path: Path, tls: Any) -> None:
    with receiver(say(503, Retry_After="1800"), say(), tls=tls[0]) as found:
        here = deployment(tmp_path, to_here(tls[1]), hook(found))
        here.tell()
        here.send(30, every=59)
        assert (len(found.requests), here.one().attempts) == (1, 1)
        here.send(3, every=30)
        assert (len(found.requests), here.one().status) == (2, "sent")


def test_n7_at_most_one_message_a_second(tmp_path: Path) -> None:
    sender = Recording()
    channel = WebhookChannel(name="hook", type="webhook", url="https://x.example/", digest_minutes=0)  # type: ignore[arg-type]
    here = deployment(tmp_path, sender, channel)
    here.tell(*map(event, range(30)))
    here.send(100, every=0.1)
    assert len(sender.accepted) == 10


# --- N8 -----------------------------------------------------------------------------------------------------------------


class Dying:
    """Stands before a part and kills the process at one of the calls that matter."""

    def __init__(self, part: Any, calls: list[str], at: int) -> None:
        self._part, self._calls, self._at = part, calls, at

    def __getattr__(self, name: str) -> Any:
        made = getattr(self._part, name)
        if name not in ("put_channel_state", "mark_deliveries", "post"):
            return made

        def counted(*arguments: Any, **options: Any) -> Any:
            found = made(*arguments, **options)
            self._calls.append(name)
            if len(self._calls) == self._at:
                os.kill(os.getpid(), signal.SIGKILL)
            return found

        return counted


def send_and_die(folder: Path, port: int, certificate_path: str, at: int) -> None:
    client = ssl.create_default_context(cafile=certificate_path)
    client.verify_flags &= ~ssl.VERIFY_X509_STRICT
    found = Receiver(port)
    here = deployment(folder, to_here(client), hook(found))
    calls: list[str] = []
    world = replace(
        here.world, metadata=Dying(here.world.metadata, calls, at), webhooks=Dying(here.world.webhooks, calls, at)
    )
    send_next(world, world.channels["hook"])


KILLED_AFTER = {1: "taken", 2: "begun", 3: "sent", 4: "recorded", 5: "released"}


@pytest.mark.parametrize("number", [1, 8], ids=["one", "digest"])
@pytest.mark.parametrize("at", KILLED_AFTER, ids=KILLED_AFTER.values())
def test_n8_killed_at_any_moment_there_is_at_most_one_more_with_the_same_id(
    tmp_path: Path, at: int, number: int
) -> None:
    server, client = certificate(tmp_path, HOST)
    with receiver(tls=server) as found:
        here = deployment(tmp_path, to_here(client), hook(found))
        here.tell(*map(event, range(number)))
        arguments = (tmp_path, found.port, str(tmp_path / "certificate.pem"), at)
        process = context().Process(target=send_and_die, args=arguments)
        process.start()
        process.join(60)
        assert process.exitcode == -signal.SIGKILL
        here.tell(*map(event, range(number)), event(99))
        here.send(2)
        if KILLED_AFTER[at] != "released":
            assert len(found.requests) == (1 if at >= 3 else 0), "the channel is held by the one that died"
        here.clock.forward(3600)
        here.send(9, every=1000)
        assert here.statuses == {"sent": number + 1}
        counts = Counter(ids_of(found))
        first = ids_of(found)[0]
        assert counts[first] == (2 if KILLED_AFTER[at] == "sent" else 1)
        assert set(counts) == {one.bundle for one in here.deliveries}
        assert sum(counts.values()) == len(counts) + (KILLED_AFTER[at] == "sent")


def test_n8_of_two_schedulers_one_sends(tmp_path: Path) -> None:
    sender = Recording()
    channel = WebhookChannel(name="hook", type="webhook", url="https://x.example/", digest_minutes=0)  # type: ignore[arg-type]
    here = deployment(tmp_path, sender, channel)
    here.tell(*map(event, range(40)))
    ready = threading.Barrier(4)

    def scheduler() -> None:
        for _ in range(40):
            ready.wait(30)
            send_next(here.world, channel)
            if ready.wait(30) == 0:
                here.clock.forward(1.01)

    threads = [threading.Thread(target=scheduler) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(sender.accepted) == len(set(sender.accepted)) == 40


# --- N9 -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_n9_a_redirect_to_something_internal_is_not_followed(tmp_path: Path, tls: Any, status: int) -> None:
    with receiver() as canary, receiver(tls=tls[0]) as found:
        found.scripts = [say(status, Location=f"http://127.0.0.1:{canary.port}/latest/meta-data/")]
        here = deployment(tmp_path, to_here(tls[1]), hook(found))
        here.tell()
        here.send(3)
        assert here.one().status == "failed"
        assert "redirect" in (here.one().message or "")
        assert canary.connections == 0


def test_n9_an_internal_address_is_refused_and_a_name_that_changes_is_asked_once(tmp_path: Path, tls: Any) -> None:
    with receiver(tls=tls[0]) as canary:
        looked: list[str] = []

        def rebinding(host: str, _: int) -> list[str]:
            looked.append(host)
            return ["127.0.0.1"]

        # The rule of production; only the port is the canary's.
        here = deployment(tmp_path, Webhook(Reach(AnyName()), rebinding, 2.0, tls[1]), hook(canary))  # type: ignore[arg-type]
        here.tell(*map(event, range(4)))
        here.send(6)
        assert canary.connections == 0
        assert looked == [HOST] * 3, "once a try, and after three refusals not at all"
        assert here.statuses == {"failed": 3, "pending": 1}
        assert HOST not in "".join(one.message or "" for one in here.deliveries)


# --- N10 ----------------------------------------------------------------------------------------------------------------


def test_n10_hostile_text_pings_nobody_and_arrives_cut(tmp_path: Path, tls: Any) -> None:
    hostile = "<!channel> <https://evil.example|x> & \u202e\r\nBcc: x " + "<" * 40_000
    with receiver(tls=tls[0]) as chat, receiver(tls=tls[0]) as own:
        here = deployment(tmp_path, to_here(tls[1]), slack(chat), hook(own))
        here.tell(replace(event(), title=hostile, facts=((hostile, hostile),) * 60))
        here.send(2)
        assert here.statuses == {"sent": 2}
        body = json.loads(chat.bodies[0])
        assert "<!" not in json.dumps(body, ensure_ascii=False)
        assert "&lt;!channel&gt;" in body["text"]
        assert "[cut, " in body["text"]
        assert len(body["blocks"]) <= 50
        assert "\n" not in json.loads(own.bodies[0])["title"]
        assert len(own.bodies[0]) < 400_000


# --- N11 ----------------------------------------------------------------------------------------------------------------


def test_n11_ten_thousand_events_are_one_message_a_channel(tmp_path: Path, tls: Any) -> None:
    with receiver(tls=tls[0]) as chat, receiver(tls=tls[0]) as own:
        here = deployment(tmp_path, to_here(tls[1], 9.0), slack(chat), hook(own))
        assert here.tell(*map(event, range(10_000))) == 20_000
        here.send(3)
        assert (len(chat.requests), len(own.requests)) == (1, 1)
        assert json.loads(own.bodies[0])["title"] == "10000 notifications: 10000 anomaly"
        here.tell(*map(event, range(10_000, 10_100)))
        here.send(10, every=80)
        assert (len(chat.requests), len(own.requests)) == (1, 1), "one in 15 minutes"
        here.send(3, every=60)
        assert (len(chat.requests), len(own.requests)) == (2, 2)
        assert len(here.world.metadata.pending_deliveries("hook")) == 0


# --- beside the cells -------------------------------------------------------------------------------------------------


def test_an_endless_answer_and_a_wrong_certificate(tmp_path: Path, tls: Any) -> None:
    (tmp_path / "other").mkdir()
    other, _ = certificate(tmp_path / "other", HOST)
    with receiver(huge, tls=tls[0]) as endless, receiver(tls=other) as wrong:
        here = deployment(tmp_path, to_here(tls[1]), hook(endless, "endless"), hook(wrong, "wrong"))
        here.tell()
        here.send()
        found = {one.channel: one for one in here.deliveries}
        assert found["endless"].status == "sent"
        assert found["wrong"].status == "pending"
        assert "certificate is not accepted" in (found["wrong"].message or "")
        assert wrong.requests == []


@pytest.mark.parametrize("jump", [400 * 86400, -400 * 86400], ids=["forward", "back"])
def test_a_clock_that_jumps_stops_no_channel(tmp_path: Path, jump: int) -> None:
    sender = Recording([None])
    channel = WebhookChannel(name="hook", type="webhook", url="https://x.example/")  # type: ignore[arg-type]
    here = deployment(tmp_path, sender, channel)
    if jump < 0:
        here.clock.forward(-jump)
    here.tell(replace(event(), occurred=here.clock.now))
    here.send()
    held = here.world.metadata.channel_state("hook")
    here.world.metadata.put_channel_state(
        replace(held, revision=held.revision + 1, held_until=here.clock.now + timedelta(seconds=100))
    )
    here.clock.forward(jump)
    here.send(3)
    assert here.statuses == {"sent": 1}


def test_a_channel_that_is_removed_keeps_what_waits_for_a_day_and_then_drops_it(tmp_path: Path) -> None:
    sender = Recording()
    channel = WebhookChannel(name="hook", type="webhook", url="https://x.example/")  # type: ignore[arg-type]
    here = deployment(tmp_path, sender, channel)
    here.tell()
    without = replace(here.world, channels={})
    Notifying(without).once(0.0)
    assert (tidy(without), here.one().status) == (0, "pending")
    here.clock.forward(86401)
    assert tidy(without) == 1
    assert here.one().status == "dropped"
    assert "not configured any more" in (here.one().message or "")
    assert sender.accepted == []


def test_quiet_hours_hold_back_all_but_critical_ones(tmp_path: Path) -> None:
    sender = Recording()
    channel = WebhookChannel(name="hook", type="webhook", url="https://x.example/", quiet_hours="11:00-13:00")  # type: ignore[arg-type]
    here = deployment(tmp_path, sender, channel)
    here.tell(event(0), event(1, "critical"))
    here.send(5)
    assert here.statuses == {"pending": 1, "sent": 1}
    here.clock.forward(3600)
    here.send(2)
    assert here.statuses == {"sent": 2}


def test_what_happened_before_a_channel_was_there_is_not_told(tmp_path: Path) -> None:
    channel = WebhookChannel(name="hook", type="webhook", url="https://x.example/")  # type: ignore[arg-type]
    here = deployment(tmp_path, Recording(), channel)
    assert here.tell(replace(event(), occurred=here.clock.now - timedelta(seconds=1))) == 0
    assert here.tell(event()) == 1


@dataclass
class Loud:
    """Breaks, and says the address while doing so."""

    def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Answered:
        raise RuntimeError(f"broken at {url}")


def test_no_secret_is_in_a_record_a_log_or_an_error(
    tmp_path: Path, tls: Any, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    with receiver(say(403, SECRET.encode(), X=SECRET), tls=tls[0]) as found, caplog.at_level(logging.DEBUG):
        for sender in (to_here(tls[1]), to_here(tls[1], 0.2, "127.0.0.9"), Loud()):
            here = deployment(tmp_path / str(id(sender)), sender, hook(found))
            here.tell(*map(event, range(4)))
            here.send(5)
            with suppress(Exception):
                send_test(here.world, "hook")
            stored = repr(here.deliveries) + repr(here.world.metadata.channel_state("hook")) + repr(here.world.channels)
            assert SECRET not in stored
            assert here.deliveries
    assert SECRET not in caplog.text
    assert SECRET not in "".join(capsys.readouterr())
