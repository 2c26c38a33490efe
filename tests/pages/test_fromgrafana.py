"""A link of a Grafana panel leads to the Overview with the same days and filters."""

from __future__ import annotations

import json
import re
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.grafana.choices import Choices
from app.grafana.dashboards import costs
from app.pages.address import read
from app.pages.fromgrafana import PATH, address
from tests.pages.test_address import TODAY

START, END = "2026-10-26T00:00:00.000Z", "2026-11-24T23:59:59.999Z"


@pytest.mark.parametrize(
    ("start", "end", "days"),
    [
        (START, END, ("2026-10-26", "2026-11-25")),
        (START, "2026-11-25T00:00:00.000Z", ("2026-10-26", "2026-11-25")),
        ("2026-10-26T00:00:00.001Z", "2026-11-25T00:00:00.001Z", ("2026-10-27", "2026-11-26")),
        ("2026-10-26T01:00:00.000+02:00", END, ("2026-10-26", "2026-11-25")),
        ("2026-10-26T10:00:00Z", "2026-10-26T12:00:00Z", ("2026-10-27", "2026-10-28")),
        ("2026-10-26", "2026-10-27", ("2026-10-26", "2026-10-27")),
    ],
)
def test_days_are_those_whose_first_second_grafana_shows(start: str, end: str, days: tuple[str, str]) -> None:
    found = read(address([("start", start), ("end", end)]), TODAY)
    assert (str(found.days.start), str(found.days.end), found.notices) == (*days, ())


# hypothesis gives them their zone itself.
instants = st.datetimes(datetime(2001, 1, 1), datetime(2097, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001


@given(instants, st.timedeltas(timedelta(microseconds=1), timedelta(days=400)), st.sampled_from([0, 2, -7]))
def test_any_range_becomes_the_days_that_begin_in_it(start: datetime, length: timedelta, hours: int) -> None:
    zone = timezone(timedelta(hours=hours))
    end = start + length
    found = read(address([(n, at.astimezone(zone).isoformat()) for n, at in (("start", start), ("end", end))]), TODAY)
    first = start.date() - timedelta(days=1)
    begun = [day for n in range(length.days + 4) if start <= midnight(day := first + timedelta(days=n)) < end]
    assert not found.notices
    if begun:
        assert list(found.days) == begun
    else:
        assert len(found.days) == 1


def midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


names = st.sampled_from(["start", "end", "metric", "service", "var-service", "var-account", "from", "var-", ""])


@given(st.lists(st.tuples(names, st.text(max_size=20))))
def test_no_link_breaks_it(pairs: list[tuple[str, str]]) -> None:
    read(address(pairs), TODAY)


def test_variables_become_filters() -> None:
    given = [("var-service", "a&b=c"), ("var-service", 'd"+/%'), ("var-region", "$__all"), ("var-account", "All")]
    found = read(address([*given, ("metric", "unblended_cost"), ("var-metric", "x")]), TODAY)
    assert found.filters == (("service", ("a&b=c", 'd"+/%')),)
    assert (found.metric, found.period, found.notices) == ("unblended_cost", "30d", ())


@pytest.mark.parametrize("given", ["now-30d", "", "9999-12-31T23:59:59Z", "0001-01-01", "x" * 2000, "2026-10-26T99"])
def test_what_is_not_understood_is_said_by_the_page(given: str, client: Any) -> None:
    answer = client.get(PATH, query_string={"start": given, "end": END})
    assert answer.status_code == 302
    assert answer.headers["Location"].startswith("./?")
    search = urlsplit(answer.headers["Location"]).query
    assert read(search, TODAY).notices
    assert client.get("/?" + search).status_code == 200


def test_it_leads_nowhere_else(client: Any) -> None:
    for query in ({"start": "//example.org"}, {"var-service": "//example.org"}, {"next": "//example.org"}):
        location = client.get(PATH, query_string=query).headers["Location"]
        assert re.match(r"\./(\?|$)", location), location


def links() -> list[tuple[str, str]]:
    """(panel, address) of every data link there is."""
    text = costs(Choices())
    found = []
    for panel in text["panels"]:
        urls = re.findall(r'"url": "([^"]*)"', json.dumps(panel))
        found += [(panel["title"], url) for url in urls]
    return found


def clicked(url: str) -> str:
    """As Grafana fills in a link: percent-encoded values, query parameters of variables, instants."""

    def variable(match: re.Match[str]) -> str:
        name, form = match[1], match[2]
        if form == "queryparam":
            return {"service": "var-service=A%26B&var-service=C%20D", "region": "var-region=%24__all"}.get(
                name, "var-account=%24__all"
            )
        if form == "date:iso":
            return {"__from": START, "__to": END}[name]
        if form == "raw":
            return {"spendscope": Choices().public_url}[name]
        assert form == "percentencode"
        return {"metric": "amortized_cost"}.get(name, quote('X & "Y"/$', safe=""))

    return re.sub(r"\$\{([\w.]+):([\w:]+)\}", variable, url)


@pytest.mark.parametrize(("panel", "url"), links())
def test_every_data_link_is_understood(panel: str, url: str, client: Any) -> None:
    whole = urlsplit(clicked(url))
    assert f"{whole.scheme}://{whole.netloc}" == Choices().public_url
    assert (whole.path, "$" in whole.query) == (PATH, False)
    location = client.get(f"{whole.path}?{whole.query}").headers["Location"]
    found = read(urlsplit(location).query, TODAY)
    assert found.notices == ()
    assert (str(found.days.start), str(found.days.end)) == ("2026-10-26", "2026-11-25")
    clicked_on = [name for name in ("service", "region", "account") if f"&{name}=" in url]
    expected = {"service": ("A&B", "C D")} | dict.fromkeys(clicked_on, ('X & "Y"/$',))
    assert dict(found.filters) == expected
    assert parse_qsl(whole.query)
