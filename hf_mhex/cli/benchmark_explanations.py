"""`mhex benchmark explanations`: every method through every measure on one network, from a recipe's own data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from hf_mhex.cli.options import AsJson, Device, find_device
from hf_mhex.cli.terminal import echo


def explanations(
    recipe: Annotated[str, typer.Argument(help="The recipe that the model was trained by; its splits are used.")],
    model: Annotated[Path, typer.Argument(help="The trained MHEX model's folder.")],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Values to change.")] = None,
    plain: Annotated[Path | None, typer.Option(help="Folder of its plain twin (model.kind=plain).")] = None,
    output: Annotated[Path | None, typer.Option(help="Folder for rows, tables and pictures.")] = None,
    only: Annotated[str | None, typer.Option(help="Methods to compare with, separated by commas; all.")] = None,
    rows: Annotated[int | None, typer.Option(help="Test rows, of images and signals 96, of texts 64.")] = None,
    questions: Annotated[int, typer.Option(help="Questions of the 2 x 2 Grid Pointing Game; 3 x 3 has half.")] = 72,
    slow: Annotated[int | None, typer.Option(help="Rows for slow methods; 24 images or signals, 12 texts.")] = None,
    on: Annotated[
        str | None, typer.Option(help="mhex or plain: measure on it alone and write no tables; two may run at once.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Which rows, mosaics and subsets are drawn.")] = 0,
    device: Device = None,
    json_: AsJson = False,
) -> None:
    """Compare MHEX's maps with the other methods' on the same network, with intervals and controls.

    Settings are chosen on the recipe's validation rows, tables made once from its test rows. A run that was stopped
    goes on where it was.

    Example: mhex benchmark explanations sample_fashion_mnist outputs/train/sample_fashion_mnist/model
    """
    from hf_mhex.benchmarks.explanations import Sizes, explain_quality, write_report
    from hf_mhex.benchmarks.explanations.analyses import write_analyses
    from hf_mhex.benchmarks.explanations.pictures import plot_measures
    from hf_mhex.benchmarks.journal import command_line, source_name
    from hf_mhex.cli.benchmark_data import load_networks, load_parts, picture_page
    from hf_mhex.families import family_of

    if on == "plain" and plain is None:
        raise ValueError("--on plain needs --plain, the folder of the plain twin.")
    output = output or Path("outputs/benchmark") / Path(recipe).stem
    networks, processor = load_networks(model, plain, find_device(device), signals=True)
    validation, test = load_parts(recipe, overrides or [], networks["mhex"], processor, seed)
    kind = family_of(networks["mhex"]).kind
    sizes = Sizes(
        rows=rows or (64 if kind == "text" else 96), questions=questions, slow=slow or (12 if kind == "text" else 24)
    )
    told: dict = {"rows": sizes.rows, "questions": questions, "slow": sizes.slow, "seed": seed}
    told |= {"plain": source_name(plain)} if plain else {}
    command = command_line("mhex benchmark explanations", [recipe, source_name(model)], overrides, told)
    found = explain_quality(
        networks,
        validation,
        test,
        output,
        sizes,
        [name.strip() for name in only.split(",")] if only else None,
        seed,
        command,
        lambda line: echo(line, err=True),
        on,
    )
    if on is not None:
        echo(str(output / f"rows-{on}.jsonl"))
        return
    summary = write_report(found, output, f"Explanations compared: {output.name}")
    plot_measures(summary, output)
    pages = picture_page(networks, found, test, processor, output)
    if kind != "signal":  # the paper's drops, which they go with, are of images and texts
        pages += write_analyses(networks["mhex"], test, processor, output)
    if json_:
        typer.echo(json.dumps(summary))
        return
    for path in [output / "tables.md", *sorted(output.glob("measures-*.png")), *pages]:
        echo(str(path))
