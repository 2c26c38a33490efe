"""Who is told, and how: contact points and the notification policy.

A secret is the name of an environment variable (`$NAME`, always a whole value): Grafana expands it in provisioning
files, `grafana push` replaces it with the setting of that name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from app.grafana.alerts import SOURCE_LABEL
from app.grafana.panels import Json

CONTACT: Final = "Spendscope"
SLACK, TEAMS, WEBHOOK, WEBHOOK_SECRET, EMAILS = (
    "$SPENDSCOPE_ALERT_SLACK_URL",
    "$SPENDSCOPE_ALERT_TEAMS_URL",
    "$SPENDSCOPE_ALERT_WEBHOOK_URL",
    "$SPENDSCOPE_ALERT_WEBHOOK_SECRET",
    "$SPENDSCOPE_ALERT_EMAILS",
)
BACK, BACK_TOKEN = "$SPENDSCOPE_ALERT_BACK_URL", "$SPENDSCOPE_ALERT_BACK_TOKEN"
CHANNELS: Final[Mapping[str, tuple[str, ...]]] = {
    "slack": (SLACK,),
    "teams": (TEAMS,),
    "webhook": (WEBHOOK,),
    "email": (EMAILS,),
    "back": (BACK, BACK_TOKEN),
}
"""Channel → the variables without which it cannot be used. `back` is Spendscope itself, which lists Grafana's alerts."""

TYPES: Final[Mapping[str, str]] = {"back": "webhook"}
"""Channel → Grafana's type of it, where that is another name."""

MOST_ALERTS: Final = 100
"""Of a delivery to ourselves, so that it stays well below what we take."""


def receivers() -> list[Json]:
    """One receiver a channel, all of the same contact point."""
    settings: dict[str, Json] = {
        "slack": {"url": SLACK},
        "teams": {"url": TEAMS},
        "webhook": {"url": WEBHOOK, "httpMethod": "POST", "hmacConfig": {"secret": WEBHOOK_SECRET}},
        "email": {"addresses": EMAILS, "singleEmail": False},
        "back": {
            "url": BACK,
            "httpMethod": "POST",
            "authorization_scheme": "Bearer",
            "authorization_credentials": BACK_TOKEN,
            "maxAlerts": MOST_ALERTS,
        },
    }
    return [
        {
            "uid": f"spendscope-{channel}",
            "type": TYPES.get(channel, channel),
            "settings": settings[channel],
            "disableResolveMessage": False,
        }
        for channel in CHANNELS
    ]


def route() -> Json:
    """The branch of the notification policy for Spendscope's rules. Costs move once a day, so reminders are rare."""
    return {
        "receiver": CONTACT,
        "object_matchers": [[SOURCE_LABEL[0], "=", SOURCE_LABEL[1]]],
        "group_by": ["grafana_folder", "alertname"],
        "group_wait": "1m",
        "group_interval": "10m",
        "repeat_interval": "24h",
        "routes": [
            {
                "receiver": CONTACT,
                "object_matchers": [["severity", "=", "critical"]],
                "group_by": ["grafana_folder", "alertname"],
                "group_wait": "30s",
                "group_interval": "5m",
                "repeat_interval": "4h",
            }
        ],
    }


def policy() -> Json:
    """The whole tree, for a Grafana whose policy is only ours: provisioning replaces the tree of the organisation."""
    return {
        "receiver": CONTACT,
        "group_by": ["grafana_folder", "alertname"],
        "group_wait": "30s",
        "group_interval": "5m",
        "repeat_interval": "4h",
        "routes": [route()],
    }
