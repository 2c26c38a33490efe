"""People with browsers and programs with tokens, as they meet a deployment: what each was answered, when and how fast."""

from __future__ import annotations

import http.client
import itertools
import json
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.cookies import SimpleCookie
from typing import Any, Final
from urllib.parse import urlencode

PASSWORD: Final = "correct horse battery"
PATIENCE_SECONDS: Final = 30.0
DEAD: Final = (ConnectionError, http.client.BadStatusLine)
"""What a connection says that the server closed while it was idle."""

PERIODS: Final = ("7d", "30d", "90d", "mtd")
PAGES: Final = ("/", "/data", "/anomalies")
DRAWING: Final = {"/": "drawn.data", "/data": "data-drawn.data", "/anomalies": "anomalies-drawn.data"}
CALLBACK: Final = "/_dash-update-component"


@dataclass(frozen=True)
class Answer:
    """`status` 0: none came. `at` is when it was asked for, in seconds of time.monotonic()."""

    what: str
    at: float
    seconds: float
    status: int
    retry_after: str | None
    said: str


class Connection:
    """One kept-alive connection, as a browser or a client library uses it.

    A request on a connection that the server has closed meanwhile is sent once more on a new one: every browser does that.
    """

    def __init__(self, address: Callable[[], int], headers: Mapping[str, str], keep: Callable[[Answer], None]) -> None:
        self._address, self.headers, self._keep = address, dict(headers), keep
        self._open: http.client.HTTPConnection | None = None

    def ask(
        self, method: str, path: str, body: bytes | None = None, **headers: str
    ) -> tuple[int, http.client.HTTPMessage | None, bytes]:
        began = time.monotonic()
        what = f"{method} {path.partition('?')[0]}"
        try:
            status, sent, read = self._asked(method, path, body, {**self.headers, **headers})
        except (OSError, http.client.HTTPException) as error:
            self.close()
            self._keep(Answer(what, began, time.monotonic() - began, 0, None, repr(error)))
            return 0, None, b""
        said = "" if status < 400 else read[:400].decode("utf-8", "replace")
        self._keep(Answer(what, began, time.monotonic() - began, status, sent.get("Retry-After"), said))
        return status, sent, read

    def _asked(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        reused = self._open is not None
        try:
            return self._once(method, path, body, headers)
        except DEAD:
            if not reused:
                raise
            self.close()
            return self._once(method, path, body, headers)

    def _once(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        if self._open is None:
            self._open = http.client.HTTPConnection("127.0.0.1", self._address(), timeout=PATIENCE_SECONDS)
        self._open.request(method, path, body, dict(headers))
        answer = self._open.getresponse()
        read = answer.read()
        if answer.will_close:
            self.close()
        return answer.status, answer.headers, read

    def close(self) -> None:
        if self._open is not None:
            self._open.close()
        self._open = None


class Person:
    """Signs in by the form, loads pages, and lets Dash draw them with what the browser was told to send."""

    def __init__(self, name: str, number: int, port: Callable[[], int], keep: Callable[[Answer], None]) -> None:
        self.name, self.draw = name, random.Random(number)
        # Every person sits somewhere else: sign-ins from one place are limited.
        headers = {"X-Forwarded-For": f"10.0.{number // 250}.{number % 250 + 1}", "Accept-Encoding": "gzip"}
        self.browser = Connection(port, headers, keep)
        self.cookies: dict[str, str] = {}
        self.callbacks: dict[str, dict[str, Any]] = {}

    def sign_in(self) -> bool:
        _, _, page = self._ask("GET", "/login", plain=True)
        found = re.search(rb'name="form_token" value="([0-9a-f]+)"', page)
        if found is None:
            return False
        form = urlencode({"form_token": found[1].decode(), "name": self.name, "password": PASSWORD}).encode()
        kind = {"Content-Type": "application/x-www-form-urlencoded", "Sec-Fetch-Site": "same-origin"}
        status, _, _ = self._ask("POST", "/login", form, **kind)
        return status == 303

    def start(self) -> bool:
        """Until it is signed in and knows the page's callbacks."""
        if "spendscope" not in self.cookies and not self.sign_in():
            return False
        status, _, read = self._ask("GET", "/_dash-dependencies", plain=True)
        if status != 200:
            return False
        found = [one for one in json.loads(read) if not one.get("clientside_function")]
        self.callbacks = {_first(one["output"]): one for one in found}
        return True

    def act(self) -> None:
        """Something that people do: load a page, or change what is shown on one."""
        page = self.draw.choice(PAGES)
        if self.draw.random() < 0.2:
            self._ask("GET", page)
            self._ask("GET", "/_dash-layout")
        if self.draw.random() < 0.1 and page == "/data":
            self._call("data-live.data", "")
        # Accounts of the sample differ, so that most pages have to be worked out and are not remembered.
        search = (
            f"?period={self.draw.choice(PERIODS)}&account=a{self.draw.randrange(3)}&service=S{self.draw.randrange(9)}"
        )
        self._call(DRAWING[page], search if page == "/" else f"?period={self.draw.choice(('30d', '90d'))}")

    def _call(self, first: str, search: str) -> None:
        spec = self.callbacks[first]
        values = {"search": search, "pathname": "/"}
        inputs = [{**one, "value": values.get(one["property"])} for one in spec["inputs"]]
        body = {
            "output": spec["output"],
            "outputs": _outputs(spec["output"]),
            "inputs": inputs,
            "changedPropIds": [f"{one['id']}.{one['property']}" for one in inputs[:1]],
            "state": [{**one, "value": values.get(one["property"])} for one in spec["state"]],
        }
        kind = {"Content-Type": "application/json", "Sec-Fetch-Site": "same-origin"}
        self._ask("POST", CALLBACK, json.dumps(body).encode(), **kind)

    def _ask(
        self, method: str, path: str, body: bytes | None = None, *, plain: bool = False, **headers: str
    ) -> tuple[int, http.client.HTTPMessage | None, bytes]:
        if self.cookies:
            headers["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        if plain:
            headers["Accept-Encoding"] = "identity"
        status, sent, read = self.browser.ask(method, path, body, **headers)
        for cookie in (sent.get_all("Set-Cookie") or []) if sent else []:
            for name, morsel in SimpleCookie(cookie).items():
                self.cookies[name] = morsel.value
        return status, sent, read


def _first(output: str) -> str:
    return output.removeprefix("..").removesuffix("..").split("...")[0]


def _outputs(output: str) -> Any:
    """As Dash's own page sends them."""
    pairs = [part.rpartition(".") for part in output.removeprefix("..").removesuffix("..").split("...")]
    found = [{"id": name, "property": what} for name, _, what in pairs]
    return found if output.startswith("..") else found[0]


class Program:
    """Asks the API with a token: questions of every kind, and now and then for a file to be taken."""

    QUESTIONS: Final = (
        "costs?start=2026-06-01&end=2026-06-20&group_by=service&account=a{0}",
        "costs?start=2026-06-01&end=2026-06-{1:02}&granularity=total",
        "costs?start=2026-06-01&end=2026-06-{1:02}&granularity=daily&group_by=account&format=csv",
        "costs?start=2026-06-01&end=2026-06-{1:02}&granularity=weekly&group_by=account,region&top=5",
        "coverage?start=2026-06-01&end=2026-06-30",
        "dimensions/service?start=2026-06-01&end=2026-06-{1:02}",
        "ingestions?limit=20",
        "jobs?limit=20",
        "restatements?start=2026-06-01&end=2026-06-30",
        "anomalies?limit=20",
    )

    def __init__(
        self, token: str, number: int, names: Sequence[str], port: Callable[[], int], keep: Callable[[Answer], None]
    ) -> None:
        self.draw, self.names = random.Random(number + 1000), names
        self.client = Connection(port, {"Authorization": f"Bearer {token}"}, keep)
        self.submitted: list[str] = []
        self._turn = itertools.count(number)

    def act(self) -> None:
        turn = next(self._turn)
        if turn % 25 == 0:
            self._submit(f"{id(self)}-{turn}")
            return
        question = self.QUESTIONS[turn % len(self.QUESTIONS)].format(
            self.draw.randrange(3), self.draw.randrange(12, 29)
        )
        self.client.ask("GET", f"/api/v1/{question}")

    def _submit(self, key: str) -> None:
        body = json.dumps({"kind": "ingest", "params": {"key": self.draw.choice(self.names)}}).encode()
        headers = {"Content-Type": "application/json", "Idempotency-Key": key}
        status, _, read = self.client.ask("POST", "/api/v1/jobs", body, **headers)
        if status == 202:
            self.submitted.append(json.loads(read)["id"])


@dataclass
class Traffic:
    """All of them at once. `faults` are the spans in which something was broken."""

    port: Callable[[], int]
    answers: list[Answer] = field(default_factory=list)
    faults: list[tuple[float, float]] = field(default_factory=list)
    programs: list[Program] = field(default_factory=list)
    _threads: list[threading.Thread] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    def people(self, names: Sequence[str], every: float) -> None:
        for number, name in enumerate(names):
            person = Person(name, number, self.port, self.answers.append)
            self._run(lambda person=person: _lives(person, self._stop), person.act, person.browser, every, number)

    def machines(self, tokens: Sequence[str], names: Sequence[str], every: float) -> None:
        for number, token in enumerate(tokens):
            program = Program(token, number, names, self.port, self.answers.append)
            self.programs.append(program)
            self._run(lambda: True, program.act, program.client, every, number)

    def _run(
        self, begin: Callable[[], bool], act: Callable[[], None], used: Connection, every: float, number: int
    ) -> None:
        def run() -> None:
            draw = random.Random(number)
            self._stop.wait(draw.uniform(0, every))
            begin()
            while not self._stop.is_set():
                began = time.monotonic()
                act()
                self._stop.wait(max(0.0, every * draw.uniform(0.7, 1.3) - (time.monotonic() - began)))
            used.close()

        thread = threading.Thread(target=run, daemon=True)
        self._threads.append(thread)
        thread.start()

    @contextmanager
    def fault(self) -> Iterator[None]:
        began = time.monotonic()
        try:
            yield
        finally:
            self.faults.append((began, time.monotonic()))

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(2 * PATIENCE_SECONDS)
        assert not any(thread.is_alive() for thread in self._threads), "somebody still waits for an answer"

    # --- the verdict

    def counts(self) -> dict[int, int]:
        return dict(Counter(answer.status for answer in self.answers))

    def wrong(self, grace: float) -> list[Answer]:
        """Answers that nobody should get: no answer, any error but 503 with Retry-After while something was broken."""
        return [answer for answer in self.answers if not self._is_right(answer, grace)]

    def _is_right(self, answer: Answer, grace: float) -> bool:
        if answer.status == 503:
            return (answer.retry_after or "").isdigit() and self.in_fault(answer, grace)
        return 0 < answer.status < 400

    def in_fault(self, answer: Answer, grace: float) -> bool:
        """Whether any moment of it fell into a fault, or so short a while after it that it was not noticed yet."""
        return any(answer.at <= end + grace and answer.at + answer.seconds >= begin for begin, end in self.faults)

    def outside(self, grace: float) -> list[float]:
        """Seconds of the answers that no fault touched, sorted."""
        return sorted(answer.seconds for answer in self.answers if not self.in_fault(answer, grace))


def _lives(person: Person, stop: threading.Event) -> bool:
    """Somebody who wants in tries until it works."""
    while not stop.is_set():
        with suppress(ValueError):
            if person.start():
                return True
        stop.wait(1.0)
    person.browser.close()
    return False


def percentile(sorted_values: Sequence[float], share: float) -> float:
    return sorted_values[min(int(len(sorted_values) * share), len(sorted_values) - 1)] if sorted_values else 0.0
