"""`mhex filters`: a block's filters for one class: exact shares, likeness to Grad-CAM, scores, tests and ablation."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from hf_mhex.cli.options import AsJson, Data, Device, Model, Overrides, Revision, Split, find_device
from hf_mhex.cli.terminal import echo
from hf_mhex.escaping import code_markdown, escaped_markdown
from hf_mhex.writing import check_folder, make_folder, write_whole

COLUMNS = (
    "filter", "contribution (share)", "Pearson", "Dice", "MSE", "intensity", "frequency", "spread",
    "q, likeness", "q, class",
)  # fmt: skip


def filters(
    model: Model,
    data: Data,
    overrides: Overrides = None,
    target: Annotated[str, typer.Option(help="The class, by name or number.")] = "0",
    block: Annotated[int, typer.Option(help="The block; negative ones from the end.")] = -1,
    split: Split = None,
    rows: Annotated[int, typer.Option(help="Rows to look at.", min=3)] = 256,
    top: Annotated[int, typer.Option(help="Filters to show; the files hold all.", min=1)] = 12,
    output: Annotated[Path, typer.Option(help="Folder for tables and pictures.")] = Path("outputs/filters"),
    revision: Revision = None,
    device: Device = None,
    json_: AsJson = False,
) -> None:
    """Show what each filter of a block does for a class, and what happens as filters are removed. Images only.

    Example: mhex filters outputs/demo/mhex-resnet-fashion-mnist sample:fashion_mnist --target Bag
    """
    from hf_mhex.benchmarks.journal import command_line, source_name
    from hf_mhex.cli.channels import read_batches
    from hf_mhex.cli.networks import load_network
    from hf_mhex.environment import environment
    from hf_mhex.evaluation.channels import channel_report
    from hf_mhex.evaluation.filters import filter_report
    from hf_mhex.evaluation.pieces import is_plain
    from hf_mhex.explaining.explanation import label_index
    from hf_mhex.pictures.channels import write_channels
    from hf_mhex.pictures.filters import write_ablation, write_maps

    check_folder(output)
    place = find_device(device)
    network, processor = load_network(model, revision)
    label = label_index(network.config, target, "--target")
    batches = read_batches(network.to(place), processor, data, overrides or [], split, rows)
    found = filter_report(network, batches, label, block)
    name = network.config.id2label[label]
    told = {"target": name, "block": block, "rows": rows}
    command = command_line("mhex filters", [source_name(model), source_name(data)], overrides, told)
    made = {"command": command, "environment": environment()}
    record = asdict(found) | {"name": name} | made
    make_folder(output)
    channels: list[dict] = []
    paths: list[Path] = []
    if not is_plain(network):
        exact = [one for one in channel_report(network, batches, 6, 4) if one.label == label]
        channels, paths = write_channels(exact, network, processor, batches, output)
    write_whole(output / "filters.json", json.dumps(record) + "\n")
    write_whole(output / "filters.md", page_of(record, channels, top))
    paths += [output / "filters.json", output / "filters.md", write_ablation(found, name, output / "ablation.png")]
    paths.append(write_maps(found, network, processor, batches, output / "filter-maps.png"))
    if json_:
        typer.echo(json.dumps(record))
        return
    echo((output / "filters.md").read_text(encoding="utf-8"))
    for path in paths:
        echo(str(path))


def page_of(record: dict, channels: list[dict], top: int) -> str:
    """The record as a Markdown page."""
    from hf_mhex.benchmarks.tables import markdown_table
    from hf_mhex.environment import ran_on

    lines = [
        (
            str(one["channel"]),
            f"{one['contribution']:+.3f} ({one['share']:+.1%})",
            *(f"{one[name]:.3f}" for name in ("pearson", "dice", "mse", "intensity", "frequency", "spread")),
            f"{one['q_likeness']:.2g}",
            f"{one['q_class']:.2g}",
        )
        for one in record["filters"][:top]
    ]
    alike, apart = (sum(one[name] < 0.05 for one in record["filters"]) for name in ("q_likeness", "q_class"))
    curves = record["curves"]
    counts = [point[0] for point in next(iter(curves.values()))]
    removal = [
        (str(count), *(f"{points[number][1]:.3f} ({points[number][2]:.2f})" for points in curves.values()))
        for number, count in enumerate(counts)
    ]
    shares = [
        (str(one["block"]), str(one["channel"]), f"{one['contribution']:+.3f}", f"{one['share']:+.1%}")
        for one in (channels[0]["channels"] if channels else ())
    ]
    parts = [
        f"# Filters of block {record['block']} for {escaped_markdown(record['name'])}",
        f"Made by {code_markdown(record['command'])} on {ran_on([record])}. {record['rows']} rows of the class.",
        markdown_table(COLUMNS, lines),
        f"Of {len(record['filters'])} filters {alike} are more like their own row's Grad-CAM than like another row's, "
        f"and {apart} are active otherwise in the class's rows than in the others' (q < 0.05).",
        "Mean probability of the class, and in brackets the share of its rows answered with it, as filters go:",
        markdown_table(("removed", *curves), removal),
    ]
    if shares:
        parts.append("The channels of all blocks that carry the class, by their exact shares of the logit:")
        parts.append(markdown_table(("block", "channel", "contribution", "share"), shares))
    elif record["filters"][0]["weight"] is None:
        parts.append("A plain network: contributions are how far the logit falls without a filter.")
    else:
        parts.append("A plain network: contributions are those to its last linear layer, exact up to its bias.")
    return "\n\n".join(parts) + "\n"
