"""The web process: Dash on a Flask server, the API beside it. `create_server` is what gunicorn serves."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any, Final, NoReturn

from dash import Dash
from flask import Flask, Response, abort
from flask_compress import Compress
from werkzeug.middleware.proxy_fix import ProxyFix

from app import accountpages, adminpages, answers, callbacks, costs, gate, requestlog, signonpages, statics
from app.api import blueprint, problems
from app.backends import Backends, current
from app.errors import SpendscopeError
from app.pages import PAGES, PURE, fromgrafana, register_all
from app.ui import shell

ASSETS: Final = Path(__file__).parent.parent / "assets"
ONE_YEAR: Final = 31_536_000
MEGABYTE: Final = 2**20
UNUSED_FEATURES: Final = "camera=(), geolocation=(), microphone=(), payment=(), usb=()"
"""What no page here may ask a browser for."""

SECURE_HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": UNUSED_FEATURES,
}
"""Of every answer that does not say otherwise."""


def create_app(backends: Backends) -> Dash:
    """A Dash app over these backends; `.server` is the Flask app."""
    server = _server(backends)
    app = Dash(
        "spendscope",
        server=server,  # type: ignore[arg-type]
        use_pages=True,
        pages_folder="",
        assets_folder=str(ASSETS),
        index_string=shell.index_string(),
        title="Spendscope",
        description=shell.DESCRIPTION,
        update_title="",
        on_error=_failed,
        enable_mcp=False,
        serve_locally=True,
        suppress_callback_exceptions=False,
    )
    app.layout = shell.shell([(path, name, image) for path, name, image, _ in PAGES], api_docs=True)
    register_all(app)
    callbacks.guard(server, app.callback_map)
    callbacks.draw_pages(server, app.callback_map, _is_pure, _failed)
    server.extensions["spendscope-gate"].callbacks = app.callback_map
    _secure(server, app)
    # dash#3971: the first request of a threaded process may be served before Dash has registered its bundles.
    server.test_client().get("/", environ_overrides=gate.warm_up_environment())
    return app


def create_server(backends: Backends) -> Flask:
    """What gunicorn serves."""
    server: Flask = create_app(backends).server
    return server


class Server(Flask):
    def ensure_sync(self, func: Any) -> Any:
        """Nothing here is a coroutine. Flask looks at each of some twenty hooks for every request."""
        return func


def _server(backends: Backends) -> Flask:
    server = Server("spendscope", static_folder=None)
    server.extensions["spendscope"] = backends
    # Assets carry a fingerprint in their address, so a browser need never ask for one again.
    server.config.update(
        SEND_FILE_MAX_AGE_DEFAULT=ONE_YEAR, COMPRESS_ALGORITHM=["zstd", "br", "gzip"], COMPRESS_ZSTD_LEVEL=5
    )
    server.config["SPENDSCOPE_STYLE"] = hashlib.sha256((ASSETS / "10-spendscope.css").read_bytes()).hexdigest()[:10]
    if backends.settings.proxies:
        hops = backends.settings.proxies
        server.wsgi_app = ProxyFix(server.wsgi_app, x_for=hops, x_proto=hops)  # type: ignore[method-assign]
    requestlog.follow(server)
    server.register_blueprint(blueprint())
    fromgrafana.register(server)
    server.register_error_handler(SpendscopeError, problems.of_spendscope)
    server.config["SPENDSCOPE_PAGES"] = [(path, name, image) for path, name, image, _ in PAGES]
    for pages in (accountpages, signonpages, adminpages):
        server.register_blueprint(pages.blueprint())
    callbacks.limit(server)
    gate.stand(server, backends)
    kept = answers.Answers(backends.settings.cache_megabytes * MEGABYTE)
    answers.keep_answers(server, kept, lambda: costs.state(current()), _is_pure)
    server.extensions["spendscope-answers"] = kept
    Compress(server)
    statics.compress_statics(server)
    return server


def _is_pure(body: Any) -> bool:
    """Whether it is a page being drawn: the answer then depends on nothing but the request and the data."""
    output = str(body.get("output", "")) if isinstance(body, dict) else ""
    return any(output.startswith(f"..{name}.data...") for name in PURE)


def _failed(error: Exception) -> NoReturn:
    """A callback raised: the browser shows the sentence of the problem, the log has the trace under its reference."""
    if isinstance(error, SpendscopeError):
        abort(problems.of_spendscope(error))
    abort(problems.of_anything(error))


def _secure(server: Flask, app: Dash) -> None:
    """Nothing is loaded from or framed by anywhere else; scripts in the page are known by their hash."""
    policy: dict[str, str] = {}
    headers = dict(SECURE_HEADERS)
    if server.extensions["spendscope"].settings.behind_tls:
        headers["Strict-Transport-Security"] = f"max-age={ONE_YEAR}"

    def add(response: Response) -> Response:
        if not policy:
            policy["text"] = _policy(app)
        if response.mimetype == "text/html":
            response.headers.setdefault("Content-Security-Policy", policy["text"])
        there = {name.lower() for name, _ in response.headers}
        response.headers.extend([(name, value) for name, value in headers.items() if name.lower() not in there])
        return response

    server.after_request(add)


def _policy(app: Dash) -> str:
    theme = base64.b64encode(hashlib.sha256(shell.THEME_SCRIPT.encode()).digest()).decode()
    scripts = " ".join(["'self'", f"'sha256-{theme}'", *app.csp_hashes()])
    return (
        f"default-src 'self'; script-src {scripts}; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
        "object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    )
