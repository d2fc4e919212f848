"""`mhex heads`: which labels each attention head or channel group speaks for, and what happens without it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from hf_mhex.cli.options import AsJson, Data, Device, Model, Overrides, Revision, Split, find_device
from hf_mhex.cli.terminal import echo, print_table
from hf_mhex.escaping import code_markdown, escaped_markdown
from hf_mhex.writing import check_folder, make_folder, write_whole

COLUMNS = (
    "block",
    "piece",
    "speaks for",
    "noise",
    "alone",
    "without it",
    "predicted fall",
    "block's fall",
    "model's fall",
)

CURVES = ("pieces removed", "strongest first: model", "block's own head", "weakest first: model", "block's own head")


def heads(
    model: Model,
    data: Data,
    overrides: Overrides = None,
    split: Split = None,
    blocks: Annotated[str, typer.Option(help="Blocks, separated by commas; negative ones from the end.")] = "-1",
    groups: Annotated[
        int | None, typer.Option(help="Channel groups of a block; if left out, attention heads, or 8 groups.", min=1)
    ] = None,
    threshold: Annotated[float, typer.Option(help="Share of a field's largest value that counts.")] = 0.3,
    rows: Annotated[int, typer.Option(help="Rows to look at.", min=1)] = 256,
    output: Annotated[Path, typer.Option(help="Folder for the table, the fields and their pictures.")] = Path(
        "outputs/heads"
    ),
    revision: Revision = None,
    device: Device = None,
    json_: AsJson = False,
) -> None:
    """Show which labels each attention head or channel group speaks for, its noise, and what its removal costs.

    Example: mhex heads outputs/demo/mhex-resnet-fashion-mnist sample:fashion_mnist

    Example: mhex heads my-vit photos/ --blocks 9,10,11

    Example: mhex heads outputs/train/sample_fashion_mnist-plain/model sample:fashion_mnist
    """
    from hf_mhex.benchmarks.journal import command_line, source_name
    from hf_mhex.cli.channels import read_batches
    from hf_mhex.cli.networks import load_network
    from hf_mhex.environment import environment
    from hf_mhex.evaluation.heads import single_heads
    from hf_mhex.pictures.fields import write_fields

    try:
        chosen = [int(block) for block in blocks.split(",")]
    except ValueError as error:
        raise ValueError(f"--blocks must be numbers separated by commas, got {blocks!r}.") from error
    check_folder(output)
    place = find_device(device)
    network, processor = load_network(model, revision)
    batches = read_batches(network.to(place), processor, data, overrides or [], split, rows)
    found = single_heads(network, batches, chosen, groups, threshold)
    told = {"blocks": blocks, "groups": groups, "threshold": f"{threshold:g}", "rows": rows}
    command = command_line("mhex heads", [source_name(model), source_name(data)], overrides, told)
    made = {"command": command, "environment": environment()}
    record = found.record(network.config.id2label) | made
    make_folder(output)
    write_whole(output / "heads.json", json.dumps(record) + "\n")
    write_whole(output / "heads.md", page_of(record))
    paths = [output / "heads.md", output / "heads.json", *write_fields(found, network.config.id2label, output)]
    if json_:
        typer.echo(json.dumps(record))
        return
    print_table(*filled(COLUMNS, lines_of(record)))
    echo(summary_of(record))
    print_table(*filled(CURVES, curves_of(record)))
    for path in paths:
        echo(str(path))


def lines_of(record: dict) -> list[tuple[str, ...]]:
    """A line for each piece; falls are means over the rows."""
    weights = [count / sum(record["rows"]) for count in record["rows"]]

    def mean(values) -> str:
        if values is None:
            return ""
        return f"{sum(weight * value for weight, value in zip(weights, values)):+.3f}"

    return [
        (
            str(piece["block"]),
            piece["name"],
            "; ".join(", ".join(group) for group in piece["groups"]) or "none",
            f"{piece['noise']} ({piece['noise_share']:.0%})",
            f"{piece['alone']:.3f}",
            f"{piece['accuracy']:.3f}",
            *(mean(piece[name]) for name in ("predicted", "block_fall", "model_fall")),
        )
        for piece in record["pieces"]
    ]


def curves_of(record: dict) -> list[tuple[str, ...]]:
    """Accuracies as pieces are removed, a line for each count: of the model, and of the blocks' own heads."""
    strongest, weakest = record["curves"]["strongest first"], record["curves"]["weakest first"]
    return [
        (str(left[0]), *("" if value is None else f"{value:.3f}" for value in (*left[1:], *right[1:])))
        for left, right in zip(strongest, weakest)
    ]


def summary_of(record: dict) -> str:
    """What the lines have in common, as text."""
    agreement = record["agreement"]
    if not agreement:
        return (
            f"{sum(record['rows'])} rows, accuracy {record['accuracy']:.3f}. A plain network has no heads on its "
            "blocks: what a piece adds is how far the logits fall without it."
        )
    return (
        f"{sum(record['rows'])} rows, accuracy {record['accuracy']:.3f}. Rank correlation over pieces and labels of "
        f"the falls that the fields predict with the real ones: {agreement['block']:+.3f} in the block's logits, "
        f"{agreement['model']:+.3f} in the model's."
    )


def filled(columns: Sequence[str], lines: list[tuple[str, ...]]) -> tuple[list[str], list[tuple[str, ...]]]:
    """A table without the columns that are empty throughout, as a plain network's predictions are."""
    kept = [number for number in range(len(columns)) if any(line[number] for line in lines)]
    return [columns[number] for number in kept], [tuple(line[number] for number in kept) for line in lines]


def page_of(record: dict) -> str:
    """The record as a Markdown page."""
    from hf_mhex.benchmarks.tables import markdown_table
    from hf_mhex.environment import ran_on

    parts = [
        "# Single heads",
        f"Made by {code_markdown(record['command'])} on {ran_on([record])}. docs/heads.md says what the columns are.",
        markdown_table(*filled(COLUMNS, [tuple(map(escaped_markdown, line)) for line in lines_of(record)])),
        summary_of(record),
        markdown_table(*filled(CURVES, curves_of(record))),
    ]
    return "\n\n".join(parts) + "\n"
