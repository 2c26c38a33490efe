"""Asking Cost Explorer: whose, one request at a time, throttling waited out, every billed page counted.

Only the standard library and boto3: the collector's Lambda carries this module.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError
from botocore.exceptions import ConnectionError as BotoConnectionError

from app.aws import NO_CREDENTIALS
from app.core import costexplorer as ce
from app.core.charges import METRICS
from app.core.periods import DateRange
from workers.targets import code_of, status_of

ATTEMPTS: Final = 9
"""Tries of a throttled request: with the pauses between them four to eight minutes, more than any burst lasts."""
ATTEMPTS_AT_ERRORS: Final = 4
FIRST_PAUSE_SECONDS: Final = 1.0
LONGEST_PAUSE_SECONDS: Final = 120.0
PACE_SECONDS: Final = 0.1
"""Between two requests: Cost Explorer's limit is not published, and nobody waits for a collector."""

RESERVE_SECONDS: Final = 60.0
"""Asking ends so long before the time is up; what was collected is written in it."""

ROLE_SECONDS: Final = 3600
"""The longest a role assumed from a role may last."""
RENEW_BEFORE: Final = timedelta(minutes=5)

THROTTLED: Final = frozenset(
    {"LimitExceededException", "ThrottlingException", "Throttling", "TooManyRequestsException", "RequestLimitExceeded"}
)
EXPIRED: Final = frozenset({"ExpiredTokenException", "ExpiredToken", "RequestExpired"})


NOT_REACHED: Final = "not reached in the time this run may take"


class OutOfTime(Exception):
    """The time this run may take is nearly up."""


FAILURES: Final = (ClientError, BotoCoreError, OSError, ce.UnusableReply, OutOfTime, NotImplementedError)
"""What ends the collection of one account, or of one list, and no more. A stand-in for AWS may lack an operation."""


@dataclass(frozen=True)
class World:
    """Time as the collector sees it. `remaining` is how many seconds it may still take, of which asking leaves `reserve`
    for writing; `checkpoint` may end the run."""

    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    sleep: Callable[[float], None] = time.sleep
    remaining: Callable[[], float] = lambda: float("inf")
    checkpoint: Callable[[], None] = lambda: None
    reserve: float = RESERVE_SECONDS

    def pause(self, seconds: float) -> None:
        """Raises OutOfTime when there is not that much time left."""
        if self.remaining() - seconds < self.reserve:
            raise OutOfTime
        self.sleep(seconds)


Connect = Callable[[str, Mapping[str, str]], Any]
"""A client of a service, with these credentials or, when there are none, with those the process has."""


def open_client(service: str, credentials: Mapping[str, str]) -> Any:
    session = boto3.session.Session()
    # Cost Explorer's throttling is waited out here, where it can be seen and tested.
    attempts = 1 if service == "ce" else 6
    config = Config(retries={"mode": "standard", "total_max_attempts": attempts}, user_agent_extra="spendscope")
    region = session.region_name or "us-east-1"
    opened: Any = session.client
    return opened(service, region_name=region, config=config, **credentials)


def has_credentials() -> bool:
    """Whether this process finds any. Raises BotoCoreError when what it is told to use is not there (a profile)."""
    return boto3.session.Session().get_credentials() is not None


class Payer:
    """Whose Cost Explorer is asked: the credentials the process has, or a role, assumed again before it expires."""

    def __init__(self, role: str, external_id: str | None, world: World, connect: Connect | None = None) -> None:
        self.role = role
        self._external_id, self._world, self._connect = external_id, world, connect or open_client
        self._clients: dict[str, Any] = {}
        self._until: datetime | None = None
        self._credentials: dict[str, str] = {}

    def client(self, service: str) -> Any:
        """Raises ClientError when the role cannot be assumed."""
        if self.role and (self._until is None or self._world.clock() >= self._until - RENEW_BEFORE):
            self._assume()
        if service not in self._clients:
            self._clients[service] = self._connect(service, self._credentials)
        return self._clients[service]

    def renew(self) -> None:
        """Credentials were refused as expired before their time."""
        self._until = None
        self._clients.clear()

    def _assume(self) -> None:
        wanted = {"RoleArn": self.role, "RoleSessionName": "spendscope-collector", "DurationSeconds": ROLE_SECONDS}
        if self._external_id:
            wanted["ExternalId"] = self._external_id
        given = self._connect("sts", {}).assume_role(**wanted)["Credentials"]
        self._credentials = {
            "aws_access_key_id": given["AccessKeyId"],
            "aws_secret_access_key": given["SecretAccessKey"],
            "aws_session_token": given["SessionToken"],
        }
        self._until = given["Expiration"]
        self._clients.clear()


@dataclass
class Meter:
    """How many requests were answered, and so billed."""

    requests: int = 0


class Questions:
    """Cost Explorer as one payer sees it: one request at a time, throttling waited out, every page counted."""

    def __init__(self, payer: Payer, world: World, meter: Meter) -> None:
        self._payer, self._world, self._meter = payer, world, meter

    def reply(
        self, days: DateRange, group_by: Sequence[str], metrics: Sequence[str] = METRICS, **only: Any
    ) -> ce.Reply:
        """All pages of a question. Raises one of FAILURES."""
        reply = ce.Reply(days, metrics)
        for page in self.pages("get_cost_and_usage", ce.question(days, group_by, metrics, **only)):
            reply.add(page)
        return reply

    def values(self, dimension: str, days: DateRange) -> tuple[list[str], dict[str, str]]:
        """Values of a dimension that had charges, and the names of those that have one. Raises one of FAILURES."""
        found: list[str] = []
        names: dict[str, str] = {}
        for page in self.pages("get_dimension_values", {"TimePeriod": ce.period(days), "Dimension": dimension}):
            found += [str(each.get("Value", "")) for each in page.get("DimensionValues") or ()]
            names |= ce.names_of(page)
        return list(dict.fromkeys(found)), names

    def pages(self, operation: str, asked: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        """Every page with exactly the same parameters; their ends mean nothing."""
        token, seen = None, set()
        while True:
            page = self._answer(operation, {**asked, "NextPageToken": token} if token else asked)
            yield page
            token = page.get("NextPageToken")
            if not token:
                return
            if token in seen:
                raise ce.UnusableReply("it gives the same page token twice")
            seen.add(token)

    def _answer(self, operation: str, asked: Mapping[str, Any]) -> Mapping[str, Any]:
        tries, renewed = 0, False
        while True:
            self._world.checkpoint()
            self._world.pause(PACE_SECONDS if self._meter.requests or tries else 0)
            try:
                answer: Mapping[str, Any] = getattr(self._payer.client("ce"), operation)(**asked)
            except (ClientError, BotoCoreError, OSError) as error:
                if not renewed and isinstance(error, ClientError) and code_of(error) in EXPIRED:
                    renewed = True
                    self._payer.renew()
                    continue
                tries += 1
                if tries >= _most_tries(error):
                    raise
                self._world.pause(_jittered(tries))
            else:
                self._meter.requests += 1
                return answer


def _most_tries(error: Exception) -> int:
    if not isinstance(error, ClientError):
        return ATTEMPTS_AT_ERRORS if isinstance(error, BotoConnectionError | HTTPClientError | OSError) else 1
    if code_of(error) in THROTTLED or status_of(error) == 429:
        return ATTEMPTS
    return ATTEMPTS_AT_ERRORS if status_of(error) >= 500 else 1


def _jittered(tries: int) -> float:
    """Half of a pause that doubles, and chance for the other half: many collectors do not come back at once."""
    longest = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** min(tries - 1, 16))
    return longest * random.uniform(0.5, 1.0)  # noqa: S311


def told(error: Exception) -> str:
    """Why something failed, in a line, with the name of the action where one was refused."""
    if isinstance(error, OutOfTime):
        return NOT_REACHED
    if isinstance(error, ce.UnusableReply):
        return f"Cost Explorer's reply cannot be used: {error}"
    if isinstance(error, ClientError):
        service = {"AssumeRole": "sts", "GetCallerIdentity": "sts", "ListAccounts": "organizations"}
        action = f"{service.get(error.operation_name, 'ce')}:{error.operation_name}"
        message = str(error.response.get("Error", {}).get("Message", ""))
        return ce.clean(f"{action} answered {code_of(error)}: {message}"[:300]).rstrip(": ")
    if isinstance(error, NO_CREDENTIALS):
        return "no usable AWS credentials: give a key, a profile or a role"
    return f"AWS does not answer ({type(error).__name__})"
