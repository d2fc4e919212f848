"""`mhex channels` and `mhex collaboration`: what a trained model's channels and heads do, over a data set."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Annotated

import typer

MODEL = Annotated[str, typer.Argument(help="A saved model's folder or Hub id.")]
DATA = Annotated[str, typer.Argument(help="A .npz of MedMNIST, .csv, .parquet, .json, folder, Hub id or sample:NAME.")]
OVERRIDES = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Settings of a recipe's data section.")
]
SPLIT = Annotated[str | None, typer.Option(help="Split to look at; test, or the only one.")]
JSON = Annotated[bool, typer.Option("--json", help="Print as JSON.")]


def read(model: str, data: str, overrides: list[str] | None, split: str | None, rows: int):
    """The network, its processor and the first `rows` rows as batches."""
    from hf_mhex.loading import load
    from hf_mhex.training.evaluation import rows_for

    network, processor = load(model)
    batches, _ = rows_for(network, processor, data, split, overrides or [], 8)
    return network, processor, [dict(batch) for batch in itertools.islice(batches, -(-rows // 8))]


def channels(
    model: MODEL,
    data: DATA,
    overrides: OVERRIDES = None,
    split: SPLIT = None,
    rows: Annotated[int, typer.Option(help="Rows to look at.", min=1)] = 256,
    top: Annotated[int, typer.Option(help="Channels of a class.", min=1)] = 6,
    examples: Annotated[int, typer.Option(help="Rows of a channel.", min=0)] = 4,
    contrast: Annotated[str | None, typer.Option(help="mean: against the mean of the other classes.")] = "mean",
    output: Annotated[Path, typer.Option(help="Folder for pictures and report.json.")] = Path("outputs/channels"),
    json_: JSON = False,
) -> None:
    """Show which channels of which block carry each class, their share of the logit, and what drives them most.

    Example: mhex channels outputs/demo/mhex-resnet-fashion-mnist sample:fashion_mnist --output outputs/channels
    """
    from hf_mhex.channel_pictures import channel_page, channel_sheets, record_of
    from hf_mhex.channels import channel_report
    from hf_mhex.processors import restore_image

    network, processor, batches = read(model, data, overrides, split, rows)
    reports = channel_report(network, batches, top, examples, None if contrast in (None, "none") else contrast)
    names = network.config.id2label
    found = record_of(reports, names)
    output.mkdir(parents=True, exist_ok=True)
    (output / "report.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")

    def picture(row: int):
        return restore_image(batches[row // 8]["pixel_values"][row % 8], processor)

    def tokens(row: int) -> list[str]:
        batch = batches[row // 8]
        length = int(batch["attention_mask"][row % 8].sum())
        return processor.convert_ids_to_tokens(batch["input_ids"][row % 8][:length].tolist())

    draw, look = (channel_sheets, picture) if network.main_input_name == "pixel_values" else (channel_page, tokens)
    paths = draw(reports, names, look, output) if examples else []
    if json_:
        typer.echo(json.dumps(found))
        return
    from rich.console import Console
    from rich.table import Table

    for report in found:
        by_block = ", ".join(f"{value:+.2f}" for value in report["by_block"])
        table = Table(
            "block", "channel", "weight", "contribution", "share", title=f"{report['label']}: {report['rows']} rows"
        )
        for channel in report["channels"]:
            cells = [f"{channel[name]:+.4f}" for name in ("weight", "contribution")] + [f"{channel['share']:+.1%}"]
            table.add_row(str(channel["block"]), str(channel["channel"]), *cells)
        Console().print(table)
        typer.echo(f"logit {report['logit']:+.3f}, by block {by_block}")
    for path in [output / "report.json", *paths]:
        typer.echo(str(path))


def collaboration(
    model: MODEL,
    data: DATA,
    overrides: OVERRIDES = None,
    split: SPLIT = None,
    rows: Annotated[int, typer.Option(help="Rows to look at.", min=2)] = 64,
    output: Annotated[Path | None, typer.Option(help="JSON file to write to.")] = None,
    json_: JSON = False,
) -> None:
    """Show whether each head and its successor want the same of the gate between them, and what goes with it.

    Example: mhex collaboration outputs/demo/mhex-resnet-fashion-mnist sample:fashion_mnist
    """
    from hf_mhex.collaboration import collaboration as compare
    from mhex_cli.benchmark_data import drop_of

    network, processor, batches = read(model, data, overrides, split, rows)
    found = compare(network, batches, drop_of(network, processor)).summary()
    if output:
        output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if json_:
        typer.echo(json.dumps(found))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("block", "cosine with the next head", "rank correlation with confidence", "... with the drop")
    for row in found:
        cells = [f"{row['cosine']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]"]
        for name in ("with confidence", "with drop"):
            cells.append(f"{row[name]['correlation']:+.2f} [{row[name]['low']:+.2f}, {row[name]['high']:+.2f}]")
        table.add_row(str(row["block"]), *cells)
    Console().print(table)
