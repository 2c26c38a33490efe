"""Passwords that are tried first are refused, whatever was done to them; words that do not belong together are not."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.guessing import LEAST_GUESSES, guesses
from app.core.people import check_password
from app.errors import InvalidInput

REFUSED = (
    *("password1234", "passwordpassword", "123456789012", "qwertyuiop[]", "1q2w3e4r5t6y", "letmeinletmein"),
    *("P@ssw0rd2026!", "Password123!!", "iloveyouiloveyou", "aaaaaaaaaaaaa", "abcabcabcabc", "drowssap12345"),
    *("spendscope2026", "ada.lovelace", "lovelacelovelace", "adalovelace1", "zxcvbnm,./asd"),
)
TAKEN = (
    "correct horse battery",
    "nine purple lanterns float",
    "tZ8#kq!0vRm2",
    "übermäßig große Brücke",
    "鍵は引き出しの中にあります本",
)


@pytest.mark.parametrize("password", REFUSED)
def test_what_is_tried_first_is_refused(password: str) -> None:
    with pytest.raises(InvalidInput, match="tried first") as wrong:
        check_password(password, "ada.lovelace")
    assert password not in wrong.value.message


@pytest.mark.parametrize("password", TAKEN)
def test_words_that_do_not_belong_together_are_fine(password: str) -> None:
    check_password(password, "ada.lovelace")


def test_the_most_common_passwords_that_are_long_enough_are_refused() -> None:
    from zxcvbn.frequency_lists import FREQUENCY_LISTS

    common = [word for word in FREQUENCY_LISTS["passwords"] if len(word) >= 12]
    assert len(common) > 50
    for word in common[:60]:
        with pytest.raises(InvalidInput):
            check_password(word, "ada")


def test_a_users_own_words_do_not_count_for_another_thread() -> None:
    """zxcvbn keeps them in one place: two people at once must not be judged by each other's."""
    wrong = []

    def judge(name: str) -> None:
        for _ in range(6):
            if guesses(f"{name}-{name}-{name}", (name,)) >= LEAST_GUESSES:
                wrong.append(name)

    threads = [threading.Thread(target=judge, args=(name,)) for name in ("wolfgangamadeus", "sebastianvettel")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@settings(max_examples=25, deadline=None)
@given(st.text(max_size=300))
def test_any_text_is_judged(password: str) -> None:
    assert guesses(password, ("ada",)) >= 1
