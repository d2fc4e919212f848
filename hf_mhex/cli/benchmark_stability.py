"""`mhex benchmark stability`: how still explanations hold under small changes and over runs: RIS, ROS, RES, PGI."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from hf_mhex.cli.options import AsJson, Device, find_device
from hf_mhex.cli.terminal import echo


def stability(
    recipe: Annotated[str, typer.Argument(help="The recipe that the model was trained by; its test rows are used.")],
    model: Annotated[Path, typer.Argument(help="The trained MHEX model's folder.")],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Values to change.")] = None,
    plain: Annotated[Path | None, typer.Option(help="Folder of its plain twin.")] = None,
    output: Annotated[Path | None, typer.Option(help="Folder for rows and tables.")] = None,
    only: Annotated[str | None, typer.Option(help="Methods to compare with, separated by commas; all.")] = None,
    rows: Annotated[int, typer.Option(help="Test rows.", min=1)] = 16,
    seed: Annotated[int, typer.Option(help="Which rows and changes are drawn.")] = 0,
    device: Device = None,
    json_: AsJson = False,
) -> None:
    """Measure stability (RIS, ROS, RES) and the prediction gap (PGI) of explanations of images or texts.

    Example: mhex benchmark stability sample_fashion_mnist MODEL --plain PLAIN

    Example: mhex benchmark stability sample_product_reviews MODEL --rows 12
    """
    from hf_mhex.benchmarks.explanations.pictures import page_of_maps, page_of_words
    from hf_mhex.benchmarks.journal import command_line, source_name
    from hf_mhex.benchmarks.stability import compare, methods_of, write_page
    from hf_mhex.cli.benchmark_data import load_networks, load_parts
    from hf_mhex.families import family_of
    from hf_mhex.processors import restore_image

    networks, processor = load_networks(model, plain, find_device(device))
    kind = family_of(networks["mhex"]).kind
    output = output or Path("outputs/benchmark") / Path(recipe).stem / "stability"
    test = load_parts(recipe, overrides or [], networks["mhex"], processor, seed)[1]
    told = {"plain": plain and source_name(plain), "only": only, "rows": rows, "seed": seed}
    names = [name.strip() for name in only.split(",")] if only else None
    command = command_line("mhex benchmark stability", [recipe, source_name(model)], overrides, told)
    found = compare(networks, test, output, rows, seed, command, lambda line: echo(line, err=True), names)
    page = write_page(found, output, Path(recipe).stem)
    shown: list[tuple] = [(method, {}) for method in methods_of("mhex", f"{kind}s", names)]
    if kind == "image":
        picture = page_of_maps(
            networks["mhex"], test, shown, lambda x: restore_image(x, processor), output / "maps.png"
        )
    else:
        few = test.take(range(min(4, len(test))))
        texts = [processor.decode(ids, skip_special_tokens=True) for ids in few.ids]
        shown = [(method, options) for method, options in shown if method.fits(networks["mhex"])]
        picture = page_of_words(networks["mhex"], processor, texts, shown, few, output / "maps.html")
    if json_:
        typer.echo(json.dumps(found))
        return
    echo(str(page))
    echo(str(picture))
