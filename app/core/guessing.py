"""How soon a password would be guessed, by those who try common ones, words, dates, keyboards and their mixtures first.

zxcvbn has the 30,000 most common passwords of known breaches and knows how people bend them (P@ssw0rd2026!, a word twice,
a row of keys); a longer list without that would miss more of what twelve characters and more can be.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Final

LEAST_GUESSES: Final = 10**8
"""What zxcvbn calls safely unguessable: score 3 of 4."""

LONGEST_JUDGED: Final = 64
"""Judging takes longer than in proportion; what is safe in its first 64 characters is safe."""

_lock: Final = threading.Lock()


def guesses(password: str, known: Iterable[str] = ()) -> int:
    """About how many tries it takes; `known` are words that whoever tries would know, such as the user's name."""
    if not password:
        return 1
    # 14 MB and a third of a second: for processes in which somebody sets a password.
    from zxcvbn import zxcvbn

    # The words that are known are kept in one place for all threads there.
    with _lock:
        return int(zxcvbn(password[:LONGEST_JUDGED], user_inputs=[word for word in known if word])["guesses"])
