"""Passwords as argon2id hashes (OWASP's least: 19 MiB, two passes); an unknown user takes as long as a known one."""

from __future__ import annotations

import threading
from functools import cache
from typing import TYPE_CHECKING, Final

from app.errors import TooMany

if TYPE_CHECKING:
    from argon2 import PasswordHasher

AT_ONCE: Final = threading.BoundedSemaphore(2)
"""Hashes worked on at a time in this process: each holds 19 MiB and a core."""

WAIT_SECONDS: Final = 5.0


@cache
def _hasher() -> PasswordHasher:
    # Imported when somebody signs in: most processes never need it.
    from argon2 import PasswordHasher

    return PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)


@cache
def _nobody() -> str:
    """The hash that an unknown user's password is compared with."""
    return _hasher().hash("nobody has this password")


def hashed(password: str) -> str:
    return _hasher().hash(password)


def matches(stored: str | None, password: str) -> bool:
    """Whether this is the password; with `stored` None the same work for nothing. Raises TooMany under a flood."""
    from argon2.exceptions import InvalidHashError, VerificationError

    if not AT_ONCE.acquire(timeout=WAIT_SECONDS):
        raise TooMany("Too many people are signing in at once. Try again.", retry_after=5)
    try:
        return _hasher().verify(stored or _nobody(), password) and stored is not None
    except (VerificationError, InvalidHashError):
        return False
    finally:
        AT_ONCE.release()
