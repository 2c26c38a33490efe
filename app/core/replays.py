"""A replay of deliveries that may stop after any of them and go on later as if it had not.

What had arrived is in the deliveries, and reading it again costs nothing beside judging it. So what is packed is only
what the detector concluded. A mark says which deliveries, in which order and under which rules, led to it: with any
other history, however little it differs, the mark is another one.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields, replace
from datetime import date
from typing import Any, Final

import numpy as np

from app.core.anomaly import Anomaly, Conclusions, Contribution, Detector, Known
from app.core.anomalyrecords import Finding
from app.core.arrivals import Delivery, SeriesKey
from app.core.incidents import BY_SERIES
from app.core.scopes import Scope

Noted = tuple[date, Anomaly]
DATES: Final = ("start", "date", "detected_on")
PLACES: Final = ("lead", "sign", "start", "found", "through", "about")
COUNTED: Final = ("members", "days", "counted")
PLAIN: Final = tuple(
    field.name for field in fields(Anomaly) if field.name not in ("scope", "contributions", "root_causes", *DATES)
)


class DamagedState(Exception):
    """These bytes are not what a replay was packed into."""


class Replay:
    """A detector, and what each of its incidents read like on each day on which that changed.

    `min_daily` and `min_total` as for the detector, in dollars.
    """

    def __init__(self, *, min_daily: float | None = None, min_total: float | None = None) -> None:
        self.detector = Detector(min_daily=min_daily, min_total=min_total)
        self.resumed = 0
        """How many deliveries were judged by an earlier replay, not by this one."""
        self._noted: list[list[Noted]] = []
        self._newest: list[Anomaly] = []

    def take(self, delivery: Delivery) -> None:
        self.detector.deliver(delivery)
        for place, anomaly in enumerate(self.detector.anomalies):
            if place == len(self._noted):
                self._noted.append([])
                self._newest.append(anomaly)
            elif self._newest[place] is anomaly:
                continue
            self._newest[place] = anomaly
            self._noted[place].append((delivery.day, replace(anomaly, contributions=(), root_causes=())))

    def findings(self) -> list[Finding]:
        """Every incident as it stands, and its figures on each day on which they changed."""
        return [Finding(anomaly, list(noted)) for anomaly, noted in zip(self._newest, self._noted, strict=True)]

    def packed(self) -> bytes:
        """All that `resumed` needs beside the deliveries; equal replays are equal bytes."""
        concluded = self.detector.conclusions
        story = {
            "days": self.detector.arrivals.days,
            "known": [_known_as_json(known) for known in concluded.known],
            "noted": [[(day.isoformat(), _as_json(seen)) for day, seen in noted] for noted in self._noted],
            "silent": sorted(int(code) for code in concluded.silent_accounts),
        }
        arrays: dict[str, Any] = {name: getattr(concluded.incidents, name) for name in BY_SERIES}
        arrays["flagged"] = np.packbits(concluded.incidents.flagged, axis=1)
        arrays["story"] = np.frombuffer(json.dumps(story, separators=(",", ":")).encode(), np.uint8)
        out = io.BytesIO()
        np.savez_compressed(out, allow_pickle=False, **arrays)
        return out.getvalue()

    def resume(self, packed: bytes, deliveries: Sequence[Delivery]) -> None:
        """Be a replay of `deliveries`, of which `packed` was made. To be called first. Raises DamagedState."""
        try:
            concluded, noted, days = _unpacked(packed)
        except (
            KeyError,
            ValueError,
            TypeError,
            IndexError,
            OSError,
            EOFError,
            zlib.error,
            zipfile.BadZipFile,
        ) as error:
            raise DamagedState(f"{type(error).__name__}: {error}") from None
        self.detector.resume(deliveries, concluded)
        arrivals = self.detector.arrivals
        if (arrivals.days, len(arrivals.keys)) != (days, len(concluded.incidents.open)):
            raise DamagedState("it is of other deliveries")
        self.resumed = len(deliveries)
        self._noted = noted
        self._newest = self.detector.anomalies


def marks(start: str, deliveries: Iterable[Delivery]) -> Iterator[str]:
    """After each delivery what stands for it and all before it; `start` stands for the rules and for how they are applied."""
    link = hashlib.sha256(start.encode()).digest()
    keys: Sequence[SeriesKey] = []
    for delivery in deliveries:
        same = delivery.keys[: len(keys)] == keys
        fresh = [(key.account, key.service, key.region) for key in delivery.keys[len(keys) if same else 0 :]]
        keys = delivery.keys
        columns = (delivery.series, delivery.days.astype("datetime64[D]"), delivery.amounts)
        head = json.dumps([delivery.day.isoformat(), same, fresh, [(one.dtype.str, len(one)) for one in columns]])
        digest = hashlib.sha256(link + len(head).to_bytes(8, "little") + head.encode())
        for column in columns:
            digest.update(np.ascontiguousarray(column).view(np.uint8).data)
        link = digest.digest()
        yield f"{delivery.day}-{link.hex()}"


def _unpacked(packed: bytes) -> tuple[Conclusions, list[list[Noted]], int]:
    with np.load(io.BytesIO(packed), allow_pickle=False) as arrays:
        story = json.loads(arrays["story"].tobytes())
        concluded = Conclusions(
            known=[_known_from(one) for one in story["known"]], silent_accounts=set(story["silent"])
        )
        for name in BY_SERIES:
            setattr(concluded.incidents, name, arrays[name])
        days = int(story["days"])
        concluded.incidents.flagged = np.unpackbits(arrays["flagged"], axis=1, count=days).astype(np.bool_)
    noted = [[(date.fromisoformat(day), _anomaly_from(seen)) for day, seen in one] for one in story["noted"]]
    if len(noted) != len(concluded.known):
        raise ValueError(f"{len(noted)} stories of {len(concluded.known)} anomalies")
    return concluded, noted, days


def _as_json(anomaly: Anomaly) -> list[Any]:
    return [
        [getattr(anomaly, name) for name in PLAIN],
        [getattr(anomaly, name).isoformat() for name in DATES],
        _parts(anomaly.scope),
        [(*_parts(part.scope), part.impact) for part in anomaly.contributions],
        [_parts(scope) for scope in anomaly.root_causes],
    ]


def _anomaly_from(found: list[Any]) -> Anomaly:
    plain, dates, scope, contributions, causes = found
    given: dict[str, Any] = dict(zip(PLAIN, plain, strict=True))
    given |= zip(DATES, map(date.fromisoformat, dates), strict=True)
    given["contributions"] = tuple(Contribution(Scope(*parts), impact) for *parts, impact in contributions)
    given["root_causes"] = tuple(Scope(*parts) for parts in causes)
    return Anomaly(scope=Scope(*scope), **given)


def _parts(scope: Scope) -> tuple[str | None, ...]:
    return tuple(value for _, value in scope.parts())


def _known_as_json(known: Known) -> list[Any]:
    places = [int(getattr(known, name)) for name in PLACES]
    sums = [(int(series), float(sum_)) for series, sum_ in known.impacts.items()]
    return [_as_json(known.anomaly), places, sums, *(getattr(known, name).tolist() for name in COUNTED)]


def _known_from(found: list[Any]) -> Known:
    anomaly, places, sums, members, days, counted = found
    return Known(
        _anomaly_from(anomaly),
        **dict(zip(PLACES, places, strict=True)),
        impacts=dict(sums),
        members=np.array(members, np.int64),
        days=np.array(days, np.int64),
        counted=np.array(counted, np.float64),
    )
