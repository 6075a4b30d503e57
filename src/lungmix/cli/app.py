"""Entry point of the command ``lungmix``."""

from __future__ import annotations

import gc
import logging
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated

import typer
from rich.console import Console

from lungmix._version import __version__
from lungmix.cli import options as opt
from lungmix.cli.commands import inspect, maintain, run
from lungmix.cli.commands.evaluate import evaluate
from lungmix.cli.commands.followup import followup
from lungmix.cli.commands.publish import publish
from lungmix.cli.commands.scan import scan
from lungmix.cli.commands.validate import app as validate
from lungmix.cli.redaction import command_line, debugging, own_store, printable
from lungmix.cli.signals import as_interrupts
from lungmix.cli.streams import make_streams_last
from lungmix.errors import LungmixError, UsageError, mark_untrusted, reason_of, trace_of
from lungmix.home import make_home_known

app = typer.Typer(
    name="lungmix",
    help="Lung masks, one pooled Gaussian mixture and tissue labels for cohorts of chest CT of any size.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"token_normalize_func": lambda option: opt.RENAMED.get(option, option)},
)

# Help lists commands in this order, the order in which a cohort is processed.
app.command()(scan)
app.command()(run.run)
app.command()(run.convert)
app.command()(run.harmonise)
app.command()(run.mask)
app.command(cls=opt.ManyCases)(run.fit)
app.command()(run.label)
app.command()(run.zones)
app.command()(run.measure)
app.command()(maintain.relabel)
app.command()(evaluate)
app.command()(followup)
app.command()(inspect.info)
app.command()(inspect.report)
app.command()(inspect.export)
app.command()(publish)
app.command()(inspect.serve)
app.command()(maintain.verify)
app.command()(maintain.remove)
app.add_typer(validate, name="validate")

_OBJECTS = 50_000
"""Number of new objects between garbage collections; Python's default of 700 makes imports of libraries slow."""


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line, and end the process with status 0, 1 (a case failed) or 2 (wrong usage)."""
    if args is None:
        # Imports create many objects and no garbage; searching for garbage often takes a third of the startup time.
        gc.set_threshold(_OBJECTS)
        make_streams_last()
        make_home_known()
        # matplotlib warns if the home folder is read-only, and uses a temporary folder. Users need not do anything.
        logging.getLogger("matplotlib").setLevel(logging.ERROR)
    words = list(sys.argv[1:] if args is None else args)
    with command_line(words), as_interrupts() as received:
        status = _status_of([word for word in words if word != "--debug"])
        if received.number is not None:
            status = 128 + received.number
            typer.echo("stopped by a signal; run the same command again to resume", err=True)
    if args is None:
        gc.freeze()  # saves half a second of collections at exit
    sys.exit(status)


@own_store()
def _status_of(words: list[str]) -> int:
    console = Console(stderr=True, soft_wrap=True)
    try:
        app(words, prog_name="lungmix")
    except Exception as error:  # a user never sees a traceback unasked
        if debugging():
            typer.echo(trace_of(error), err=True)
        error = _configuration_error_from(error) or error
        console.print(f"lungmix: {printable(reason_of(error))}", markup=False, highlight=False)
        return error.status if isinstance(error, LungmixError) else 1
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(bool(end.code))
    except KeyboardInterrupt:
        console.print("stopped; run the same command again to resume")
        return 130
    return 0


def _configuration_error_from(error: Exception) -> UsageError | None:
    """Return a usage error if the error came from reading dask's configuration, during the first import of dask."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    if not any((f.f_globals.get("__name__"), f.f_code.co_name) == ("dask.config", "collect") for f in frames):
        return None
    reason = str(error).partition(", original")[0].partition("\n")[0]
    return UsageError(
        f"dask's configuration cannot be read ({mark_untrusted(reason)}): correct or remove that file, or name another "
        "folder in DASK_CONFIG"
    )


def _print_version(requested: bool) -> None:
    if requested:
        typer.echo(f"lungmix {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks; anywhere on the line.")] = False,
) -> None:
    pass
