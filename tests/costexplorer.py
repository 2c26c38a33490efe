"""A Cost Explorer, an Organizations and an STS that answer like AWS's: checked against its service model, paged
anywhere, throttled, refused, with amounts as it writes them. And an AWS made of them to collect from."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import cache
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import botocore.session
from botocore.exceptions import ClientError
from botocore.validate import ParamValidator

from app.core.exact import total

METRICS = ("AmortizedCost", "BlendedCost", "UnblendedCost", "UsageQuantity")
DAY = date(2026, 10, 1)


@cache
def model_of(service: str) -> Any:
    return botocore.session.get_session().get_service_model(service)


def check(service: str, operation: str, given: Mapping[str, Any]) -> None:
    """What AWS would refuse before it looked at anything."""
    shape = model_of(service).operation_model(operation).input_shape
    report = ParamValidator().validate(given, shape)
    assert not report.has_errors(), report.generate_report()


def refusal(operation: str, code: str, status: int = 400, message: str = "no") -> ClientError:
    return ClientError(
        {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}, operation
    )


@dataclass(frozen=True)
class Charge:
    day: date
    account: str
    service: str
    region: str
    amounts: tuple[str, str, str, str]
    record_type: str = "Usage"
    unit: str = "N/A"
    currency: str = "USD"

    def key(self, dimension: str) -> str:
        named = {"LINKED_ACCOUNT": "account", "SERVICE": "service", "REGION": "region", "RECORD_TYPE": "record_type"}
        return str(getattr(self, named[dimension]))


def charge(account: str, service: str, region: str, *amounts: str, day: date = DAY, **more: Any) -> Charge:
    whole = (*amounts, *("0" for _ in METRICS))[:4] if len(amounts) != 1 else amounts * 4
    return Charge(day, account, service, region, (whole[0], whole[1], whole[2], whole[3]), **more)


@dataclass
class CostExplorer:
    """`cut` says, for the number of groups that are left, how many the next page takes; `names` are of accounts.

    `before` is asked before each answer and may raise what the answer should be. `silent` days are not spoken of.
    """

    charges: list[Charge] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)
    estimated: Callable[[date], bool] = lambda _: False
    cut: Callable[[int], int] = lambda left: left
    before: Callable[[str, dict[str, Any]], None] = lambda *_: None
    silent: Callable[[date], bool] = lambda _: False
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    _pages: dict[str, tuple[str, list[Any]]] = field(default_factory=dict)

    @property
    def billed(self) -> int:
        return len(self.asked)

    def get_cost_and_usage(self, **given: Any) -> dict[str, Any]:
        check("ce", "GetCostAndUsage", given)
        self.before("GetCostAndUsage", given)
        self.asked.append(("GetCostAndUsage", given))
        token = given.get("NextPageToken")
        if token is None:
            left = self._groups(given)
        else:
            if token not in self._pages:
                raise refusal("GetCostAndUsage", "InvalidNextTokenException")
            asked, left = self._pages[token]
            if asked != canonical(given):
                raise refusal("GetCostAndUsage", "RequestChangedException")
        return self._page(given, left)

    def get_dimension_values(self, **given: Any) -> dict[str, Any]:
        check("ce", "GetDimensionValues", given)
        self.before("GetDimensionValues", given)
        self.asked.append(("GetDimensionValues", given))
        days = period_of(given)
        found = sorted({each.key(given["Dimension"]) for each in self.charges if each.day in days})
        named = given["Dimension"] == "LINKED_ACCOUNT"
        values = [{"Value": value, "Attributes": self._described(value) if named else {}} for value in found]
        return {"DimensionValues": values, "ReturnSize": len(values), "TotalSize": len(values)}

    def _described(self, account: str) -> dict[str, str]:
        return {"description": self.names[account]} if account in self.names else {}

    def _groups(self, given: Mapping[str, Any]) -> list[Any]:
        """(day, keys, metrics) in order; a day without groups is there with None."""
        assert given["Granularity"] == "DAILY"
        keys = [group["Key"] for group in given["GroupBy"]]
        found: list[Any] = []
        days: dict[date, list[Charge]] = {day: [] for day in sorted(period_of(given)) if not self.silent(day)}
        for each in self.charges:
            if each.day in days and matches(each, given.get("Filter")):
                days[each.day].append(each)
        for day, charges in days.items():
            sums: dict[tuple[str, ...], list[Charge]] = {}
            for each in charges:
                sums.setdefault(tuple(each.key(key) for key in keys), []).append(each)
            found += [(day, key, self._metrics(given, sums[key])) for key in sorted(sums)] or [(day, None, None)]
        return found

    def _metrics(self, given: Mapping[str, Any], charges: list[Charge]) -> dict[str, dict[str, str]]:
        units = sorted({each.unit for each in charges})
        found = {}
        for metric in given["Metrics"]:
            place = METRICS.index(metric)
            texts = [each.amounts[place] for each in charges]
            amount = texts[0] if len(texts) == 1 else str(total(map(Decimal, texts)))
            usage = units[0] if len(units) == 1 else "N/A"
            found[metric] = {"Amount": amount, "Unit": usage if metric == "UsageQuantity" else charges[0].currency}
        return found

    def _page(self, given: Mapping[str, Any], left: list[Any]) -> dict[str, Any]:
        size = max(0, min(len(left), self.cut(len(left))))
        taken, rest = left[:size], left[size:]
        results: list[dict[str, Any]] = []
        for day, key, metrics in taken:
            if not results or results[-1]["TimePeriod"]["Start"] != str(day):
                ends = str(day + timedelta(days=1))
                period = {"Start": str(day), "End": ends}
                results.append({"TimePeriod": period, "Total": {}, "Groups": [], "Estimated": self.estimated(day)})
            if key is not None:
                results[-1]["Groups"].append({"Keys": list(key), "Metrics": metrics})
        accounts = sorted({key[0] for _, key, _ in taken if key and given["GroupBy"][0]["Key"] == "LINKED_ACCOUNT"})
        attributes = [{"Value": each, "Attributes": self._described(each)} for each in accounts]
        page = {"ResultsByTime": results, "GroupDefinitions": given["GroupBy"], "DimensionValueAttributes": attributes}
        if rest:
            token = f"page-{len(self._pages)}"
            self._pages[token] = (canonical(given), rest)
            page["NextPageToken"] = token
        return page


def period_of(given: Mapping[str, Any]) -> set[date]:
    start, end = (date.fromisoformat(given["TimePeriod"][name]) for name in ("Start", "End"))
    return {start + timedelta(days=n) for n in range((end - start).days)}


def matches(charge: Charge, expression: Mapping[str, Any] | None) -> bool:
    if not expression:
        return True
    assert len(expression) == 1, "exactly one root operator"
    [(operator, inner)] = expression.items()
    if operator == "And":
        return all(matches(charge, each) for each in inner)
    assert operator == "Dimensions"
    return charge.key(inner["Key"]) in inner["Values"]


def canonical(given: Mapping[str, Any]) -> str:
    asked = {name: value for name, value in given.items() if name != "NextPageToken"}
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


@dataclass
class Organizations:
    """Accounts as (id, name, state); every other page is empty, as AWS's may be."""

    accounts: list[tuple[str, str, str]] = field(default_factory=list)
    state_key: str = "State"
    error: ClientError | None = None

    def list_accounts(self, **given: Any) -> dict[str, Any]:
        check("organizations", "ListAccounts", given)
        if self.error:
            raise self.error
        page = int(given.get("NextToken", "0"))
        shown = [] if page % 2 == 0 else self.accounts[page // 2 * 2 : page // 2 * 2 + 2]
        accounts = [{"Id": number, "Name": name, self.state_key: state} for number, name, state in shown]
        more = {"NextToken": str(page + 1)} if page // 2 * 2 + 2 * (page % 2) < len(self.accounts) else {}
        return {"Accounts": accounts, **more}


@dataclass
class Sts:
    clock: Callable[[], datetime]
    identity: str = "111111111111"
    error: ClientError | None = None
    assumed: list[dict[str, Any]] = field(default_factory=list)
    lasting: timedelta = timedelta(hours=1)

    def assume_role(self, **given: Any) -> dict[str, Any]:
        check("sts", "AssumeRole", given)
        if self.error and self.error.operation_name == "AssumeRole":
            raise self.error
        self.assumed.append(given)
        secret = given["RoleArn"]
        return {
            "Credentials": {
                "AccessKeyId": f"key of {secret}",
                "SecretAccessKey": "secret",
                "SessionToken": f"token {len(self.assumed)}",
                "Expiration": self.clock() + self.lasting,
            }
        }

    def get_caller_identity(self) -> dict[str, Any]:
        return {"Account": self.identity}


@dataclass
class Aws:
    """Clients by service, and by role where there are several payers; `opened` says with what credentials."""

    ce: CostExplorer
    organizations: Organizations = field(default_factory=Organizations)
    now: datetime = datetime(2026, 11, 25, 13, tzinfo=UTC)
    roles: dict[str, Aws] = field(default_factory=dict)
    opened: list[tuple[str, Mapping[str, str]]] = field(default_factory=list)
    slept: list[float] = field(default_factory=list)
    left: float = float("inf")

    def __post_init__(self) -> None:
        self.sts = Sts(lambda: self.now)

    def clock(self) -> datetime:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += timedelta(seconds=seconds)
        self.left -= seconds

    def connect(self, service: str, credentials: Mapping[str, str]) -> Any:
        self.opened.append((service, dict(credentials)))
        role = credentials.get("aws_access_key_id", "").removeprefix("key of ")
        return getattr(self.roles.get(role, self), service)


class _Answering(BaseHTTPRequestHandler):
    """AWS's JSON protocol: the operation is named in a header."""

    fake: CostExplorer

    def do_POST(self) -> None:
        operation = self.headers["X-Amz-Target"].rpartition(".")[2]
        given = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        try:
            call = {
                "GetCostAndUsage": self.fake.get_cost_and_usage,
                "GetDimensionValues": self.fake.get_dimension_values,
            }
            status, answer = 200, call[operation](**given)
        except ClientError as error:
            status = error.response["ResponseMetadata"]["HTTPStatusCode"]
            answer = {"__type": error.response["Error"]["Code"], "message": "no"}
        data = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/x-amz-json-1.1")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None: ...


@contextmanager
def served(fake: CostExplorer) -> Iterator[str]:
    """The fake over HTTP, for processes of their own: AWS_ENDPOINT_URL_COST_EXPLORER names it."""
    server = HTTPServer(("127.0.0.1", 0), type("Answering", (_Answering,), {"fake": fake}))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def refusing(
    account: str, after: int = 0, code: str = "AccessDeniedException"
) -> Callable[[str, dict[str, Any]], None]:
    """Refuse questions about an account, from the page after `after` on."""
    pages = iter(range(10**9))

    def before(operation: str, given: dict[str, Any]) -> None:
        if account in json.dumps(given.get("Filter", {})) and next(pages) >= after:
            raise refusal(operation, code, 400, "User is not authorized to perform this")

    return before


def throttled(times: Iterator[bool], code: str = "LimitExceededException") -> Callable[[str, dict[str, Any]], None]:
    """Refuse as throttled whenever the next of these is true."""

    def before(operation: str, given: dict[str, Any]) -> None:
        if next(times, False):
            raise refusal(operation, code, 400, "Rate exceeded")

    return before
