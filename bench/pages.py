"""The Overview's callback under load, beside the same page written the usual way, on the same rows, in turn."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import IO, Any

import numpy as np

from bench.files import REGIONS, SERVICES, combinations
from bench.load import Load, bursts, closed_loop, get, post
from bench.usual_page import questions

DAYS = 400
CLIENTS = 20
SECONDS = 6.0
TICKS = os.sysconf("SC_CLK_TCK")
PER_ACCOUNT = len(SERVICES) * len(REGIONS)


@dataclass(frozen=True)
class Seeded:
    """A data directory with so many rows, the same rows as a pandas file, and what to ask about them."""

    rows: int
    data_dir: Path
    frame: Path
    last: date
    accounts: list[str]


def seed(directory: Path, accounts: int) -> Seeded:
    """Store 400 days through the cost store itself (the CSV is measured elsewhere)."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from app.backends import open_backends
    from app.config import read_settings
    from app.core.ledger import AccountDay, DayRecord

    settings = read_settings({}, data_dir=directory, source=(directory / "costs").as_uri(), demo=False)
    backends = open_backends(settings)
    backends.metadata.prepare()
    backends.costs.prepare()
    names = [f"{number + 100_000_000_000:012d}" for number in range(accounts)]
    places = combinations(accounts, 0.33, 5)
    rng = np.random.default_rng(6)
    last = datetime.now(UTC).date() - timedelta(days=1)
    writer, rows = None, 0
    for back in range(DAYS - 1, -1, -1):
        day = last - timedelta(days=back)
        here = places[rng.random(len(places)) < 0.9]
        costs = np.round(rng.lognormal(1, 2, len(here)), 2)
        table = _charges(here, costs, names)
        stored, at = backends.costs.replace(day, frozenset(names), table), backends.clock()
        parts = {
            name: AccountDay("bench", "0", 1, totals, totals, False, at, at) for name, totals in stored.accounts.items()
        }
        backends.metadata.put_day_record(DayRecord(day, 1, parts, {"bench": "0"}))
        frame = _plain(pa, table, day)
        writer = writer or pq.ParquetWriter(directory / "frame.parquet", frame.schema)
        writer.write_table(frame)
        rows += len(here)
    assert writer is not None
    writer.close()
    return Seeded(rows, directory, directory / "frame.parquet", last, names)


def _charges(places: np.ndarray, costs: np.ndarray, accounts: list[str]) -> Any:
    import pyarrow as pa
    import pyarrow.compute as pc

    from app.core.csvnumbers import EXACT
    from app.core.dailycsv import SCHEMA, TEXT

    count = len(places)

    def text(codes: np.ndarray, values: Sequence[str]) -> Any:
        return pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int32)), pa.array(values)).cast(TEXT)

    none = np.zeros(count, np.int32)
    cent = pa.scalar(Decimal("0.01"), pa.decimal128(3, 2))

    def cents(values: np.ndarray) -> Any:
        whole = pa.array(np.round(values * 100).astype(np.int64)).cast(pa.decimal128(20, 0))
        return pc.multiply(whole, cent).cast(EXACT)

    columns = {
        "provider": text(none, ["aws"]),
        "account": text(places // PER_ACCOUNT, accounts),
        "service": text(places // len(REGIONS) % len(SERVICES), SERVICES),
        "region": text(places % len(REGIONS), REGIONS),
        "charge_category": text(none, ["Usage"]),
        "amortized_cost": cents(costs),
        "blended_cost": cents(costs * 1.01),
        "unblended_cost": cents(costs * 0.9),
        "usage_quantity": cents(costs * 10),
        "usage_unit": text(none, ["Hrs"]),
        "estimated": pa.array(np.zeros(count, np.bool_)),
    }
    return pa.table(columns, schema=SCHEMA)


def _plain(pa: Any, table: Any, day: date) -> Any:
    columns: dict[str, Any] = {"date": pa.array([day] * len(table), pa.date32()).cast(pa.timestamp("s"))}
    for name in ("account", "service", "region"):
        columns[name] = table[name]
    for name in ("amortized_cost", "blended_cost", "unblended_cost", "usage_quantity"):
        columns[name] = table[name].cast(pa.float64())
    return pa.table(columns).unify_dictionaries()


@contextmanager
def served(arguments: list[str], environment: dict[str, str], port: int) -> Iterator[int]:
    """A server process that answers on the port; its process id. Its log goes to a file, as it would where it is used:
    thousands of lines on a terminal are not read by anybody, and slow down who writes them."""
    with tempfile.TemporaryFile() as log:
        yield from _served(arguments, environment, port, log)


def _served(arguments: list[str], environment: dict[str, str], port: int, log: IO[bytes]) -> Iterator[int]:
    process = subprocess.Popen([sys.executable, *arguments], env={**os.environ, **environment}, stderr=log)
    try:
        until = time.monotonic() + 120
        while True:
            try:
                ask(port, "GET", "/")
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > until:
                    log.seek(0)
                    sys.stderr.buffer.write(log.read())
                    raise
                time.sleep(0.2)
        yield process.pid
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()


def ours(seeded: Seeded, port: int, cache: int) -> tuple[list[str], dict[str, str]]:
    return ["-m", "app.cli", "web"], {
        "SPENDSCOPE_DATA_DIR": str(seeded.data_dir),
        "SPENDSCOPE_SOURCE": (seeded.data_dir / "costs").as_uri() + "/",
        "SPENDSCOPE_PORT": str(port),
        "SPENDSCOPE_CACHE_MEGABYTES": str(cache),
    }


def usual(seeded: Seeded, port: int, page: str = "usual_page") -> tuple[list[str], dict[str, str]]:
    options = [
        "--workers",
        "2",
        "--threads",
        "4",
        "--worker-class",
        "gthread",
        "--no-control-socket",
        "--keep-alive",
        "15",
        # Of ten million rows, twenty answers take longer than the 30 s after which gunicorn ends a process.
        "--timeout",
        "300",
    ]
    arguments = ["-m", "gunicorn", "-b", f"127.0.0.1:{port}", *options, "--preload", f"bench.{page}:create_server()"]
    return arguments, {"BENCH_FRAME": str(seeded.frame)}


def ask(port: int, method: str, path: str, body: bytes | None = None) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
    answer = connection.getresponse()
    data = answer.read()
    connection.close()
    if answer.status != 200:
        raise RuntimeError(f"{path} answered {answer.status}: {data[:300]!r}")
    return data


def draw_request(port: int, search: str) -> bytes:
    """The callback that draws the page from the URL's search, as Dash's renderer posts it."""
    for callback in json.loads(ask(port, "GET", "/_dash-dependencies")):
        inputs = [(given["id"], given["property"]) for given in callback["inputs"]]
        if not callback.get("clientside_function") and [name for _, name in inputs] == ["search"]:
            outputs = [part.rpartition(".") for part in callback["output"].strip(".").split("...")]
            body = {
                "output": callback["output"],
                "outputs": [{"id": name, "property": prop} for name, _, prop in outputs],
                "inputs": [{"id": inputs[0][0], "property": "search", "value": search}],
                "changedPropIds": [f"{inputs[0][0]}.search"],
                "state": [],
            }
            if not callback["output"].startswith(".."):
                body["outputs"] = body["outputs"][0]  # type: ignore[index]
            return json.dumps(body).encode()
    raise RuntimeError("no callback takes only the URL's search")


def requests_to(port: int, seeded: Seeded) -> list[bytes]:
    bodies = [draw_request(port, search) for search in questions(seeded.last, seeded.accounts)]
    for body in bodies[:4]:
        ask(port, "POST", "/_dash-update-component", body)
    return [post("/_dash-update-component", body, f"127.0.0.1:{port}") for body in bodies]


def memory(pid: int) -> tuple[float, float]:
    """RSS and PSS of a process and its children, in MB."""
    rss = pss = 0
    for process in processes(pid):
        for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
            rss += int(line.split()[1]) if line.startswith("Rss:") else 0
            pss += int(line.split()[1]) if line.startswith("Pss:") else 0
    return rss / 1024, pss / 1024


def processes(pid: int) -> list[int]:
    """It and its children."""
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True).stdout
    return [pid, *map(int, found.split())]


def until_idle(pid: int) -> None:
    """Wait for what is still being worked out for clients that have gone: the next measurement would share the machine with it."""
    before, until = -1.0, time.monotonic() + 180
    while (now := sum(map(cpu_seconds, processes(pid)))) > before and time.monotonic() < until:
        before = now
        time.sleep(0.3)


def cpu_seconds(pid: int) -> float:
    """Of a process and its children that have ended."""
    parts = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, parts[11:15])) / TICKS


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def measured(seeded: Seeded) -> list[tuple[str, ...]]:
    table: list[tuple[str, ...]] = []

    def tell(row: tuple[str, ...]) -> None:
        table.append(row)
        print("  ".join(filter(None, row)), file=sys.stderr, flush=True)

    size = f"{seeded.rows / 1e6:.0f} M rows"
    first, second = free_port(), free_port()
    with served(*ours(seeded, first, 0), first) as our_pid, served(*usual(seeded, second), second) as usual_pid:
        mine, theirs = requests_to(first, seeded), requests_to(second, seeded)
        rounds: list[tuple[Load, Load]] = []
        for _ in range(3):
            a = closed_loop(("127.0.0.1", first), mine, connections=CLIENTS, seconds=SECONDS)
            b = closed_loop(("127.0.0.1", second), theirs, connections=CLIENTS, seconds=SECONDS)
            rounds.append((a, b))
            until_idle(usual_pid)
        ratios = sorted(a.requests_a_second / b.requests_a_second for a, b in rounds)
        a, b = sorted(rounds, key=lambda pair: pair[0].requests_a_second)[1]
        errors = sum(x.errors + y.errors for x, y in rounds)
        tell(
            (
                f"page, {CLIENTS} clients, {size}",
                f"{a.requests_a_second:.0f}/s p95 {a.p95_ms:.0f} ms",
                f"{b.requests_a_second:.0f}/s p95 {b.p95_ms:.0f} ms",
                f"{ratios[1]:.1f}x",
                "≥ 8x",
                f"{errors} errors",
            )
        )
        one = closed_loop(("127.0.0.1", first), mine, connections=1, seconds=3)
        tell(
            (
                f"page, one user, {size}",
                f"p50 {one.p50_ms:.1f} p95 {one.p95_ms:.1f} ms",
                "",
                "",
                "",
                f"{one.bytes_a_request:.0f} B",
            )
        )
        tell(beside_bare(seeded, first, mine, size))
        burst = bursts(("127.0.0.1", first), mine, users=CLIENTS, rounds=10)
        usual_burst = bursts(("127.0.0.1", second), theirs, users=CLIENTS, rounds=3, pause=2)
        until_idle(usual_pid)
        tell(
            (
                f"burst of {CLIENTS} users, {size}",
                f"p95 {burst.p95_ms:.0f} ms",
                f"p95 {usual_burst.p95_ms:.0f} ms",
                f"{usual_burst.p95_ms / burst.p95_ms:.1f}x",
                "p95 ≤ 60 ms",
                f"{burst.errors} errors",
            )
        )
        (rss, pss), (usual_rss, usual_pss) = memory(our_pid), memory(usual_pid)
        tell(
            (
                f"web processes, {size}",
                f"RSS {rss:.0f} PSS {pss:.0f} MB",
                f"RSS {usual_rss:.0f} PSS {usual_pss:.0f} MB",
                f"{usual_pss / pss:.1f}x",
                "≤ 200 MB",
                "",
            )
        )
    with served(*ours(seeded, first, 32), first):
        mine = requests_to(first, seeded)
        crowd = bursts(
            ("127.0.0.1", first),
            [mine[place] for place in range(10, 20) for _ in range(CLIENTS)],
            users=CLIENTS,
            rounds=10,
        )
        tell(
            (
                f"burst of {CLIENTS} users, one new question, {size}",
                f"p95 {crowd.p95_ms:.0f} ms",
                "",
                "",
                "",
                f"{crowd.errors} errors",
            )
        )
        plain = get("/healthz", f"127.0.0.1:{first}")
        pairs = []
        for _ in range(3):
            cached = closed_loop(("127.0.0.1", first), mine[:8], connections=CLIENTS, seconds=3)
            floor = closed_loop(("127.0.0.1", first), [plain], connections=CLIENTS, seconds=3)
            pairs.append((cached.requests_a_second / floor.requests_a_second, cached, floor))
        ratio, cached, floor = sorted(pairs, key=lambda pair: pair[0])[1]
        tell(
            (
                f"same question again, {size}",
                f"{cached.requests_a_second:.0f}/s",
                f"{floor.requests_a_second:.0f}/s (plain route)",
                f"{ratio:.2f}x",
                "≥ 0.5x",
                "",
            )
        )
    return table


def beside_bare(seeded: Seeded, port: int, mine: list[bytes], size: str) -> tuple[str, ...]:
    """What a burst waits for, beside the same burst on a page of six figures and nothing else, in turn."""
    other = free_port()
    with served(*usual(seeded, other, "bare_page"), other):
        bare = requests_to(other, seeded)
        pairs = []
        for _ in range(5):
            a = bursts(("127.0.0.1", port), mine, users=CLIENTS, rounds=4)
            b = bursts(("127.0.0.1", other), bare, users=CLIENTS, rounds=4)
            pairs.append((a.p95_ms / b.p95_ms, a, b))
    ratio, a, b = sorted(pairs, key=lambda pair: pair[0])[2]
    return (
        f"burst of {CLIENTS} users beside a bare page, {size}",
        f"p95 {a.p95_ms:.0f} ms",
        f"p95 {b.p95_ms:.0f} ms (six figures, no more)",
        f"{ratio:.1f}x",
        "",
        f"{a.errors + b.errors} errors",
    )


def pages(accounts: Sequence[int]) -> list[tuple[str, ...]]:
    table = []
    for number in accounts:
        with tempfile.TemporaryDirectory() as temporary:
            table.extend(measured(seed(Path(temporary), number)))
    return table
