"""How the parts are: for `status`, `doctor` and /readyz alike."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from concurrent.futures import TimeoutError as TookTooLong
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from app.agreement import compared
from app.backends import Backends, open_backends, open_identities, store_dir
from app.config import Settings, is_loopback
from app.core.jobs import FINAL
from app.core.periods import EARLIEST, LATEST
from app.core.signon import grants_from
from app.costs import first_and_last_day, kept_since, ledgers_of
from app.errors import SpendscopeError
from app.ingest import ANNOUNCED, LISTED, UNREADABLE
from app.ports import Announcements

log = logging.getLogger(__name__)

CHECK_SECONDS: Final = 6.0


@dataclass(frozen=True)
class PartHealth:
    ok: bool
    message: str


def check_parts(backends: Backends, *, seconds: float = CHECK_SECONDS) -> dict[str, PartHealth]:
    """Ask every part at once whether it can be used, for at most `seconds`."""
    checks: dict[str, Callable[[], str]] = {
        "source": lambda: _source(backends),
        "costs": lambda: _answered(backends.costs.check, costs_place(backends.settings)),
        "metadata": lambda: _answered(backends.metadata.check, metadata_place(backends.settings)),
        "queue": lambda: _answered(backends.queue.check, f"{backends.queue.waiting()} waiting"),
        "workers": lambda: _workers(backends),
    }
    if backends.announcements is not None:
        checks["events"] = lambda: _events(backends, backends.announcements)
    pool = ThreadPoolExecutor(len(checks), thread_name_prefix="check")
    try:
        asked = {name: pool.submit(check) for name, check in checks.items()}
        wait(asked.values(), seconds)
        return {name: _health(future, seconds) for name, future in asked.items()}
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def costs_place(settings: Settings) -> str:
    """Which cost store is used, in words."""
    if settings.influxdb_url:
        return f"InfluxDB, bucket {settings.influxdb_bucket}"
    return f"Parquet files in {store_dir(settings) / 'costs'}"


def metadata_place(settings: Settings) -> str:
    """Which metadata store is used, in words; where a MongoDB is stays out, as its address may hold a password."""
    return "MongoDB" if settings.mongodb_uri else f"SQLite, {store_dir(settings) / 'metadata.sqlite'}"


def _answered(check: Callable[[], None], message: str) -> str:
    check()
    return message


def _source(backends: Backends) -> str:
    try:
        backends.source.check()
    except SpendscopeError as error:
        listed = _last(backends, LISTED)
        since = f"Its files were last listed at {listed:%Y-%m-%d %H:%M:%S} UTC." if listed else "It was never listed."
        raise SpendscopeError(f"{error.message} {since}") from error
    return backends.source.root


def _events(backends: Backends, announcements: Announcements | None) -> str:
    """Nothing is lost without them: the listing finds what was not announced, later."""
    if announcements is None:
        return "not used"
    try:
        announcements.check()
    except SpendscopeError as error:
        seconds = backends.settings.watch_seconds
        raise SpendscopeError(f"{error.message} Files are still found by listing, every {seconds} s.") from error
    heard, unreadable = _last(backends, ANNOUNCED), _last(backends, UNREADABLE)
    said = f"last file announced at {heard:%Y-%m-%d %H:%M:%S} UTC" if heard else "no file announced yet"
    if unreadable:
        said += (
            f"; a message that is no S3 event came at {unreadable:%Y-%m-%d %H:%M:%S} UTC (the scheduler's log says why)"
        )
    return said


def _last(backends: Backends, name: str) -> datetime | None:
    with suppress(SpendscopeError):
        return backends.metadata.last_slot(name)
    return None


def _workers(backends: Backends) -> str:
    number = backends.queue.workers()
    if not number:
        raise SpendscopeError(
            "No worker is running. Start one with `spendscope worker`, or everything with `spendscope up`."
        )
    return f"{number} running"


def _health(asked: Future[str], seconds: float) -> PartHealth:
    try:
        return PartHealth(True, asked.result(0))
    except TookTooLong:
        return PartHealth(False, f"No answer within {seconds:g} s.")
    except SpendscopeError as error:
        return PartHealth(False, error.message)
    except Exception:
        log.exception("a check failed")
        return PartHealth(False, "The check itself failed; the log says more.")


def is_ready(parts: Mapping[str, PartHealth]) -> bool:
    """Stores, queue and one worker answer, data or not (DESIGN §7); a source that is down does not take pages away."""
    return all(part.ok for name, part in parts.items() if name not in ("source", "events"))


def is_expected(part: str, settings: Settings, *, running: bool) -> bool:
    """Whether it is a fault that a part does not answer: without `up` nobody runs the private queue and its workers, and
    events are hints."""
    return part != "events" and (running or bool(settings.redis_url) or part not in ("queue", "workers"))


NOT_OK: Final = "NOT OK: "


def is_well(status: Mapping[str, Any]) -> bool:
    """Whether nothing in what `status_of` found is a fault."""
    return not any(str(value).startswith(NOT_OK) for value in status.values())


def status_of(backends: Backends, settings: Settings, *, running: bool = True) -> dict[str, Any]:
    """One flat table of how things stand; `running`: an `up` holds the data directory."""
    parts = check_parts(backends)
    found: dict[str, Any] = {name: _shown(name, part, settings, running) for name, part in parts.items()}
    if parts["metadata"].ok:
        counts = backends.metadata.job_counts()
        found["jobs_open"] = sum(number for status, number in counts.items() if status not in FINAL)
        found["jobs_failed"] = counts.get("failed", 0)
        found |= _channels(backends)
    if parts["metadata"].ok and parts["costs"].ok:
        days = first_and_last_day(backends)
        coverage = ledgers_of(backends).coverage
        found["first_day"], found["last_day"] = (str(days.start), str(days.last)) if days else ("none", "none")
        found["complete_through"] = str(coverage.complete_through or "none")
        for status in ("settling", "missing", "quarantined"):
            found[f"days_{status}"] = len(coverage.with_status(status))
        found["data_version"] = backends.costs.rollup().version
    found["retention_days"] = settings.retention or "for ever"
    if settings.retention and parts["metadata"].ok:
        found["kept_by_day_since"] = str(kept_since(backends))
        found["kept_by_month_since"] = str(min(backends.metadata.month_totals(EARLIEST, LATEST), default="none"))
    return found


def _shown(name: str, part: PartHealth, settings: Settings, running: bool) -> str:
    if part.ok:
        return f"ok: {part.message}"
    return (NOT_OK if is_expected(name, settings, running=running) else "note: ") + part.message


def _channels(backends: Backends) -> dict[str, str]:
    """Whether each channel of notifications is sent to."""
    states = {name: backends.metadata.channel_state(name).disabled for name in backends.channels}
    return {f"channel_{name}": f"{NOT_OK}disabled: {why}" if why else "ok" for name, why in states.items()}


@dataclass(frozen=True)
class Finding:
    verdict: Literal["ok", "note", "wrong"]
    part: str
    sentence: str


def examine(settings: Settings) -> list[Finding]:
    """What is misconfigured and how to mend it."""
    from app.launcher import check_address, is_running

    findings = []
    running = is_running(settings.data_dir)
    if running:
        findings.append(Finding("ok", "up", f"Spendscope is running on {settings.data_dir}."))
    else:
        findings.append(Finding("note", "up", f"Nothing is running on {settings.data_dir}. `spendscope up` starts it."))
        findings.append(_tried("address", lambda: check_address(settings), f"{settings.host}:{settings.port} is free"))
    if settings.serves_demo:
        findings.append(
            Finding("note", "source", "Serving the sample organisation. Set SPENDSCOPE_SOURCE for your own data.")
        )
    findings += _sign_on(settings)
    try:
        parts = check_parts(backends := open_backends(settings))
    except SpendscopeError as error:
        return [*findings, Finding("wrong", "settings", error.message)]
    for name, part in parts.items():
        if name == "source" and settings.serves_demo and not running:
            continue  # `up` writes it
        expected = is_expected(name, settings, running=running)
        findings.append(Finding("ok" if part.ok else "wrong" if expected else "note", name, part.message))
    return [*findings, *_agreement(backends, parts)]


def _agreement(backends: Backends, parts: Mapping[str, PartHealth]) -> list[Finding]:
    """Whether the cost store still has what the ledger calls ingested."""
    if not (parts["metadata"].ok and parts["costs"].ok):
        return []
    try:
        found = compared(backends)
    except SpendscopeError as error:
        return [Finding("wrong", "costs", error.message)]
    if not found.wrong:
        return [Finding("ok", "costs", f"The cost store has what the ledger says: {found.looked_at} days compared.")]
    return [
        Finding(
            "wrong",
            "costs",
            f"The cost store does not have what the ledger says on {len(found.wrong)} of {found.looked_at} days compared, "
            f"first {found.wrong[0]}. Take them from the files once more: `spendscope ingest --again`.",
        )
    ]


def _sign_on(settings: Settings) -> list[Finding]:
    """Whether people can sign in at the identity provider, as far as can be seen from here."""
    part = "signon"
    try:
        identities = open_identities(settings)
        if identities is None:
            return [Finding("ok", part, "No single sign-on: users have passwords here.")]
        found = [Finding("ok", part, identities.check())]
    except SpendscopeError as error:
        return [Finding("wrong", part, error.message)]
    if not settings.behind_tls and not is_loopback(urlsplit(settings.public_url).hostname or ""):
        found.append(
            Finding(
                "wrong",
                part,
                f"SPENDSCOPE_PUBLIC_URL {settings.public_url} is not https: providers refuse to send people there, and "
                "sessions could be read on the way.",
            )
        )
    if not any(grant.role == "admin" for grant in grants_from(settings.oidc_roles)):
        found.append(
            Finding(
                "note",
                part,
                "SPENDSCOPE_OIDC_ROLES makes nobody an admin: only `spendscope user add NAME --role admin` does.",
            )
        )
    if "openid" not in settings.oidc_scopes.split():
        found.append(Finding("wrong", part, "SPENDSCOPE_OIDC_SCOPES does not hold `openid`: no ID token would come."))
    return found


def _tried(part: str, check: Callable[[], None], good: str) -> Finding:
    try:
        check()
    except SpendscopeError as error:
        return Finding("wrong", part, error.message)
    return Finding("ok", part, good)
