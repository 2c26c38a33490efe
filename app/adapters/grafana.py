"""ports.Dashboards on Grafana's HTTP API (11 to 13): reads first, and writes only what differs.

What is written stays editable in Grafana (`X-Disable-Provenance`); the next push puts it back.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote

import urllib3
from urllib3.exceptions import HTTPError

from app.errors import BadCredentials, Conflict, SpendscopeError, Unavailable
from app.ports import Pushed

PART: Final = "grafana"
Json = dict[str, Any]
PROVISIONING: Final = "/api/v1/provisioning"
EDITABLE: Final = {"X-Disable-Provenance": "true"}
MOST_WORDS: Final = 300
"""Characters of Grafana's own message that are passed on."""


class Grafana:
    def __init__(self, *, url: str, token: str, seconds: float = 30.0) -> None:
        self.url = url.rstrip("/")
        self._token = token
        self._pool = urllib3.PoolManager(
            timeout=urllib3.Timeout(connect=5.0, read=seconds),
            retries=urllib3.Retry(
                total=2,
                redirect=0,
                status_forcelist=(429, 502, 503, 504),
                allowed_methods=("GET", "PUT"),
                backoff_factor=0.3,
                backoff_max=10.0,
                raise_on_redirect=False,
                raise_on_status=False,
            ),
        )

    def folder(self, uid: str, title: str) -> Pushed:
        if self._found(f"/api/folders/{_part(uid)}") is not None:
            return "unchanged"
        self._write("POST", "/api/folders", {"uid": uid, "title": title})
        return "created"

    def has_datasource(self, uid: str) -> bool:
        return self._found(f"/api/datasources/uid/{_part(uid)}") is not None

    def datasource(self, document: Json) -> Pushed:
        """A token cannot be read back and compared, so an existing source is always written; one from a file is kept."""
        path = f"/api/datasources/uid/{_part(document['uid'])}"
        there = self._found(path)
        if there is None:
            self._write("POST", "/api/datasources", document)
            return "created"
        if there.get("readOnly"):
            return "kept"
        self._write("PUT", path, document | {"version": there.get("version", 0)})
        return "updated"

    def dashboard(self, folder: str, document: Json) -> Pushed:
        there = self._found(f"/api/dashboards/uid/{_part(document['uid'])}")
        said = {key: value for key, value in document.items() if key != "id"}
        if there and holds(there["dashboard"], said) and there["meta"].get("folderUid", folder) == folder:
            return "unchanged"
        version = there["dashboard"].get("version", 0) if there else 0
        wanted = document | {"id": there["dashboard"].get("id") if there else None, "version": version}
        self._write(
            "POST",
            "/api/dashboards/db",
            {"dashboard": wanted, "folderUid": folder, "overwrite": False, "message": "spendscope grafana push"},
        )
        return "updated" if there else "created"

    def rule_group(self, folder: str, body: Json) -> Pushed:
        path = f"{PROVISIONING}/folder/{_part(folder)}/rule-groups/{_part(body['title'])}"
        there = self._found(path)
        if there and holds(there, body):
            return "unchanged"
        self._write("PUT", path, body, EDITABLE)
        return "updated" if there else "created"

    def contact_point(self, receiver: Json) -> Pushed:
        """Its secrets cannot be read back and compared, so an existing one is always written."""
        known = self._answer("GET", f"{PROVISIONING}/contact-points")
        if any(point.get("uid") == receiver["uid"] for point in known or ()):
            self._write("PUT", f"{PROVISIONING}/contact-points/{_part(receiver['uid'])}", receiver, EDITABLE)
            return "updated"
        self._write("POST", f"{PROVISIONING}/contact-points", receiver, EDITABLE)
        return "created"

    def route(self, route: Json) -> Pushed:
        """One branch of the notification policy, known by its matchers; every other branch stays as it is."""
        tree = self._answer("GET", f"{PROVISIONING}/policies")
        provenance = tree.pop("provenance", "")
        if provenance == "file":
            raise Conflict(
                "The notification policy of this Grafana is provisioned from a file and cannot be changed from here. "
                "Add the route of grafana/notifications/policy.yaml to that file."
            )
        others = [branch for branch in tree.get("routes") or () if not _matches_alike(branch, route)]
        ours = [branch for branch in tree.get("routes") or () if _matches_alike(branch, route)]
        if len(ours) == 1 and holds(ours[0], route):
            return "unchanged"
        # First, so that no broader branch takes Spendscope's alerts before it is asked.
        wanted = tree | {"routes": [route, *others]}
        self._write("PUT", f"{PROVISIONING}/policies", wanted, {} if provenance else EDITABLE)
        return "updated" if ours else "created"

    def _found(self, path: str) -> Json | None:
        """The document at a path; None when there is none."""
        found: Json | None = self._answer("GET", path, missing=True)
        return found

    def _write(self, method: str, path: str, body: Json, headers: Mapping[str, str] | None = None) -> None:
        self._answer(method, path, body=body, headers=headers)

    def _answer(
        self,
        method: str,
        path: str,
        *,
        body: Json | None = None,
        headers: Mapping[str, str] | None = None,
        missing: bool = False,
    ) -> Any:
        sent = {"Authorization": f"Bearer {self._token}", "Accept": "application/json", **(headers or {})}
        if body is not None:
            sent["Content-Type"] = "application/json"
        data = None if body is None else json.dumps(body).encode()
        try:
            answer = self._pool.request(method, self.url + path, body=data, headers=sent)
        except HTTPError as error:
            raise Unavailable(PART, f"Grafana at {self.url} does not answer ({_reason(error)}).") from None
        if missing and answer.status == 404 and _is_json(answer.data):
            return None
        if answer.status not in (200, 201, 202):
            raise self._problem(method, path, answer.status, answer.data, _secrets(body))
        return self._parsed(answer.data)

    def _parsed(self, data: bytes) -> Any:
        try:
            return json.loads(data) if data else None
        except ValueError:
            raise Conflict(f"{self.url} does not answer as Grafana does. Correct GRAFANA_URL.") from None

    def _problem(self, method: str, path: str, status: int, data: bytes, secrets: Sequence[str]) -> SpendscopeError:
        words = _words(data)
        for secret in (self._token, *secrets):
            words = words.replace(secret, "…")
        said = f"Grafana answers {status} to {method} {path}: {words}"
        if status == 401:
            return BadCredentials(PART, f"Grafana at {self.url} does not accept GRAFANA_TOKEN ({words}).")
        if status == 403:
            return BadCredentials(PART, f"{said} Give the service account of GRAFANA_TOKEN the role Admin.")
        if status in (409, 412):
            return Conflict(f"{said} Somebody else changed it, or uses its name; look, and push again.")
        if status == 404 or 300 <= status < 400:
            return Conflict(f"{said} Is GRAFANA_URL ({self.url}) right?")
        if status == 429 or status >= 500:
            return Unavailable(PART, said)
        return Conflict(said)


def holds(there: Any, wanted: Any) -> bool:
    """Whether what Grafana has says all that is wanted; what it adds to it (versions, defaults) does not count."""
    if isinstance(wanted, Mapping):
        return isinstance(there, Mapping) and all(holds(there.get(key), value) for key, value in wanted.items())
    if isinstance(wanted, list):
        if not isinstance(there, list) or len(there) != len(wanted):
            return False
        return all(holds(*pair) for pair in zip(there, wanted, strict=True))
    return bool(there == wanted)


def _matches_alike(branch: Json, route: Json) -> bool:
    same: bool = branch.get("object_matchers") == route["object_matchers"]
    return same


def _part(text: str) -> str:
    return quote(text, safe="")


def _is_json(data: bytes) -> bool:
    try:
        return isinstance(json.loads(data), dict)
    except ValueError:
        return False


def _words(data: bytes) -> str:
    """Grafana's message in one line, ended by a full stop."""
    try:
        found = json.loads(data)
        words = str(found.get("message") or found.get("error") or "no reason given")
    except (ValueError, AttributeError):
        words = "no reason given"
    return " ".join(words.split())[:MOST_WORDS].rstrip(".") + "."


def _reason(error: HTTPError) -> str:
    return type(getattr(error, "reason", None) or error).__name__


def _secrets(body: Any) -> list[str]:
    """Texts in what was sent that a message must not repeat: addresses and keys of receivers and data sources."""
    if isinstance(body, Mapping):
        return [
            text
            for key, value in body.items()
            for text in ([value] if key in SECRET_KEYS and isinstance(value, str) and value else _secrets(value))
        ]
    return [text for value in body for text in _secrets(value)] if isinstance(body, list) else []


SECRET_KEYS: Final = ("url", "token", "secret")
