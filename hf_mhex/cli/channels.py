"""`mhex explain --channels` and `mhex collaboration`: what a model's channels and heads do over a data set."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Annotated

import typer

from hf_mhex.cli.options import AsJson, Data, Device, Model, Overrides, Revision, Split, find_device
from hf_mhex.cli.terminal import echo, print_table
from hf_mhex.writing import check_folder, write_whole


def report_channels(network, processor, data: str, split: str | None, rows: int, output: Path, as_json: bool) -> None:
    """Write and print which channels of which block carry each class, their share of the logit, and what drives them.

    Against the mean of the other classes, where there are any: the logits' common level says nothing.
    """
    from hf_mhex.evaluation.channels import channel_report
    from hf_mhex.pictures.channels import write_channels

    batches = read_batches(network, processor, data, [], split, rows)
    reports = channel_report(network, batches, 6, 4, "mean" if network.config.num_labels > 1 else None)
    record, paths = write_channels(reports, network, processor, batches, output)
    if as_json:
        typer.echo(json.dumps(record))
        return
    for report in record:
        by_block = ", ".join(f"{value:+.2f}" for value in report["by_block"])
        lines = [
            (str(one["block"]), str(one["channel"]))
            + (f"{one['weight']:+.4f}", f"{one['contribution']:+.4f}", f"{one['share']:+.1%}")
            for one in report["channels"]
        ]
        columns = ("block", "channel", "weight", "contribution", "share")
        print_table(columns, lines, f"{report['label']}: {report['rows']} rows")
        echo(f"logit {report['logit']:+.3f}, by block {by_block}")
    for path in paths:
        echo(str(path))


def read_batches(network, processor, data: str, overrides: list[str], split: str | None, rows: int) -> list[dict]:
    """The first `rows` rows of a recipe's source, in batches of 8 on the model's device."""
    from hf_mhex.training.evaluation import rows_for

    batches, _ = rows_for(network, processor, data, split, overrides, 8)
    few = enumerate(itertools.islice(batches, -(-rows // 8)))
    left = ({name: value[: rows - 8 * number] for name, value in batch.items()} for number, batch in few)
    return [{name: value.to(network.device) for name, value in batch.items()} for batch in left]


def collaboration(
    model: Model,
    data: Data,
    overrides: Overrides = None,
    split: Split = None,
    rows: Annotated[int, typer.Option(help="Rows to look at.", min=2)] = 64,
    output: Annotated[Path | None, typer.Option(help="JSON file to write to.")] = None,
    revision: Revision = None,
    device: Device = None,
    json_: AsJson = False,
) -> None:
    """Show whether each head and its successor want the same of the gate between them, and what goes with it.

    Example: mhex collaboration outputs/demo/mhex-resnet-fashion-mnist sample:fashion_mnist
    """
    from hf_mhex.benchmarks.explanations.analyses import drop_of
    from hf_mhex.evaluation.collaboration import collaboration as compare
    from hf_mhex.loading import load

    if output is not None:
        check_folder(output.parent)
    place = find_device(device)
    network, processor = load(model, revision)
    network.to(place)
    drop = drop_of(network, processor)
    batches = read_batches(network, processor, data, overrides or [], split, rows)
    found = compare(network, batches, drop).summary()
    if output:
        write_whole(output, json.dumps(found, indent=1) + "\n")
    if json_:
        typer.echo(json.dumps(found))
        return
    lines = []
    for row in found:
        cells = [f"{row['cosine']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]"]
        for name in ("with confidence", "with drop"):
            cells.append(f"{row[name]['correlation']:+.2f} [{row[name]['low']:+.2f}, {row[name]['high']:+.2f}]")
        lines.append([str(row["block"]), *cells])
    print_table(("block", "cosine with the next head", "rank correlation with confidence", "... with the drop"), lines)
