"""What the commands that call a server have in common: its options, the client, and how errors end."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Concatenate, ParamSpec

import typer

from memoro.cli.output import Output, describe, fail
from memoro.endpoint import DEFAULT_ENDPOINT, Tls, from_environment, waits_from_environment
from memoro.errors import MemoroError, Unavailable
from memoro.sync_client import Client

P = ParamSpec("P")

_PANEL = "Connection and output"

EndpointOption = Annotated[
    str,
    typer.Option(
        envvar="MEMORO_ENDPOINT", help="host:port, http://host:port or https://host:port.", rich_help_panel=_PANEL
    ),
]
ApiKeyOption = Annotated[
    str,
    typer.Option(
        envvar="MEMORO_API_KEY",
        help="The key; better in the environment, where other users can't see it.",
        show_default=False,
        rich_help_panel=_PANEL,
    ),
]
CaFileOption = Annotated[
    Path | None,
    typer.Option(
        envvar="MEMORO_CA_FILE",
        help="Authorities to trust, in PEM; turns TLS on.",
        exists=True,
        dir_okay=False,
        rich_help_panel=_PANEL,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object per line.", rich_help_panel=_PANEL)]


@dataclass(frozen=True, slots=True)
class Session:
    """One run of a command: the client that it calls with, and where its output goes."""

    client: Client
    output: Output
    endpoint: str


def open_client(endpoint: str, api_key: str, ca_file: Path | None) -> Client:
    """A client for what the options say. Raises ValueError for what can't be."""
    tls = from_environment()[2]
    if ca_file is not None:
        tls = replace(tls or Tls(), ca_file=ca_file)
    return Client(endpoint, api_key=api_key or None, tls=tls, wait_for_limits=waits_from_environment())


@contextmanager
def errors_told(endpoint: str) -> Iterator[None]:
    """Ends the command with one line for an error that its caller can do something about."""
    try:
        yield
    except Unavailable as error:
        raise fail(f"{endpoint}: {describe(error)}") from error
    except MemoroError as error:
        raise fail(describe(error)) from error
    except (ValueError, OSError) as error:
        # The client refuses what can't be sent; files can't be read.
        raise fail(str(error), code=2) from error


def connected(command: Callable[Concatenate[Session, P], None]) -> Callable[..., None]:
    """Makes a command of a function whose first parameter is the session: adds the options that open one."""
    own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]
    shared = [
        inspect.Parameter(
            "endpoint", inspect.Parameter.KEYWORD_ONLY, default=DEFAULT_ENDPOINT, annotation=EndpointOption
        ),
        inspect.Parameter("api_key", inspect.Parameter.KEYWORD_ONLY, default="", annotation=ApiKeyOption),
        inspect.Parameter("ca_file", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=CaFileOption),
        inspect.Parameter("as_json", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=JsonOption),
    ]
    parameters = [*(one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in own), *shared]

    def run(*, endpoint: str, api_key: str, ca_file: Path | None, as_json: bool, **arguments: Any) -> None:
        with errors_told(endpoint), open_client(endpoint, api_key, ca_file) as client:
            command(Session(client, Output(as_json=as_json), endpoint), **arguments)  # type: ignore[call-arg]

    functools.update_wrapper(run, command)
    # Typer reads the parameters from these.
    del run.__wrapped__  # type: ignore[attr-defined]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {one.name: one.annotation for one in parameters}
    return run
