"""The table of contents: every page there is, in the order of the navigation."""

from __future__ import annotations

from types import ModuleType
from typing import Final

import dash

from app.pages import anomalies, budgets, data, notifications, overview
from app.ui import controls, shell

PAGES: Final[tuple[tuple[str, str, str, ModuleType], ...]] = (
    ("/", "Overview", "speedometer2", overview),
    ("/anomalies", "Anomalies", "exclamation-triangle", anomalies),
    ("/budgets", "Budgets", "bullseye", budgets),
    ("/data", "Data", "calendar3", data),
    ("/notifications", "Notifications", "bell", notifications),
)
"""Path, name, icon, module with `layout(**params)` and `register(app)`."""

PURE: Final = (controls.Ids.DRAWN.value, data.Ids.DRAWN.value)
"""First output of each callback whose answer depends on nothing but the request and the data: those that draw a page."""


def register_all(app: dash.Dash) -> None:
    """Bind every page's layout and callbacks to this app (not to the process: two apps can live side by side)."""
    for path, name, _, module in PAGES:
        dash.register_page(  # type: ignore[no-untyped-call]
            module.__name__, path=path, name=name, title=f"{name} · Spendscope", layout=module.layout
        )
        module.register(app)
    controls.register(app)
    shell.register(app)
