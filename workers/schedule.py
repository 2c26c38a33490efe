"""The scheduler process: looks at the source on time, hands out again what was lost, keeps house. Two do no harm."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Final

from app.access import forget_old_sessions
from app.agreement import repair
from app.anomalies import detect_when_drained
from app.backends import Backends, open_backends
from app.config import Settings
from app.core.jobs import Job
from app.errors import BadCredentials, CannotStart, SpendscopeError, Unavailable
from app.grafanaalerts import forget_grafana_alerts
from app.ingest import ANNOUNCED, UNREADABLE, look_at, mark, watch
from app.judging import forget_alerts, judge_when_drained
from app.notifications import forget
from app.ports import Announcement, Announcements
from app.reconciliation import take_references
from app.restatements import keep_histories
from app.retention import keep_to_retention
from workers.arriving import Arriving
from workers.jobs import CREDENTIALS_WAIT_SECONDS
from workers.notifying import Notifying

log = logging.getLogger(__name__)

REAP_SECONDS: Final = 2.0
RETRY_SECONDS: Final = 5.0
MOST_PUSHED: Final = 1000
"""Jobs handed to the queue in one go: after a queue was emptied the next ones follow while these are being done."""

DRAINED_SECONDS: Final = 15
"""How often it is looked whether all that arrived is ingested, so that anomalies can be looked for and rules judged."""

IDLE_SECONDS: Final = 0.5
"""Pause after nothing was heard, for a queue that does not wait as it was asked to."""

START_SLOT_SECONDS: Final = 10
"""Schedulers that start within this time of each other look at the source once."""


def run_scheduler(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT. Raises CannotStart for what waiting does not mend."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    backends = open_backends(settings)
    if not _prepared(backends, stop):
        return
    # A listing may wait half a minute for a silent source: beside the reaper, not before it.
    arriving = Arriving()
    watching = threading.Thread(target=Watching(backends, arriving).run, args=(stop,), name="watch", daemon=True)
    watching.start()
    if backends.announcements is not None:
        hearing = Hearing(backends, backends.announcements, arriving)
        threading.Thread(target=hearing.run, args=(stop,), name="hear", daemon=True).start()
    if backends.channels:
        threading.Thread(target=Notifying(backends).run, args=(stop,), name="notify", daemon=True).start()
    Reaping(backends, arriving).run(stop)
    watching.join(0.5)


def _prepared(backends: Backends, stop: threading.Event) -> bool:
    """Wait for the stores; False when stopped before they answered."""
    outage = Outage("start")
    while not stop.is_set():
        try:
            backends.metadata.prepare()
            backends.costs.prepare()
            _checked_queue(backends)
            return True
        except BadCredentials as error:
            raise CannotStart(error.message) from None
        except Unavailable as error:
            outage.began(error)
        stop.wait(RETRY_SECONDS)
    return False


def _checked_queue(backends: Backends) -> None:
    """A queue that does not answer is no reason to wait (it is filled when it does); one that loses jobs is refused."""
    try:
        backends.queue.check()
    except BadCredentials:
        raise
    except Unavailable as error:
        log.warning("%s", error.message)


class Outage:
    """Says once that something is not to be had, and once that it is again."""

    def __init__(self, what: str) -> None:
        self._what, self._said = what, ""

    def began(self, error: SpendscopeError) -> None:
        if error.message != self._said:
            log.warning("%s: %s", self._what, error.message)
        self._said = error.message

    def ended(self) -> None:
        if self._said:
            log.info("%s: works again", self._what)
        self._said = ""


# --- handing out again what was lost ------------------------------------------------------------------------------


class Reaping:
    def __init__(self, backends: Backends, arriving: Arriving | None = None) -> None:
        self._backends = backends
        self._arriving = arriving or Arriving()
        self._outage = Outage("jobs")

    def run(self, stop: threading.Event) -> None:
        while not stop.is_set():
            began = time.monotonic()
            self.once()
            # Ten thousand waiting jobs take a while to compare: never more than a tenth of this process's time.
            stop.wait(max(REAP_SECONDS, 9 * (time.monotonic() - began)))

    def once(self) -> None:
        try:
            unfinished = self._backends.metadata.unfinished()
            reap(self._backends, unfinished)
            self._arriving.look(unfinished, self._backends.metadata)
            self._outage.ended()
        except SpendscopeError as error:
            self._outage.began(error)
        except Exception:
            log.exception("Looking for lost jobs failed; trying again")


def reap(backends: Backends, unfinished: list[Job] | None = None) -> list[Job]:
    """Queue what should be queued and is not: jobs whose worker fell silent, that waited long enough, that the queue
    lost or never got. Returns those it pushed. `unfinished` are the records, where they were just read."""
    now = backends.clock()
    found = backends.metadata.unfinished() if unfinished is None else unfinished
    jobs = (_requeued(backends, job, now) for job in found)
    queued = [job for job in jobs if job is not None]
    lost = backends.queue.missing(queued)[:MOST_PUSHED]
    for job in lost:
        backends.queue.push(job)
    if lost:
        log.info("Queued %d jobs again or late, first %s", len(lost), lost[0].id)
    return lost


def _requeued(backends: Backends, job: Job, now: datetime) -> Job | None:
    """The job if it is to be queued, None while it is running or not due."""
    if job.status == "queued":
        return job
    until = job.lease_until if job.status == "running" else job.not_before
    if until is not None and until > now:
        return None
    if not backends.metadata.requeue(job.id, now=now):
        return None
    if job.status == "running":
        log.warning("Job %s (%s): its worker %s fell silent; it starts again", job.id, job.kind, job.worker)
    return replace(job, status="queued")


# --- what happens by the clock ------------------------------------------------------------------------------------


def slot_of(now: datetime, seconds: int) -> datetime:
    """The start of the slot of `seconds` that `now` is in, counted from the epoch."""
    epoch = int(now.timestamp())
    return datetime.fromtimestamp(epoch - epoch % seconds, UTC)


class Watching:
    """Does what is due, once a slot however many schedulers run; a slot that nobody ran in is not made up for."""

    def __init__(self, backends: Backends, arriving: Arriving | None = None) -> None:
        self._backends = backends
        self._arriving = arriving or Arriving()
        self._slots: dict[str, datetime] = {}
        self._repaired = self._begun = False
        self._judged: tuple[int, date] | None = None
        self._ruled: tuple[int, datetime] | None = None
        self._look_from: datetime | None = None
        self._schedule, self._source = Outage("schedule"), Outage("source")
        self._references = Outage("references")

    def run(self, stop: threading.Event) -> None:
        while not stop.is_set():
            self.once()
            stop.wait(1.0)

    def once(self) -> None:
        """Do what is due now."""
        due: list[Callable[[], object]] = []
        if not _guarded(self._schedule, lambda: due.extend(self._due())):
            return
        for work in due:
            _guarded(self._source if work == self._look else self._schedule, work)

    def _due(self) -> list[Callable[[], object]]:
        regular = self._is_due("watch", self._backends.settings.watch_seconds)
        # This process looks at once when it starts, also in a slot that another one took.
        first = not self._begun and self._is_due("watch at start", START_SLOT_SECONDS)
        self._begun = True
        due: list[Callable[[], object]] = [self._look] if (regular or first) and not self._is_refused() else []
        if self._is_due("housekeeping", 24 * 60 * 60):
            due.append(self._keep_house)
        if self._is_due("drained", DRAINED_SECONDS):
            due += [self._detect, self._judge]
        return due

    def _is_due(self, name: str, seconds: int) -> bool:
        """True for one scheduler a slot. The store is asked once a slot, and again only if it did not answer."""
        slot = slot_of(self._backends.clock(), seconds)
        if self._slots.get(name) == slot:
            return False
        taken = self._backends.metadata.take_slot(name, slot)
        self._slots[name] = slot
        return taken

    def _is_refused(self) -> bool:
        """Whether the source refused the credentials a short while ago: trying does not mend them."""
        return self._look_from is not None and self._backends.clock() < self._look_from

    def _look(self) -> None:
        """Queue what is new in the source, after (once) what ledger and cost store disagree about."""
        try:
            self._look_through()
        except BadCredentials:
            self._look_from = self._backends.clock() + timedelta(seconds=CREDENTIALS_WAIT_SECONDS)
            raise

    def _look_through(self) -> None:
        if not self._repaired:
            self._arriving.expect(repair(self._backends))
            keep_histories(self._backends)
            keep_to_retention(self._backends)
            self._repaired = True
        found = watch(self._backends)
        self._arriving.expect(found.jobs)
        # Beside the cost files, and no reason to stop looking at them: the role may not be allowed to list references.
        _guarded(self._references, lambda: take_references(self._backends))
        if found.jobs:
            log.info("%d new files, %d known", len(found.jobs), found.known)

    def _detect(self) -> None:
        """Anomalies: after what arrived was ingested, and once a day, as time alone settles days."""
        self._judged = detect_when_drained(self._backends, self._judged)

    def _judge(self) -> None:
        """Rules: after what arrived was ingested, and once an hour, as time alone ends periods and makes data stale."""
        self._ruled = judge_when_drained(self._backends, self._ruled)

    def _keep_house(self) -> None:
        oldest = self._backends.clock() - timedelta(days=self._backends.settings.keep_jobs_days)
        log.info("Housekeeping: %d old jobs forgotten", self._backends.metadata.forget_jobs(finished_before=oldest))
        keep_to_retention(self._backends)
        forget(self._backends)
        forget_alerts(self._backends)
        forget_old_sessions(self._backends)
        forget_grafana_alerts(self._backends)


class Hearing:
    """Looks at objects as soon as the source announces them. A message is settled once its job is recorded; what was
    never announced, the next listing finds."""

    def __init__(self, backends: Backends, announcements: Announcements, arriving: Arriving | None = None) -> None:
        self._backends, self._announcements = backends, announcements
        self._arriving = arriving or Arriving()
        self._outage = Outage("events")
        self._unreadable = 0

    def run(self, stop: threading.Event) -> None:
        while not stop.is_set():
            stop.wait(self.once())

    def once(self) -> float:
        """Take what there is to hear; the seconds to pause before the next time."""
        try:
            heard = self._announcements.hear()
            self._refuse([one for one in heard if one.unreadable])
            self._take([one for one in heard if not one.unreadable])
        except SpendscopeError as error:
            self._outage.began(error)
            return CREDENTIALS_WAIT_SECONDS if isinstance(error, BadCredentials) else RETRY_SECONDS
        except Exception:
            log.exception("Announcements could not be taken; trying again")
            return RETRY_SECONDS
        self._outage.ended()
        return 0.0 if heard else IDLE_SECONDS

    def _take(self, heard: list[Announcement]) -> None:
        if not heard:
            return
        found = look_at(self._backends, (key for one in heard for key in one.keys))
        self._arriving.expect(found.jobs)
        mark(self._backends, ANNOUNCED)
        self._announcements.settle(heard)
        if found.jobs:
            log.info("%d files announced, first %s", len(found.jobs), found.jobs[0].params["key"])

    def _refuse(self, heard: list[Announcement]) -> None:
        """Tell of the first message that cannot be read, and again whenever twice as many were seen."""
        if not heard:
            return
        before, self._unreadable = self._unreadable, self._unreadable + len(heard)
        if before.bit_length() != self._unreadable.bit_length():
            log.warning(
                "%d messages of the events queue were no S3 events and are not kept, the last one because %s",
                self._unreadable,
                heard[-1].unreadable,
            )
        mark(self._backends, UNREADABLE)
        self._announcements.reject(heard)


def _guarded(outage: Outage, work: Callable[[], object]) -> bool:
    """Whether it could be done; what went wrong is said once."""
    try:
        work()
    except SpendscopeError as error:
        outage.began(error)
        return False
    except Exception:
        log.exception("The scheduler could not do its work; it goes on")
        return False
    outage.ended()
    return True
