"""Finished answers to the browser's one pure request, kept in memory as the bytes that went out.

Who asks what is being worked out for somebody else right now waits for that answer: a crowd that opens the same page in
the morning has it made once a process.

The key holds all that an answer depends on: the state of the data (app.costs.state: data version, ledger version, UTC
day), the accepted encoding and the request's bytes. An answer is kept only if the state is the same after it was
made, so no entry ever serves another version; old versions are pushed out by the least-recently-used rule.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Final

from flask import Flask, Request, Response, g, request

PATH: Final = "/_dash-update-component"
OVERHEAD: Final = 600
"""Bytes of an entry beside its key and body, about."""

LONGEST_WAIT: Final = 2.0
"""Seconds for which a thread waits for what another one makes, before it makes it itself."""

State = Callable[[], Hashable]


@dataclass(frozen=True)
class Answer:
    """`output` is the callback that was answered, as Dash names it."""

    body: bytes
    content_type: str
    encoding: str | None
    output: str = ""

    def response(self) -> Response:
        headers = [("Vary", "Accept-Encoding")]
        if self.encoding:
            headers.append(("Content-Encoding", self.encoding))
        return Response(self.body, headers=headers, content_type=self.content_type)


@dataclass(frozen=True)
class Key:
    state: Hashable
    encoding: str
    body: bytes


class Answers:
    """At most `most_bytes` of answers, the least recently used dropped first. Safe for threads."""

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self.bytes = 0
        self.hits = self.misses = 0
        self._kept: OrderedDict[Key, Answer] = OrderedDict()
        self._made: dict[Key, threading.Event] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: Key) -> Answer | None:
        with self._lock:
            found = self._kept.get(key)
            if found is None:
                self.misses += 1
                return None
            self.hits += 1
            self._kept.move_to_end(key)
            return found

    def begin(self, key: Key) -> threading.Event | None:
        """Say that the answer is being made from now on; None when somebody else does, then `wait` for it."""
        with self._lock:
            if key in self._made:
                return None
            made = self._made[key] = threading.Event()
            return made

    def end(self, key: Key) -> None:
        """It was made, or failed."""
        with self._lock:
            made = self._made.pop(key)
        made.set()

    def wait(self, key: Key, seconds: float) -> Answer | None:
        """The answer that is being made; None when nothing came of it in that time."""
        with self._lock:
            made = self._made.get(key)
        if made is not None:
            made.wait(seconds)
        return self.get(key)

    def put(self, key: Key, answer: Answer) -> None:
        size = _size(key, answer)
        if size > self.most_bytes:
            return
        with self._lock:
            if key in self._kept:
                return
            self._kept[key] = answer
            self.bytes += size
            while self.bytes > self.most_bytes:
                self.bytes -= _size(*self._kept.popitem(last=False))


def _size(key: Key, answer: Answer) -> int:
    return len(key.body) + len(answer.body) + OVERHEAD


def keep_answers(server: Flask, answers: Answers, state: State, is_pure: Callable[[object], bool]) -> None:
    """Answer repeated requests before Dash does any work; `is_pure` judges the parsed body of one to be kept.

    Call it before compression is set up, so that the compressed bytes are what is kept.
    """
    if not answers.most_bytes:
        return

    def look_up() -> Response | None:
        asked: Request = request._get_current_object()  # type: ignore[attr-defined]
        if asked.path != PATH or asked.method != "POST":
            return None
        key = Key(state(), asked.environ.get("HTTP_ACCEPT_ENCODING", ""), asked.get_data())
        found = answers.get(key)
        if found is None and is_pure(_body(asked)):
            g.spendscope_answer_key = key
            if answers.begin(key):
                g.spendscope_answer_begun = key
            else:
                found = answers.wait(key, LONGEST_WAIT)
        if found is None:
            return None
        g.spendscope_output = found.output
        return found.response()

    def keep(response: Response) -> Response:
        key: Key | None = g.pop("spendscope_answer_key", None)
        if key is None or response.status_code != 200 or response.is_streamed:
            return response
        if state() == key.state:
            answers.put(key, _answer(response, _body(request)["output"]))
        return response

    def end(_: BaseException | None) -> None:
        if (key := g.pop("spendscope_answer_begun", None)) is not None:
            answers.end(key)

    server.before_request(look_up)
    server.after_request(keep)
    server.teardown_request(end)


def _body(asked: Request) -> Any:
    try:
        return asked.get_json(silent=True)
    except RecursionError:
        return None


def _answer(response: Response, output: str) -> Answer:
    return Answer(
        body=response.get_data(),
        content_type=response.content_type or "application/json",
        encoding=response.headers.get("Content-Encoding"),
        output=output,
    )
