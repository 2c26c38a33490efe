"""A Grafana that keeps what it is told, as its HTTP API documents: statuses, versions, read-only parts, hidden secrets."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

Json = dict[str, Any]
Answer = tuple[int, Any]
TOKEN = "glsa_of-the-tests"
SECRET_SETTINGS = ("url", "secret")


@dataclass(frozen=True)
class Asked:
    method: str
    path: str
    headers: dict[str, str]
    body: Any

    @property
    def writes(self) -> bool:
        return self.method != "GET"


def problem(code: int, message: str, **more: str) -> Answer:
    return code, {"message": message, **more}


@dataclass
class StandIn:
    role: str = "Admin"
    folders: dict[str, Json] = field(default_factory=dict)
    datasources: dict[str, Json] = field(default_factory=dict)
    dashboards: dict[str, Json] = field(default_factory=dict)
    groups: dict[tuple[str, str], Json] = field(default_factory=dict)
    contacts: dict[str, Json] = field(default_factory=dict)
    policy: Json = field(default_factory=lambda: {"receiver": "grafana-default-email", "group_by": ["alertname"]})
    provenance: str = ""
    asked: list[Asked] = field(default_factory=list)
    failing: dict[str, list[Answer]] = field(default_factory=dict)
    """Path → answers to give first."""
    meanwhile: Callable[[Asked], None] = lambda _: None
    """Called before each write, as somebody else who works there."""
    url: str = ""

    def writes(self) -> list[Asked]:
        return [asked for asked in self.asked if asked.writes]

    def answer(self, asked: Asked) -> Answer:
        self.asked.append(asked)
        if asked.headers.get("authorization") != f"Bearer {TOKEN}":
            return problem(401, "Invalid API key")
        if asked.writes and self.role != "Admin":
            return problem(
                403, "You'll need additional permissions to perform this action. Permissions needed: x:write"
            )
        if self.failing.get(asked.path):
            return self.failing[asked.path].pop(0)
        if asked.writes:
            self.meanwhile(asked)
        for pattern, handler in self._routes().items():
            method, path = pattern.split(" ")
            match = re.fullmatch(path, asked.path)
            if match and method == asked.method:
                return handler(*(unquote(part) for part in match.groups()), asked=asked)
        return problem(404, "Not found")

    def _routes(self) -> dict[str, Callable[..., Answer]]:
        v1 = "/api/v1/provisioning"
        return {
            "GET /api/folders/([^/]+)": self.get_folder,
            "POST /api/folders": self.post_folder,
            "GET /api/datasources/uid/([^/]+)": self.get_datasource,
            "POST /api/datasources": self.post_datasource,
            "PUT /api/datasources/uid/([^/]+)": self.put_datasource,
            "GET /api/dashboards/uid/([^/]+)": self.get_dashboard,
            "POST /api/dashboards/db": self.post_dashboard,
            f"GET {v1}/folder/([^/]+)/rule-groups/([^/]+)": self.get_group,
            f"PUT {v1}/folder/([^/]+)/rule-groups/([^/]+)": self.put_group,
            f"GET {v1}/contact-points": self.get_contacts,
            f"POST {v1}/contact-points": self.post_contact,
            f"PUT {v1}/contact-points/([^/]+)": self.put_contact,
            f"GET {v1}/policies": self.get_policy,
            f"PUT {v1}/policies": self.put_policy,
        }

    def get_folder(self, uid: str, asked: Asked) -> Answer:
        return (200, self.folders[uid]) if uid in self.folders else problem(404, "folder not found")

    def post_folder(self, asked: Asked) -> Answer:
        if asked.body["uid"] in self.folders:
            return problem(409, "a folder with the same UID already exists")
        if asked.body["title"] in [folder["title"] for folder in self.folders.values()]:
            return problem(
                412, "a folder with the same name already exists in the current location", status="name-exists"
            )
        self.folders[asked.body["uid"]] = asked.body
        return 200, asked.body

    def get_datasource(self, uid: str, asked: Asked) -> Answer:
        if uid not in self.datasources:
            return problem(404, "Data source not found")
        there = self.datasources[uid]
        shown = {key: value for key, value in there.items() if key != "secureJsonData"}
        return 200, shown | {"secureJsonFields": dict.fromkeys(there.get("secureJsonData", {}), True)}

    def post_datasource(self, asked: Asked) -> Answer:
        if asked.body["name"] in [source["name"] for source in self.datasources.values()]:
            return problem(409, "data source with the same name already exists")
        self.datasources[asked.body["uid"]] = asked.body | {"version": 1}
        return 200, {"message": "Datasource added"}

    def put_datasource(self, uid: str, asked: Asked) -> Answer:
        there = self.datasources[uid]
        if there.get("readOnly"):
            return problem(403, "Cannot update read-only data source")
        if asked.body["version"] != there["version"]:
            return problem(409, "Datasource has already been updated by someone else. Please reload and try again")
        self.datasources[uid] = asked.body | {"version": there["version"] + 1}
        return 200, {"message": "Datasource updated"}

    def get_dashboard(self, uid: str, asked: Asked) -> Answer:
        if uid not in self.dashboards:
            return problem(404, "Dashboard not found")
        return 200, self.dashboards[uid]

    def post_dashboard(self, asked: Asked) -> Answer:
        wanted, folder = asked.body["dashboard"], asked.body["folderUid"]
        there = self.dashboards.get(wanted["uid"])
        if folder not in self.folders:
            return problem(404, "folder not found")
        if there and there["meta"].get("provisioned"):
            return problem(400, "Cannot save provisioned dashboard")
        version = there["dashboard"]["version"] if there else 0
        if version != wanted["version"] and not asked.body["overwrite"]:
            return problem(412, "The dashboard has been changed by someone else", status="version-mismatch")
        kept = wanted | {"id": wanted["id"] or 100 + len(self.dashboards), "version": version + 1}
        kept["panels"] = [{"pluginVersion": "13.1.0", **panel} for panel in kept["panels"]]
        self.dashboards[wanted["uid"]] = {"dashboard": kept, "meta": {"folderUid": folder, "canSave": True}}
        return 200, {"status": "success", "uid": wanted["uid"], "version": version + 1}

    def get_group(self, folder: str, name: str, asked: Asked) -> Answer:
        found = self.groups.get((folder, name))
        return (200, found) if found else problem(404, "rule group not found")

    def put_group(self, folder: str, name: str, asked: Asked) -> Answer:
        if folder not in self.folders:
            return problem(404, "folder does not exist")
        for rule in asked.body["rules"]:
            unknown = {part["datasourceUid"] for part in rule["data"]} - {*self.datasources, "__expr__"}
            if unknown:
                return problem(400, f"invalid alert rule: data source {unknown} not found")
        kept = [rule | {"id": at, "updated": "2026-11-25T12:00:00Z"} for at, rule in enumerate(asked.body["rules"])]
        self.groups[folder, name] = asked.body | {"rules": kept}
        return 200, self.groups[folder, name]

    def get_contacts(self, asked: Asked) -> Answer:
        return 200, [contact | {"settings": redacted(contact["settings"])} for contact in self.contacts.values()]

    def post_contact(self, asked: Asked) -> Answer:
        if asked.body["uid"] in self.contacts:
            return problem(409, "contact point with this uid exists")
        return self._contact(asked.body)

    def put_contact(self, uid: str, asked: Asked) -> Answer:
        return self._contact(asked.body) if uid in self.contacts else problem(404, "contact point not found")

    def _contact(self, body: Json) -> Answer:
        address = body["settings"].get("url", "https://")
        if not address.startswith("https://"):
            return problem(400, f'invalid contact point: url "{address}" is not valid')
        self.contacts[body["uid"]] = body
        return 202, body

    def get_policy(self, asked: Asked) -> Answer:
        return 200, self.policy | ({"provenance": self.provenance} if self.provenance else {})

    def put_policy(self, asked: Asked) -> Answer:
        own = "" if asked.headers.get("x-disable-provenance") else "api"
        if self.provenance and own != self.provenance:
            return problem(409, f"cannot change provenance from '{self.provenance}' to '{own}'")
        names = {contact["name"] for contact in self.contacts.values()} | {"grafana-default-email", "theirs"}
        missing = {route["receiver"] for route in asked.body.get("routes", [])} - names
        if missing:
            return problem(400, f"invalid object specification: receiver {missing} does not exist")
        self.policy, self.provenance = asked.body, own
        return 202, {"message": "policies updated"}


def redacted(settings: Any) -> Any:
    if not isinstance(settings, dict):
        return settings
    return {key: "[REDACTED]" if key in SECRET_SETTINGS else redacted(value) for key, value in settings.items()}


@contextmanager
def served(stand_in: StandIn) -> Iterator[StandIn]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def serve(self) -> None:
            data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            asked = Asked(self.command, self.path, headers, json.loads(data) if data else None)
            status, found = stand_in.answer(asked)
            raw = found if isinstance(found, bytes) else json.dumps(found).encode()
            self.send_response(status)
            if status in (301, 302):
                self.send_header("Location", "/login")
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        do_GET = do_POST = do_PUT = serve

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    stand_in.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield stand_in
    finally:
        server.shutdown()
        server.server_close()
