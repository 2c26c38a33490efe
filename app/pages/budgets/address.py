"""The address of the Budgets page: which budget is drawn, and what is being edited. See app.pages.address.

assets/65-budgets.js follows the links and writes no address of its own.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import parse_qsl

from app.pages.address import quoted

PATH: Final = "/budgets"
_ID: Final = re.compile(r"[A-Za-z0-9-]{1,64}")
_EDIT: Final = re.compile(r"(budget|rule)(:[A-Za-z0-9-]{1,64})?")


@dataclass(frozen=True)
class Address:
    """`edit`: `budget` or `rule` for a new one, with `:id` for one there is; `about`: the budget a new rule is about."""

    budget: str | None = None
    edit: str | None = None
    about: str | None = None
    alert: str | None = None
    notices: tuple[str, ...] = ()

    def search(self) -> str:
        """The canonical query string, `""` for the default view."""
        named = (("budget", self.budget), ("edit", self.edit), ("about", self.about), ("alert", self.alert))
        found = [f"{name}={quoted(value)}" for name, value in named if value]
        return "?" + "&".join(found) if found else ""

    def href(self) -> str:
        return PATH + self.search()

    def editing(self, what: str | None, about: str | None = None) -> Address:
        """With a form open; None closes it."""
        return replace(self, edit=what, about=about, alert=None)

    def at(self, budget: str) -> Address:
        return replace(self, budget=budget, edit=None, about=None, alert=None)


def read(search: str) -> Address:
    """What an address asks for. Never raises: each thing not understood becomes a notice."""
    found: dict[str, str] = {}
    notices: list[str] = []
    for name, value in parse_qsl(search.removeprefix("?"), keep_blank_values=False, errors="replace"):
        rule = _EDIT if name == "edit" else _ID
        if name in ("budget", "edit", "about", "alert") and rule.fullmatch(value):
            found[name] = value
        else:
            notices.append(f"“{name[:40]}={value[:40]}” is not a setting of this page and was ignored.")
    return Address(**found, notices=tuple(notices[:3]))
