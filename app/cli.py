"""The command line. Exit codes: 0 done, 1 something was quarantined or failed, 2 wrong use or cannot start."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import date, timedelta
from decimal import Decimal, InvalidOperation
from math import isfinite
from pathlib import Path
from typing import Any, BinaryIO, TextIO

import click

from app import __version__
from app.backends import Backends, open_backends, open_source, utc_now
from app.config import Settings, read_settings
from app.console import Command, say, told_in_one_line
from app.core import amounts
from app.core.anomaly import Anomaly
from app.core.anomalyrecords import AnomalyRecord
from app.core.exports import printable
from app.core.jobs import FINAL, Job
from app.core.people import AuditEntry
from app.core.query import CostQuery, filters_from
from app.errors import CannotStart, InvalidInput, SpendscopeError
from app.rulecommands import budget, rule


@contextmanager
def starting() -> Iterator[None]:
    """Nothing was begun in here: whatever stands in the way, the command cannot start (exit code 2)."""
    try:
        yield
    except SpendscopeError as error:
        raise CannotStart(error.message) from None


def set_up_logging(settings: Settings) -> None:
    from app.logs import configure

    configure(settings.log_level, settings.log_format, settings.secrets())


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="spendscope")
def main() -> None:
    """What the cloud costs, what drives it, and how far each figure can be trusted.

    Settings come from the environment (docs/settings.md); options win over them.
    """


@main.command()
@click.option(
    "--demo/--no-demo", default=None, help="Serve the sample organisation. Default: only when no source is set."
)
@click.option("--host", help="Address to listen on; beyond loopback people must sign in.")
@click.option("--port", type=int, help="Port to listen on (default 8050).")
@click.option("--data-dir", type=click.Path(path_type=Path), help="Directory of everything the embedded parts keep.")
@click.option("--verbose", is_flag=True, help="Also a line for every job and request (as SPENDSCOPE_LOG_LEVEL=info).")
@told_in_one_line
def up(demo: bool | None, host: str | None, port: int | None, data_dir: Path | None, verbose: bool) -> None:
    """Run web, workers, scheduler and the embedded parts until Ctrl-C."""
    from app.launcher import run_up

    level = "info" if verbose else None
    settings = read_settings(demo=demo, host=host, port=port, data_dir=data_dir, log_level=level)
    if not settings.serves_demo and not settings.source:
        raise CannotStart(
            "No source is set. Set SPENDSCOPE_SOURCE to s3://bucket/costs/ or file:///dir/costs/, or use --demo."
        )
    set_up_logging(settings)
    run_up(settings, say)


@main.command()
@told_in_one_line
def web() -> None:
    """Run one web server (for containers; `up` starts one itself)."""
    from app.serve import run_web

    settings = read_settings()
    set_up_logging(settings)
    run_web(settings)


@main.command()
@told_in_one_line
def worker() -> None:
    """Run one worker process."""
    settings = read_settings()
    set_up_logging(settings)
    run_module("workers.worker", "run_worker", settings)


@main.command()
@told_in_one_line
def scheduler() -> None:
    """Run the scheduler: watches the source, restarts what was lost, keeps house. Two of them do no harm."""
    settings = read_settings()
    set_up_logging(settings)
    run_module("workers.schedule", "run_scheduler", settings)


def run_module(module: str, function: str, settings: Settings, *arguments: Any) -> Any:
    """Call an entry of workers by name: app never imports workers."""
    from importlib import import_module

    return getattr(import_module(module), function)(settings, *arguments)


@main.command()
@click.argument("keys", nargs=-1)
@click.option("--wait", is_flag=True, help="Wait until everything is taken or quarantined.")
@click.option("--again", is_flag=True, help="Read known files once more too: refills a cost store that lost something.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")
@told_in_one_line
def ingest(keys: tuple[str, ...], wait: bool, again: bool, as_json: bool) -> None:
    """List the source and ingest what is new, newest days first; or only the objects named KEYS.

    Exit 0: all taken or nothing new. 1: something was quarantined or failed in this run. 2: it could not start.
    """
    from app.launcher import is_running, locked_data_dir, quieter, stop_requested, working_family, write_sample

    settings = read_settings()
    set_up_logging(settings)
    alone = not settings.redis_url and not is_running(settings.data_dir)
    with stop_requested() as stopping, locked_data_dir(settings) if alone else nullcontext():
        if alone and settings.serves_demo:
            write_sample(settings, lambda text: click.echo(text, err=True))
        with starting():
            open_source(settings).check()
        with working_family(quieter(settings)) if alone else nullcontext():
            backends = open_backends(settings)
            from app.ingest import watch

            with starting():
                backends.metadata.prepare()
                watched = watch(backends, keys or None, again=again)
            jobs = list(watched.jobs)
            if wait or alone:
                jobs = wait_for(backends, jobs, stopping, quiet=as_json)
    print_ingest(jobs, watched.known, watched.ignored, as_json)
    if any(job.status in ("quarantined", "failed", "cancelled") for job in jobs):
        sys.exit(1)


def wait_for(backends: Backends, jobs: list[Job], stopping: Callable[[], bool], *, quiet: bool) -> list[Job]:
    """The jobs as they ended, in order; as they are when stopped by the user."""
    open_ids = {job.id for job in jobs}
    ended: dict[str, Job] = {}
    shown = not quiet and sys.stderr.isatty()
    while open_ids and not stopping():
        unfinished = {job.id for job in backends.metadata.unfinished()}
        for job_id in open_ids - unfinished:
            job = backends.metadata.job(job_id)
            if job is not None and job.status in FINAL:
                ended[job_id] = job
        open_ids -= set(ended)
        if shown:
            click.echo(f"\r{len(ended)} of {len(jobs)} files", nl=False, err=True)
        if open_ids:
            time.sleep(0.2)
    if shown:
        click.echo("", err=True)
    return [ended.get(job.id) or backends.metadata.job(job.id) or job for job in jobs]


def print_ingest(jobs: list[Job], known: int, ignored: int, as_json: bool) -> None:
    if as_json:
        files = [
            {"key": job.params.get("key"), "job_id": job.id, "status": job.status, "message": job.message, **job.result}
            for job in jobs
        ]
        say(
            json.dumps(
                {
                    "files": [f | {"job_status": j.status} for f, j in zip(files, jobs, strict=True)],
                    "known": known,
                    "ignored": ignored,
                }
            )
        )
        return
    for job in jobs:
        say(f"{job.params.get('key', ''):<20} {job.status:<12} {job.message or ''}".rstrip())
    counted = {
        status: sum(job.status == status for job in jobs) for status in dict.fromkeys(job.status for job in jobs)
    }
    summary = ", ".join(f"{number} {status}" for status, number in counted.items()) or "nothing new"
    say(f"{summary}; {known} known, {ignored} not cost files")


@main.command()
@click.option(
    "--start", help="First day, YYYY-MM-DD. Default: the trailing days, and the previous month until it closes."
)
@click.option("--end", help="The day after the last, YYYY-MM-DD. Default: today (UTC).")
@click.option(
    "--accounts", multiple=True, help="Only these accounts; separate several by commas. Others stay as they are."
)
@click.option("--json", "as_json", is_flag=True, help="Print the record of the run as one JSON object.")
@told_in_one_line
def collect(start: str | None, end: str | None, accounts: tuple[str, ...], as_json: bool) -> None:
    """Collect from Cost Explorer into the source, as the Lambda does. Each request costs 0.01 USD.

    Exit 0: everything collected. 1: an account failed or a day could not be written; the others were.
    """
    settings = read_settings()
    set_up_logging(settings)
    check_source(settings)
    names = [name.strip() for part in accounts for name in part.split(",") if name.strip()]
    report = run_module("workers.collecting", "run_collect", settings, start, end, names)
    for line in [json.dumps(report.said())] if as_json else report.lines():
        say(line)
    if not report.complete:
        sys.exit(1)


def check_source(settings: Settings) -> None:
    if settings.serves_demo:
        raise CannotStart("No source is set. Set SPENDSCOPE_SOURCE to s3://bucket/costs/ or file:///dir/costs/.")


@main.command()
@click.option("--months", type=int, required=True, help="Full months before the current one, 1 to 13.")
@click.option("--wait", is_flag=True, help="Wait until all of it is collected and ingested.")
@click.option("--yes", is_flag=True, help="Do not ask whether the price is right.")
@told_in_one_line
def backfill(months: int, wait: bool, yes: bool) -> None:
    """Collect and ingest history, newest months first. Says first what the requests to Cost Explorer cost.

    Days that are final and collected are not asked for again: it can be stopped, and run twice.
    """
    from app.launcher import is_running, locked_data_dir, quieter, stop_requested, working_family

    settings = read_settings()
    set_up_logging(settings)
    check_source(settings)
    alone = not settings.redis_url and not is_running(settings.data_dir)
    with locked_data_dir(settings) if alone else nullcontext():
        backends = open_backends(settings)
        with starting():
            backends.metadata.prepare()
            backends.costs.prepare()
            backends.source.check()
        say_price(backends, settings, months, alone=alone)
        if not yes and sys.stdin.isatty() and not click.confirm("Collect it?", default=True):
            return
        with stop_requested() as stopping, working_family(quieter(settings)) if alone else nullcontext():
            jobs = backfilled(backends, months, stopping, wait=wait or alone)
    if any(job.status in ("quarantined", "failed", "cancelled") or job.result.get("failed") for job in jobs):
        sys.exit(1)


def say_price(backends: Backends, settings: Settings, months: int, *, alone: bool) -> None:
    """What a backfill will cost, before anything is asked that costs. Raises CannotStart when it could not ask."""
    from app.collection import price_of_backfill

    found = price_of_backfill(backends, months)
    if found.requests and alone:
        # Its own workers have what this process has; those of a deployment may have more.
        run_module("workers.collecting", "check_credentials", settings)
    if found.requests and found.accounts <= 1:
        found = price_of_backfill(
            backends, months, accounts=run_module("workers.collecting", "count_accounts", settings)
        )
    if not found.requests:
        say("Every day of it is final and collected: nothing to ask for, 0.00 USD.")
        return
    say(
        f"{found.days} days of {found.accounts} accounts: about {found.requests} requests to Cost Explorer, "
        f"{found.price} USD. Large accounts need more pages, each 0.01 USD."
    )


def backfilled(backends: Backends, months: int, stopping: Callable[[], bool], *, wait: bool) -> list[Job]:
    """The backfill's job and, when waited for, the jobs that ingest what it wrote."""
    from app.collection import backfill_params, submit_collection
    from app.ingest import watch

    job = submit_collection(backends, "backfill", backfill_params(backends, months))
    if not wait:
        say(f"Submitted as job {job.id}; the files are ingested as they arrive. Follow it: GET /api/v1/jobs/{job.id}")
        return [job]
    job = followed(backends, job, stopping)
    say(f"Collected: {job.message or job.status}")
    if stopping():
        return [job]
    taken = wait_for(backends, list(watch(backends).jobs), stopping, quiet=False)
    wrong = [each for each in taken if each.status not in ("done", "done-noop")]
    say(f"Ingested: {len(taken) - len(wrong)} files taken, {len(wrong)} not")
    for each in wrong:
        say(f"{each.params.get('key', ''):<20} {each.status:<12} {each.message or ''}".rstrip())
    return [job, *taken]


def followed(backends: Backends, job: Job, stopping: Callable[[], bool]) -> Job:
    """The job as it ended, or as it is when stopped by the user; how far it is as a bar."""
    shown = click.progressbar(length=1, label="Backfill", show_eta=False, file=sys.stderr, item_show_func=str)
    with shown as bar:
        while job.status not in FINAL and not stopping():
            time.sleep(0.2)
            job = backends.metadata.job(job.id) or job
            bar.length = job.all_steps or 1
            bar.update(job.done_steps - bar.pos, job.message or job.status)
    return job


@main.command()
@click.option("--start", required=True, help="First day, YYYY-MM-DD.")
@click.option("--end", required=True, help="The day after the last, YYYY-MM-DD.")
@click.option("--metric", default="amortized_cost", show_default=True)
@click.option("--granularity", default="total", show_default=True, help="daily, weekly, monthly or total.")
@click.option("--group-by", default="", help="Dimensions separated by commas, for example service,region.")
@click.option("--filter", "filters", multiple=True, help="dimension=value; repeat it for several.")
@click.option("--top", type=int, help="Only the largest groups; the rest becomes Other.")
@click.option("--format", "form", type=click.Choice(["table", "csv", "json"]), default="table", show_default=True)
@told_in_one_line
def query(
    start: str,
    end: str,
    metric: str,
    granularity: str,
    group_by: str,
    filters: tuple[str, ...],
    top: int | None,
    form: str,
) -> None:
    """Ask about cost: the same answers as the API and the pages."""
    pairs = [("start", start), ("end", end), ("metric", metric), ("granularity", granularity), ("group_by", group_by)]
    pairs += [split_filter(text) for text in filters] + ([("top", str(top))] if top is not None else [])
    backends = open_backends(read_settings())
    backends.metadata.prepare()
    backends.costs.prepare()
    print_costs(backends, CostQuery.from_pairs(pairs), form)


ALL_ROWS = 10**9


def print_costs(backends: Backends, asked: CostQuery, form: str) -> None:
    """Every row, as the API's object, as its CSV, or as columns for people."""
    from app.api.costs import CostTable, costs_answer, csv_lines, whole_table

    if form == "json":
        say(costs_answer(backends, asked, limit=ALL_ROWS).json_bytes().decode())
        return
    if form == "csv":
        for part in csv_lines(whole_table(backends, asked)):
            click.echo(part, nl=False)
        return
    table = CostTable.of(backends, asked)
    unit = table.answer.unit or ""
    for row in table.rows():
        names = [*([str(row.period)] if row.period else []), *row.group]
        amount = "not available" if row.amount is None else amounts.text(row.amount)
        say("  ".join([*(f"{printable(name):<32.60}" for name in names), f"{amount:>28} {unit}"]).rstrip())
    total, lacking = table.answer.total, "no day of this range was ever ingested"
    if table.not_kept:
        say(table.not_kept.reason)
        lacking = "not kept"
    say(f"Total {f'unknown: {lacking}' if total is None else f'{amounts.text(total)} {unit}'}".rstrip())
    fresh = table.answer.freshness
    for word, days in (("Settling", fresh.settling), ("Missing", fresh.missing), ("Quarantined", fresh.quarantined)):
        if days:
            say(f"{word}: {', '.join(map(str, days))}")


@main.command()
@click.option("--start", required=True, help="First day, YYYY-MM-DD.")
@click.option("--end", required=True, help="The day after the last, YYYY-MM-DD.")
@click.option("--account", "accounts", multiple=True, help="Only this account; repeat it for several.")
@click.option("--metric", default="amortized_cost", show_default=True)
@click.option("--format", "form", type=click.Choice(["table", "csv", "json"]), default="table", show_default=True)
@told_in_one_line
def restatements(start: str, end: str, accounts: tuple[str, ...], metric: str, form: str) -> None:
    """What each day was first reported as, called complete as, and is now; and how much days move.

    csv has every report; json is the API's object with all days.
    """
    from app.core.charges import METRICS
    from app.core.periods import DateRange, day_from
    from app.core.query import choice
    from app.tables import restatement_lines

    days = DateRange(day_from(start, "start"), day_from(end, "end"))
    choice("metric", metric, METRICS)
    backends = open_backends(read_settings())
    backends.metadata.prepare()
    for part in restatement_lines(backends, days, metric, accounts, form):
        click.echo(part, nl=False)


@main.command("reconcile")
@click.option("--month", required=True, help="The month, YYYY-MM.")
@click.option("--metric", default="amortized_cost", show_default=True)
@click.option("--account", "accounts", multiple=True, help="Only this account; repeat it for several.")
@click.option("--format", "form", type=click.Choice(["table", "csv", "json"]), default="table", show_default=True)
@told_in_one_line
def reconcile_month(month: str, metric: str, accounts: tuple[str, ...], form: str) -> None:
    """Hold a month against its files, the store and Cost Explorer's totals. Exit 1 when something is unexplained."""
    from app.api.reconciliation import month_from
    from app.core.charges import COSTS
    from app.core.query import choice
    from app.reconciliation import reconciliation_of, take_references
    from app.tables import agrees, reconciliation_lines

    first = month_from(month)
    choice("metric", metric, COSTS)
    backends = open_backends(read_settings())
    backends.metadata.prepare()
    backends.costs.prepare()
    try:
        take_references(backends)
    except SpendscopeError as error:
        click.echo(f"spendscope: the references are as they were last read: {error.message}", err=True)
    found = reconciliation_of(backends, first, metric, accounts)
    for part in reconciliation_lines(backends, found, form):
        click.echo(part, nl=False)
    if not agrees(found):
        sys.exit(1)


def split_filter(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise InvalidInput(f"--filter {text[:80]!r} is not dimension=value, for example --filter 'service=Amazon S3'.")
    filters_from([(name, value)])
    return name, value


@main.command()
@click.option("--as-of", help="Judge with what was known on this day, YYYY-MM-DD. Default: the newest stored day.")
@click.option("--json", "as_json", is_flag=True, help="Print what GET /api/v1/anomalies lists.")
@told_in_one_line
def detect(as_of: str | None, as_json: bool) -> None:
    """Look for anomalies in what is stored, keep them, and print those that are not over.

    Workers do it by themselves after files were ingested, and once a day.
    """
    from app.anomalies import AnomalyFilter, anomalies_of
    from app.anomalies import detect as detect_now
    from app.api.models import AnomalyAnswer, AnomalyList
    from app.core.periods import day_from

    backends = open_backends(read_settings())
    backends.metadata.prepare()
    backends.costs.prepare()
    day = day_from(as_of, "--as-of") if as_of else None
    found = detect_now(backends, day)
    if as_json:
        every = [AnomalyAnswer.of(one) for one in anomalies_of(backends, AnomalyFilter())]
        say(AnomalyList(items=every, next_cursor=None).json_text())
        return
    for record in anomalies_of(backends, AnomalyFilter(states=("open", "ongoing", "acknowledged"))):
        say(f"{record.state:<12}  {alert_text(record)}")
    say(found.sentence)


@main.group("planned-spend")
def planned_spend() -> None:
    """Days on which more (or less) is expected somewhere: what the detector finds there is no news."""


@planned_spend.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print what GET /api/v1/planned-spend lists.")
@told_in_one_line
def planned_spend_list(as_json: bool) -> None:
    """By first day."""
    from app.api.models import PlannedSpendAnswer, PlannedSpendList

    plans = open_backends(read_settings()).metadata.planned_spend()
    if as_json:
        say(PlannedSpendList(items=[PlannedSpendAnswer.of(one) for one in plans]).json_text())
        return
    for one in plans:
        where = " · ".join(printable(name or "all")[:40] for _, name in one.scope.parts())
        extra = "" if one.extra is None else f", up to {one.extra:,.2f} a day"
        say(f"{one.id}  {one.start} to {one.end - timedelta(days=1)}  {where}  {printable(one.reason)}{extra}")
    if not plans:
        say("Nothing is planned.")


@planned_spend.command("add")
@click.option("--start", required=True, help="First day, YYYY-MM-DD.")
@click.option("--end", required=True, help="The day after the last, YYYY-MM-DD.")
@click.option("--reason", required=True, help="What is planned.")
@click.option("--account", help="Only in this account. Default: all.")
@click.option("--service", help="Only of this service. Default: all.")
@click.option("--region", help="Only in this region. Default: all.")
@click.option("--extra", help="Dollars a day beyond the usual; more is news. Default: whatever it is.")
@told_in_one_line
def planned_spend_add(
    start: str,
    end: str,
    reason: str,
    account: str | None,
    service: str | None,
    region: str | None,
    extra: str | None,
) -> None:
    """Say that something is planned. The same scope and days again replace reason and dollars.

    It works from the next run of the detector on (`spendscope detect`).
    """
    from app.access import CONSOLE
    from app.anomalies import plan
    from app.core.periods import DateRange, day_from
    from app.core.scopes import Scope

    backends = open_backends(read_settings())
    backends.metadata.prepare()
    try:
        dollars = Decimal(extra) if extra is not None else None
    except InvalidOperation:
        raise InvalidInput(f"--extra {(extra or '')[:20]!r} is not an amount of dollars.", field="extra") from None
    days = DateRange(day_from(start, "--start"), day_from(end, "--end"))
    say(plan(backends, Scope(account, service, region), days, reason, by=CONSOLE, extra=dollars).id)


@planned_spend.command("remove")
@click.argument("id")
@told_in_one_line
def planned_spend_remove(id: str) -> None:
    """What it silenced stays expected; `spendscope detect` judges what is found from now on."""
    from app.anomalies import forget_plan

    backends = open_backends(read_settings())
    backends.metadata.prepare()
    forget_plan(backends, id)


@main.command()
@click.option("--start", help="First day whose alerts are printed, YYYY-MM-DD; earlier days are only learned from.")
@click.option("--end", help="The day after the last, YYYY-MM-DD.")
@click.option(
    "--deliveries",
    type=click.Path(path_type=Path),
    help="Folder of YYYY-MM-DD.csv[.gz], what arrived each day. Default: stored history.",
)
@click.option(
    "--hourly",
    type=click.Path(path_type=Path),
    multiple=True,
    help="CSV file `timestamp,value` of one series by the hour or finer, or a folder of such; may be repeated.",
)
@click.option("--min-daily", type=click.FloatRange(0), help="Dollars a day that are worth an alert.")
@click.option("--min-total", type=click.FloatRange(0), help="Dollars that an incident must be worth.")
@click.option(
    "--country", metavar="CC", help="Taken and said to change nothing: holidays are read from the costs themselves."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
@told_in_one_line
def backtest(
    start: str | None,
    end: str | None,
    deliveries: Path | None,
    hourly: tuple[Path, ...],
    min_daily: float | None,
    min_total: float | None,
    country: str | None,
    as_json: bool,
) -> None:
    """Replay history: the alerts you would have had, each day judged only with what was known then.

    Without --min-daily and --min-total: 0.2 % and 1 % of a usual day's cost, at least 5 and 25. With --hourly each file
    is one series of any unit, judged hour by hour; dollars decide nothing there.
    """
    from app.backtest import Rules, alert_line, replay, reported_range, stored_deliveries
    from app.core.periods import day_from
    from app.deliveries import read_deliveries

    if country is not None and not (len(country) == 2 and country.isascii() and country.isalpha()):
        raise InvalidInput(f"--country {country[:20]!r} is not an ISO 3166 code of two letters, for example DE.")
    if country is not None:
        # Taken, as scripts give it; but nobody is to believe that it did something. Not on stdout, which is for alerts.
        told = "changes nothing: holidays are read from the costs themselves (docs/anomalies.md)."
        click.echo(f"spendscope: --country {country.upper()} {told}", err=True)
    for option, dollars in (("--min-daily", min_daily), ("--min-total", min_total)):
        if dollars is not None and not isfinite(dollars):
            raise InvalidInput(f"{option} {dollars} is not an amount of dollars.")
    first, after = reported_range(
        *(day_from(text, name) if text else None for text, name in ((start, "start"), (end, "end")))
    )
    settings = read_settings()
    if hourly:
        given = {"--deliveries": deliveries, "--min-daily": min_daily, "--min-total": min_total, "--country": country}
        for option, value in given.items():
            if value is not None:
                raise InvalidInput(f"{option} does not go with --hourly. Leave it out, or leave out --hourly.")
        backtest_hourly(hourly, first, after, max_bytes=settings.max_file_bytes, as_json=as_json)
        return
    if deliveries is not None:
        arriving = read_deliveries(deliveries, max_bytes=settings.max_file_bytes)
    else:
        backends = open_backends(settings)
        backends.metadata.prepare()
        backends.costs.prepare()
        arriving = iter(stored_deliveries(backends))
    counted: dict[str, int] = {}
    for alert in replay(arriving, Rules(min_daily, min_total, first, after)):
        counted[alert.kind] = counted.get(alert.kind, 0) + 1
        say(json.dumps(alert_line(alert)) if as_json else alert_text(alert))
    if not as_json:
        say(", ".join(f"{number} {kind.replace('_', ' ')}" for kind, number in counted.items()) or "No alerts.")


def backtest_hourly(
    paths: tuple[Path, ...], start: date | None, end: date | None, *, max_bytes: int, as_json: bool
) -> None:
    """Print the alerts of each series, file by file in the order given; of days before `start` nothing but learning."""
    from app.hourlyfiles import hourly_line, hourly_text, replay_hourly, series_files

    counted: dict[str, int] = {}
    for path in series_files(paths):
        for alert in replay_hourly(path, start, end, max_bytes=max_bytes):
            counted[alert.kind] = counted.get(alert.kind, 0) + 1
            say(json.dumps(hourly_line(path, alert)) if as_json else hourly_text(path, alert))
    if not as_json:
        say(", ".join(f"{number} {kind}" for kind, number in counted.items()) or "No alerts.")


def alert_text(alert: Anomaly | AnomalyRecord) -> str:
    """One alert for people."""
    where = " · ".join(printable(name or "all")[:40] for _, name in alert.scope.parts())
    return (
        f"{alert.detected_on}  {alert.severity:<6}  {alert.kind.replace('_', ' '):<11}  {alert.impact:>+12,.2f}  {where}  "
        f"({alert.date}: {alert.actual:,.2f}, expected {alert.low:,.2f} to {alert.high:,.2f})"
    )


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@told_in_one_line
def status(as_json: bool) -> None:
    """Freshness, coverage, queue and stores, as they are now. Exit 1 when something is NOT OK; doctor says more."""
    from app.health import is_well, status_of
    from app.launcher import is_running

    settings = read_settings()
    found = status_of(open_backends(settings), settings, running=is_running(settings.data_dir))
    well = is_well(found)
    if as_json:
        say(json.dumps({"ok": well} | found))
    else:
        for name, value in found.items():
            say(f"{name.replace('_', ' '):<18} {printable(str(value))}")
    if not well:
        sys.exit(1)


@main.command()
@told_in_one_line
def doctor() -> None:
    """Look for what is misconfigured and say how to mend it. Exit 1 when something is wrong."""
    from app.health import examine

    findings = examine(read_settings())
    for finding in findings:
        say(f"{finding.verdict:<5} {finding.part:<10} {finding.sentence}")
    if any(finding.verdict == "wrong" for finding in findings):
        sys.exit(1)


@main.command()
@click.argument("out", type=click.Path(allow_dash=True))
@told_in_one_line
def backup(out: str) -> None:
    """Write the metadata (ledger, histories, jobs, people, audit log) to OUT while everything goes on working.

    OUT is a file, a folder (the name has the time then), or - for standard output. docs/backup.md says what else to keep.
    """
    from app.backup import back_up

    backends = open_backends(read_settings())
    with starting():
        backends.metadata.check()
    place, made = back_up(backends, out, sys.stdout.buffer)
    click.echo(f"{place}: {made.days} days, schema {made.schema} of {made.technology}", err=out == "-")


@main.command()
@click.argument("file", type=click.File("rb"))
@click.option("--check", is_flag=True, help="Only say whether FILE is whole and fits this release.")
@click.option("--force", is_flag=True, help="Replace what is there, and do so though workers seem to run.")
@told_in_one_line
def restore(file: BinaryIO, check: bool, force: bool) -> None:
    """Make the metadata what the backup FILE (- for standard input) says. Stop web, workers and scheduler before."""
    from app.backup import checked, refuse_unfit
    from app.backup import restore as put_back
    from app.launcher import locked_data_dir

    settings = read_settings()
    with checked(file) as (manifest, folder):
        made = f"{manifest.created:%Y-%m-%d %H:%M} UTC by Spendscope {manifest.product}, {manifest.days} days"
        backends = open_backends(settings)
        if manifest.source != backends.source.root:
            click.echo(f"Note: it is of {printable(manifest.source)}; here it is {backends.source.root}", err=True)
        if check:
            refuse_unfit(backends.metadata, manifest)
            say(f"Whole, and fits this release: made {printable(made)}")
            return
        with nullcontext() if settings.mongodb_uri else locked_data_dir(settings):
            put_back(backends, manifest, folder, force=force)
    say(f"Restored what was made {printable(made)}. Start Spendscope: files that came since are ingested then.")


@main.group()
def demo() -> None:
    """The sample organisation."""


@demo.command("generate")
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, help="Directory to write costs/ and labels.json to."
)
@click.option("--days", type=click.IntRange(30, 1500), default=400, show_default=True)
@click.option("--seed", type=click.IntRange(0), default=7, show_default=True)
@click.option("--today", help="Generate as of this day, YYYY-MM-DD (default: today, UTC).")
@told_in_one_line
def demo_generate(out: Path, days: int, seed: int, today: str | None) -> None:
    """Write the sample organisation as daily files."""
    from app.core.periods import day_from
    from app.sample import generate

    as_of: date = day_from(today, "today") if today else utc_now().date()
    try:
        changed = generate(out, days=days, seed=seed, today=as_of)
    except OSError as error:
        raise CannotStart(f"--out {out} cannot be written ({error.strerror}).") from None
    say(f"{changed} files written to {out / 'costs'}; anomalies are labelled in {out / 'labels.json'}")


@main.group()
def user() -> None:
    """Who may sign in (docs/access.md)."""


ROLE = click.Choice(["viewer", "analyst", "editor", "admin"])


def opened_metadata() -> Backends:
    """For commands about people: they work whether anything runs or not."""
    backends = open_backends(read_settings())
    backends.metadata.prepare()
    return backends


def read_password(file: TextIO | None) -> str:
    """From a file, from what is piped in, or typed twice; never from the command line, which others can see."""
    if file is not None:
        return file.readline().rstrip("\r\n")
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\r\n")
    return str(click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True))


def _password_file(command: Command) -> Command:
    return click.option(
        "--password-file",
        type=click.File("r", "utf-8"),
        help="Read the password from here instead of asking; - is stdin.",
    )(command)


@user.command("add")
@click.argument("name")
@click.option("--role", type=ROLE, default="viewer", show_default=True)
@click.option("--account", "accounts", multiple=True, help="May see this account only; repeat it for several.")
@_password_file
@told_in_one_line
def user_add(name: str, role: str, accounts: tuple[str, ...], password_file: TextIO | None) -> None:
    """Add a user. With the first one, nothing is shown any more to those who are not signed in."""
    from app.access import accounts_told, add_user
    from app.core.people import accounts_from

    added = add_user(opened_metadata(), name, role, accounts_from(accounts), read_password(password_file))
    say(f"{added.name} may sign in as {role}, {accounts_told(added.accounts)}")


@user.command("list")
@told_in_one_line
def user_list() -> None:
    """Everybody who may sign in."""
    from app.access import accounts_told

    for found in opened_metadata().metadata.users():
        state = "disabled" if found.disabled else "lapsed" if found.lapsed else "sso" if found.subject else "active"
        say(f"{found.name:<32} {found.role:<8} {state:<9} {printable(accounts_told(found.accounts))}")


@user.command("disable")
@click.argument("name")
@click.option("--undo", is_flag=True, help="Let the user in again.")
@told_in_one_line
def user_disable(name: str, undo: bool) -> None:
    """Shut a user out: sessions end and tokens stop working within seconds."""
    from app.access import set_disabled

    set_disabled(opened_metadata(), name, not undo)
    say(f"{name} {'may sign in again' if undo else 'is disabled'}")


@user.command("passwd")
@click.argument("name")
@_password_file
@told_in_one_line
def user_passwd(name: str, password_file: TextIO | None) -> None:
    """Set a new password; every session of the user ends."""
    from app.access import set_password

    set_password(opened_metadata(), name, read_password(password_file))
    say(f"{name} has a new password")


@main.group()
def token() -> None:
    """API tokens, sent as `Authorization: Bearer …` (docs/access.md)."""


@token.command("create")
@click.argument("name")
@click.option("--user", "user_name", required=True, help="Whose rights it has, at most.")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    default=("read",),
    show_default=True,
    help="read, annotate, operate, metrics or administer; repeat it for several.",
)
@click.option("--days", type=click.IntRange(1, 365), default=90, show_default=True, help="How long it works.")
@told_in_one_line
def token_create(name: str, user_name: str, scopes: tuple[str, ...], days: int) -> None:
    """Make a token called NAME and print it: this once, on stdout."""
    from app.access import create_token

    secret, made = create_token(opened_metadata(), user_name, name, scopes, days)
    click.echo(f"{made.id} works until {made.expires:%Y-%m-%d}. It is not shown again:", err=True)
    say(secret)


@token.command("list")
@told_in_one_line
def token_list() -> None:
    """Every token, without its secret."""
    backends = opened_metadata()
    names, now = {found.id: found.name for found in backends.metadata.users()}, backends.clock()
    for found in backends.metadata.tokens():
        state = "revoked" if found.revoked else "expired" if found.is_over(now) else "active"
        used = f"{found.used:%Y-%m-%d %H:%M}" if found.used else "never"
        owner = names.get(found.user_id, "?")
        say(
            f"{found.id} {found.shown}… {state:<8} until {found.expires:%Y-%m-%d} used {used:<16} {owner} "
            f"{'+'.join(found.scopes)} {found.name}"
        )


@token.command("revoke")
@click.argument("token_id", metavar="ID")
@told_in_one_line
def token_revoke(token_id: str) -> None:
    """Stop a token from working, within seconds."""
    from app.access import revoke_token

    revoke_token(opened_metadata(), token_id)
    say(f"{token_id} is revoked")


@main.command()
@click.option("--verify", is_flag=True, help="Only check that no entry was changed or taken out. Exit 1 when one was.")
@told_in_one_line
def audit(verify: bool) -> None:
    """The audit log, oldest first: who did what, from where, and how it went."""
    from app.core.people import broken_at

    entries = list(audit_entries(opened_metadata()))
    if not verify:
        for entry in entries:
            note = entry.note
            say(
                f"{entry.number:>6} {note.time:%Y-%m-%dT%H:%M:%SZ} {note.origin or '-':<15} {note.who:<20} "
                f"{note.what}{f' {note.target}' if note.target else ''}: {note.result}"
            )
        return
    broken = broken_at(entries)
    if broken is not None:
        click.echo(f"spendscope: the audit log was tampered with at entry {broken}.", err=True)
        sys.exit(1)
    say(f"{len(entries)} entries, each follows from the one before. Last: {entries[-1].hash if entries else 'none'}")


def audit_entries(backends: Backends) -> Iterator[AuditEntry]:
    last = 0
    while part := backends.metadata.audit(limit=1000, after=last):
        yield from part
        last = part[-1].number


def _monthly_budget(command: Command) -> Command:
    return click.option(
        "--monthly-budget",
        metavar="AMOUNT",
        help="Turns the budget alerts on, with this amount.",
    )(command)


def _stored_budget(settings: Settings) -> str | None:
    """The amount of the stored budget that Grafana's rules can be about; None where there is none, or no ledger here.

    Raises Unavailable when there is a ledger that does not answer: a rule must not be paused by that.
    """
    from app.backends import has_ledger, open_metadata
    from app.core.budgets import of_everything_a_month

    found = of_everything_a_month(open_metadata(settings).budgets()) if has_ledger(settings) else None
    return None if found is None else amounts.text(found.amount)


@main.group()
def grafana() -> None:
    """Dashboards and alert rules for Grafana (docs/grafana.md)."""


@grafana.command("export")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("grafana"),
    show_default=True,
    help="Folder to write dashboards/ and provisioning/ to.",
)
@_monthly_budget
@click.option("--stored-budget", is_flag=True, help="Take the amount from the stored budget of everything a month.")
@told_in_one_line
def grafana_export(out: Path, monthly_budget: str | None, stored_budget: bool) -> None:
    """Write dashboards, data sources, alert rules, contact points and policy as provisioning files.

    Only what differs is written; secrets stay names of environment variables.
    """
    from app.grafana.choices import choices_from
    from app.grafana.files import export

    settings = read_settings()
    if stored_budget:
        monthly_budget = monthly_budget or _stored_budget(settings)
    written = export(out, choices_from(settings, monthly_budget))
    for name in written:
        say(f"written    {out / name}")
    say(f"{len(written)} files written" if written else f"{out} is up to date")


@grafana.command("push")
@_monthly_budget
@told_in_one_line
def grafana_push(monthly_budget: str | None) -> None:
    """Write the same into the Grafana at GRAFANA_URL, with GRAFANA_TOKEN. Pushing again changes nothing.

    The budget alerts go by the stored budget of everything a month, unless --monthly-budget is given.
    """
    from app.backends import open_dashboards
    from app.grafana.choices import choices_from
    from app.grafana.push import push

    settings = read_settings()
    choices = choices_from(settings, monthly_budget or _stored_budget(settings))
    for step in push(open_dashboards(settings), choices, settings):
        say(f"{step.done:<10} {step.what}{f': {step.reason}' if step.reason else ''}")


main.add_command(budget)
main.add_command(rule)


@main.group()
def notifications() -> None:
    """What was told to whom, and whether a channel works (docs/notifications.md)."""


@notifications.command("list")
@click.option("--channel", help="Only of this channel.")
@click.option("--status", help="pending, sent, failed or dropped.")
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print the API's object instead of a table.")
@told_in_one_line
def notifications_list(channel: str | None, status: str | None, limit: int, as_json: bool) -> None:
    """Newest first."""
    from app.api.models import Deliveries, DeliveryAnswer
    from app.core.notifications import DELIVERY_STATUSES
    from app.core.query import choice

    wanted = choice("status", status, DELIVERY_STATUSES) if status else None
    found = open_backends(read_settings()).metadata.deliveries(limit=limit, channel=channel, status=wanted)
    if as_json:
        say(Deliveries(items=[DeliveryAnswer.of(one) for one in found.items], next_cursor=None).json_text())
        return
    for one in found.items:
        told = f"{one.id}  {one.created:%Y-%m-%d %H:%M}  {one.status:<8} {one.channel:<20.20} {printable(one.notification.title)}"
        say(f"{told}  {printable(one.message or '')}".rstrip())


@notifications.command("channels")
@told_in_one_line
def notifications_channels() -> None:
    """Where notifications go, and which channels are disabled."""
    backends = open_backends(read_settings())
    if not backends.channels:
        say("No channels. Set SPENDSCOPE_CHANNELS_FILE (docs/notifications.md).")
    for one in backends.channels.values():
        state = backends.metadata.channel_state(one.name)
        working = f"disabled: {state.disabled}" if state.disabled else "works"
        say(f"{one.name:<20} {one.type:<10} {','.join(one.kinds)} from {one.least_severity}; {working}")


@notifications.command("retry")
@click.argument("id")
@told_in_one_line
def notifications_retry(id: str) -> None:
    """Send the notification ID, which failed, once more; the scheduler does it."""
    from app.notifications import retry

    backends = open_backends(read_settings())
    backends.metadata.prepare()
    say(f"{retry(backends, id).status}: it goes out with the next message of its channel.")


@notifications.command("test")
@click.argument("channel")
@told_in_one_line
def notifications_test(channel: str) -> None:
    """Send a test message to CHANNEL now. Exit 1 when it could not be delivered."""
    from app.notifications import send_test

    backends = open_backends(read_settings())
    backends.metadata.prepare()
    found = send_test(backends, channel)
    say(f"{found.status}: {found.message or f'channel {channel} was told.'}")
    if found.status != "sent":
        sys.exit(1)


if __name__ == "__main__":
    logging.captureWarnings(True)
    main(prog_name="spendscope")
