"""History for real: the command, Redis, worker processes, an S3 and a Cost Explorer over HTTP."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import time
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from app.core.collection import is_final, months_before
from tests.costexplorer import Charge, CostExplorer, charge, served

ROOT = Path(__file__).parents[2]
ACCOUNTS = [f"{n:012}" for n in range(1, 13)]
SERVICES = ("Amazon Simple Storage Service", "Amazon EC2, Other", "AWS Lambda", "Tax")
REGIONS = tuple(f"region-{n}" for n in range(14))
MONTHS = int(os.environ.get("SPENDSCOPE_TEST_BACKFILL_MONTHS", "1"))
"""More go the same way; a year takes minutes (then with --timeout 1800)."""


def history(today: date) -> list[Charge]:
    start = months_before(today, MONTHS)
    days = [start + timedelta(days=n) for n in range((today - start).days)]
    rows = itertools.product(days, enumerate(ACCOUNTS), enumerate(SERVICES))
    return [
        charge(account, service, REGIONS[(a + s) % 14], str(Decimal(day.toordinal() % 97 + a).scaleb(-s)), day=day)
        for day, (a, account), (s, service) in rows
    ]


def spendscope(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "app.cli", *arguments],
        capture_output=True, text=True, cwd=ROOT, env=environment, timeout=1500, stdin=subprocess.DEVNULL,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_months_of_twelve_accounts_through_s3_and_workers(tmp_path: Path, record_property: Any) -> None:
    today = datetime.now(UTC).date()
    fake = CostExplorer(history(today), cut=lambda left: min(left, 700))
    moto = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "SPENDSCOPE_"))}
    try:
        with served(fake) as costs:
            environment |= {
                "AWS_ACCESS_KEY_ID": "a",
                "AWS_SECRET_ACCESS_KEY": "b",
                "AWS_REGION": "us-east-1",
                "AWS_ENDPOINT_URL": f"http://{host}:{port}",
                "AWS_ENDPOINT_URL_COST_EXPLORER": costs,
                "SPENDSCOPE_SOURCE": "s3://history/costs/",
                "SPENDSCOPE_DATA_DIR": str(tmp_path),
                "SPENDSCOPE_WEB_PROCESSES": "1",
            }
            given = {"endpoint_url": environment["AWS_ENDPOINT_URL"], "region_name": "us-east-1"}
            s3 = boto3.client("s3", aws_access_key_id="a", aws_secret_access_key="b", **given)
            s3.create_bucket(Bucket="history")
            began = time.monotonic()
            shown = spendscope(environment, "backfill", "--months", str(MONTHS), "--wait")
            assert shown.returncode == 0, shown.stdout + shown.stderr
            record_property("seconds", time.monotonic() - began)
            billed = fake.billed
            days = {each.day for each in fake.charges}
            assert f"{len(days)} days of " in shown.stdout
            assert f"{billed} requests to Cost Explorer" in shown.stdout
            assert f"Ingested: {len(days)} files taken, 0 not" in shown.stdout
            asked = spendscope(
                environment,
                "query",
                "--start",
                str(min(days)),
                "--end",
                str(today),
                "--group-by",
                "account",
                "--format",
                "json",
            )
            answer = json.loads(asked.stdout)
            expected = sum((Decimal(each.amounts[0]) for each in fake.charges), Decimal(0))
            assert Decimal(answer["total"]) == expected
            assert len(answer["rows"]) == 12
            again = spendscope(environment, "backfill", "--months", str(MONTHS), "--wait")
            assert again.returncode == 0, again.stdout + again.stderr
            assert "0 days written" in again.stdout
            assert "Ingested: 0 files taken, 0 not" in again.stdout
            # Only the months that are not final yet were asked for again.
            started = {date.fromisoformat(given["TimePeriod"]["Start"]) for _, given in fake.asked[billed:]}
            assert started
            assert not [day for day in started if is_final(day, datetime.now(UTC))]
    finally:
        moto.stop()
