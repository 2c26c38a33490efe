"""What is deployed to AWS: a template that cfn-lint and our own policy rules accept, a package that works by itself."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from scripts.collector_zip import build, files

ROOT = Path(__file__).parent.parent
TEMPLATE = ROOT / "lambda/template.yaml"
WITHOUT_RESOURCES = (
    "ce:",
    "organizations:ListAccounts",
    "organizations:DescribeOrganization",
    "organizations:ListRoots",
)
"""Actions for which AWS knows no resource level: only they may be allowed on everything."""


@pytest.fixture(scope="module")
def template() -> dict[str, Any]:
    # Here and below cfn-lint is imported late: it takes seconds, which all that only collect the tests would spend.
    from cfnlint import decode

    found, problems = decode.decode(str(TEMPLATE))
    assert not problems
    return json.loads(json.dumps(found))  # type: ignore[no-any-return]


def test_the_template_passes_cfn_lint() -> None:
    from cfnlint.api import lint_file
    from cfnlint.config import ManualArgs

    problems = lint_file(TEMPLATE, ManualArgs(regions=["us-east-1", "eu-central-1"]))
    assert not [f"{each.start}: {each.message}" for each in problems]


def statements(node: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every policy statement, wherever it is and whatever condition it is under."""
    if isinstance(node, dict):
        if "Effect" in node:
            yield path, node
        for name, inner in node.items():
            yield from statements(inner, f"{path}/{name}")
    elif isinstance(node, list):
        for number, inner in enumerate(node):
            yield from statements(inner, f"{path}/{number}")


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def policy_problems(template: Any) -> list[str]:
    """What is broader than it must be."""
    found = []
    for path, statement in statements(template["Resources"]):
        actions, resources = listed(statement.get("Action", [])), listed(statement.get("Resource", []))
        found += [f"{path}: wildcard action {action}" for action in actions if "*" in action]
        if statement["Effect"] != "Allow":
            continue
        found += [f"{path}: allows all but something" for name in ("NotAction", "NotResource") if name in statement]
        if "*" in resources:
            named = [action for action in actions if not str(action).startswith(WITHOUT_RESOURCES)]
            found += [f"{path}: {action} on everything" for action in named]
        if statement.get("Principal") in ("*", {"AWS": "*"}):
            found.append(f"{path}: allows anybody")
    return found


def test_no_policy_is_broader_than_it_must_be(template: dict[str, Any]) -> None:
    assert policy_problems(template) == []
    assert len(list(statements(template["Resources"]))) > 12


@pytest.mark.parametrize(
    "wrong",
    [
        {"Effect": "Allow", "Action": "s3:*", "Resource": "arn:aws:s3:::b/*"},
        {"Effect": "Allow", "Action": ["s3:GetObject", "s3:Put*"], "Resource": "arn:aws:s3:::b/*"},
        {"Effect": "Deny", "Action": "*", "Resource": "*", "Principal": "*"},
        {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*"},
        {"Effect": "Allow", "Action": "sts:AssumeRole", "Resource": ["*"]},
        {"Effect": "Allow", "NotAction": "iam:PassRole", "Resource": "arn:aws:s3:::b"},
        {"Effect": "Allow", "Action": "sqs:SendMessage", "Resource": "arn:aws:sqs:::q", "Principal": "*"},
    ],
)
def test_the_rules_find_what_is_too_broad(template: dict[str, Any], wrong: dict[str, Any]) -> None:
    broken = copy.deepcopy(template)
    broken["Resources"]["CollectorRole"]["Properties"]["Policies"][0]["PolicyDocument"]["Statement"].append(wrong)
    assert len(policy_problems(broken)) >= 1


def test_the_collector_may_do_what_it_needs_and_no_more(template: dict[str, Any]) -> None:
    role = template["Resources"]["CollectorRole"]["Properties"]["Policies"]
    actions = {action for _, each in statements(role) for action in listed(each["Action"])}
    assert {action for action in actions if action.startswith(("s3:", "sqs:", "logs:", "sts:", "kms:"))} == {
        "s3:PutObject",
        "s3:GetObject",
        "sqs:SendMessage",
        "logs:CreateLogStream",
        "logs:PutLogEvents",
        "sts:AssumeRole",
        "kms:GenerateDataKey",
        "kms:Decrypt",
    }
    assert {"ce:GetCostAndUsage", "ce:GetDimensionValues", "organizations:ListAccounts"} <= actions


def test_one_run_at_a_time_and_failures_are_kept(template: dict[str, Any]) -> None:
    function = template["Resources"]["Collector"]["Properties"]
    assert (function["ReservedConcurrentExecutions"], function["Timeout"]) == (1, 900)
    assert function["DeadLetterQueue"]["TargetArn"] == {"Fn::GetAtt": ["CollectorFailures", "Arn"]}
    schedule = function["Events"]["Daily"]["Properties"]
    assert schedule["DeadLetterConfig"] == {"Arn": {"Fn::GetAtt": ["CollectorFailures", "Arn"]}}
    assert schedule["RetryPolicy"]["MaximumRetryAttempts"] <= 2
    module, _, name = function["Handler"].rpartition(".")
    assert (module, name) == ("workers.collector", "handler")


def test_the_bucket_is_versioned_encrypted_closed_and_announces_files(template: dict[str, Any]) -> None:
    bucket = template["Resources"]["Costs"]["Properties"]
    assert bucket["VersioningConfiguration"]["Status"] == "Enabled"
    assert bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    assert set(bucket["PublicAccessBlockConfiguration"].values()) == {True}
    assert bucket["LifecycleConfiguration"]["Rules"][0]["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 1}
    [announced] = bucket["NotificationConfiguration"]["QueueConfigurations"]
    assert announced["Queue"] == {"Fn::GetAtt": ["NewFiles", "Arn"]}
    assert announced["Filter"]["S3Key"]["Rules"] == [{"Name": "prefix", "Value": "costs/"}]
    assert template["Resources"]["Costs"]["DeletionPolicy"] == "Retain"
    assert template["Resources"]["NewFiles"]["Properties"]["RedrivePolicy"]["deadLetterTargetArn"]
    [(_, tls)] = statements(template["Resources"]["CostsPolicy"])
    assert (tls["Effect"], tls["Condition"]) == ("Deny", {"Bool": {"aws:SecureTransport": "false"}})


def test_every_setting_the_collector_reads_is_set(template: dict[str, Any]) -> None:
    text = (ROOT / "workers/collector.py").read_text("utf-8")
    given = set(template["Resources"]["Collector"]["Properties"]["Environment"]["Variables"])
    assert given == {
        word for word in text.replace("(", '"').split('"') if word.startswith("SPENDSCOPE_") and " " not in word
    }


# --- the package --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("package") / "collector.zip"
    build(out)
    return out


def test_the_package_is_small_and_the_same_every_time(package: Path, tmp_path: Path) -> None:
    build(tmp_path / "again.zip")
    assert (tmp_path / "again.zip").read_bytes() == package.read_bytes()
    assert package.stat().st_size < 1_000_000
    assert [path.as_posix() for path in files()] == zipfile.ZipFile(package).namelist()


AWS_ONLY = ("boto3", "botocore", "s3transfer", "jmespath", "dateutil", "six", "urllib3")
"""What the Lambda runtime has."""


def test_the_handler_works_from_the_package_alone(package: Path, tmp_path: Path) -> None:
    """An interpreter that sees the unpacked package, the standard library and boto3, and nothing of this checkout."""
    (unpacked := tmp_path / "task").mkdir()
    (runtime := tmp_path / "runtime").mkdir()
    zipfile.ZipFile(package).extractall(unpacked)
    for name in AWS_ONLY:
        spec = find_spec(name)
        assert spec is not None
        assert spec.origin is not None
        origin = Path(spec.origin)
        place = origin.parent if origin.name == "__init__.py" else origin
        (runtime / place.name).symlink_to(place)
    code = (
        f"import sys; sys.path[:0] = [{str(unpacked)!r}, {str(runtime)!r}]\n"
        "from workers.collector import handler\n"
        "import workers.collector, app.errors\n"
        "try:\n    handler({}, None)\n"
        "except app.errors.CannotStart as error:\n    print(workers.collector.__file__, error)\n"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("SPENDSCOPE_", "PYTHON"))}
    shown = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, cwd=tmp_path, env=environment
    )
    assert shown.stdout.startswith(f"{unpacked}/workers/collector.py SPENDSCOPE_SOURCE names no place"), shown.stderr
