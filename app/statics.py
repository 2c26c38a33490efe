"""Scripts, styles and icons, compressed as well as possible, once a process: they never change under one address."""

from __future__ import annotations

import hashlib
from typing import Final

import brotli  # type: ignore[import-untyped]
from flask import Flask, Response, request

PREFIXES: Final = ("/assets/", "/_dash-component-suites/")
COMPRESSIBLE: Final = ("text/javascript", "application/javascript", "text/css", "image/svg+xml")
QUALITY: Final = 9
WORTH_IT: Final = 500


def compress_statics(server: Flask) -> None:
    """Call it after other compression is set up: Flask runs the newest hook first, and theirs leaves these alone."""
    # By content: an address may carry any fingerprint, the files are few.
    kept: dict[bytes, bytes] = {}

    def compress(response: Response) -> Response:
        if not request.path.startswith(PREFIXES) or response.status_code != 200 or request.method != "GET":
            return response
        plain = _read(response)
        if response.mimetype in COMPRESSIBLE and len(plain) > WORTH_IT and request.accept_encodings["br"] > 0:
            _encode(response, plain, kept)
        return response

    server.after_request(compress)


def _read(response: Response) -> bytes:
    """Its bytes; a file it streams from is closed at once."""
    stream = response.response
    response.direct_passthrough = False
    plain = response.get_data()
    if stream is not None and hasattr(stream, "close"):
        stream.close()
    return plain


def _encode(response: Response, plain: bytes, kept: dict[bytes, bytes]) -> None:
    digest = hashlib.blake2b(plain, digest_size=20).digest()
    if digest not in kept:
        kept[digest] = brotli.compress(plain, quality=QUALITY)
    response.set_data(kept[digest])
    response.headers["Content-Encoding"] = "br"
    response.headers.add("Vary", "Accept-Encoding")
    etag, weak = response.get_etag()
    if etag and not weak:
        response.set_etag(f"{etag}:br")
        response.make_conditional(request)
