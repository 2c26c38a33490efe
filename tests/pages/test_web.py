"""The web process: what it serves beside the page, and what it never lets out or in."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import brotli
import plotly
import pytest

from app.ui.shell import DESCRIPTION
from app.web import ASSETS, create_app
from tests.memory import memory_backends

ROOT = Path(__file__).parents[2]
ENCODINGS = {"Accept-Encoding": "gzip, deflate, br, zstd"}
MOST_FIRST_PAGE = 1_000_000


def linked(html: str) -> list[str]:
    return re.findall(r'(?:src|href)="([^"]+)"', html)


def bundle() -> Path:
    [found] = ASSETS.glob("plotly-*.min.js")
    return found


def test_the_plotly_bundle_is_the_version_of_the_wheel() -> None:
    wheel = (Path(plotly.__file__).parent / "package_data/plotly.min.js").read_text("utf-8")[:200]
    version = re.search(r"plotly\.js v([\d.]+)", wheel)
    assert version
    assert f"plotly.js v{version[1]} " in bundle().read_text("utf-8")[:200]
    assert json.loads((ROOT / "package.json").read_text())["devDependencies"]["plotly.js"] == version[1]


def test_the_name_of_the_bundle_is_the_hash_of_its_bytes() -> None:
    assert hashlib.sha256(bundle().read_bytes()).hexdigest()[:10] in bundle().name


def test_everything_the_page_loads_is_local_and_there(client: Any) -> None:
    html = client.get("/").get_data(as_text=True)
    for address in linked(html):
        assert address.startswith("/"), address
        assert client.get(address).status_code == 200, address
    styles = (ASSETS / "10-spendscope.css").read_text()
    for address in re.findall(r'url\("([^"]+)"\)', styles):
        assert (ASSETS / address).exists(), address


def test_the_page_describes_itself_once(client: Any) -> None:
    html = client.get("/").get_data(as_text=True)
    assert re.findall(r'<meta name="description" content="([^"]*)', html) == [DESCRIPTION]


def test_the_first_page_is_small(client: Any) -> None:
    html = client.get("/", headers=ENCODINGS)
    total = len(html.data)
    chunks = [f"/_dash-component-suites/dash/dcc/async-{name}.js" for name in ("graph", "dropdown", "datepicker")]
    for address in [
        *linked(
            html.get_data(as_text=True)
            if not html.headers.get("Content-Encoding")
            else client.get("/").get_data(as_text=True)
        ),
        *chunks,
    ]:
        total += len(client.get(address, headers=ENCODINGS).data)
    assert total < MOST_FIRST_PAGE, total


def test_assets_may_be_kept_for_a_year_and_their_address_changes_with_them(client: Any) -> None:
    found = [address for address in linked(client.get("/").get_data(as_text=True)) if address.startswith("/assets/")]
    assert len(found) >= 5
    for address in found:
        assert "?m=" in address
        assert "max-age=31536000" in client.get(address).headers["Cache-Control"]


def test_assets_are_compressed_and_decompress_to_the_file(client: Any) -> None:
    for _ in range(2):
        answer = client.get(f"/assets/{bundle().name}", headers=ENCODINGS)
        assert answer.headers["Content-Encoding"] == "br"
        assert brotli.decompress(answer.data) == bundle().read_bytes()
        assert len(answer.data) < 400_000
    again = client.get(f"/assets/{bundle().name}", headers={**ENCODINGS, "If-None-Match": answer.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")
    plain = client.get(f"/assets/{bundle().name}")
    assert plain.headers["ETag"] != answer.headers["ETag"]
    assert plain.data == bundle().read_bytes()
    again = client.get(f"/assets/{bundle().name}", headers={"If-None-Match": plain.headers["ETag"]})
    again.close()
    assert again.status_code == 304


def test_the_page_may_load_from_itself_only(client: Any) -> None:
    policy = client.get("/").headers["Content-Security-Policy"]
    assert "default-src 'self'" in policy
    assert "unsafe-eval" not in policy
    assert re.search(r"script-src 'self' ('sha256-[^']+' ?)+;", policy)


@pytest.mark.parametrize("path", ["/healthz", "/api/v1/openapi.json"])
def test_paths_of_the_api_are_not_answered_by_the_page(client: Any, path: str) -> None:
    assert "text/html" not in client.get(path).content_type


def test_unknown_api_paths_are_a_problem_not_a_page(client: Any) -> None:
    answer = client.get("/api/typo")
    assert (answer.status_code, answer.content_type) == (404, "application/problem+json")


def test_the_model_context_protocol_is_off(client: Any) -> None:
    assert client.post("/_mcp", json={}).status_code in (404, 405)


def test_two_apps_live_side_by_side() -> None:
    one, two = (create_app(memory_backends(history=n)) for n in (3, 5))
    assert set(one.callback_map) == set(two.callback_map)
    for app in (one, two):
        assert app.server.test_client().get("/_dash-dependencies").status_code == 200


def test_the_first_loads_of_a_threaded_process_all_succeed() -> None:
    other = create_app(memory_backends(history=3)).server.test_client()
    addresses = linked(other.get("/").get_data(as_text=True))
    app = create_app(memory_backends(history=3))
    # dash#3971 is a race of a few microseconds: what prevents it is that the first request was made at the start.
    assert app._got_first_request["setup_server"]
    server = app.server
    failed: list[str] = []
    start = threading.Barrier(8)

    def load() -> None:
        start.wait()
        client = server.test_client()
        failed.extend(address for address in ["/", *addresses] if client.get(address).status_code != 200)

    threads = [threading.Thread(target=load) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []


def test_the_web_process_loads_no_heavy_library() -> None:
    code = "import app.web, sys; print([m for m in ('pandas', 'pyarrow', 'boto3') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert found.stdout.strip() == "[]"


def test_vendored_files_name_their_licence() -> None:
    licences = (ASSETS / "LICENSES.md").read_text("utf-8")
    for name in ("plotly.js", "Inter", "Bootstrap Icons"):
        assert name in licences


def test_the_lock_of_the_node_packages_names_no_registry() -> None:
    lock = (ROOT / "package-lock.json").read_text("utf-8")
    assert '"resolved"' not in lock
    assert "http://" not in lock.replace("http://www", "")
