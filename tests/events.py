"""Messages of S3 as AWS documents them, for any object."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote_plus


def record(bucket: str, key: str, *, name: str = "ObjectCreated:Put", sequencer: str = "0055AED6DCD90281E5") -> Any:
    """One record of "Event message structure", version 2.1, of the Amazon S3 User Guide."""
    return {
        "eventVersion": "2.1",
        "eventSource": "aws:s3",
        "awsRegion": "eu-west-1",
        "eventTime": "2026-11-24T04:31:07.000Z",
        "eventName": name,
        "userIdentity": {"principalId": "AWS:AIDAEXAMPLE"},
        "requestParameters": {"sourceIPAddress": "192.0.2.7"},
        "responseElements": {"x-amz-request-id": "C3D13FE58DE4C810", "x-amz-id-2": "FMyUVURIY8/IgAtTv8xRjskZQpcIZ9KG"},
        "s3": {
            "s3SchemaVersion": "1.0",
            "configurationId": "costs",
            "bucket": {
                "name": bucket,
                "ownerIdentity": {"principalId": "A3NL1KOZZKExample"},
                "arn": f"arn:aws:s3:::{bucket}",
            },
            "object": {
                "key": quote_plus(key, safe="/"),
                "size": 1024,
                "eTag": "d41d8cd98f00b204e9800998ecf8427e",
                "versionId": "096fKKXTRTtl3on89fVO.nfljtsv6qko",
                "sequencer": sequencer,
            },
        },
    }


def from_s3(*records: Any) -> str:
    return json.dumps({"Records": list(records)})


def created(bucket: str, key: str, **more: str) -> str:
    return from_s3(record(bucket, key, **more))


def through_sns(body: str) -> str:
    """What SNS puts into a queue without raw delivery."""
    return json.dumps(
        {
            "Type": "Notification",
            "MessageId": "dc1e94d9-56c5-5e96-808d-cc7f68faa162",
            "TopicArn": "arn:aws:sns:eu-west-1:111122223333:costs",
            "Subject": "Amazon S3 Notification",
            "Message": body,
            "Timestamp": "2026-11-24T04:31:08.000Z",
            "SignatureVersion": "1",
        }
    )


def from_eventbridge(bucket: str, key: str) -> str:
    """ "Object Created" of "EventBridge event message structure": the key is not encoded."""
    return json.dumps(
        {
            "version": "0",
            "id": "17793124-05d4-b198-2fde-7ededc63b103",
            "detail-type": "Object Created",
            "source": "aws.s3",
            "account": "111122223333",
            "time": "2026-11-24T04:31:07Z",
            "region": "eu-west-1",
            "resources": [f"arn:aws:s3:::{bucket}"],
            "detail": {
                "version": "0",
                "bucket": {"name": bucket},
                "object": {"key": key, "size": 5, "etag": "b1946ac92492d2347c6235b4d2611184", "sequencer": "00617F08"},
                "reason": "PutObject",
            },
        }
    )


def notification_test(bucket: str) -> str:
    """What S3 sends once when notifications are set up."""
    return json.dumps(
        {
            "Service": "Amazon S3",
            "Event": "s3:TestEvent",
            "Time": "2026-11-24T04:30:00.000Z",
            "Bucket": bucket,
            "RequestId": "5582815E1AEA5ADF",
            "HostId": "8cLeGAmw098X5cv4Zkwcmo8vvZa3eH3eKxsPzbB9wrR",
        }
    )


JUNK = (
    "",
    "hello",
    "null",
    "[]",
    '"s3:TestEvent"',
    "{}",
    '{"Records": {}}',
    '{"Records": [1]}',
    '{"Records": [{"eventSource": "aws:sqs"}]}',
    '{"Records": [{"eventSource": "aws:s3", "s3": {"bucket": {"name": "b"}, "object": {"key": 7}}}]}',
    '{"Records": [{"eventSource": "aws:s3", "s3": {"bucket": {"name": "b"}, "object": {"key": "%ff.csv"}}}]}',
    '{"Records": [{"eventSource": "aws:s3", "s3": {"bucket": "b", "object": {"key": "x"}}}]}',
    '{"source": "aws.s3", "detail": []}',
    '{"source": "aws.ec2", "detail": {"bucket": {"name": "b"}, "object": {"key": "x"}}}',
    '{"Type": "SubscriptionConfirmation", "Message": "You have chosen to subscribe"}',
    '{"Type": "Notification", "Message": "plain text"}',
    '{"Type": "Notification", "Message": {"Records": []}}',
    "[" * 100_000,
    '{"a": NaN}',
)
