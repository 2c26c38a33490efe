"""Jobs in words: what runs, what waits and why, how the last ones ended, and what can be done about each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date
from typing import Any, Final

from app import jobs as work
from app.core.jobs import FINAL, Job
from app.core.periods import DateRange
from app.pages.data.panels import JOBS_PATH, job_button
from app.pages.data.view import Work
from app.ui import parts, words
from app.ui import tags as html
from app.ui.tags import attributes

Children = Any
STEPS_BEFORE_A_GUESS: Final = 3
CHIPS: Final = {
    "queued": ("waiting", "Waiting"),
    "running": ("running", "Running"),
    "waiting": ("retrying", "Retrying soon"),
    "done": ("finished", "Finished"),
    "done-noop": ("finished", "Nothing new"),
    "quarantined": ("failed", "Quarantined"),
    "failed": ("failed", "Failed"),
    "cancelled": ("cancelled", "Cancelled"),
    "superseded": ("cancelled", "Superseded"),
}
"""Look and words of each status."""


def jobs(found: Work) -> list[Children]:
    shown: list[Children] = [parts.banner(found.trouble, "warn")] if found.trouble else []
    shown += [_open_card(found, job) for job in found.open]
    if found.more:
        shown.append(html.P(f"{found.more:,} more waiting", className="note"))
    if not found.is_active:
        shown.append(html.P("Nothing is running.", className="note calm"))
    if found.ended:
        shown.append(html.H3("Lately"))
        shown.append(html.Ol([_ended_line(found, job) for job in found.ended], className="ended"))
    return shown


def summary(found: Work) -> str:
    """For the live region, when something begins or ends."""
    if not found.is_active:
        return "No job is running."
    return f"{words.counted(len(found.open) + found.more, 'job')} running or waiting."


LATE: Final = 3
"""Looks left out until it is said that nobody looks."""


def last_look(found: Work) -> list[Children]:
    """When the source was last listed. A moment, not an age: an idle page does not ask again."""
    source = [html.Span("Source "), html.Code(found.source)]
    if found.looked is None:
        return [*source, html.Span(" has not been looked at yet. Is the scheduler running?", className="late")]
    stamp = found.looked.strftime("%Y-%m-%dT%H:%M:%SZ")
    shown = f"{words.day(found.looked.date(), year=False)} {stamp[11:16]} UTC"
    every = words.duration(found.watch_seconds)
    moment = html.Time(shown, dateTime=stamp, title=f"{stamp[:10]} {stamp[11:19]} UTC")
    if (found.now - found.looked).total_seconds() > LATE * found.watch_seconds:
        late = f", expected every {every}. Is the scheduler running?"
        return [*source, html.Span([" was last looked at ", moment, late], className="late")]
    return [*source, html.Span([" · last looked at ", moment, f", every {every}"])]


# --- names --------------------------------------------------------------------------------------------------------


def name_of(job: Job) -> str:
    """`Take 2026-11-01.csv`, `Collect 1–3 Nov 2026`, `Backfill 12 months`."""
    try:
        return NAMES[job.kind](job.params)
    except (KeyError, TypeError, ValueError):
        return job.kind.capitalize()


def _ingest_name(params: Mapping[str, Any]) -> str:
    return f"Take {params['key']}" + (" again" if params.get("again") else "")


def _collect_name(params: Mapping[str, Any]) -> str:
    if "start" not in params:
        return "Collect the newest days"
    days = DateRange(date.fromisoformat(params["start"]), date.fromisoformat(params["end"]))
    return f"Collect {words.day_range(days)}"


def _backfill_name(params: Mapping[str, Any]) -> str:
    return f"Backfill {words.counted(int(params['months']), 'month')}"


NAMES: Final[Mapping[str, Callable[[Mapping[str, Any]], str]]] = {
    "ingest": _ingest_name,
    "collect": _collect_name,
    "backfill": _backfill_name,
    "detect": lambda _: "Look for anomalies",
    "judge": lambda _: "Judge the rules",
    "scan": lambda _: "Scan resources",
}


# --- cards --------------------------------------------------------------------------------------------------------


def _chip(job: Job) -> Children:
    look, text = CHIPS[job.status]
    return html.Span(text, className=f"job-chip {look}")


def _open_card(found: Work, job: Job) -> Children:
    told = html.Span(step_words(found, job))
    head = [_chip(job), html.B(name_of(job)), parts.ago(job.started or job.created)]
    if job.status == "queued":
        return html.Div(html.Div([*head, told, _cancel(job)], className="job-head"), className="job next", key=job.id)
    bar = parts.progress(name_of(job), job.done_steps, job.all_steps) if job.status == "running" else None
    step = html.Div([told, html.Span(count_words(found, job))], className="job-step")
    return html.Div([html.Div([*head, _cancel(job)], className="job-head"), bar, step], className="job", key=job.id)


def _cancel(job: Job) -> Children:
    return html.Button(
        "Cancel",
        type="button",
        className="button",
        title="What is done stays done",
        **attributes(data_cancel=f"{JOBS_PATH}/{job.id}", aria_label=f"Cancel {name_of(job)}"),
    )


def step_words(found: Work, job: Job) -> str:
    if job.status == "queued":
        return job.message or "Waiting for a worker"
    if job.status == "waiting":
        wait = (job.not_before - found.now).total_seconds() if job.not_before else 0
        when = f" Tried again in {words.duration(wait)}." if wait >= 1 else " Tried again now."
        return (job.message or "It could not be done yet.") + when
    return job.message or "Starting"


def count_words(found: Work, job: Job) -> str:
    """`15 of 60 · about 18 s left`; no guess before some steps are done, none at all while the whole is unknown."""
    if job.status != "running" or not job.all_steps:
        return f"{job.done_steps:,} done" if job.status == "running" and job.done_steps else ""
    text = f"{job.done_steps:,} of {job.all_steps:,}"
    left = job.all_steps - job.done_steps
    if job.started is None or job.done_steps < STEPS_BEFORE_A_GUESS or left <= 0:
        return text
    seconds = (found.now - job.started).total_seconds() / job.done_steps * left
    return f"{text} · about {words.duration(seconds)} left" if seconds >= 1 else text


def _ended_line(found: Work, job: Job) -> Children:
    said = html.Span(_ended_words(job), className="job-message")
    head = [_chip(job), html.B(name_of(job)), parts.ago(job.finished or job.created), said, *_again(job)]
    return html.Li([html.Div(head, className="job-head"), _details(found, job)], className="job", key=job.id)


def _ended_words(job: Job) -> str:
    if job.status == "cancelled":
        return "Cancelled. What was done before stays done."
    return job.message or ""


ASKED: Final[Mapping[str, tuple[str, ...]]] = {
    "ingest": ("key",),
    "collect": ("start", "end", "accounts"),
    "backfill": ("months",),
}
"""Parameters that a request names; the others were added to it."""


def _again(job: Job) -> list[Children]:
    """Only what a user could have asked for, and only where doing it again may end differently."""
    if job.status not in ("failed", "quarantined", "cancelled") or job.kind not in work.AVAILABLE:
        return []
    params: dict[str, Any] = {name: job.params[name] for name in ASKED.get(job.kind, ()) if name in job.params}
    if job.kind == "ingest":
        params["again"] = True
    return [job_button("Run again", job.kind, params, title=f"{name_of(job)}: run it again")]


def _details(found: Work, job: Job) -> Children:
    if job.status not in FINAL - {"done", "done-noop"}:
        return None
    facts = [
        ("Job", html.Code(job.id)),
        ("Attempts", f"{job.attempts} of at most {found.attempts}"),
        ("Worker", job.worker or words.UNKNOWN),
        ("Asked", parts.ago(job.created)),
    ]
    listed = html.Dl([html.Div([html.Dt(name), html.Dd(value)]) for name, value in facts], className="day-facts")
    return html.Details([html.Summary("Technical details"), listed], className="as-table")
