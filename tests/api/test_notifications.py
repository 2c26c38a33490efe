"""What was told to whom, and trying a channel out, over HTTP and on the command line."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from flask.testing import FlaskClient

from app.adapters.sqlite import SqliteMetadata
from app.channels import EmailChannel, OpsgenieChannel, PagerdutyChannel, SlackChannel, WebhookChannel
from app.cli import main
from app.core.notifications import Attempt, Notification, new_delivery
from app.health import status_of
from app.notifications import met, notify, send_next
from tests.api.conftest import NOW, World
from tests.faults.test_notifier import Recording
from tests.receivers import mail_server

SECRET = "very-secret-path"
CHANNELS = (
    WebhookChannel(name="hook", type="webhook", url=f"https://x.example/{SECRET}", secret=SECRET),  # type: ignore[arg-type]
    SlackChannel(name="slack", type="slack", url=f"https://hooks.slack.com/{SECRET}"),  # type: ignore[arg-type]
    PagerdutyChannel(name="pager", type="pagerduty", routing_key=SECRET),  # type: ignore[arg-type]
    OpsgenieChannel(name="genie", type="opsgenie", api_key=SECRET),  # type: ignore[arg-type]
    EmailChannel(
        name="mail",
        type="email",
        host="h",
        user="u",
        password=SECRET,  # type: ignore[arg-type]
        sender="a@b.example",
        recipients=("c@d.example",),
    ),
)


def serving(world: World, sender: Any) -> tuple[Any, FlaskClient]:
    parts = {"channels": {one.name: one for one in CHANNELS}, "webhooks": sender}
    backends = replace(world.backends, memo={}, **parts)
    for one in CHANNELS:
        met(backends, one.name)
    return backends, world.serving(**parts)


def events(number: int) -> list[Notification]:
    return [Notification("restated", "warning", f"Event {n}", f"k{n}", NOW, (("A", "<b>"),)) for n in range(number)]


def test_what_was_told_is_listed_page_by_page(empty: World) -> None:
    backends, client = serving(empty, Recording())
    notify(backends, events(5))
    seen, cursor = [], {}
    while True:
        page = client.get("/api/v1/notifications", query_string={"channel": "hook", "limit": 2, **cursor}).json
        assert page is not None
        seen += page["items"]
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
    assert sorted(one["title"] for one in seen) == [f"Event {n}" for n in range(5)]
    assert {(one["channel"], one["status"], one["attempts"]) for one in seen} == {("hook", "pending", 0)}
    assert seen[0]["facts"] == [{"name": "A", "value": "<b>"}]
    backends.metadata.mark_deliveries([seen[0]["id"]], Attempt("m", "failed", 8, finished=NOW, message="It is down."))
    failed = client.get("/api/v1/notifications?status=failed").json["items"]  # type: ignore[index]
    assert [(one["id"], one["message"], one["message_id"]) for one in failed] == [(seen[0]["id"], "It is down.", "m")]
    assert client.get("/api/v1/notifications?cursor=x").status_code == 400


def test_a_test_is_sent_now_and_kept(empty: World) -> None:
    sender = Recording()
    _, client = serving(empty, sender)
    answer = client.post("/api/v1/notifications/test", json={"channel": "hook"})
    assert (answer.status_code, answer.json["status"]) == (200, "sent")  # type: ignore[index]
    assert sender.accepted == [answer.json["id"]]  # type: ignore[index]
    assert client.get("/api/v1/notifications").json["items"] == [answer.json]  # type: ignore[index]


def test_a_test_that_fails_says_why_and_is_not_tried_again(empty: World) -> None:
    backends, client = serving(empty, Recording([500]))
    answer = client.post("/api/v1/notifications/test", json={"channel": "hook"}).json
    assert answer is not None
    assert (answer["status"], answer["message"]) == ("failed", "The receiver of channel hook answers 500.")
    assert backends.metadata.pending_channels() == []


def test_what_failed_is_sent_once_more(empty: World) -> None:
    sender = Recording([400])
    backends, client = serving(empty, sender)
    notify(backends, events(1))
    hook = backends.channels["hook"]
    send_next(backends, hook, draw=lambda: 0.5)
    [failed] = client.get("/api/v1/notifications?status=failed").json["items"]  # type: ignore[index]
    path = f"/api/v1/notifications/{failed['id']}/retry"
    again = client.post(path)
    assert (again.status_code, again.json["status"], again.json["attempts"]) == (200, "pending", 0)  # type: ignore[index]
    twice = client.post(path)
    assert (twice.status_code, twice.json["detail"]) == (409, "Only what failed is sent again; this one is pending.")  # type: ignore[index]
    later = replace(backends, clock=lambda: NOW + timedelta(seconds=2))
    send_next(later, hook, draw=lambda: 0.5)
    assert sender.accepted == [failed["id"]]
    assert client.get("/api/v1/notifications?status=sent&channel=hook").json["items"][0]["id"] == failed["id"]  # type: ignore[index]


def test_what_cannot_be_sent_again_says_why(empty: World) -> None:
    backends, client = serving(empty, Recording([500]))

    def refusal(id: str) -> tuple[int, str]:
        answer = client.post(f"/api/v1/notifications/{id}/retry")
        return answer.status_code, answer.json["detail"]  # type: ignore[index]

    assert refusal("nobody")[0] == 404
    tried = client.post("/api/v1/notifications/test", json={"channel": "hook"}).json
    assert refusal(tried["id"]) == (409, "A test is not sent again. Test the channel once more.")  # type: ignore[index]
    told = events(1)[0]
    gone, off = new_delivery("gone", told, NOW), new_delivery("slack", told, NOW)
    backends.metadata.add_deliveries([replace(one, status="failed", finished=NOW) for one in (gone, off)])
    state = backends.metadata.channel_state("slack")
    backends.metadata.put_channel_state(replace(state, revision=state.revision + 1, disabled="It answers 403."))
    assert refusal(gone.id) == (409, "Channel gone is not configured any more.")
    assert refusal(off.id)[1].startswith("Channel slack is disabled: It answers 403. Test it first")


def test_wrong_requests_get_what_is_wrong(empty: World) -> None:
    backends, client = serving(empty, Recording())
    unknown = client.post("/api/v1/notifications/test", json={"channel": "nope"})
    assert unknown.status_code == 404
    assert "Channels are hook, slack, pager, genie, mail" in unknown.json["detail"]  # type: ignore[index]
    assert client.post("/api/v1/notifications/test", json={"channel": 7}).status_code == 400
    assert client.post("/api/v1/notifications/test", json={"channel": "x" * 41}).status_code == 400
    assert client.post("/api/v1/notifications/test", data="x").status_code == 415
    state = backends.metadata.channel_state("hook")
    held = replace(state, revision=state.revision + 1, held_until=NOW + timedelta(seconds=30))
    backends.metadata.put_channel_state(held)
    busy = client.post("/api/v1/notifications/test", json={"channel": "hook"})
    assert busy.status_code == 409
    assert "sending another message" in busy.json["detail"]  # type: ignore[index]


def test_no_answer_and_no_log_has_a_secret(empty: World, caplog: pytest.LogCaptureFixture) -> None:
    backends, client = serving(empty, Recording([403, 404, 500, 401]))
    with caplog.at_level(logging.DEBUG):
        answers = [
            client.post("/api/v1/notifications/test", json={"channel": one.name}).text
            for one in CHANNELS
            if one.name != "mail"
        ]
        paths = ("/api/v1/notifications", "/api/v1/notifications/channels", "/api/v1/jobs", "/readyz", "/metrics")
        answers += [client.get(path).text for path in paths]
        answers.append(json.dumps(status_of(backends, backends.settings)))
    assert len(answers) == 10
    assert SECRET not in "".join(answers) + caplog.text
    shown = json.loads(answers[5])["items"]
    assert [(one["name"], one["type"], one["disabled"]) for one in shown][:2] == [
        ("hook", "webhook", None),
        ("slack", "slack", None),
    ]


# --- the command line -------------------------------------------------------------------------------------------------


FILE = f'[[channel]]\nname = "own"\ntype = "webhook"\nurl = "https://127.0.0.1/{SECRET}"\n'


def run(folder: Path, *arguments: str) -> Any:
    environment = {
        "SPENDSCOPE_DATA_DIR": str(folder / "data"),
        "SPENDSCOPE_CHANNELS_FILE": str(folder / "channels.toml"),
    }
    return CliRunner().invoke(main, ["notifications", *arguments], env=environment)


def test_a_channel_is_tried_out_from_the_command_line_and_this_machine_is_never_asked(tmp_path: Path) -> None:
    (tmp_path / "channels.toml").write_text(FILE)
    tried = run(tmp_path, "test", "own")
    assert tried.exit_code == 1
    assert tried.output.startswith("failed: The host of the channel's address is not on the internet.")
    listed = run(tmp_path, "list")
    assert "failed   own" in listed.output
    assert json.loads(run(tmp_path, "list", "--json", "--status", "failed").output)["items"][0]["channel"] == "own"
    assert run(tmp_path, "list", "--status", "x").exit_code == 2
    assert run(tmp_path, "channels").output.startswith("own                  webhook")
    assert run(tmp_path, "test", "other").exit_code == 1
    everything = tried.output + listed.output + run(tmp_path, "channels").output
    assert SECRET not in everything
    for stored in (tmp_path / "data").rglob("*"):
        assert not stored.is_file() or SECRET.encode() not in stored.read_bytes(), stored


def test_an_email_goes_out_through_the_mail_server_that_is_named(tmp_path: Path) -> None:
    with mail_server() as server:
        (tmp_path / "channels.toml").write_text(
            f'[[channel]]\nname = "mail"\ntype = "email"\nhost = "127.0.0.1"\nport = {server.port}\nsecurity = "none"\n'
            'sender = "costs@example.org"\nrecipients = ["team@example.org"]\n'
        )
        found = run(tmp_path, "test", "mail")
        assert (found.exit_code, found.output) == (0, "sent: channel mail was told.\n")
        [message] = server.messages
        assert b"Subject: [Spendscope info] Test of channel mail" in message


def test_a_wrong_file_stops_everything_with_one_line(tmp_path: Path) -> None:
    (tmp_path / "channels.toml").write_text(FILE.replace("webhook", "fax"))
    found = run(tmp_path, "list")
    assert found.exit_code == 2
    assert "channel 'own': type is not one of" in found.output
    assert SECRET not in found.output


def test_a_hostile_title_is_printed_without_what_a_terminal_acts_on(tmp_path: Path) -> None:
    (tmp_path / "channels.toml").write_text(FILE)
    run(tmp_path, "test", "own")
    [path] = (tmp_path / "data").rglob("metadata.sqlite")
    store = SqliteMetadata(path)
    told = Notification("restated", "warning", "x", "k", NOW)
    store.add_deliveries([replace(new_delivery("own", told, NOW), notification=replace(told, title="\x1b[31mred"))])
    assert "\x1b" not in run(tmp_path, "list").output
