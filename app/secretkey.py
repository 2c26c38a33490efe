"""SPENDSCOPE_SECRET_KEY: what forms are signed with. One machine makes its own; several must be given the same."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Final

from app.config import Settings
from app.errors import CannotStart

LEAST: Final = 32
NAME: Final = "secret-key"


def secret_key(settings: Settings) -> bytes:
    """Raises CannotStart for a key that is too short, or where none is given and none can be kept."""
    if settings.secret_key is not None:
        return _checked(settings.secret_key.get_secret_value())
    if settings.mongodb_uri is not None and not settings.on_loopback:
        raise CannotStart(
            "SPENDSCOPE_SECRET_KEY is missing: several machines need the same one. Make it with "
            "`openssl rand -hex 32` and give it to every web process (SPENDSCOPE_SECRET_KEY_FILE for a mounted secret)."
        )
    return _kept(settings.data_dir / NAME)


def _checked(key: str) -> bytes:
    if len(key) < LEAST or len(set(key)) < 8:
        raise CannotStart(
            f"SPENDSCOPE_SECRET_KEY is too easy to guess: at least {LEAST} random characters. "
            "Make one with `openssl rand -hex 32`."
        )
    return key.encode()


def _kept(path: Path) -> bytes:
    """The key in the data directory, made when there is none; of two processes that make one the first wins."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(f"{NAME}.{os.getpid()}.{secrets.token_hex(4)}")
        if not path.exists():
            _write(fresh, secrets.token_hex(32))
            try:
                os.link(fresh, path)
            except FileExistsError:
                pass
            finally:
                fresh.unlink()
        return _checked(path.read_text("ascii").strip())
    except OSError as error:
        raise CannotStart(
            f"{path} cannot be written or read ({error.strerror}). Correct SPENDSCOPE_DATA_DIR or its permissions, "
            "or set SPENDSCOPE_SECRET_KEY."
        ) from None


def _write(path: Path, text: str) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())
