"""The job that looks whether rules hold."""

from __future__ import annotations

from app.backends import Backends
from app.core.jobs import Job
from app.ingest import Outcome, Progress
from app.judging import judge


def judge_rules(backends: Backends, job: Job, progress: Progress) -> Outcome:  # noqa: ARG001
    found = judge(backends)
    result = {"rules": found.rules, "new": found.new, "over": found.over, "open": found.open}
    return Outcome("done" if found.new or found.over else "done-noop", found.sentence, result)
