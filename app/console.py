"""What every command of the command line does alike: one line of output, one line of trouble, the exit codes."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from functools import wraps
from typing import Any, Final

import click

from app.errors import CannotStart, InvalidInput, SpendscopeError

Command = Callable[..., Any]

SERVING: Final = ("web", "worker", "scheduler")
"""Commands whose stderr is a log that programs may read."""


def say(text: str) -> None:
    click.echo(text)


def told_in_one_line(command: Command) -> Command:
    """What Spendscope raises on purpose is one line on stderr and an exit code, never a stack trace."""

    @wraps(command)
    def told(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except SpendscopeError as error:
            complain(error.message)
            sys.exit(2 if isinstance(error, (CannotStart, InvalidInput)) else 1)
        except ModuleNotFoundError as error:
            complain(f"the package {error.name} is missing. Run `make setup`.")
            sys.exit(2)

    return told


def complain(message: str) -> None:
    """The last line of a command that failed."""
    from app.logs import writes_json

    if click.get_current_context().info_name in SERVING and writes_json():
        logging.getLogger("app").critical(message)
    else:
        click.echo(f"spendscope: {message}", err=True)
