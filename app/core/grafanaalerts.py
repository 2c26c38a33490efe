"""Alerts of a Grafana as they are kept: one record an episode, whatever was delivered, how often and in which order.

An episode is what Grafana's webhook gives one `fingerprint` (of the labels) and `startsAt`. Deliveries carry no time of
their own, so that what a record says may depend on nothing but which deliveries came: `resolved` is the last word on an
episode, an episode that fires while a later one of the same labels is known was missed ending.

Source: Grafana, "Configure webhook notifications" (the body's members).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from app.core.notifications import plain

GrafanaStatus = Literal["firing", "resolved", "missed"]
GRAFANA_STATUSES: Final[tuple[GrafanaStatus, ...]] = ("firing", "resolved", "missed")
"""`missed`: a later episode began, and nobody told that this one had ended."""

ACCOUNT_LABELS: Final = ("account", "account_id")
"""Labels that say whose alert it is."""

MOST_LABELS: Final = 40
MOST_NAME: Final = 200
MOST_TEXT: Final = 1000
MOST_LINK: Final = 2048


@dataclass(frozen=True)
class GrafanaAlert:
    """One episode. Texts are plain, on one line and cut; links are addresses of web pages or None.

    `first` and `last` are when we heard of it first and last; `revision` counts the changes of the record.
    """

    id: str
    fingerprint: str
    status: GrafanaStatus
    starts: datetime
    ends: datetime | None
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    values: Mapping[str, float]
    panel: str | None
    rule: str | None
    silence: str | None
    first: datetime
    last: datetime
    revision: int = 1

    @property
    def accounts(self) -> frozenset[str]:
        """The accounts it is about; none means that nobody said."""
        return frozenset(value for name in ACCOUNT_LABELS if (value := self.labels.get(name)))

    @property
    def title(self) -> str:
        named = self.annotations.get("summary") or self.labels.get("alertname") or self.annotations.get("description")
        return named or "Alert without a name"


@dataclass(frozen=True)
class Told:
    """One alert of a delivery, checked and cut."""

    fingerprint: str
    is_resolved: bool
    starts: datetime
    ends: datetime | None
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    values: Mapping[str, float] = field(default_factory=dict)
    panel: str | None = None
    rule: str | None = None
    silence: str | None = None


def episode_id(fingerprint: str, starts: datetime) -> str:
    named = f"{fingerprint}\0{starts.timestamp():.6f}"
    return hashlib.sha256(named.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def after(known: Sequence[GrafanaAlert], told: Told, now: datetime) -> list[GrafanaAlert]:
    """The records that an alert adds or changes, each with the next revision; `known` are all of its fingerprint."""
    name = episode_id(told.fingerprint, told.starts)
    others = [one for one in known if one.id != name]
    before = next((one for one in known if one.id == name), None)
    missed = [one for one in others if one.status == "firing" and one.starts < told.starts]
    ended = [replace(one, status="missed", revision=one.revision + 1) for one in missed]
    return [_next(before, told, others, now), *ended]


def _next(before: GrafanaAlert | None, told: Told, others: Iterable[GrafanaAlert], now: datetime) -> GrafanaAlert:
    is_over = told.is_resolved or (before is not None and before.status == "resolved")
    is_missed = any(other.starts > told.starts for other in others)
    newer = told.is_resolved or before is None or before.status != "resolved"
    ends = [end for end in (told.ends, before.ends if before else None) if end is not None]
    return GrafanaAlert(
        id=episode_id(told.fingerprint, told.starts),
        fingerprint=told.fingerprint,
        status="resolved" if is_over else "missed" if is_missed else "firing",
        starts=told.starts,
        ends=min(ends, default=None),
        # The labels are the fingerprint's, so they are the same each time.
        labels=told.labels,
        annotations=told.annotations if newer or before is None else before.annotations,
        values=told.values if newer or before is None else before.values,
        panel=told.panel or (before.panel if before else None),
        rule=told.rule or (before.rule if before else None),
        silence=told.silence or (before.silence if before else None),
        first=before.first if before else now,
        last=now,
        revision=before.revision + 1 if before else 1,
    )


def seen_grafana_alert(alert: GrafanaAlert, accounts: Collection[str]) -> GrafanaAlert | None:
    """Whole or not at all; one that says of no account is for those who see all of them."""
    return alert if alert.accounts and alert.accounts <= set(accounts) else None


# --- what Grafana says, as values ---------------------------------------------------------------------------------


def texts_of(given: Mapping[str, str] | None) -> dict[str, str]:
    """Names and texts on one line and cut, the first MOST_LABELS by name, those that say whose it is before all."""
    ranked = sorted((given or {}).items(), key=lambda part: (part[0] not in ACCOUNT_LABELS, part[0]))
    return {plain(name, MOST_NAME): plain(value, MOST_TEXT) for name, value in ranked[:MOST_LABELS]}


def values_of(given: Mapping[str, Any] | None) -> dict[str, float]:
    """The finite numbers among a rule's values."""
    found: dict[str, float] = {}
    for name, value in sorted((given or {}).items())[:MOST_LABELS]:
        if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300:
            number = float(value)
            if math.isfinite(number):
                found[plain(name, MOST_NAME)] = number
    return found


def link_of(given: str | None) -> str | None:
    """An http(s) address of a web page without a user, None for anything else: it becomes a link on a page."""
    text = (given or "").strip()
    if not text or len(text) > MOST_LINK or not text.isprintable() or any(sign in text for sign in " \\\"'<>`"):
        return None
    try:
        parts = urlsplit(text)
        is_fine = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.username is None
        _ = parts.port
    except ValueError:
        return None
    return text if is_fine else None
