"""Every setting: typed, defaulted, one sentence each; read once. docs/settings.md and .env.example are checked against it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from decimal import Decimal
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator
from pydantic_core import ErrorDetails

from app.core.signon import grants_from
from app.errors import CannotStart, InvalidInput

WEB_ADDRESS = r"^https?://[^\s?#@]+$"
"""Without a user and a password in it: addresses are shown in messages."""


def is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


class Settings(BaseModel):
    """Leaving REDIS_URL, MONGODB_URI, INFLUXDB_URL or SPENDSCOPE_SOURCE unset means the embedded part."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str = Field(
        "",
        description="Where cost files arrive: `s3://bucket/costs/` or `file:///dir/costs/`. Unset: the sample organisation.",
    )
    events_queue: str = Field(
        "",
        description="URL of an SQS queue with the bucket's event notifications, to hear of files within seconds.",
    )
    data_dir: Path = Field(Path("data"), description="Directory of everything the embedded parts keep.")
    retention_days: int | None = Field(
        None,
        ge=0,
        le=36_500,
        description="Days the cost store keeps; 0 for ever. Default: 180 with InfluxDB, 0 embedded.",
    )
    currency: str = Field("USD", description="The one currency of this deployment (ISO 4217).")
    settling_days: int = Field(2, ge=0, le=31, description="Full UTC days after a day until it counts as complete.")
    restatement_notice_percent: Decimal = Field(
        Decimal(1),
        ge=0,
        description="A complete day that is restated raises a notice when it moves by this many percent"
        " and by the amount below.",
    )
    restatement_notice_amount: Decimal = Field(
        Decimal(10),
        ge=0,
        description="Least move of a complete day, in the deployment's currency, that raises a notice.",
    )
    anomaly_min_daily: Decimal | None = Field(
        None, ge=0, description="Excess on one day that is worth an alert; unset: 0.2 % of a usual day, at least 5."
    )
    anomaly_min_total: Decimal | None = Field(
        None, ge=0, description="Excess that an anomaly must be worth in all; unset: 1 % of a usual day, at least 25."
    )
    watch_seconds: int = Field(300, ge=5, le=604_800, description="How often the scheduler lists the source.")
    collect_roles: str = Field(
        "",
        description="Role ARNs of the payers to collect from, separated by commas; unset: the credentials there are.",
    )
    collect_external_id: SecretStr | None = Field(
        None,
        description="External id these roles ask for (`SPENDSCOPE_COLLECT_EXTERNAL_ID_FILE` for a mounted secret).",
    )
    collect_trailing_days: int = Field(3, ge=1, le=62, description="Days before today that each collection rewrites.")
    collect_close_day: int = Field(
        16, ge=1, le=28, description="Day of the month up to which each collection rewrites the previous month too."
    )
    host: str = Field(
        "127.0.0.1",
        description="Address the web server listens on; beyond loopback only where people can sign in (docs/access.md).",
    )
    port: int = Field(8050, ge=0, le=65535, description="Port of the web server.")
    demo: bool | None = Field(None, description="Serve the sample organisation. Default: yes when no source is set.")
    demo_days: int = Field(400, ge=30, le=1500, description="Days of history of the sample organisation.")
    demo_seed: int = Field(7, ge=0, description="Seed of the sample organisation.")
    workers: int = Field(2, ge=1, le=64, description="Worker processes that `up` starts.")
    web_processes: int = Field(2, ge=1, le=64, description="Processes of the web server.")
    web_threads: int = Field(4, ge=1, le=128, description="Threads of each web process.")
    leave_seconds: float = Field(
        0.0,
        ge=0,
        le=60,
        description="After SIGTERM, how long a web server goes on serving while `/readyz` says 503: what balances the "
        "load notices in that time.",
    )
    max_file_bytes: int = Field(256 * 2**20, ge=1024, description="Most bytes of a cost file, after decompression.")
    max_file_rows: int = Field(2_000_000, ge=1, description="Most rows of a cost file.")
    max_series: int = Field(200_000, ge=1, description="Most distinct values of one text column of a cost file.")
    job_timeout_seconds: int = Field(900, ge=10, le=604_800, description="Longest run of one job before it is stopped.")
    job_attempts: int = Field(5, ge=1, le=20, description="How often a job is tried before it has failed.")
    lease_seconds: float = Field(
        12.0, gt=0, description="How long a worker's silence is believed before its job starts again."
    )
    keep_jobs_days: int = Field(30, ge=1, le=36_500, description="Days that finished jobs stay listed.")
    cache_megabytes: int = Field(32, ge=0, description="Memory of a web process for finished answers.")
    secret_key: SecretStr | None = Field(
        None,
        description="Signs forms, at least 32 random characters; unset: made in the data directory. Beyond one machine "
        "it must be set (`SPENDSCOPE_SECRET_KEY_FILE` for a mounted secret).",
    )
    proxies: int = Field(
        0, ge=0, le=5, description="Proxies in front whose X-Forwarded-For is believed; 0: it is ignored."
    )
    oidc_issuer: str = Field(
        "",
        description="Issuer of the identity provider for single sign-on (docs/sso.md), exactly as it names itself; unset: "
        "none.",
    )
    oidc_client_id: str = Field("", description="Client id that the identity provider gave Spendscope.")
    oidc_client_secret: SecretStr | None = Field(
        None,
        description="Its client secret (`SPENDSCOPE_OIDC_CLIENT_SECRET_FILE` for a mounted secret); unset: a public client.",
    )
    oidc_scopes: str = Field("openid profile email", description="Scopes that are asked for.")
    oidc_groups_claim: str = Field(
        "groups", description="Claims of the ID token that hold a person's groups, separated by commas."
    )
    oidc_roles: str = Field(
        "",
        description="What a group gives: `group=role` or `group=role account account`, separated by `;` or line breaks "
        "(`SPENDSCOPE_OIDC_ROLES_FILE` for a file). Who is in none of them is not let in.",
    )
    oidc_token_days: int = Field(
        0,
        ge=0,
        description="Days after a person's last sign-in through the identity provider for which that person's API tokens go "
        "on working; 0: until they expire.",
    )
    oidc_name: str = Field("single sign-on", max_length=60, description="What the sign-in page calls it.")
    local_login: bool = Field(
        True, description="Whether users with a password here may sign in; `false` leaves single sign-on only."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least severe messages to log.")
    log_format: Literal["text", "json"] = Field("text", description="`json` for one object a line.")

    redis_url: SecretStr | None = Field(
        None,
        json_schema_extra={"env": "REDIS_URL"},
        description="Redis of the queue; unset: a private one. Needs appendonly yes and maxmemory-policy noeviction.",
    )
    redis_persistence: Literal["own", "service"] = Field(
        "own",
        description="`own`: REDIS_URL must have appendonly yes. `service`: a managed engine without it (ElastiCache); what it "
        "loses is queued again from the job records within seconds.",
    )
    mongodb_uri: SecretStr | None = Field(
        None,
        json_schema_extra={"env": "MONGODB_URI"},
        description="MongoDB of the metadata; unset: SQLite in the data directory.",
    )
    mongodb_database: str = Field(
        "spendscope", json_schema_extra={"env": "MONGODB_DATABASE"}, description="Database when MONGODB_URI names none."
    )
    influxdb_url: str | None = Field(
        None,
        json_schema_extra={"env": "INFLUXDB_URL"},
        description="InfluxDB 2 of the cost series; unset: Parquet files in the data directory.",
    )
    influxdb_token: SecretStr | None = Field(
        None,
        json_schema_extra={"env": "INFLUXDB_TOKEN"},
        description="Token with read and write on the bucket (`INFLUXDB_TOKEN_FILE` for a mounted secret).",
    )
    influxdb_org: str = Field(
        "spendscope", json_schema_extra={"env": "INFLUXDB_ORG"}, description="Organisation of the bucket."
    )
    influxdb_bucket: str = Field(
        "cost_data", json_schema_extra={"env": "INFLUXDB_BUCKET"}, description="Bucket of the cost series."
    )
    aws_endpoint_url: str | None = Field(
        None,
        json_schema_extra={"env": "AWS_ENDPOINT_URL"},
        description="Another S3 endpoint; the other AWS_* variables are read by boto3 itself.",
    )

    public_url: str = Field(
        "http://127.0.0.1:8050",
        pattern=WEB_ADDRESS,
        description="Where a browser reaches Spendscope: what links in Grafana and in messages lead to.",
    )
    grafana_url: str | None = Field(
        None,
        pattern=WEB_ADDRESS,
        json_schema_extra={"env": "GRAFANA_URL"},
        description="Grafana that `spendscope grafana push` writes to.",
    )
    grafana_token: SecretStr | None = Field(
        None,
        json_schema_extra={"env": "GRAFANA_TOKEN"},
        description="Token of a Grafana service account with the role Admin (`GRAFANA_TOKEN_FILE` for a mounted secret).",
    )
    grafana_influxdb_url: str | None = Field(
        None,
        pattern=WEB_ADDRESS,
        json_schema_extra={"env": "GRAFANA_INFLUXDB_URL"},
        description="InfluxDB as Grafana reaches it; unset: as INFLUXDB_URL.",
    )
    grafana_influxdb_token: SecretStr | None = Field(
        None,
        json_schema_extra={"env": "GRAFANA_INFLUXDB_TOKEN"},
        description="Token for Grafana that may only read the bucket: viewers of Grafana can use all that it may.",
    )
    prometheus_url: str | None = Field(
        None,
        pattern=WEB_ADDRESS,
        json_schema_extra={"env": "PROMETHEUS_URL"},
        description="Prometheus that scrapes /metrics, as Grafana reaches it.",
    )
    alert_slack_url: SecretStr | None = Field(None, description="Slack incoming webhook of Grafana's contact point.")
    alert_teams_url: SecretStr | None = Field(
        None, description="Microsoft Teams Workflows URL of Grafana's contact point."
    )
    alert_webhook_url: str | None = Field(None, description="Where Grafana's contact point posts alerts as JSON.")
    alert_webhook_secret: SecretStr | None = Field(
        None, description="Grafana signs those posts with it (HMAC-SHA256); unset: not signed."
    )
    alert_emails: str | None = Field(None, description="Addresses of Grafana's contact point, separated by semicolons.")
    alert_back_url: str | None = Field(
        None,
        pattern=WEB_ADDRESS,
        description="Spendscope's own `/api/v1/alerts/grafana` as Grafana reaches it: its alerts are shown on the Anomalies page.",
    )
    alert_back_token: SecretStr | None = Field(
        None, description="API token of scope `alerts` that Grafana sends there."
    )

    channels_file: Path | None = Field(
        None, description="TOML file of the channels that notifications go to (docs/notifications.md)."
    )
    webhook_hosts: str = Field(
        "",
        description="Hosts of channels that may be internal or use another port than 443: `chat.corp,gw.corp:8443`.",
    )
    stale_days: int = Field(
        3, ge=1, le=60, description="Days since the newest day with cost after which data is called stale."
    )

    @field_validator("currency")
    @classmethod
    def _currency_is_a_code(cls, value: str) -> str:
        if not re.fullmatch(r"[A-Z]{3}", value):
            raise ValueError("write it as three capital letters (ISO 4217), for example EUR")
        return value

    @field_validator("webhook_hosts")
    @classmethod
    def _webhook_hosts_are_names(cls, value: str) -> str:
        for part in filter(None, (part.strip() for part in value.split(","))):
            if not re.fullmatch(r"[A-Za-z0-9._-]+(:[0-9]{1,5})?", part):
                raise ValueError(f"{part[:60]!r} is not a host like chat.corp or gw.corp:8443")
        return value

    @property
    def allowed_hosts(self) -> frozenset[tuple[str, int]]:
        """Names and ports of `webhook_hosts`."""
        parts = (part.strip().lower().partition(":") for part in self.webhook_hosts.split(",") if part.strip())
        return frozenset((name, int(port or 443)) for name, _, port in parts)

    @field_validator("oidc_issuer")
    @classmethod
    def _issuer_is_safe(cls, value: str) -> str:
        if not value:
            return value
        if not re.fullmatch(WEB_ADDRESS, value):
            raise ValueError("write it as https://login.example.org/realms/main, without a user, a query or a fragment")
        if not value.startswith("https://") and not is_loopback(urlsplit(value).hostname or ""):
            raise ValueError("only https:// beyond loopback: whoever is between could be anybody otherwise")
        return value

    @field_validator("oidc_roles")
    @classmethod
    def _roles_are_understood(cls, value: str) -> str:
        try:
            grants_from(value)
        except InvalidInput as error:
            raise ValueError(error.message) from None
        return value

    @field_validator("source")
    @classmethod
    def _source_is_known(cls, value: str) -> str:
        if value and not value.startswith(("s3://", "file:///")):
            raise ValueError("write it as s3://bucket/costs/ or file:///dir/costs/")
        return value if not value or value.endswith("/") else value + "/"

    @field_validator("events_queue")
    @classmethod
    def _events_queue_is_a_url(cls, value: str) -> str:
        if value and not re.fullmatch(r"https?://[^/\s]+/\S+", value):
            raise ValueError("write it as https://sqs.eu-west-1.amazonaws.com/123456789012/costs")
        return value

    @property
    def retention(self) -> int:
        """Days the cost store keeps; 0 for ever."""
        if self.retention_days is not None:
            return self.retention_days
        return 180 if self.influxdb_url else 0

    def secrets(self) -> list[str]:
        """The values that must be told nowhere."""
        return [value.get_secret_value() for _, value in self if isinstance(value, SecretStr)]

    @property
    def on_loopback(self) -> bool:
        """Whether only this machine can reach the web server."""
        return is_loopback(self.host)

    @property
    def behind_tls(self) -> bool:
        """Whether browsers reach it by https: here or at a proxy, PUBLIC_URL says so."""
        return self.public_url.startswith("https://")

    @property
    def serves_demo(self) -> bool:
        return self.demo if self.demo is not None else not self.source


NUMBERS: Final = (int, int | None, float, Decimal, bool, bool | None)


def environment_name(name: str) -> str:
    """The environment variable of a field."""
    extra = Settings.model_fields[name].json_schema_extra
    return str(extra["env"]) if isinstance(extra, dict) else f"SPENDSCOPE_{name.upper()}"


def read_settings(environment: Mapping[str, str] | None = None, **overrides: Any) -> Settings:
    """Settings from the environment, options over it; `NAME_FILE` names a file that holds NAME's value.

    Raises CannotStart with every wrong value at once, never with the value of a secret.
    """
    given = dict(os.environ if environment is None else environment)
    values: dict[str, Any] = {}
    for name in Settings.model_fields:
        variable = environment_name(name)
        if path := given.get(f"{variable}_FILE"):
            values[name] = _file_value(variable, path)
        elif given.get(variable):
            values[name] = given[variable]
    values |= {name: value for name, value in overrides.items() if value is not None}
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        raise CannotStart("; ".join(_wrong(found) for found in error.errors())) from None


FORMS: Final = {
    "int_parsing": "must be a whole number, written in digits",
    "decimal_parsing": "must be a number, written in digits",
    "float_parsing": "must be a number, written in digits",
    "bool_parsing": "must be true or false",
}
"""What a value must look like, by pydantic's name of the error."""


def _wrong(found: ErrorDetails) -> str:
    """The variable, its value where it cannot hold a secret (a text may: an address with a password), and why."""
    name = str(found["loc"][0])
    annotation = Settings.model_fields[name].annotation
    shown = f" {str(found['input'])[:40]!r}" if annotation in NUMBERS else ""
    said = FORMS.get(found["type"]) or found["msg"].removeprefix("Value error, ")
    return f"{environment_name(name)}{shown}: {said.replace('Input should be', 'must be')}"


def _file_value(variable: str, path: str) -> str:
    try:
        return Path(path).read_text("utf-8").strip()
    except OSError as error:
        raise CannotStart(f"{variable}_FILE: {path} cannot be read ({error.strerror})") from None
