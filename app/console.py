"""What every command of the command line does alike: one line of output, one line of trouble, the exit codes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from typing import Any

import click

from app.errors import CannotStart, InvalidInput, SpendscopeError

Command = Callable[..., Any]


def say(text: str) -> None:
    click.echo(text)


def told_in_one_line(command: Command) -> Command:
    """What Spendscope raises on purpose is one line on stderr and an exit code, never a stack trace."""

    @wraps(command)
    def told(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except SpendscopeError as error:
            click.echo(f"spendscope: {error.message}", err=True)
            sys.exit(2 if isinstance(error, (CannotStart, InvalidInput)) else 1)
        except ModuleNotFoundError as error:
            click.echo(f"spendscope: the package {error.name} is missing. Run `make setup`.", err=True)
            sys.exit(2)

    return told
