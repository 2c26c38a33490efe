"""Limits count together in Redis, and go on counting when it is gone."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from app.adapters.redislimits import RedisLimits
from app.adapters.rq import private_url
from app.backends import open_for_web
from app.config import read_settings
from app.errors import CannotStart, Unavailable
from app.limits import MOST_KEPT, REST_SECONDS, FallingBack, MemoryLimits, wait_for
from app.ports import Limits
from app.redisserver import PrivateRedis
from tests.fakes import Down


def test_a_window_ends(tmp_path: Path) -> None:
    limits, at = MemoryLimits(), 1_000_000_020.0
    assert [wait_for(limits, "a", 2, 60, at) for _ in range(4)] == [None, None, 60, 60]
    assert wait_for(limits, "b", 2, 60, at) is None
    assert wait_for(limits, "a", 2, 60, at + 59.5) == 1
    assert wait_for(limits, "a", 2, 60, at + 60) is None


def test_a_flood_of_names_does_not_forget_who_was_counted_last() -> None:
    limits = MemoryLimits()
    for n in range(MOST_KEPT):
        limits.count(str(n), 1, 60)
    assert limits.count(str(MOST_KEPT - 1), 1, 60) == 2
    assert limits.count("another", 1, 60) == 1
    assert len(limits._counts) == MOST_KEPT


def test_a_counter_that_does_not_answer_is_left_alone_for_a_while() -> None:
    asked, now = [], [100.0]

    class Counting:
        def count(self, key: str, window: int, seconds: int) -> int:
            asked.append(key)
            raise Unavailable("queue", "gone")

    limits = FallingBack(Counting(), MemoryLimits(), ticks=lambda: now[0])
    assert [limits.count("a", 1, 60) for _ in range(5)] == [1, 2, 3, 4, 5]
    assert len(asked) == 1
    now[0] += REST_SECONDS
    limits.count("a", 1, 60)
    assert len(asked) == 2


def test_down_is_no_error() -> None:
    limits: Limits = FallingBack(Down("queue"), MemoryLimits())
    assert wait_for(limits, "a", 1, 60, 0) is None


def test_processes_count_together_and_survive_redis(tmp_path: Path) -> None:
    server = PrivateRedis(tmp_path)
    server.start()
    try:
        one, two = (FallingBack(RedisLimits(private_url(tmp_path)), MemoryLimits()) for _ in range(2))
        window = int(time.time() // 60)
        assert [limits.count("a", window, 60) for limits in (one, two, one, two)] == [1, 2, 3, 4]
        alone = RedisLimits(private_url(tmp_path))
        [name] = alone._client.keys("spendscope:limit:*")
        assert 0 < alone._client.ttl(name) <= 61
        assert name.split(b":")[2] != b"a"
    finally:
        server.stop()
    assert one.count("a", window, 60) == 1
    assert one.count("a", window, 60) == 2


def test_no_url_at_all_is_refused() -> None:
    with pytest.raises(CannotStart, match="REDIS_URL"):
        RedisLimits("nonsense")


def test_the_web_process_counts_with_all_others(tmp_path: Path) -> None:
    """Not each for itself: N processes would allow N times as much."""
    opened = open_for_web(read_settings({}, data_dir=tmp_path))
    assert isinstance(opened.limits, FallingBack)
    assert opened.identities is None
    opened.metadata.close()
