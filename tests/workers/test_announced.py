"""A bucket that announces its objects, with real workers, a real scheduler and a real Redis; S3 and SQS are moto's server."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from app.backends import Backends, open_backends
from app.config import read_settings
from app.core.periods import DateRange
from app.core.query import CostQuery
from app.costs import ask
from app.launcher import locked_data_dir, working_family
from tests.arrivals import csv
from tests.events import created

pytestmark = pytest.mark.slow
DAY = date(2026, 10, 1)
BUCKET = "announced"
SECONDS = 15.0
"""A loaded machine is slow; the listing comes once an hour."""


@dataclass
class Announced:
    backends: Backends
    s3: Any
    sqs: Any
    queue: str

    def put(self, day: date, amount: int) -> None:
        self.s3.put_object(Bucket=BUCKET, Key=f"costs/{day}.csv", Body=csv(f"a,S,r,{amount},1,1,1"))

    def amount(self, day: date) -> Decimal | None:
        return ask(self.backends, CostQuery(DateRange(day, day + timedelta(days=1)))).total

    def waiting(self) -> int:
        return self.backends.announcements.waiting() if self.backends.announcements else -1


@pytest.fixture(scope="module")
def announced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Announced]:
    root = tmp_path_factory.mktemp("announced")
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_") or name.lower().endswith("_proxy")]:
            patch.delenv(name)
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "testing")
        patch.setenv("AWS_REGION", "us-east-1")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        s3, sqs = boto3.client("s3", endpoint_url=endpoint), boto3.client("sqs", endpoint_url=endpoint)
        s3.create_bucket(Bucket=BUCKET)
        queue = sqs.create_queue(QueueName="costs")["QueueUrl"]
        arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        about = {"QueueConfigurations": [{"QueueArn": arn, "Events": ["s3:ObjectCreated:*"]}]}
        s3.put_bucket_notification_configuration(Bucket=BUCKET, NotificationConfiguration=about)
        settings = read_settings(
            {},
            source=f"s3://{BUCKET}/costs/",
            aws_endpoint_url=endpoint,
            events_queue=queue,
            data_dir=root / "data",
            watch_seconds=3600,
            workers=1,
        )
        with locked_data_dir(settings), working_family(settings):
            backends = open_backends(settings)
            backends.metadata.prepare()
            backends.costs.prepare()
            until(lambda: backends.queue.workers() == 1, 60)
            # The listing of the start is over: what is taken from here on was announced.
            until(lambda: backends.metadata.last_slot("source listed") is not None, 60)
            yield Announced(backends, s3, sqs, queue)
            backends.metadata.close()
    server.stop()


def until(true: Callable[[], object], seconds: float = SECONDS) -> float:
    began = time.monotonic()
    while not true():
        assert time.monotonic() - began < seconds, f"it did not happen within {seconds:g} s"
        time.sleep(0.05)
    return time.monotonic() - began


def test_a_file_is_taken_seconds_after_it_was_put(announced: Announced) -> None:
    announced.put(DAY, 5)
    taken = until(lambda: announced.amount(DAY) == 5)
    announced.put(DAY, 7)
    restated = until(lambda: announced.amount(DAY) == 7)
    print(f"taken after {taken:.1f} s, restated after {restated:.1f} s")
    until(lambda: announced.waiting() == 0)


def test_junk_and_doubles_in_the_queue_stop_nothing(announced: Announced) -> None:
    day = DAY + timedelta(days=1)
    for body in ("junk", '{"Records": [{}]}', created(BUCKET, f"costs/{DAY}.csv")):
        announced.sqs.send_message(QueueUrl=announced.queue, MessageBody=body)
    announced.put(day, 3)
    announced.sqs.send_message(QueueUrl=announced.queue, MessageBody=created(BUCKET, f"costs/{day}.csv"))
    until(lambda: announced.amount(day) == 3)
    until(lambda: announced.waiting() == 0)
    jobs = announced.backends.metadata.jobs(limit=50).items
    assert sum(job.params["key"] == f"{day}.csv" for job in jobs) == 1
