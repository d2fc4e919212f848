"""`mhex smx`: the zones of a model's signals by SMX beside the exact ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from hf_mhex.cli.options import AsJson, Device, find_device
from hf_mhex.cli.terminal import echo
from hf_mhex.escaping import escaped_markdown
from hf_mhex.writing import whole, write_whole


def smx_command(
    model: Annotated[Path, typer.Argument(help="Folder of a model of signals.")],
    data: Annotated[str, typer.Argument(help="sample:NAME, a table with a column a point, a .npz or .parquet.")],
    zones: Annotated[Path, typer.Option(help="CSV file with the columns name, start, stop.")],
    split: Annotated[str | None, typer.Option(help="Split of the data.")] = None,
    output: Annotated[Path, typer.Option(help="Folder for smx.json, smx.md and smx.png.")] = Path("outputs/smx"),
    repetitions: Annotated[int, typer.Option(help="Bagging repetitions of the package.", min=1)] = 4,
    device: Device = None,
    json_: AsJson = False,
) -> None:
    """Name the zones that decide, by SMX and by exact contributions.

    Writes table (smx.json, smx.md) and picture (smx.png). Example: mhex smx outputs/model spectra.csv --zones zones.csv
    """
    import numpy as np
    import torch

    from hf_mhex.baselines import smx
    from hf_mhex.data.opening import find_input
    from hf_mhex.data.source import open_data
    from hf_mhex.explaining.zones import read_zones
    from hf_mhex.families import family_of
    from hf_mhex.loading import load
    from hf_mhex.pictures.signals import Signal, axis_of, line_picture

    place = find_device(device)
    network, processor = load(model)
    kind = family_of(network).input
    if kind.name != "signal":
        raise ValueError(f"model must be one of signals, got one of {kind.name}s.")
    network = network.to(place)
    rows = open_data(data, split)
    signals = np.asarray(rows[find_input(rows, kind, "data")][:], dtype=np.float64)
    axis, label = axis_of(network.config, signals.shape[-1])
    named = read_zones(zones, axis.tolist())
    answer = smx(network, signals, named, processor, n_repetitions=repetitions)
    values = processor(signals, return_tensors="pt")["input_values"].to(network.device)
    with torch.inference_mode():
        saliency = network.generate_saliency(input_values=values, contrast="mean").saliency.cpu().numpy()
    exact = np.abs(named.contributions(saliency)).mean(0)
    table = [
        {"zone": zone.name, "start": zone.start, "stop": zone.stop, "smx": answer.relevance[zone.name],
         "exact": float(one), "exact_per_width": float(one / zone.width)}
        for zone, one in zip(named, exact)
    ]  # fmt: skip
    table.sort(key=lambda row: -row["smx"])
    output.mkdir(parents=True, exist_ok=True)
    record = {"zones": table, "predicates": answer.predicates, "passes": answer.passes, "package": answer.package}
    write_whole(output / "smx.json", json.dumps(record, indent=2, default=str) + "\n")
    lines = ["| zone | from | to | SMX | exact | exact per width |", "|---|---:|---:|---:|---:|---:|"]
    lines += [
        f"| {escaped_markdown(row['zone'])} | {row['start']:g} | {row['stop']:g} | {row['smx']:.4g} "
        f"| {row['exact']:.4g} | {row['exact_per_width']:.4g} |"
        for row in table
    ]
    write_whole(output / "smx.md", "\n".join(lines) + "\n")
    relevance = np.array([answer.relevance[zone.name] for zone in named]) @ named.members
    maps = {"SMX, relevance of the zones": relevance, "exact contributions, mean size": np.abs(saliency).mean(0)}
    shown = Signal(np.median(signals, 0).reshape(-1, signals.shape[-1]), axis, label)
    picture = line_picture(shown, maps, f"{len(signals)} signals, their median", answer.package, named)
    with whole(output / "smx.png") as place:
        picture.save(place)
    if json_:
        typer.echo(json.dumps(record, default=str))
        return
    echo("\n".join(lines))
    echo(f"{answer.passes} passes through the model; {output}/smx.json, smx.md, smx.png")
