"""`mhex smx`: the zones of a model's signals by SMX beside the exact ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from hf_mhex.cli.options import AsJson, Device, find_device
from hf_mhex.cli.terminal import echo
from hf_mhex.escaping import code_markdown, escaped_markdown
from hf_mhex.writing import check_folder, make_folder, whole, write_whole


def smx_command(
    model: Annotated[Path, typer.Argument(help="Folder of a model of signals.")],
    data: Annotated[str, typer.Argument(help="sample:NAME, a table with a column a point, a .npz or .parquet.")],
    zones: Annotated[Path, typer.Option(help="CSV file with the columns name, start, stop.")],
    target: Annotated[
        str | None, typer.Option(help="The class, by name or number; the one predicted most often.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="Split of the data.")] = None,
    output: Annotated[Path, typer.Option(help="Folder for smx.json, smx.md and smx.png.")] = Path("outputs/smx"),
    repetitions: Annotated[int, typer.Option(help="Bagging repetitions of the package.", min=1)] = 4,
    device: Device = None,
    json_: AsJson = False,
) -> None:
    """Name the zones that decide, by SMX and, of an MHEX model, by exact contributions.

    SMX goes with one class's probability; exact contributions are to each signal's own answer, mean sizes. Writes table
    (smx.json, smx.md) and picture (smx.png).

    Example: mhex smx outputs/train/sample_coffee/model sample:coffee --split train --zones zones.csv
    """
    import numpy as np
    import torch

    from hf_mhex.baselines import smx
    from hf_mhex.benchmarks.journal import command_line, source_name
    from hf_mhex.cli.networks import load_network
    from hf_mhex.data.opening import find_input
    from hf_mhex.data.source import open_data
    from hf_mhex.environment import environment
    from hf_mhex.evaluation.pieces import is_plain
    from hf_mhex.explaining.explanation import label_index
    from hf_mhex.explaining.signals import stack_signals
    from hf_mhex.explaining.zones import read_zones
    from hf_mhex.families import KINDS
    from hf_mhex.pictures.signals import Signal, axis_of, line_picture

    check_folder(output)
    place = find_device(device)
    network, processor = load_network(str(model))
    kind = KINDS["signal"]
    if network.main_input_name != kind.main_input:
        raise ValueError(f"model={str(model)!r} must be one of signals, but it reads {network.main_input_name}.")
    network = network.to(place)
    rows = open_data(data, split, kind="signal")
    signals = stack_signals(rows[find_input(rows, kind, "data")][:], getattr(rows, "axis", None), network.config)
    axis, axis_label = axis_of(network.config, signals.shape[-1])
    named = read_zones(zones, axis.tolist())
    label = None if target is None else label_index(network.config, target, "--target")
    answer = smx(network, signals, named, processor, label, n_repetitions=repetitions)
    values = processor(signals, return_tensors="pt")["input_values"].to(network.device)
    table = [
        {"zone": zone.name, "start": zone.start, "stop": zone.stop, "smx": answer.relevance[zone.name]}
        for zone in named
    ]  # fmt: skip
    maps = {"SMX, relevance of the zones": np.array([row["smx"] for row in table]) @ named.members}
    if not is_plain(network):
        with torch.inference_mode():
            saliency = network.generate_saliency(input_values=values, contrast="mean").saliency.cpu().numpy()
        maps["exact contributions, mean size"] = np.abs(saliency).mean(0)
        for row, zone, one in zip(table, named, np.abs(named.contributions(saliency)).mean(0)):
            row |= {"exact": float(one), "exact_per_width": float(one / zone.width)}
    table.sort(key=lambda row: -row["smx"])
    make_folder(output)
    told = {"zones": source_name(zones), "target": target, "split": split, "repetitions": repetitions}
    name = network.config.id2label[answer.target]
    record = {
        "command": command_line("mhex smx", [source_name(model), source_name(data)], None, told),
        "environment": environment(),
        "target": name,
        "signals": len(signals),
        "zones": table,
        "predicates": answer.predicates,
        "passes": answer.passes,
        "package": answer.package,
    }
    write_whole(output / "smx.json", json.dumps(record, indent=2, default=str) + "\n")
    page = page_of(record)
    write_whole(output / "smx.md", page)
    shown = Signal(np.median(signals, 0).reshape(-1, signals.shape[-1]), axis, axis_label)
    picture = line_picture(shown, maps, f"{len(signals)} signals, their median", answer.package, named)
    with whole(output / "smx.png") as place:
        picture.save(place)
    if json_:
        typer.echo(json.dumps(record, default=str))
        return
    echo(page.rstrip())
    echo(f"{answer.passes} passes through the model; {output}/smx.json, smx.md, smx.png")


def page_of(record: dict) -> str:
    """The record as a Markdown page, a line for each zone."""
    from hf_mhex.environment import ran_on

    numbers = [name for name in ("smx", "exact", "exact_per_width") if name in record["zones"][0]]
    heads = {"smx": "SMX", "exact": "exact", "exact_per_width": "exact per width"}
    lines = [
        "# Zones by SMX",
        "",
        f"Made by {code_markdown(record['command'])} on {ran_on([record])}. {record['signals']} signals, the "
        f"probability of {escaped_markdown(record['target'])}, by {record['package']}.",
        "",
        f"| zone | from | to | {' | '.join(heads[name] for name in numbers)} |",
        "|---|---:|---:|" + "---:|" * len(numbers),
    ]
    lines += [
        f"| {escaped_markdown(row['zone'])} | {row['start']:g} | {row['stop']:g} | "
        + " | ".join(f"{row[name]:.4g}" for name in numbers)
        + " |"
        for row in record["zones"]
    ]
    return "\n".join(lines) + "\n"
