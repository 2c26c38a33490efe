"""S3 event notifications from an SQS queue: hints that objects below the source's root have changed."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any, Final
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from app.aws import NO_CREDENTIALS
from app.core.s3events import NotAnEvent, objects_in
from app.errors import BadCredentials, CannotStart, SpendscopeError, Unavailable
from app.ports import Announcement

PART: Final = "events"
MOST_AT_ONCE: Final = 10
"""SQS gives and takes no more messages in one request."""
WAIT_SECONDS: Final = 20
"""SQS's longest: an idle queue costs three requests a minute."""
CONNECT_SECONDS: Final = 5.0
PROBE_SECONDS: Final = 2.0
REFUSED: Final = frozenset({"InvalidClientTokenId", "UnrecognizedClientException", "ExpiredToken", "InvalidSecurity"})
"""Refusals that do not always come with status 401 or 403."""
HOST: Final = re.compile(r"(?:sqs\.([a-z0-9-]+)|([a-z0-9-]+)\.queue)\.amazonaws\.com(?:\.cn)?")
"""Both forms in which AWS writes a queue's host; the region stands in it."""


class SqsAnnouncements:
    """Messages of one queue about one bucket and prefix. Other objects' messages are settled like ours, without a key.

    Needs sqs:ReceiveMessage, sqs:DeleteMessage and sqs:GetQueueAttributes on the queue.
    """

    def __init__(self, queue_url: str, root: str, *, wait_seconds: int = WAIT_SECONDS) -> None:
        """`root` is the source's `s3://bucket/prefix/`. Region and endpoint are those of the queue's URL; AWS_REGION
        and AWS_ENDPOINT_URL_SQS win. Raises CannotStart for what no queue can be made of."""
        self.url, self._wait = queue_url, wait_seconds
        self._bucket, _, self._prefix = root.removeprefix("s3://").partition("/")
        if not root.startswith("s3://"):
            raise CannotStart(
                f"SPENDSCOPE_EVENTS_QUEUE is set, but {root[:200]!r} is no bucket that could announce its objects. "
                "Unset it, or set SPENDSCOPE_SOURCE to s3://bucket/costs/."
            )
        try:
            self._session = session = boto3.session.Session()
            # Made at once: a boto3 session must not be used by two threads, its clients may be.
            self.client = _client(session, queue_url, attempts=4, read_seconds=wait_seconds + 10.0)
            self._probe = _client(session, queue_url, attempts=1, read_seconds=PROBE_SECONDS)
        except (BotoCoreError, ValueError) as error:
            raise CannotStart(
                f"SPENDSCOPE_EVENTS_QUEUE cannot be used: {type(error).__name__}. Give the queue's URL, for example "
                "https://sqs.eu-west-1.amazonaws.com/123456789012/costs, and AWS_REGION when it names none."
            ) from None

    def check(self) -> None:
        self._attributes("QueueArn")

    def waiting(self) -> int:
        names = ("ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible")
        found = self._attributes(*names)
        return sum(int(found.get(name, 0)) for name in names)

    def hear(self) -> Sequence[Announcement]:
        with self._failures("sqs:ReceiveMessage"):
            answer = self.client.receive_message(
                QueueUrl=self.url, MaxNumberOfMessages=MOST_AT_ONCE, WaitTimeSeconds=self._wait
            )
        return [self._read(message) for message in answer.get("Messages", [])]

    def settle(self, heard: Sequence[Announcement]) -> None:
        for start in range(0, len(heard), MOST_AT_ONCE):
            entries = [
                {"Id": str(number), "ReceiptHandle": one.receipt}
                for number, one in enumerate(heard[start : start + MOST_AT_ONCE])
            ]
            with self._failures("sqs:DeleteMessage"):
                # One that could not be deleted comes again and is then known.
                self.client.delete_message_batch(QueueUrl=self.url, Entries=entries)

    def reject(self, heard: Sequence[Announcement]) -> None:
        if not self._has_dead_letters:
            self.settle(heard)

    def _read(self, message: dict[str, Any]) -> Announcement:
        receipt = message["ReceiptHandle"]
        try:
            objects = objects_in(message.get("Body", ""))
        except NotAnEvent as error:
            return Announcement((), receipt, str(error))
        below = (key for bucket, key in objects if bucket == self._bucket and key.startswith(self._prefix))
        return Announcement(tuple(key.removeprefix(self._prefix) for key in below), receipt)

    @cached_property
    def _has_dead_letters(self) -> bool:
        """Whether messages that nobody deletes end in another queue after some deliveries."""
        return bool(self._attributes("RedrivePolicy").get("RedrivePolicy"))

    def _attributes(self, *names: str) -> dict[str, str]:
        with self._failures("sqs:GetQueueAttributes"):
            answer = self._probe.get_queue_attributes(QueueUrl=self.url, AttributeNames=list(names))
        found: dict[str, str] = answer.get("Attributes", {})
        return found

    @contextmanager
    def _failures(self, action: str) -> Iterator[None]:
        try:
            yield
        except (BotoCoreError, ClientError, OSError) as error:
            raise self._failure(error, action) from error

    def _failure(self, error: Exception, action: str) -> SpendscopeError:
        if isinstance(error, NO_CREDENTIALS):
            return BadCredentials(
                PART, "No usable AWS credentials for SQS: give AWS_ACCESS_KEY_ID, a profile or a role."
            )
        if not isinstance(error, ClientError):
            return Unavailable(PART, f"The events queue {self._shown} does not answer ({type(error).__name__}).")
        code = str(error.response.get("Error", {}).get("Code", ""))
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        if code.endswith(("NonExistentQueue", "QueueDoesNotExist")):
            return Unavailable(PART, f"There is no queue {self._shown}. Create it, or correct SPENDSCOPE_EVENTS_QUEUE.")
        if status in (401, 403) or code in REFUSED:
            return BadCredentials(
                PART, f"The events queue {self._shown} refused access with {code or status}. Allow {action} on it."
            )
        return Unavailable(PART, f"The events queue {self._shown} answered {code or status}.")

    @property
    def _shown(self) -> str:
        """The queue without what may stand before an @."""
        return self.url.partition("://")[2].rpartition("@")[2]


def _client(session: boto3.session.Session, queue_url: str, *, attempts: int, read_seconds: float) -> Any:
    place = urlsplit(queue_url)
    named = HOST.fullmatch(place.hostname or "")
    # boto3 reads AWS_ENDPOINT_URL_SQS by itself unless it is given an endpoint.
    endpoint = None if "AWS_ENDPOINT_URL_SQS" in os.environ else f"{place.scheme}://{place.netloc}"
    config = Config(
        connect_timeout=min(CONNECT_SECONDS, read_seconds),
        read_timeout=read_seconds,
        retries={"mode": "standard", "total_max_attempts": attempts},
        user_agent_extra="spendscope",
    )
    region = session.region_name or (next(filter(None, named.groups()), None) if named else None)
    return session.client("sqs", region_name=region or "us-east-1", endpoint_url=endpoint, config=config)
