"""`mhex benchmark paper`: the paper's own map by the paper's own measures, scored by a network that made no map."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hf_mhex.cli.options import AsJson, Device, find_device
from hf_mhex.cli.terminal import echo


def paper(
    recipe: Annotated[str, typer.Argument(help="The recipe that the model was trained by; its test rows are used.")],
    model: Annotated[Path, typer.Argument(help="The trained MHEX model's folder.")],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Values to change.")] = None,
    scorer: Annotated[Path | None, typer.Option(help="Folder of a separate network that scores (a ResNet-34).")] = None,
    plain: Annotated[Path | None, typer.Option(help="Folder of the plain twin, which is explained and scores.")] = None,
    output: Annotated[Path | None, typer.Option(help="Folder for rows and tables.")] = None,
    rows: Annotated[int, typer.Option(help="Test rows.", min=1)] = 200,
    seed: Annotated[int, typer.Option(help="Which rows are drawn.")] = 0,
    device: Device = None,
    json_: AsJson = False,
) -> None:
    """Score the paper's map beside Grad-CAM and LayerCAM by the paper's drops of the true label. Images only.

    Example: mhex benchmark paper sample_fashion_mnist MODEL --scorer RESNET34 --plain PLAIN
    """
    from hf_mhex.benchmarks.explanations.pictures import page_of_maps
    from hf_mhex.benchmarks.journal import command_line, source_name
    from hf_mhex.benchmarks.paper import compare, methods_of, write_page
    from hf_mhex.cli.benchmark_data import load_networks, load_parts
    from hf_mhex.families import family_of
    from hf_mhex.processors import restore_image
    from hf_mhex.training.plain import load_plain

    place = find_device(device)
    networks, processor = load_networks(model, plain, place)
    if family_of(networks["mhex"]).kind != "image":
        raise ValueError(f"model {str(model)!r} is for texts; the paper's drops of images need an image model.")
    scorers = {} if scorer is None else {"the separate network": load_plain(scorer).to(place)}
    scorers |= {"the plain twin": networks["plain"]} if "plain" in networks else {}
    output = output or Path("outputs/benchmark") / Path(recipe).stem / "paper"
    test = load_parts(recipe, overrides or [], networks["mhex"], processor, seed)[1]
    told = {"scorer": scorer and source_name(scorer), "plain": plain and source_name(plain), "rows": rows, "seed": seed}
    command = command_line("mhex benchmark paper", [recipe, source_name(model)], overrides, told)
    found = compare(networks, scorers, test, output, rows, command, lambda line: echo(line, err=True), seed)
    page = write_page(found, output, Path(recipe).stem)
    shown: list[tuple] = [(method, {}) for method in methods_of("mhex")]
    picture = page_of_maps(networks["mhex"], test, shown, lambda x: restore_image(x, processor), output / "maps.png")
    if json_:
        typer.echo((output / "summary.json").read_text(encoding="utf-8"))
        return
    echo(str(page))
    echo(str(picture))
