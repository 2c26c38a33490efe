"""The one place that opens adapters from settings: the composition root of web, worker, scheduler and command line."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from app.channels import Channel, read_channels
from app.config import Settings
from app.errors import CannotStart
from app.limits import FallingBack, MemoryLimits
from app.ports import (
    Announcements,
    CostStore,
    Dashboards,
    IdentityProvider,
    Limits,
    Mail,
    Metadata,
    Queue,
    Source,
    Webhooks,
)

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class Backends:
    """Everything behind the product, opened. Safe to share between the threads of one process, not across a fork."""

    settings: Settings
    source: Source
    costs: CostStore
    metadata: Metadata
    queue: Queue
    clock: Clock = utc_now
    announcements: Announcements | None = None
    """What the source says by itself, where it does; the source is listed all the same."""
    channels: Mapping[str, Channel] = field(default_factory=dict, compare=False)
    """Where notifications go, by name."""
    webhooks: Webhooks | None = None
    mail: Mail | None = None
    identities: IdentityProvider | None = None
    """Who vouches for people, where there is single sign-on."""
    memo: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)
    """What app.costs keeps between requests of one process."""

    limits: Limits = field(default_factory=MemoryLimits)
    scope: str = ""
    """Of whom an answer is for (core.access.Principal.scope): part of the state that every answer depends on."""

    def today(self) -> date:
        return self.clock().date()


def current() -> Backends:
    """The backends of the Flask app that serves this request, as whoever asks may see them (app.gate)."""
    from flask import current_app, g

    backends: Backends = g.get("spendscope_backends") or current_app.extensions["spendscope"]
    return backends


def open_backends(settings: Settings, *, clock: Clock = utc_now) -> Backends:
    """Open the adapter of each part: the production one where a setting names a server, else the embedded one.

    Drivers are imported here and not before, so that a process carries only what it uses.
    """
    return Backends(
        settings=settings,
        source=open_source(settings),
        costs=open_costs(settings, metadata := open_metadata(settings)),
        metadata=metadata,
        queue=open_queue(settings),
        clock=clock,
        announcements=open_announcements(settings),
        channels=read_channels(settings.channels_file),
        webhooks=open_webhooks(settings),
        mail=open_mail(),
    )


def open_for_web(settings: Settings) -> Backends:
    """With what only the web process needs: counters that all processes share, and who vouches for people."""
    return replace(open_backends(settings), limits=open_limits(settings), identities=open_identities(settings))


def sample_source(settings: Settings) -> str:
    """Root of the sample organisation's files."""
    return (settings.data_dir.resolve() / "sample" / "costs").as_uri() + "/"


def store_dir(settings: Settings) -> Path:
    """Where the embedded parts keep what they know; the sample never shares it with real data."""
    root = settings.data_dir.resolve()
    return root / "sample" / "store" if settings.serves_demo else root / "store"


def open_source(settings: Settings) -> Source:
    root = sample_source(settings) if settings.serves_demo else settings.source
    if root.startswith("s3://"):
        from app.adapters.s3 import S3Source

        return S3Source(root, endpoint_url=settings.aws_endpoint_url)
    from app.adapters.folder import FolderSource

    return FolderSource(root)


def open_announcements(settings: Settings) -> Announcements | None:
    if not settings.events_queue or settings.serves_demo:
        return None
    from app.adapters.sqs import SqsAnnouncements

    return SqsAnnouncements(settings.events_queue, settings.source)


def has_ledger(settings: Settings) -> bool:
    """Whether there is one to ask without making it: a machine that only pushes dashboards may have none."""
    return settings.mongodb_uri is not None or (store_dir(settings) / "metadata.sqlite").exists()


def open_metadata(settings: Settings) -> Metadata:
    if settings.mongodb_uri:
        from app.adapters.mongodb import MongoMetadata

        # One thread of a web process stays free for what does not need it.
        most_calls = max(1, settings.web_threads - 1)
        return MongoMetadata(settings.mongodb_uri.get_secret_value(), settings.mongodb_database, most_calls=most_calls)
    from app.adapters.sqlite import SqliteMetadata

    return SqliteMetadata(store_dir(settings) / "metadata.sqlite")


def open_costs(settings: Settings, metadata: Metadata) -> CostStore:
    if settings.influxdb_url:
        from app.adapters.influxdb import InfluxCostStore

        return InfluxCostStore(
            url=settings.influxdb_url,
            token=settings.influxdb_token.get_secret_value() if settings.influxdb_token else "",
            org=settings.influxdb_org,
            bucket=settings.influxdb_bucket,
            retention_days=settings.retention,
            ledger=metadata,
            cache_dir=store_dir(settings) / "influxdb",
        )
    from app.adapters.parquet import ParquetCostStore

    return ParquetCostStore(store_dir(settings) / "costs", retention_days=settings.retention)


def open_queue(settings: Settings) -> Queue:
    from app.adapters.rq import RqQueue, private_url

    url = settings.redis_url.get_secret_value() if settings.redis_url else private_url(settings.data_dir)
    vouched = bool(settings.redis_url) and settings.redis_persistence == "service"
    return RqQueue(url, job_timeout=settings.job_timeout_seconds, kept_by_service=vouched)


def open_webhooks(settings: Settings) -> Webhooks:
    from app.adapters.webhook import Reach, Webhook

    return Webhook(Reach(settings.allowed_hosts))


def open_mail() -> Mail:
    from app.adapters.smtp import Smtp

    return Smtp()


SIGN_ON_CALLBACK = "/login/callback"
"""Where the identity provider sends browsers back to, below SPENDSCOPE_PUBLIC_URL."""


def open_identities(settings: Settings, clock: Clock = utc_now) -> IdentityProvider | None:
    """Single sign-on, where a setting names an identity provider. Raises CannotStart for one that is named in half."""
    if not settings.oidc_issuer:
        if not settings.local_login:
            raise CannotStart(
                "SPENDSCOPE_LOCAL_LOGIN is false and SPENDSCOPE_OIDC_ISSUER is not set: nobody could sign in. Set one."
            )
        return None
    if not settings.oidc_client_id:
        raise CannotStart("SPENDSCOPE_OIDC_ISSUER is set and SPENDSCOPE_OIDC_CLIENT_ID is not. The provider shows it.")
    if not settings.oidc_roles:
        raise CannotStart(
            "SPENDSCOPE_OIDC_ISSUER is set and SPENDSCOPE_OIDC_ROLES is not: nobody could sign in. Say which group gives "
            "which role, for example finops=editor."
        )
    from app.adapters.oidc import Client, Oidc

    home = settings.public_url.rstrip("/")
    secret = settings.oidc_client_secret
    client = Client(
        issuer=settings.oidc_issuer,
        id=settings.oidc_client_id,
        secret=secret.get_secret_value() if secret else None,
        scopes=settings.oidc_scopes,
        groups_claims=tuple(name.strip() for name in settings.oidc_groups_claim.split(",") if name.strip()),
        redirect=home + SIGN_ON_CALLBACK,
        home=home + "/login",
    )
    return Oidc(client, lambda: clock().timestamp())


def open_limits(settings: Settings) -> Limits:
    from app.adapters.redislimits import RedisLimits
    from app.adapters.rq import private_url

    url = settings.redis_url.get_secret_value() if settings.redis_url else private_url(settings.data_dir)
    return FallingBack(RedisLimits(url), MemoryLimits())


def open_dashboards(settings: Settings) -> Dashboards:
    """Grafana. Raises CannotStart when no setting names one."""
    if not settings.grafana_url or settings.grafana_token is None:
        raise CannotStart(
            "Set GRAFANA_URL to the address of Grafana and GRAFANA_TOKEN to a token of a service account there."
        )
    from app.adapters.grafana import Grafana

    return Grafana(url=settings.grafana_url, token=settings.grafana_token.get_secret_value())
