"""Cursors: opaque to clients, bound to the question they came from and to the data version they were counted in."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

from app.errors import Conflict, InvalidInput

Place = TypeVar("Place")


@dataclass(frozen=True)
class Bookmark:
    """Gives out and reads the cursors of one question. `version` None: the list does not depend on the data version."""

    question: str
    version: int | None = None

    @classmethod
    def of(cls, pairs: Iterable[tuple[str, str]], version: int | None = None) -> Bookmark:
        return cls(digest("\0".join(f"{name}={value}" for name, value in pairs)), version)

    def cursor(self, place: str) -> str:
        """`place` is short and ASCII: where the next page starts."""
        plain = f"{self._version()}:{self.question}:{place}"
        return base64.urlsafe_b64encode(plain.encode()).decode().rstrip("=")

    def place(self, cursor: str, read: Callable[[str], Place]) -> Place:
        """The place in a cursor; `read` raises ValueError for one that cannot be.

        Raises InvalidInput for a cursor of another question, Conflict for one of another data version.
        """
        version, question, place = _parts(cursor)
        if question != self.question:
            raise _not_ours()
        if version != self._version():
            raise Conflict(
                f"The figures have changed since the first page (data version {version}, now {self._version()}). "
                "Start again without cursor.",
            )
        try:
            return read(place)
        except ValueError:
            raise _not_ours() from None

    def _version(self) -> str:
        return "" if self.version is None else str(self.version)


def count(text: str) -> int:
    """A count as cursors hold it. Raises ValueError."""
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise ValueError(text)
    return int(text)


def digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:20]


def _parts(cursor: str) -> tuple[str, str, str]:
    try:
        plain = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode("ascii")
        version, question, place = plain.split(":")
    except ValueError:
        raise _not_ours() from None
    return version, question, place


def _not_ours() -> InvalidInput:
    return InvalidInput(
        "cursor was not given out for this question. Give next_cursor of the page before, with the same parameters.",
        field="cursor",
    )
