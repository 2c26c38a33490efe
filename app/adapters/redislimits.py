"""Counters of app.limits in Redis, so that all web processes count together."""

from __future__ import annotations

import hashlib
from typing import Final

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from app.errors import CannotStart, Unavailable

ANSWER_SECONDS: Final = 0.25
"""A request waits for a count: rather count less well than answer late."""


class RedisLimits:
    """ports.Limits. Keys hold a hash: neither addresses nor names stand in Redis."""

    def __init__(self, url: str) -> None:
        """Raises CannotStart for a URL that is none."""
        try:
            self._client = redis.Redis.from_url(
                url, socket_timeout=ANSWER_SECONDS, socket_connect_timeout=ANSWER_SECONDS, retry=Retry(NoBackoff(), 0)
            )
        except ValueError:
            raise CannotStart("REDIS_URL is not a redis://, rediss:// or unix:// URL.") from None

    def count(self, key: str, window: int, seconds: int) -> int:
        name = f"spendscope:limit:{hashlib.sha256(key.encode()).hexdigest()[:32]}:{window}"
        try:
            with self._client.pipeline(transaction=False) as both:
                both.incr(name)
                both.expire(name, seconds + 1)
                found, _ = both.execute()
        except (redis.RedisError, OSError):
            # Not the error itself: it may quote the address with its password.
            raise Unavailable("queue", "Redis does not count.") from None
        return int(found)
