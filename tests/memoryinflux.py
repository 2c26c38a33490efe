"""The part of InfluxDB 2 that the cost store uses, in memory: where no influxd can be had.

Points are kept as InfluxDB keeps them: one per series and time, its fields as 64-bit floats, a write adds or replaces
fields and takes none away. What is asked in Flux is answered by its parameters; real servers test the Flux itself.
"""

from __future__ import annotations

import csv
import io
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar, Final
from urllib.parse import parse_qs, urlsplit

from app.core.charges import DIMENSIONS
from app.core.lineprotocol import ANOMALIES, ANOMALY_TAGS

TERM: Final = r'(\w+)="((?:[^"\\]|\\.)*)"'
ID: Final = "0123456789abcdef"
Series = tuple[tuple[str, str], ...]
Point = dict[str, float]


class MemoryInflux:
    """`buckets` is bucket → (series, seconds) → fields, of costs; `anomalies` the same of the other measurement."""

    def __init__(self) -> None:
        self.buckets: dict[str, dict[tuple[Series, int], Point]] = {}
        self.anomalies: dict[tuple[Series, int], Point] = {}
        self.url = ""
        self._lock = threading.Lock()

    def answer(self, method: str, path: str, query: dict[str, list[str]], body: bytes) -> tuple[int, str, bytes]:
        with self._lock:
            if path == "/api/v2/buckets" and method == "GET":
                found = [self._bucket(name) for name in query.get("name", []) if name in self.buckets]
                return 200, "application/json", json.dumps({"buckets": found}).encode()
            if path == "/api/v2/buckets":
                name = json.loads(body)["name"]
                self.buckets.setdefault(name, {})
                return 201, "application/json", json.dumps(self._bucket(name)).encode()
            if path == "/api/v2/orgs":
                return 200, "application/json", json.dumps({"orgs": [{"id": ID, "name": "o"}]}).encode()
            if path == "/api/v2/query":
                return 200, "text/csv", self._queried(json.loads(body))
            points = self.buckets[query["bucket"][0]]
            if path == "/api/v2/write":
                for line in body.decode().splitlines():
                    series, at, fields = parsed_line(line)
                    kept = self.anomalies if line.startswith(f"{ANOMALIES},") else points
                    kept.setdefault((series, at), {}).update(fields)
            else:
                self._delete(points, json.loads(body))
            return 204, "application/json", b""

    def _bucket(self, name: str) -> dict[str, Any]:
        return {"id": ID, "orgID": ID, "name": name, "retentionRules": [{"type": "expire", "everySeconds": 0}]}

    def _delete(self, points: dict[tuple[Series, int], Point], asked: dict[str, str]) -> None:
        start, stop = (int(datetime.fromisoformat(asked[end]).timestamp()) for end in ("start", "stop"))
        if f'_measurement="{ANOMALIES}"' in asked["predicate"]:
            wanted = {name: _unquoted(value) for name, value in re.findall(TERM, asked["predicate"]) if name[0] != "_"}
            for series, at in list(self.anomalies):
                if start <= at <= stop and wanted.items() <= dict(series).items():
                    del self.anomalies[series, at]
            return
        quoted = re.search(r'account="((?:[^"\\]|\\.)*)"', asked["predicate"])
        assert quoted is not None
        account = _unquoted(quoted[1])
        for series, at in list(points):
            if start <= at <= stop and dict(series)["account"] == account:
                del points[series, at]

    def _queried(self, asked: dict[str, Any]) -> bytes:
        given = {
            one["assignment"]["id"]["name"]: one["assignment"]["init"].get("value") for one in asked["extern"]["body"]
        }
        start, stop = (int(datetime.fromisoformat(given[end]).timestamp()) for end in ("_start", "_stop"))
        if f'"{ANOMALIES}"' in asked["query"]:
            return self._shown(start, stop)
        only = {"amortized_cost", "blended_cost"} if "or r._field" in asked["query"] else None
        out = io.StringIO()
        writer = csv.writer(out)
        writer.writerow(["", "result", "table", "_time", "_field", "_value", *DIMENSIONS])
        rows = 0
        for (series, at), fields in self.buckets[given["_bucket"]].items():
            for name, value in fields.items() if start <= at < stop else ():
                if only is None or name in only:
                    time = datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
                    tags = dict(series)
                    writer.writerow(["", "_result", 0, time, name, repr(value), *(tags[name] for name in DIMENSIONS)])
                    rows += 1
        return out.getvalue().encode() + b"\r\n" if rows else b"\r\n"

    def _shown(self, start: int, stop: int) -> bytes:
        """Annotated CSV, as the client reads it record by record."""
        rows = [
            ["", "", 0, datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"), "impact", fields["impact"]]
            + [dict(series).get(name, "") for name in ANOMALY_TAGS]
            for (series, at), fields in self.anomalies.items()
            if start <= at < stop
        ]
        if not rows:
            return b"\r\n"
        width = len(ANOMALY_TAGS)
        out = io.StringIO()
        writer = csv.writer(out)
        writer.writerow(["#datatype", "string", "long", "dateTime:RFC3339", "string", "double", *["string"] * width])
        writer.writerow(["#group", *["false"] * (5 + width)])
        writer.writerow(["#default", "_result", *[""] * (4 + width)])
        writer.writerow(["", "result", "table", "_time", "_field", "_value", *ANOMALY_TAGS])
        writer.writerows(rows)
        return out.getvalue().encode() + b"\r\n"


def parsed_line(line: str) -> tuple[Series, int, Point]:
    """Series, seconds and fields of one line; what is escaped is text."""
    head, fields, at = _split(line, " ")
    _, *tags = _split(head, ",")
    pairs = (tuple(map(_plain, _split(tag, "="))) for tag in tags)
    found = {name: float(value) for name, value in (field.split("=") for field in fields.split(","))}
    return tuple(sorted(pairs)), int(at), found  # type: ignore[arg-type]


def _split(text: str, separator: str) -> list[str]:
    return re.split(rf"(?<!\\){separator}", text)


def _unquoted(text: str) -> str:
    return re.sub(r"\\(.)", lambda found: "\n" if found[1] == "n" else found[1], text)


def _plain(text: str) -> str:
    return re.sub(r"\\([,= ])", r"\1", text)


@contextmanager
def memory_influx() -> Iterator[MemoryInflux]:
    """One that listens on a port of this machine."""
    found = MemoryInflux()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        codes: ClassVar[dict[int, str]] = {}

        def serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            where = urlsplit(self.path)
            status, kind, answer = found.answer(self.command, where.path, parse_qs(where.query), body)
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        do_GET = do_POST = serve

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    found.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()
