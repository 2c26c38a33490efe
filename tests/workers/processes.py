"""A worker or scheduler process whose jobs do what their parameters say: `python -m tests.workers.processes worker DIR`."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import app.logs
import workers.jobs
import workers.schedule
import workers.worker
from app.backends import Backends
from app.config import Settings
from app.core.jobs import Job
from app.ingest import Outcome, Progress


def act(backends: Backends, job: Job, progress: Progress) -> Outcome:
    """Note the run, work for `seconds` in small steps, note the end. `hang`: without a step in between, deaf to errors."""
    folder = Path(str(job.params["folder"]))
    note(folder / "begun", f"{job.id} {os.getpid()} {job.token}")
    until = time.monotonic() + float(job.params.get("seconds", 0))
    while time.monotonic() < until:
        if job.params.get("hang"):
            try:
                time.sleep(0.05)
            except Exception:
                continue
        else:
            time.sleep(0.02)
            if job.params.get("steps"):
                progress(1, 2, "Working")
    progress(2, 2, "Nearly done")
    note(folder / "ended", job.id)
    return Outcome("done", "Done.")


def note(path: Path, line: str) -> None:
    """One write of one line, so that processes do not mix theirs."""
    with path.open("ab", buffering=0) as handle:
        handle.write(f"{line}\n".encode())


def main(role: str, folder: Path) -> None:
    settings = Settings.model_validate(json.loads((folder / "settings.json").read_text()))
    app.logs.configure("debug", "text")
    workers.jobs.process.handlers = {"ingest": act}
    workers.schedule.REAP_SECONDS = 0.3  # type: ignore[misc]
    workers.worker.FINISH_SECONDS = float(os.environ.get("FINISH_SECONDS", "10"))  # type: ignore[misc]
    workers.jobs.OVERTIME_SECONDS = workers.worker.OVERTIME_SECONDS = 1.0  # type: ignore[misc]
    {"worker": workers.worker.run_worker, "scheduler": workers.schedule.run_scheduler}[role](settings)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
