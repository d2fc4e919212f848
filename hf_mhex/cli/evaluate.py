"""`mhex evaluate`: how good a saved model is on data, as a whole and head by head."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated

import typer

from hf_mhex.cli.options import AsJson, Data, Device, Model, Overrides, Revision, Split, find_device
from hf_mhex.cli.terminal import echo, print_table
from hf_mhex.writing import check_folder, write_whole


def evaluate(
    model: Model,
    data: Data,
    overrides: Overrides = None,
    split: Split = None,
    heads: Annotated[bool, typer.Option("--heads", help="Every head alone, and all of them at each decay.")] = False,
    parts: Annotated[
        int, typer.Option(help="Rows that are asked again without random parts, to see what the maps foretell.", min=0)
    ] = 0,
    batch_size: Annotated[int, typer.Option(help="Rows at once.", min=1)] = 32,
    on_bad_row: Annotated[
        str | None, typer.Option(help="error, or skip: leave bad rows out and count them; of a recipe, what it says.")
    ] = None,
    revision: Revision = None,
    device: Device = None,
    output: Annotated[Path | None, typer.Option(help="JSON file to write the report to.")] = None,
    json_: AsJson = False,
) -> None:
    """Measure a model on labelled rows: metrics, confusion, calibration and, with --heads, how its depth answers.

    With --parts, what the maps say of random parts is compared with what the model says without them.

    Example: mhex evaluate outputs/pneumonia/model pneumoniamnist.npz --heads

    Example: mhex evaluate outputs/news/model outputs/news/recipe.yaml --split validation

    Example: mhex evaluate my-model news.csv input_columns='[title, text]' label_columns=topic --on-bad-row skip
    """
    from hf_mhex.evaluation.predictions import collect, head_report, report
    from hf_mhex.loading import load
    from hf_mhex.training.evaluation import rows_for

    if output is not None:
        check_folder(output.parent)
        if output.is_dir():
            raise ValueError(f"--output {str(output)!r} is a folder; name a file, as {str(output / 'report.json')!r}.")
    place = find_device(device)
    network, processor = load(model, revision)
    settings = [*(overrides or []), *([f"data.on_bad_row={on_bad_row}"] if on_bad_row else [])]
    batches, skipped = rows_for(network, processor, data, split, settings, batch_size)
    logits, labels, block_logits = collect(network.to(place), batches, heads)
    found = {"model": model, "data": data, "skipped": skipped} | report(logits, labels, network.config)
    if heads:
        found |= head_report(block_logits, labels, network.config)
    if parts:
        from hf_mhex.evaluation.part_removal import part_removal, tokenizer_options

        again, _ = rows_for(network, processor, data, split, settings, batch_size)
        tokens = tokenizer_options(processor)
        found["part_removal"] = part_removal(network, spread(again, len(labels), parts), parts, **tokens).as_dict()
    if output:
        write_whole(output, json.dumps(found, indent=1) + "\n")
    if json_:
        typer.echo(json.dumps(found))
        return
    show(found)


def spread(batches: Iterable[dict], rows: int, wanted: int) -> Iterator[dict]:
    """The rows of batches that stand at even distances, so that a file sorted by label gives rows of each."""
    chosen, start = {place * rows // wanted for place in range(wanted)}, 0
    for batch in batches:
        size = len(batch["labels"])
        places = [place - start for place in range(start, start + size) if place in chosen]
        start += size
        if places:
            yield {name: value[places] for name, value in batch.items()}


def show(found: dict) -> None:
    """The report as tables."""
    echo(f"{found['rows']} rows" + "".join(f", {n} left out: {why}" for why, n in found["skipped"].items()))
    for name, value in found["metrics"].items():
        echo(f"{name.replace('_', ' ')}: {value:.4f}")
    for name, reason in found["undefined"].items():
        echo(f"{name}: not defined here; {reason}")
    if "calibration_error" in found:
        echo(f"calibration error: {found['calibration_error']:.4f}")
    if isinstance(found.get("confusion"), list) and len(found["labels"]) <= 20:
        recalls = ["-" if found["recall"][name] is None else f"{found['recall'][name]:.3f}" for name in found["labels"]]
        rows = [
            (name, *map(str, row), recall) for name, row, recall in zip(found["labels"], found["confusion"], recalls)
        ]
        print_table(("truth \\ predicted", *found["labels"], "recall"), rows)
    if "heads" in found:
        print_heads(found)
    if "part_removal" in found:
        print_removal(found["part_removal"])


def print_removal(found: dict) -> None:
    """What the maps foretold of random parts, beside a map that is even."""
    echo(
        f"{found['rows']} rows without random parts ({found['parts']}, {found['removal']}): the {found['score']} "
        f"changed by {found['change']['estimate']:.3f} on average"
    )
    rows = [
        (title, *(f"{found[n]['estimate']:.3f} [{found[n]['low']:.3f}, {found[n]['high']:.3f}]" for n in names))
        for title, names in (
            ("the map", ("correlation", "error")),
            ("the map refined by 4 passes", ("refined_correlation", "refined_error")),
            ("an even map", ("even_correlation", "even_error")),
        )
        if found[names[0]]
    ]
    print_table(("foretold by", "correlation with the real change", "mean error"), rows)


def print_heads(found: dict) -> None:
    """Print heads alone, then combined, with the recall of each label where they are few."""
    first = found["heads"][0]
    numbers = [name for name, value in first.items() if isinstance(value, float)]
    labels = list(first.get("recall", {})) if len(first.get("recall", {})) <= 12 else []
    rows = [(f"block {row['block']}", row) for row in found["heads"]]
    rows += [(f"all, decay {row['decay']:g}{' (own)' if row['own'] else ''}", row) for row in found["combined"]]
    lines = []
    for title, row in rows:
        recalls = ["-" if row["recall"][name] is None else f"{row['recall'][name]:.3f}" for name in labels]
        lines.append([title, *(f"{row[name]:.4f}" for name in numbers), *recalls])
    print_table(("heads", *(name.replace("_", " ") for name in numbers), *(f"recall {name}" for name in labels)), lines)
