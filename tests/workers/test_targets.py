"""Where a collector writes: only over what it read, in a folder and in a bucket; and the whole run against moto."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from app.core.costexplorer import coverage_of
from app.core.periods import DateRange
from app.errors import BadCredentials, CannotStart, Conflict, Unavailable
from tests.costexplorer import DAY, Aws, CostExplorer, charge, refusing
from tests.workers.test_collector import A, B, organisation
from workers import collector
from workers.asking import open_client
from workers.targets import FolderTarget, S3Target, Target, day_name, open_target

ROOT = Path(__file__).parents[2]
NAME = f"costs/{DAY}.csv"
BUCKETS = count()


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_") or name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    for name, value in {
        "AWS_ACCESS_KEY_ID": "AKIAEXAMPLE7WXYZ",
        "AWS_SECRET_ACCESS_KEY": "SeCrEt",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_ENDPOINT_URL": endpoint,
    }.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def bucket() -> str:
    name = f"collected-{next(BUCKETS)}"
    boto3.client("s3", region_name="us-east-1").create_bucket(Bucket=name)
    return name


@pytest.fixture(params=["folder", "s3"])
def target(request: pytest.FixtureRequest, tmp_path: Path, bucket: str) -> Target:
    if request.param == "folder":
        return FolderTarget((tmp_path / "costs").as_uri() + "/")
    return S3Target(f"s3://{bucket}/team/costs/")


# --- both ---------------------------------------------------------------------------------------------------------


def test_what_is_written_is_read(target: Target) -> None:
    assert target.read(NAME) is None
    version = target.write(NAME, b"one", None)
    kept = target.read(NAME)
    assert kept is not None
    assert (kept.data, kept.version) == (b"one", version)


def test_a_new_file_is_not_written_over_another(target: Target) -> None:
    target.write(NAME, b"theirs", None)
    with pytest.raises(Conflict, match=NAME):
        target.write(NAME, b"ours", None)
    kept = target.read(NAME)
    assert kept is not None
    assert kept.data == b"theirs"


def test_only_the_version_that_was_read_is_replaced(target: Target) -> None:
    first = target.write(NAME, b"one", None)
    second = target.write(NAME, b"two", first)
    with pytest.raises(Conflict, match=NAME):
        target.write(NAME, b"three", first)
    assert target.write(NAME, b"three", second) != second


def test_what_was_removed_meanwhile_is_a_conflict(target: Target) -> None:
    first = target.write(NAME, b"one", None)
    if isinstance(target, S3Target):
        boto3.client("s3", region_name="us-east-1").delete_object(Bucket=target.bucket, Key=f"team/{NAME}")
    else:
        assert isinstance(target, FolderTarget)
        (target._above / NAME).unlink()
    with pytest.raises(Conflict):
        target.write(NAME, b"two", first)


def test_of_many_at_once_exactly_one_writes(target: Target) -> None:
    def attempt(number: int) -> bool:
        try:
            target.write(NAME, b"%d" % number, None)
        except Conflict:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(attempt, range(16))) == 1


def test_files_lie_in_the_folder_and_beside_it(target: Target, tmp_path: Path) -> None:
    assert day_name(target, DAY) == NAME
    target.write("coverage/x.json", b"{}", None)
    if isinstance(target, FolderTarget):
        assert (tmp_path / "coverage/x.json").exists()
    else:
        assert isinstance(target, S3Target)
        s3 = boto3.client("s3", region_name="us-east-1")
        assert [each["Key"] for each in s3.list_objects_v2(Bucket=target.bucket)["Contents"]] == [
            "team/coverage/x.json"
        ]


def test_two_runs_at_once_end_in_one_state(target: Target) -> None:
    """Four runs, two of which may not ask about B: the end has what was collected of each, and a coverage that fits."""
    days = DateRange(DAY, DAY + timedelta(days=6))
    charges = [charge(account, "Amazon S3", "global", "1.25", day=day) for account in (A, B) for day in days]

    def run(number: int) -> None:
        before = refusing(B) if number % 2 else lambda *_: None
        aws = Aws(CostExplorer(charges, before=before), organisation(A, B))
        aws.now += timedelta(seconds=number)
        world = collector.World(clock=aws.clock, sleep=lambda _: None)
        collector.Collector(collector.Setup(""), world, target=target, connect=aws.connect).collect(days)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(run, range(4)))
    for day in days:
        kept, beside = target.read(day_name(target, day)), target.read(f"coverage/{day}.json")
        assert kept is not None
        assert beside is not None
        said = coverage_of(beside.data, kept.data)
        assert said is not None
        assert A in said.covered
        assert said.covered | said.failed == {A, B}
        assert {line.split(",")[1] for line in kept.data.decode().splitlines()[1:]} == {A, B}


# --- one of them --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("root", ["", "s3://", "costs/", "http://x/costs/"])
def test_what_names_no_place_cannot_start(root: str) -> None:
    with pytest.raises(CannotStart, match="s3://bucket/costs/"):
        open_target(root)


def test_a_bucket_without_prefix_is_a_folder_too(bucket: str) -> None:
    target = S3Target(f"s3://{bucket}/")
    assert day_name(target, DAY) == f"{DAY}.csv"
    target.write(day_name(target, DAY), b"x", None)
    assert target.read(f"{DAY}.csv") is not None


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o500)
    with pytest.raises(BadCredentials, match="may not be"):
        FolderTarget((tmp_path / "closed/costs").as_uri()).write(NAME, b"x", None)


def test_a_bucket_that_does_not_exist_is_one_line() -> None:
    target = S3Target("s3://nowhere-at-all/costs/")
    with pytest.raises(Unavailable, match="no bucket nowhere-at-all"):
        target.read(NAME)
    with pytest.raises(Unavailable, match="no bucket nowhere-at-all"):
        target.write(NAME, b"x", None)


class Answers:
    """Answers of S3 by operation, as a botocore event hook: (status, code), or None for what moto says."""

    def __init__(self, target: S3Target, **answers: Any) -> None:
        self.answers = answers
        for operation in answers:
            target._client.meta.events.register(f"before-send.s3.{operation}", self.answer)

    def answer(self, request: Any, event_name: str, **_: Any) -> Any:
        from botocore.awsrequest import AWSResponse

        found = self.answers[event_name.rpartition(".")[2]]
        if found is None:
            return None
        status, code = found
        body = f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode()
        response = AWSResponse(request.url, status, {}, None)
        response._content = body
        return response


def test_a_missing_file_that_s3_hides_can_be_created(bucket: str) -> None:
    """With the least permissions (no s3:ListBucket) S3 answers 403, not 404, for what is not there."""
    target = S3Target(f"s3://{bucket}/costs/")
    Answers(target, GetObject=(403, "AccessDenied"))
    assert target.read(NAME) is None
    target.write(NAME, b"x", None)


def test_a_file_that_may_not_be_read_is_not_replaced(bucket: str) -> None:
    target = S3Target(f"s3://{bucket}/costs/")
    target.write(NAME, b"theirs", None)
    Answers(target, GetObject=(403, "AccessDenied"))
    assert target.read(NAME) is None
    with pytest.raises(BadCredentials, match=rf"refused s3:GetObject on s3://{bucket}/{NAME}"):
        target.write(NAME, b"ours", None)


@pytest.mark.parametrize(("status", "code"), [(409, "ConditionalRequestConflict"), (412, "PreconditionFailed")])
def test_both_answers_to_a_lost_race_are_conflicts(bucket: str, status: int, code: str) -> None:
    target = S3Target(f"s3://{bucket}/costs/")
    Answers(target, PutObject=(status, code))
    with pytest.raises(Conflict):
        target.write(NAME, b"x", None)


def test_access_denied_is_one_clear_line_before_anything_is_paid_for(bucket: str) -> None:
    target = S3Target(f"s3://{bucket}/costs/")
    Answers(target, PutObject=(403, "AccessDenied"))
    aws = Aws(CostExplorer([charge(A, "Amazon S3", "global", "1")]), organisation(A))
    with pytest.raises(BadCredentials) as told:
        collector.Collector(
            collector.Setup(""), collector.World(clock=aws.clock, sleep=aws.sleep), target=target, connect=aws.connect
        ).collect(DateRange(DAY, DAY + timedelta(days=1)))
    assert told.value.message.startswith(f"S3 refused s3:PutObject on s3://{bucket}/collections/2026")
    assert "\n" not in told.value.message
    assert "SeCrEt" not in told.value.message
    assert aws.ce.billed == 0


# --- the whole of it against moto ---------------------------------------------------------------------------------


def seed(endpoint: str, *replies: Any) -> None:
    request = urllib.request.Request(
        f"{endpoint}/moto-api/static/ce/cost-and-usage-results",
        data=json.dumps({"results": list(replies)}).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request) as answer:
        assert answer.status == 201


def reply(*days: tuple[date, list[tuple[list[str], str]]]) -> dict[str, Any]:
    def metrics(amount: str) -> dict[str, Any]:
        cost = {"Amount": amount, "Unit": "USD"}
        costs = {"AmortizedCost": cost, "BlendedCost": cost, "UnblendedCost": cost}
        return {**costs, "UsageQuantity": {"Amount": "3", "Unit": "N/A"}}

    return {
        "ResultsByTime": [
            {
                "TimePeriod": {"Start": str(day), "End": str(day + timedelta(days=1))},
                "Total": {},
                "Groups": [{"Keys": keys, "Metrics": metrics(amount)} for keys, amount in groups],
                "Estimated": True,
            }
            for day, groups in days
        ]
    }


@pytest.fixture
def accounts() -> list[str]:
    """An organisation in moto with two member accounts; ids in the order they are asked."""
    client = boto3.client("organizations", region_name="us-east-1")
    if not client.list_accounts()["Accounts"]:
        client.create_organization(FeatureSet="ALL")
        client.create_account(Email="prod@example.com", AccountName="prod")
    return sorted(each["Id"] for each in client.list_accounts()["Accounts"])


def test_seeded_replies_become_objects(
    endpoint: str, bucket: str, accounts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = DAY, DAY + timedelta(days=1)
    monkeypatch.setattr("workers.asking.time.sleep", lambda _: None)
    seed(
        endpoint,
        reply((first, [(["Amazon S3", "eu-west-1"], "1.2300")]), (second, [(["Tax", "NoRegion"], "1E-7")])),
        reply((first, [(["Amazon EC2, Other", "global"], "-4")]), (second, [])),
    )
    setup = collector.Setup(f"s3://{bucket}/costs/")
    world = collector.World(sleep=lambda _: None)
    report = collector.Collector(setup, world).collect(DateRange(first, DAY + timedelta(days=3)))
    s3 = boto3.client("s3", region_name="us-east-1")

    def body(key: str) -> bytes:
        return s3.get_object(Bucket=bucket, Key=key)["Body"].read()

    assert body(f"costs/{first}.csv").decode().splitlines()[1:] == [
        f"{first},{accounts[0]},Amazon S3,eu-west-1,1.23,1.23,1.23,3,,USD,true",
        f'{first},{accounts[1]},"Amazon EC2, Other",global,-4,-4,-4,3,,USD,true',
    ]
    assert len(body(f"costs/{second}.csv").splitlines()) == 2
    assert json.loads(body(f"coverage/{first}.json"))["covered"] == accounts
    assert "prod" in {each["name"] for each in json.loads(body("accounts.json")).values()}
    # moto says nothing of a day without a seed: nothing is written for it.
    assert list(report.left) == [DAY + timedelta(days=2)]
    versions = {each["Key"]: each["ETag"] for each in s3.list_objects_v2(Bucket=bucket)["Contents"]}
    collector.Collector(setup, world).collect(DateRange(first, DAY + timedelta(days=3)))
    again = {each["Key"]: each["ETag"] for each in s3.list_objects_v2(Bucket=bucket)["Contents"]}
    assert {key: tag for key, tag in again.items() if key in versions} == versions


def test_the_handler_collects_what_the_event_asks(
    endpoint: str, bucket: str, accounts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    yesterday = datetime.now(UTC).date() - timedelta(days=1)
    monkeypatch.setattr(collector, "World", lambda **_: collector_world)
    seed(endpoint, reply((yesterday, [(["Amazon S3", "eu-west-1"], "2.5")])))
    monkeypatch.setenv("SPENDSCOPE_SOURCE", f"s3://{bucket}/costs/")
    event = {"start": str(yesterday), "accounts": [accounts[0]]}
    said = collector.handler(event, None)
    assert (said["written"], said["covered"]) == ([str(yesterday)], [accounts[0]])


collector_world = collector.World(sleep=lambda _: None)


# --- what the Lambda carries --------------------------------------------------------------------------------------


def test_the_collector_needs_only_the_standard_library_and_boto3() -> None:
    """Imported where nothing else can be: not numpy, not pydantic, not click."""
    code = (
        "import sys, workers.collector, boto3; "
        "allowed = {'boto3', 'botocore', 's3transfer', 'jmespath', 'dateutil', 'six', 'urllib3'}; "
        "allowed |= {'brotli', '_brotli', 'certifi', '_distutils_hack'}; "  # urllib3 takes them where they are
        "tops = {name.split('.')[0] for name in sys.modules} - set(sys.stdlib_module_names); "
        "found = {name for name in tops if '/site-packages/' in (getattr(sys.modules[name], '__file__', '') or '')}; "
        "print(sorted(found - allowed))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert shown.stdout.strip() == "[]"


def test_two_payers_are_asked_in_moto_with_their_roles(
    endpoint: str, bucket: str, accounts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """moto checks no external id; that it is sent is checked with the fake. Here: that the roles' keys are used."""
    seed(endpoint, *(reply((DAY, [(["Amazon S3", "eu-west-1"], amount)])) for amount in ("1", "2")))
    roles = (f"arn:aws:iam::{B}:role/collector",)
    setup = collector.Setup(f"s3://{bucket}/costs/", roles=roles, external_id="agreed-upon")
    opened: list[str] = []

    def connect(service: str, credentials: Any) -> Any:
        opened.append(f"{service} {'role' if credentials else 'own'}")
        return open_client(service, credentials)

    world = collector.World(sleep=lambda _: None)
    collector.Collector(setup, world, connect=connect).collect(DateRange(DAY, DAY + timedelta(days=1)))
    assert opened[0] == "sts own"
    assert set(opened[1:]) >= {"ce role"}
