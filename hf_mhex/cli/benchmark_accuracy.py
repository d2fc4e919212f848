"""`mhex benchmark accuracy` and `ablation`: networks by one recipe, over seeds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def accuracy(
    study: Annotated[str, typer.Argument(metavar="SET", help="Name of a study; a wrong one lists them.")],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Values to change.")] = None,
    arms: Annotated[str | None, typer.Option(help="Names separated by commas; a wrong one lists them. All.")] = None,
    output: Annotated[Path, typer.Option(help="Folder for rows and page.")] = Path("outputs/accuracy"),
) -> None:
    """Ask whether MHEX costs accuracy: each network at its own learning rate, over seeds, paired with the plain one.

    A stopped study goes on where it was.

    Example: mhex benchmark accuracy ag_news source=ag_news_test.csv
    """
    from hf_mhex.journal import without_folders
    from hf_mhex.training.accuracy import run_study
    from hf_mhex.training.accuracy_report import write_page

    wanted = [name.strip() for name in arms.split(",")] if arms else None
    command = " ".join(["mhex benchmark accuracy", study, *map(without_folders, overrides or [])])
    run_study(study, overrides or [], output, wanted, command, lambda line: typer.echo(line, err=True))
    typer.echo(str(write_page(output)))


def ablation(
    study: Annotated[str, typer.Argument(metavar="SET", help="images, radiographs or texts.")],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Values to change.")] = None,
    seeds: Annotated[int, typer.Option(help="Networks for each factor.")] = 3,
    factors: Annotated[str | None, typer.Option(help="Names of factors, separated by semicolons; all.")] = None,
    output: Annotated[Path, typer.Option(help="Folder for rows and page.")] = Path("outputs/ablation"),
) -> None:
    """Ask which lever makes maps better and what it costs in accuracy, on validation rows.

    A stopped study goes on where it was.

    Example: mhex benchmark ablation images source=fashion-mnist
    """
    from hf_mhex.journal import without_folders
    from hf_mhex.training.ablation import run_ablation
    from hf_mhex.training.ablation_report import write_page

    wanted = [name.strip() for name in factors.split(";")] if factors else None
    command = " ".join(["mhex benchmark ablation", study, *map(without_folders, overrides or [])])
    run_ablation(study, overrides or [], output, seeds, wanted, command, lambda line: typer.echo(line, err=True))
    typer.echo(str(write_page(output)))
