"""The SQS adapter on moto's server: real S3 notifications, real HTTP."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from itertools import count
from typing import Any

import boto3
import pytest

from app.adapters.sqs import SqsAnnouncements
from app.errors import BadCredentials, CannotStart, Unavailable
from tests.buckets import SECRET, only_our_aws, s3_server
from tests.contracts.announcements import KEY, AnnouncementsContract, Station
from tests.events import created
from tests.fakes import MemoryAnnouncements

NUMBERS = count()


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with s3_server() as url:
        yield url


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    only_our_aws(monkeypatch)


def client(service: str, endpoint: str) -> Any:
    return boto3.client(
        service,
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="writer",
        aws_secret_access_key="writer",
    )


class Queue:
    """An SQS queue with a bucket that may write to it."""

    def __init__(self, endpoint: str, prefix: str = "team a/costs/", **attributes: str) -> None:
        number = next(NUMBERS)
        self.bucket, self.prefix = f"announcing-{number}", prefix
        self.sqs, self.s3 = client("sqs", endpoint), client("s3", endpoint)
        created = self.sqs.create_queue(
            QueueName=f"costs-{number}", Attributes={"VisibilityTimeout": "1", **attributes}
        )
        self.url = created["QueueUrl"].replace("localhost", "127.0.0.1")
        self.s3.create_bucket(Bucket=self.bucket)
        self.announcements = SqsAnnouncements(self.url, f"s3://{self.bucket}/{prefix}", wait_seconds=0)

    def arn(self) -> str:
        found = self.sqs.get_queue_attributes(QueueUrl=self.url, AttributeNames=["QueueArn"])
        return str(found["Attributes"]["QueueArn"])

    def notify(self) -> None:
        about = {"QueueConfigurations": [{"QueueArn": self.arn(), "Events": ["s3:ObjectCreated:*"]}]}
        self.s3.put_bucket_notification_configuration(Bucket=self.bucket, NotificationConfiguration=about)

    def send(self, body: str) -> None:
        self.sqs.send_message(QueueUrl=self.url, MessageBody=body)

    def redeliver(self) -> None:
        time.sleep(1.1)


class TestSqs(AnnouncementsContract):
    @pytest.fixture
    def station(self, endpoint: str) -> Station:
        return Queue(endpoint)


class MemoryStation:
    bucket, prefix = "bucket", "costs/"

    def __init__(self) -> None:
        self.announcements = MemoryAnnouncements(self.bucket, self.prefix)
        self.send, self.redeliver = self.announcements.send, self.announcements.redeliver


class TestMemory(AnnouncementsContract):
    @pytest.fixture
    def station(self) -> Station:
        return MemoryStation()


def test_what_s3_itself_sends_is_understood(endpoint: str) -> None:
    queue = Queue(endpoint, "team a/c+é/")
    queue.notify()
    queue.s3.put_object(Bucket=queue.bucket, Key=f"team a/c+é/{KEY}", Body=b"x")
    heard = queue.announcements.hear()
    assert [one.unreadable for one in heard] == [None] * len(heard)
    assert [key for one in heard for key in one.keys] == [KEY]


def test_hearing_waits_for_the_first_message(endpoint: str) -> None:
    queue = Queue(endpoint)
    waiting = SqsAnnouncements(queue.url, f"s3://{queue.bucket}/{queue.prefix}", wait_seconds=1)
    began = time.monotonic()
    assert list(waiting.hear()) == []
    assert time.monotonic() - began >= 0.9


def test_junk_is_left_to_a_dead_letter_queue_where_there_is_one(endpoint: str) -> None:
    import json

    dead = Queue(endpoint)
    queue = Queue(endpoint, RedrivePolicy=json.dumps({"deadLetterTargetArn": dead.arn(), "maxReceiveCount": "2"}))
    queue.send("junk")
    for _ in range(2):
        heard = queue.announcements.hear()
        assert [one.keys for one in heard] == [()]
        queue.announcements.reject(heard)
        queue.redeliver()
    assert list(queue.announcements.hear()) == []
    assert [one.unreadable for one in dead.announcements.hear()] == ["it is no JSON: 'junk'"]


def test_without_a_dead_letter_queue_junk_is_dropped(endpoint: str) -> None:
    queue = Queue(endpoint)
    queue.send("junk")
    queue.announcements.reject(queue.announcements.hear())
    assert queue.announcements.waiting() == 0


# --- what cannot be used ------------------------------------------------------------------------------------------


def test_a_queue_for_a_folder_cannot_start() -> None:
    with pytest.raises(CannotStart, match="SPENDSCOPE_EVENTS_QUEUE"):
        SqsAnnouncements("https://sqs.eu-west-1.amazonaws.com/1/q", "file:///costs/")


@pytest.mark.parametrize("url", ["https://[/1/q", "http://exa mple/q"])
def test_a_queue_that_is_no_url_cannot_start(url: str) -> None:
    with pytest.raises(CannotStart, match="SPENDSCOPE_EVENTS_QUEUE"):
        SqsAnnouncements(url, "s3://bucket/costs/")


@pytest.mark.parametrize(
    ("url", "region", "endpoint"),
    [
        ("https://sqs.eu-west-1.amazonaws.com/111122223333/costs", "eu-west-1", "https://sqs.eu-west-1.amazonaws.com"),
        ("https://sqs.cn-north-1.amazonaws.com.cn/1/q", "cn-north-1", "https://sqs.cn-north-1.amazonaws.com.cn"),
        ("https://us-west-2.queue.amazonaws.com/1/q", "us-west-2", "https://us-west-2.queue.amazonaws.com"),
        ("http://localstack:4566/000000000000/costs", "us-east-1", "http://localstack:4566"),
    ],
)
def test_region_and_endpoint_are_those_of_the_url(url: str, region: str, endpoint: str) -> None:
    about = SqsAnnouncements(url, "s3://bucket/costs/").client.meta
    assert (about.region_name, about.endpoint_url) == (region, endpoint)


def test_the_environment_wins_over_the_url(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL_SQS", "https://vpce-1.sqs.eu-central-1.vpce.amazonaws.com")
    about = SqsAnnouncements("https://sqs.eu-west-1.amazonaws.com/1/q", "s3://bucket/costs/").client.meta
    assert about.region_name == "eu-central-1"
    assert about.endpoint_url == "https://vpce-1.sqs.eu-central-1.vpce.amazonaws.com"


def test_a_queue_that_does_not_exist_is_said_so(endpoint: str) -> None:
    nowhere = SqsAnnouncements(f"{endpoint}/123456789012/nowhere", "s3://bucket/costs/", wait_seconds=0)
    for ask in (nowhere.check, nowhere.hear, nowhere.waiting):
        with pytest.raises(Unavailable, match=r"no queue .*nowhere") as told:
            ask()
        assert told.value.part == "events"


def test_a_server_that_is_not_there_is_unavailable_and_its_password_untold() -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    away = SqsAnnouncements(f"http://user:hidden@127.0.0.1:{port}/1/q", "s3://bucket/costs/")
    with pytest.raises(Unavailable, match=f"127.0.0.1:{port}/1/q does not answer") as told:
        away.check()
    assert "hidden" not in told.value.message


def test_no_credentials_at_all(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(BadCredentials, match="AWS_ACCESS_KEY_ID"):
        SqsAnnouncements(f"{endpoint}/1/q", "s3://bucket/costs/").check()


@pytest.mark.parametrize(("status", "code"), [(403, "AccessDenied"), (400, "InvalidClientTokenId"), (401, "")])
def test_a_refusal_names_the_action_and_no_secret(endpoint: str, status: int, code: str) -> None:
    import io

    from botocore.awsrequest import AWSResponse

    class Raw(io.BytesIO):
        def stream(self, **_: Any) -> Iterator[bytes]:
            yield self.read()

    queue = Queue(endpoint)
    body = f'{{"__type": "com.amazonaws.sqs#{code}", "message": "no"}}'.encode()
    refused = []
    queue.announcements.client.meta.events.register(
        "before-send.sqs",
        lambda request, **_: (
            refused.append(request)
            or AWSResponse(request.url, status, {"Content-Type": "application/x-amz-json-1.0"}, Raw(body))
        ),
    )
    with pytest.raises(BadCredentials, match="sqs:ReceiveMessage") as told:
        queue.announcements.hear()
    assert len(refused) == 1
    assert SECRET not in repr(told.value)


def test_a_message_that_cannot_be_deleted_only_comes_again(endpoint: str) -> None:
    queue = Queue(endpoint)
    queue.send(created(queue.bucket, queue.prefix + KEY))
    [heard] = queue.announcements.hear()
    queue.announcements.settle([heard])
    queue.announcements.settle([heard])
