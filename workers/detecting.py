"""The job that looks for anomalies, or counts what other rules would have said."""

from __future__ import annotations

from datetime import date

from app.anomalies import BACKTEST, count_alerts, detect
from app.backends import Backends
from app.core.jobs import Job
from app.costs import first_and_last_day
from app.ingest import Outcome, Progress


def look_for_anomalies(backends: Backends, job: Job, progress: Progress) -> Outcome:
    if first_and_last_day(backends) is None:
        return Outcome("done-noop", "Nothing is stored yet.", {})
    if job.params.get(BACKTEST):
        result = count_alerts(backends, job.params.get("min_daily"), job.params.get("min_total"), progress)
        return Outcome("done", f"{result['alerts']} alerts from {result['start']} to {result['end']}.", result)
    as_of = job.params.get("as_of")
    found = detect(backends, date.fromisoformat(as_of) if as_of else None, progress)
    result = {"as_of": str(found.as_of), "new": found.new, "changed": found.changed, "open": found.open}
    return Outcome("done" if found.new or found.changed else "done-noop", found.sentence, result)
