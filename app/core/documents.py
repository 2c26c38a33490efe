"""Records as JSON documents and back: what every metadata store keeps, whatever technology it is.

Exact decimals are text, days and times ISO text (times in UTC, always with six decimals, so that they sort as text),
tuples lists. Names that come from outside are never keys: maps of accounts and sources are lists of objects, and a
job's params and result are JSON text, so that no store reads an operator or a path into them.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import lru_cache
from sys import intern
from typing import Any, Final

from app.core.amounts import text
from app.core.anomalyrecords import AnomalyRecord, Moment, Part, PlannedSpend, Verdict
from app.core.charges import Totals
from app.core.grafanaalerts import GrafanaAlert
from app.core.jobs import FINAL, Job, JobStatus
from app.core.ledger import AccountDay, DayRecord, Ingestion
from app.core.notifications import Attempt, ChannelState, Delivery, Notification
from app.core.reconciliation import Reference
from app.core.restatements import Move, Notice, Revision
from app.core.retention import MonthTotals
from app.core.scopes import Scope
from app.errors import InvalidInput, Reason

Document = dict[str, Any]


@lru_cache(maxsize=1024)
def time_text(time: datetime) -> str:
    """`2026-11-24T04:31:07.000000Z`. Raises ValueError for a time without zone."""
    if time.tzinfo is None:
        raise ValueError(f"{time} has no time zone")
    return time.astimezone(UTC).isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


@lru_cache(maxsize=1024)
def time_from(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _time_or_none(time: datetime | None) -> str | None:
    return None if time is None else time_text(time)


def _time_from_or_none(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def storable(text: str | None) -> str | None:
    """A sentence for people, as it can be kept: it may quote half a surrogate pair, which no store takes."""
    return None if text is None else text.encode("utf-8", "replace").decode()


# --- totals and days ----------------------------------------------------------------------------------------------


def totals_document(totals: Totals) -> Document:
    return dict(_totals_document(totals))


@lru_cache(maxsize=8192)
def _totals_document(totals: Totals) -> Document:
    """Kept: a day's ledger, its history and its ingestion say the same of each account."""
    return {
        "rows": totals.rows,
        "amortized_cost": text(totals.amortized_cost),
        "blended_cost": None if totals.blended_cost is None else text(totals.blended_cost),
        "unblended_cost": text(totals.unblended_cost),
        "usage_quantity": text(totals.usage_quantity),
    }


def totals_from(document: Mapping[str, Any]) -> Totals:
    blended = document["blended_cost"]
    return Totals(
        document["rows"],
        Decimal(document["amortized_cost"]),
        None if blended is None else Decimal(blended),
        Decimal(document["unblended_cost"]),
        Decimal(document["usage_quantity"]),
    )


def day_record_document(record: DayRecord) -> Document:
    return {
        "day": str(record.day),
        "revision": record.revision,
        "accounts": [_account_document(name, part) for name, part in record.accounts.items()],
        "sources": [{"source": source, "sha256": sha256} for source, sha256 in record.sources.items()],
        "covered": None if record.covered is None else sorted(record.covered),
        "failed_accounts": list(record.failed_accounts),
        "restating": record.restating,
        "restating_job": record.restating_job,
        "restating_until": _time_or_none(record.restating_until),
    }


def day_record_from(document: Mapping[str, Any]) -> DayRecord:
    covered = document["covered"]
    return DayRecord(
        day=date.fromisoformat(document["day"]),
        revision=document["revision"],
        accounts={intern(part["account"]): _account_from(part) for part in document["accounts"]},
        sources={part["source"]: part["sha256"] for part in document["sources"]},
        covered=None if covered is None else frozenset(covered),
        failed_accounts=tuple(document["failed_accounts"]),
        restating=document["restating"],
        restating_job=document["restating_job"],
        restating_until=_time_from_or_none(document["restating_until"]),
    )


def _account_document(name: str, part: AccountDay) -> Document:
    """`first` is left out while it is the current figure: most account-days are never restated."""
    document: Document = {
        "account": name,
        "owner": part.owner,
        "sha256": part.sha256,
        "revision": part.revision,
        "current": totals_document(part.current),
        "estimated": part.estimated,
        "first_reported": time_text(part.first_reported),
        "changed": time_text(part.changed),
    }
    if part.first != part.current:
        document["first"] = totals_document(part.first)
    if part.released_by is not None:
        document["released_by"] = part.released_by
    if part.spoken:
        document["spoken"] = True
    return document


@lru_cache(maxsize=1024)
def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _account_from(document: Mapping[str, Any]) -> AccountDay:
    # A year of a large organisation is 80,000 of these, in every process: positional arguments, few calls, and one object
    # for texts and times that most of them share, on purpose.
    current = totals_from(document["current"])
    owner, sha256 = document["owner"], document["sha256"]
    return AccountDay(
        owner and intern(owner),
        sha256 and intern(sha256),
        document["revision"],
        totals_from(document["first"]) if "first" in document else current,
        current,
        document["estimated"],
        _moment(document["first_reported"]),
        _moment(document["changed"]),
        document.get("released_by"),
        document.get("spoken", False),
    )


# --- ingestions ---------------------------------------------------------------------------------------------------


def ingestion_document(ingestion: Ingestion) -> Document:
    reason = ingestion.reason
    return {
        "id": ingestion.id,
        "source": ingestion.source,
        "key": ingestion.key,
        "version": ingestion.version,
        "day": None if ingestion.day is None else str(ingestion.day),
        "status": ingestion.status,
        "started": time_text(ingestion.started),
        "finished": _time_or_none(ingestion.finished),
        "sha256": ingestion.sha256,
        "parser": ingestion.parser,
        "size": ingestion.size,
        "rows": ingestion.rows,
        "totals": None if ingestion.totals is None else totals_document(ingestion.totals),
        "accounts": [{"account": name, **totals_document(part)} for name, part in ingestion.accounts.items()],
        "held": list(ingestion.held),
        "notice": storable(ingestion.notice),
        "reason": None if reason is None else _reason_document(reason),
        "revision": ingestion.revision,
        "job_id": ingestion.job_id,
    }


def ingestion_from(document: Mapping[str, Any]) -> Ingestion:
    day, totals, reason = (document[name] for name in ("day", "totals", "reason"))
    return Ingestion(
        id=document["id"],
        source=document["source"],
        key=document["key"],
        version=document["version"],
        day=None if day is None else date.fromisoformat(day),
        status=document["status"],
        started=time_from(document["started"]),
        finished=_time_from_or_none(document["finished"]),
        sha256=document["sha256"],
        parser=document["parser"],
        size=document["size"],
        rows=document["rows"],
        totals=None if totals is None else totals_from(totals),
        accounts={part["account"]: totals_from(part) for part in document["accounts"]},
        held=tuple(document["held"]),
        notice=document["notice"],
        reason=None if reason is None else Reason(**reason),
        revision=document["revision"],
        job_id=document["job_id"],
    )


def _reason_document(reason: Reason) -> Document:
    return {name: storable(part) if isinstance(part, str) else part for name, part in asdict(reason).items()}


# --- histories ----------------------------------------------------------------------------------------------------


def revision_document(revision: Revision) -> Document:
    return {
        "day": str(revision.day),
        "account": revision.account,
        "revision": revision.revision,
        "at": time_text(revision.at),
        "source": revision.source,
        "sha256": revision.sha256,
        "totals": totals_document(revision.totals),
        "estimated": revision.estimated,
        "spoken": revision.spoken,
    }


def revision_from(document: Mapping[str, Any]) -> Revision:
    return Revision(
        day=date.fromisoformat(document["day"]),
        account=document["account"],
        revision=document["revision"],
        at=time_from(document["at"]),
        source=document["source"],
        sha256=document["sha256"],
        totals=totals_from(document["totals"]),
        estimated=document["estimated"],
        spoken=document["spoken"],
    )


def notice_document(notice: Notice) -> Document:
    return {
        "id": notice.id,
        "kind": notice.kind,
        "at": time_text(notice.at),
        "day": str(notice.day),
        "message": storable(notice.message),
        "moves": [
            {"account": name, "before": text(move.before), "after": text(move.after)}
            for name, move in notice.moves.items()
        ],
    }


def notice_from(document: Mapping[str, Any]) -> Notice:
    return Notice(
        id=document["id"],
        kind=document["kind"],
        at=time_from(document["at"]),
        day=date.fromisoformat(document["day"]),
        message=document["message"],
        moves={part["account"]: Move(Decimal(part["before"]), Decimal(part["after"])) for part in document["moves"]},
    )


# --- months -------------------------------------------------------------------------------------------------------


def month_totals_document(totals: MonthTotals) -> Document:
    return {
        "month": str(totals.month),
        "days": totals.days,
        "accounts": [{"account": name, **totals_document(part)} for name, part in totals.accounts.items()],
    }


def month_totals_from(document: Mapping[str, Any]) -> MonthTotals:
    return MonthTotals(
        month=date.fromisoformat(document["month"]),
        days=document["days"],
        accounts={part["account"]: totals_from(part) for part in document["accounts"]},
    )


# --- references ---------------------------------------------------------------------------------------------------


def reference_document(reference: Reference) -> Document:
    """All but the accounts, of which each is a document of its own."""
    return {
        "month": str(reference.month),
        "collected": time_text(reference.collected),
        "currency": reference.currency,
        "metrics": list(reference.metrics),
        "accounts": len(reference.accounts),
    }


def reference_rows(days: Mapping[date, Mapping[str, tuple[Decimal, ...]]]) -> str:
    """One account's amounts as JSON text: day, record type, one exact decimal a metric. Not every store nests lists."""
    rows = [
        [str(day), record_type, *map(text, amounts)]
        for day, types in days.items()
        for record_type, amounts in types.items()
    ]
    return json.dumps(rows, separators=(",", ":"))


def reference_from(document: Mapping[str, Any], accounts: Mapping[str, str]) -> Reference:
    """`accounts` has the text of each account's rows."""
    found: dict[str, dict[date, dict[str, tuple[Decimal, ...]]]] = {}
    for account, rows in sorted(accounts.items()):
        of_account = found.setdefault(account, {})
        for day, record_type, *amounts in json.loads(rows):
            of_account.setdefault(date.fromisoformat(day), {})[record_type] = tuple(map(Decimal, amounts))
    return Reference(
        month=date.fromisoformat(document["month"]),
        collected=time_from(document["collected"]),
        currency=document["currency"],
        metrics=tuple(document["metrics"]),
        accounts=found,
    )


# --- anomalies ----------------------------------------------------------------------------------------------------


def anomaly_document(record: AnomalyRecord) -> Document:
    document: Document = {
        name: getattr(record, name) for name in ("id", "kind", "severity", "found", "withdrawn", "revision")
    }
    document |= {name: str(getattr(record, name)) for name in ("start", "date", "detected_on")}
    document |= {name: text(getattr(record, name)) for name in _ANOMALY_AMOUNTS}
    return document | {
        "scope": _scope_document(record.scope),
        "created": time_text(record.created),
        "updated": time_text(record.updated),
        "contributions": [{"scope": _scope_document(p.scope), "impact": text(p.impact)} for p in record.contributions],
        "root_causes": [_scope_document(scope) for scope in record.root_causes],
        "verdicts": [
            {
                "state": said.state,
                "at": time_text(said.at),
                "by": storable(said.by),
                "reason": storable(said.reason),
                "plan": said.plan,
            }
            for said in record.verdicts
        ],
        "moments": [_moment_document(moment) for moment in record.moments],
    }


_ANOMALY_AMOUNTS: Final = ("expected", "low", "high", "actual", "impact")


def anomaly_from(document: Mapping[str, Any]) -> AnomalyRecord:
    given: Document = {name: document[name] for name in ("id", "kind", "severity", "found", "withdrawn", "revision")}
    given |= {name: date.fromisoformat(document[name]) for name in ("start", "date", "detected_on")}
    given |= {name: Decimal(document[name]) for name in _ANOMALY_AMOUNTS}
    return AnomalyRecord(
        scope=_scope_from(document["scope"]),
        created=time_from(document["created"]),
        updated=time_from(document["updated"]),
        contributions=tuple(Part(_scope_from(p["scope"]), Decimal(p["impact"])) for p in document["contributions"]),
        root_causes=tuple(_scope_from(scope) for scope in document["root_causes"]),
        verdicts=tuple(
            # Records from before say no plan.
            Verdict(said["state"], time_from(said["at"]), said["by"], said["reason"], said.get("plan"))
            for said in document["verdicts"]
        ),
        moments=tuple(_moment_from(moment) for moment in document["moments"]),
        **given,
    )


def _scope_document(scope: Scope) -> Document:
    return dict(scope.parts())


def _scope_from(document: Mapping[str, Any]) -> Scope:
    return Scope(document["account"], document["service"], document["region"])


def _moment_document(moment: Moment) -> Document:
    amounts = {name: text(getattr(moment, name)) for name in _ANOMALY_AMOUNTS}
    return {"day": str(moment.day), "date": str(moment.date), "found": moment.found, **amounts}


def _moment_from(document: Mapping[str, Any]) -> Moment:
    amounts = {name: Decimal(document[name]) for name in _ANOMALY_AMOUNTS}
    day, about = (date.fromisoformat(document[name]) for name in ("day", "date"))
    return Moment(day=day, date=about, found=document["found"], **amounts)


def planned_spend_document(plan: PlannedSpend) -> Document:
    return {
        "id": plan.id,
        "scope": _scope_document(plan.scope),
        "start": str(plan.start),
        "end": str(plan.end),
        "reason": storable(plan.reason),
        "by": storable(plan.by),
        "at": time_text(plan.at),
        "extra": None if plan.extra is None else text(plan.extra),
    }


def planned_spend_from(document: Mapping[str, Any]) -> PlannedSpend:
    start, end = (date.fromisoformat(document[name]) for name in ("start", "end"))
    scope, at = _scope_from(document["scope"]), time_from(document["at"])
    extra = document.get("extra")
    reason, by = document["reason"], document["by"]
    return PlannedSpend(document["id"], scope, start, end, reason, by, at, None if extra is None else Decimal(extra))


def grafana_alert_document(alert: GrafanaAlert) -> Document:
    """Flat; labels, annotations and values are JSON text, as their names come from outside."""
    document: Document = {
        name: getattr(alert, name) for name in ("id", "status", "panel", "rule", "silence", "revision")
    }
    document |= {name: time_text(getattr(alert, name)) for name in ("starts", "first", "last")}
    document |= {name: members_text(getattr(alert, name)) for name in ("labels", "annotations", "values")}
    return document | {"fingerprint": storable(alert.fingerprint), "ends": _time_or_none(alert.ends)}


GRAFANA_ALERT_FIELDS: Final = tuple(part.name for part in fields(GrafanaAlert))


def grafana_alert_from(document: Mapping[str, Any]) -> GrafanaAlert:
    given = {name: document[name] for name in GRAFANA_ALERT_FIELDS}
    for name in ("starts", "ends", "first", "last"):
        given[name] = _time_from_or_none(given[name])
    for name in ("labels", "annotations", "values"):
        given[name] = json.loads(given[name])
    return GrafanaAlert(**given)


# --- jobs ---------------------------------------------------------------------------------------------------------


def job_document(job: Job) -> Document:
    """Flat: every value is text, a whole number or None, so it is a table's row as well."""
    return {
        "id": job.id,
        "request_id": job.request_id,
        "kind": job.kind,
        "params": members_text(job.params),
        "key": job.key,
        "status": job.status,
        "created": time_text(job.created),
        "priority": job.priority,
        "attempts": job.attempts,
        "token": job.token,
        "started": _time_or_none(job.started),
        "finished": _time_or_none(job.finished),
        "not_before": _time_or_none(job.not_before),
        "lease_until": _time_or_none(job.lease_until),
        "worker": storable(job.worker),
        "done_steps": job.done_steps,
        "all_steps": job.all_steps,
        "message": storable(job.message),
        "result": members_text(job.result),
    }


JOB_FIELDS: Final = tuple(part.name for part in fields(Job))


def job_from(document: Mapping[str, Any]) -> Job:
    # Of a document store no step adds what older records lack.
    given = {name: document[name] for name in JOB_FIELDS if name != "request_id"}
    given["request_id"] = dict(document).get("request_id")
    for name in ("params", "result"):
        given[name] = json.loads(given[name])
    for name in ("created", "started", "finished", "not_before", "lease_until"):
        given[name] = _time_from_or_none(given[name])
    return Job(**given)


def claim_end_document(
    status: JobStatus,
    now: datetime,
    message: str | None,
    result: Mapping[str, Any] | None,
    not_before: datetime | None,
) -> Document:
    """What the end of a claim changes of a job; `result` None leaves it. Raises ValueError for a status that is no end."""
    if status not in FINAL and status != "waiting":
        raise ValueError(f"a claim ends with a final status or with waiting, not with {status}")
    waiting = status == "waiting"
    return {
        "status": status,
        "finished": None if waiting else time_text(now),
        "not_before": _time_or_none(not_before) if waiting else None,
        "message": storable(message),
        "result": None if result is None else members_text(result),
    }


def members_text(members: Mapping[str, Any]) -> str:
    """JSON in ASCII: any text comes back as it was, also what is no valid Unicode."""
    return json.dumps(dict(members), separators=(",", ":"))


# --- notifications --------------------------------------------------------------------------------------------------


def notification_document(notification: Notification) -> Document:
    return {
        "kind": notification.kind,
        "severity": notification.severity,
        "title": storable(notification.title),
        "key": storable(notification.key),
        "occurred": time_text(notification.occurred),
        "facts": [[storable(name), storable(value)] for name, value in notification.facts],
        "link": storable(notification.link),
        "accounts": [storable(account) for account in notification.accounts],
        "resolved": notification.resolved,
    }


def notification_from(document: Mapping[str, Any]) -> Notification:
    return Notification(
        kind=document["kind"],
        severity=document["severity"],
        title=document["title"],
        key=document["key"],
        occurred=time_from(document["occurred"]),
        facts=tuple((name, value) for name, value in document["facts"]),
        link=document["link"],
        accounts=tuple(document["accounts"]),
        resolved=document["resolved"],
    )


def delivery_document(delivery: Delivery) -> Document:
    """Flat but for the notification, which is JSON text."""
    return {
        "id": delivery.id,
        "channel": delivery.channel,
        "created": time_text(delivery.created),
        "notification": members_text(notification_document(delivery.notification)),
        "status": delivery.status,
        "bundle": delivery.bundle,
        "attempts": delivery.attempts,
        "not_before": _time_or_none(delivery.not_before),
        "finished": _time_or_none(delivery.finished),
        "message": storable(delivery.message),
    }


DELIVERY_FIELDS: Final = tuple(part.name for part in fields(Delivery))


def delivery_from(document: Mapping[str, Any]) -> Delivery:
    given = {name: document[name] for name in DELIVERY_FIELDS}
    given["notification"] = notification_from(json.loads(given["notification"]))
    for name in ("created", "not_before", "finished"):
        given[name] = _time_from_or_none(given[name])
    return Delivery(**given)


def attempt_document(attempt: Attempt) -> Document:
    """What an attempt changes of a delivery."""
    return {
        "status": attempt.status,
        "bundle": attempt.bundle,
        "attempts": attempt.attempts,
        "not_before": _time_or_none(attempt.not_before),
        "finished": _time_or_none(attempt.finished),
        "message": storable(attempt.message),
    }


def channel_state_document(state: ChannelState) -> Document:
    return {
        "name": state.name,
        "revision": state.revision,
        "since": _time_or_none(state.since),
        "held_until": _time_or_none(state.held_until),
        "not_before": _time_or_none(state.not_before),
        "recent": [time_text(moment) for moment in state.recent],
        "refusals": state.refusals,
        "disabled": storable(state.disabled),
    }


def channel_state_from(document: Mapping[str, Any]) -> ChannelState:
    return ChannelState(
        name=document["name"],
        revision=document["revision"],
        since=_time_from_or_none(document["since"]),
        held_until=_time_from_or_none(document["held_until"]),
        not_before=_time_from_or_none(document["not_before"]),
        recent=tuple(map(time_from, document["recent"])),
        refusals=document["refusals"],
        disabled=document["disabled"],
    )


# --- places in lists ----------------------------------------------------------------------------------------------


def cursor_after(question: tuple[str | None, ...], time: str, id: str) -> str:
    """Where the next page of a list in falling (time, id) order starts; `question` is the list and its filters."""
    plain = json.dumps([_digest(question), time, id], separators=(",", ":"))
    return base64.urlsafe_b64encode(plain.encode()).decode().rstrip("=")


def place_of(question: tuple[str | None, ...], cursor: str) -> tuple[str, str]:
    """The (time, id) that `cursor_after` was given. Raises InvalidInput for a cursor it did not give out."""
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        _, time, name = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True).decode("ascii"))
        given_out = time == time_text(time_from(time)) and cursor == cursor_after(question, time, name)
    except (ValueError, TypeError, OverflowError, RecursionError):
        given_out = False
    if not given_out or not isinstance(name, str):
        raise InvalidInput(
            "cursor was not given out for this list. Give next_cursor of the page before, with the same parameters.",
            field="cursor",
        )
    return time, name


def _digest(question: tuple[str | None, ...]) -> str:
    return hashlib.sha256(json.dumps(question).encode()).hexdigest()[:12]
