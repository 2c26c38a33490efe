"""Log records to stderr, one line each: text for people, or one JSON object for machines (`SPENDSCOPE_LOG_FORMAT`).

Each record carries the ids it belongs to: of the request that is answered, of the job that is done and of the request
that submitted it. Secrets are never passed to a log call; what a library says is searched for them all the same.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar, Token, copy_context
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from app.core.people import TOKEN_PREFIX

Ids = Mapping[str, str]

_ids: ContextVar[Ids] = ContextVar("spendscope_log_ids")

HIDDEN: Final = "[hidden]"
SHORTEST_SECRET: Final = 6
"""A shorter value would be found in words that hold no secret."""

SHAPES: Final = (
    (re.compile(r"(?<=://)([^\s/@:]*):[^\s/@]+(?=@)"), rf"\1:{HIDDEN}"),
    (re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{6,}"), rf"\1 {HIDDEN}"),
    (re.compile(rf"\b{re.escape(TOKEN_PREFIX)}[A-Za-z0-9_-]{{8,}}"), f"{TOKEN_PREFIX}{HIDDEN}"),
    (
        re.compile(r"(?i)\b(password|passwd|secret|token|api_?key)(\"?'?\s*[=:]\s*\"?'?)[^\s\"',&;]{4,}"),
        rf"\1\2{HIDDEN}",
    ),
    (re.compile(r"(?i)\b(X-Amz-(?:Signature|Security-Token|Credential)=)[^\s&\"']+"), rf"\1{HIDDEN}"),
)
"""What looks like a secret, whoever it belongs to."""

FOREIGN_SECRETS: Final = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
"""Variables that boto3 reads by itself."""


# --- which request and which job --------------------------------------------------------------------------------------


def ids() -> Ids:
    return _ids.get({})


OURS: Final = {"is_ours": True}
"""`extra` of a record whose message has no text from anywhere else: nothing in it needs to be hidden."""


def bind(**more: str | None) -> Token[Ids]:
    """Have every record of this thread carry these too, until `unbind`."""
    return _ids.set({**ids(), **{name: value for name, value in more.items() if value}})


def unbind(token: Token[Ids]) -> None:
    _ids.reset(token)


@contextmanager
def bound(**more: str | None) -> Iterator[None]:
    token = bind(**more)
    try:
        yield
    finally:
        unbind(token)


def with_ids(work: Callable[[], Any]) -> Callable[[], Any]:
    """`work` for another thread, with the ids of this one."""
    context = copy_context()
    return lambda: context.run(work)


# --- what a line looks like -------------------------------------------------------------------------------------------


class Hiding:
    """Takes known secrets, and what looks like one, out of a text."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        parts = {part for secret in secrets for part in _parts(secret) if len(part) >= SHORTEST_SECRET}
        longest_first = sorted(parts, key=lambda part: (-len(part), part))
        self._known = re.compile("|".join(map(re.escape, longest_first))) if parts else None

    def __call__(self, text: str) -> str:
        if self._known is not None:
            text = self._known.sub(HIDDEN, text)
        for shape, shown in SHAPES:
            text = shape.sub(shown, text)
        return text


def _parts(secret: str) -> Iterator[str]:
    """The secret, and the password in it when it is an address."""
    yield secret
    try:
        password = urlsplit(secret).password
    except ValueError:
        return
    if password:
        yield password
        yield unquote(password)


class _Lines(logging.Formatter):
    def __init__(self, hide: Callable[[str], str]) -> None:
        super().__init__(datefmt="%H:%M:%S")
        self._hide = hide

    def _message(self, record: logging.LogRecord) -> str:
        if getattr(record, "is_ours", False):
            return record.getMessage()
        try:
            return self._hide(record.getMessage())
        except Exception:  # arguments that do not fit: the record still matters
            return self._hide(f"{record.msg} {record.args}")

    def _trace(self, record: logging.LogRecord) -> str:
        if not record.exc_info or record.exc_info[0] is None:
            return self._hide(record.stack_info) if record.stack_info else ""
        return self._hide(self.formatException(record.exc_info))


class JsonLines(_Lines):
    """ASCII only: no letter of any text can end a line, and none fails to be written."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": self._message(record),
            **ids(),
        }
        for name, value in getattr(record, "fields", {}).items():
            line[name] = self._hide(value) if isinstance(value, str) else value
        if trace := self._trace(record):
            line["exception"] = trace
        return json.dumps(line, default=str)


class TextLines(_Lines):
    """One line a message: nothing in it (it may come from data) starts a line of its own or moves the cursor. The lines of
    a trace are set in."""

    def format(self, record: logging.LogRecord) -> str:
        shown = f"{self.formatTime(record, self.datefmt)} {record.levelname:<7} {record.name}: {self._message(record)}"
        said = "".join(f" {name}={value}" for name, value in ids().items())
        trace = "".join(f"\n    {_plain(line)}" for line in self._trace(record).splitlines())
        return _plain(shown + said) + trace


def _plain(text: str) -> str:
    return text if text.isprintable() else "".join(c if c.isprintable() else _escaped(c) for c in text)


def _escaped(letter: str) -> str:
    return letter.encode("unicode_escape").decode("ascii")


# --- setting it up ----------------------------------------------------------------------------------------------------


def configure(level: str, form: str, secrets: Iterable[str] = ()) -> None:
    """Set up the root logger of this process; libraries only speak up from `warning`. What nobody catches, in any
    thread, and Python's warnings become records too."""
    # No line tells these, and finding them out for every record costs more than writing it (Python's logging HOWTO).
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging._srcfile = None
    handler = logging.StreamHandler(sys.stderr)
    hide = Hiding([*secrets, *(os.environ.get(name, "") for name in FOREIGN_SECRETS)])
    handler.setFormatter(JsonLines(hide) if form == "json" else TextLines(hide))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    for ours in ("app", "workers"):
        logging.getLogger(ours).setLevel(level.upper())
    logging.captureWarnings(True)
    sys.excepthook = _uncaught
    threading.excepthook = lambda found: _uncaught(found.exc_type, found.exc_value, found.exc_traceback)


def writes_json() -> bool:
    """Whether `configure` was told to write for machines."""
    return any(isinstance(handler.formatter, JsonLines) for handler in logging.getLogger().handlers)


def _uncaught(kind: type[BaseException], error: BaseException | None, trace: Any) -> None:
    if error is None or issubclass(kind, (KeyboardInterrupt, SystemExit)):
        sys.__excepthook__(kind, error or kind(), trace)
        return
    logging.getLogger("app").critical("Nobody expected this; please report it", exc_info=(kind, error, trace))
