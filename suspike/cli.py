"""The command line: `suspike demo`, `simulate`, ... What a user can mend ends in one line and exit code 2."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

import suspike
from suspike import data_cli, simulate_cli

app = typer.Typer(
    help="Spiking networks whose neurons choose when to update.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Folder = Annotated[Path, typer.Option(help="Where checkpoints, the bundle and the report go.")]
Cache = Annotated[
    Path | None, typer.Option(help="Where encoded recordings are kept. [default: the user's cache folder]")
]
Seed = Annotated[int, typer.Option(help="Of the weights, the gates and the order of the recordings.")]


@app.command()
def demo(folder: Folder = Path("first_spikes"), cache: Cache = None, seed: Seed = 0) -> None:
    """Train, simulate, price and export a selective network on event-camera digits; a second call goes on."""
    from suspike.demo import run

    run(folder, cache=default_cache() if cache is None else cache, seed=seed, console=Console())


@app.command()
def verify(bundle: Annotated[Path, typer.Argument(help="A folder written by suspike.export.write_bundle.")]) -> None:
    """Run a bundle again from its files alone and compare, spike for spike; exit code 1 if anything differs."""
    from suspike.export import verify as verify_bundle

    verification = verify_bundle(bundle)
    table = Table("check", "passed", "found", title=str(bundle), title_justify="left")
    for check in verification.checks:
        table.add_row(escape(check.name), "yes" if check.passed else "[bold red]NO[/]", escape(check.detail))
    Console().print(table)
    raise typer.Exit(0 if verification.ok else 1)


app.command()(simulate_cli.simulate)
app.add_typer(data_cli.app, name="data")


@app.command()
def version() -> None:
    """Print the version."""
    Console().print(suspike.__version__, highlight=False)


def default_cache() -> Path:
    """Return the user's cache folder for suspike, as the XDG base directory specification has it."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "suspike"


def main() -> None:
    """Run the command line; an error that the user can mend is one line on standard error and exit code 2."""
    try:
        app()
    except (ValueError, OSError, ImportError) as error:
        Console(stderr=True).print(f"[bold red]error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(2)
