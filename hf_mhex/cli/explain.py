"""`mhex explain`: label, score and saliency of one image, of one text, or of every row of a data set."""

from __future__ import annotations

import json
import sys
from itertools import chain, count
from pathlib import Path
from typing import Annotated

import typer

from hf_mhex.cli.options import AsJson, Contrast, Device, Model, Revision, Target, find_device, label_options
from hf_mhex.cli.terminal import echo
from hf_mhex.writing import check_folder, whole, write_whole

DATA_FILES = (".parquet", ".csv", ".tsv", ".json", ".jsonl", ".txt", ".npz")


def explain(
    model: Model,
    item: Annotated[
        str,
        typer.Argument(
            metavar="INPUT",
            help="An image file or a text (- reads it from stdin); or data: a folder, a file of rows "
            f"({', '.join(DATA_FILES)}), or with --split the Hub id of a data set.",
        ),
    ],
    target: Target = None,
    contrast: Contrast = None,
    blocks: Annotated[
        str | None,
        typer.Option(help="Numbers of blocks, separated by commas, or all; of data their own maps are kept too."),
    ] = None,
    decay: Annotated[float | None, typer.Option(help="Weight of a block against the next deeper one.")] = None,
    rollout: Annotated[
        bool, typer.Option("--rollout", help="Carry maps back through attention to the words or patches.")
    ] = False,
    refine: Annotated[
        int,
        typer.Option(
            help="Passes with a gradient, for a map that follows the input more closely, with the same sums.", min=0
        ),
    ] = 0,
    stride: Annotated[
        int | None, typer.Option(help="Text: read a long one in windows that share so many tokens.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Picture (.png); of a text also a page (.html); folder for the answers to data.")
    ] = None,
    revision: Revision = None,
    device: Device = None,
    json_: AsJson = False,
    split: Annotated[str | None, typer.Option(help="Data: the split to explain.")] = None,
    streaming: Annotated[bool, typer.Option("--streaming", help="Data: read rows as they are needed.")] = False,
    column: Annotated[str | None, typer.Option(help="Data: the column of images or texts.")] = None,
    id_column: Annotated[str | None, typer.Option(help="Data: the column of ids.")] = None,
    target_column: Annotated[str | None, typer.Option(help="Data: the column of classes to explain.")] = None,
    words: Annotated[bool, typer.Option("--words", help="Data: add tokens up to words.")] = False,
    overlays: Annotated[bool, typer.Option("--overlays", help="Data: paint every image.")] = False,
    map_dtype: Annotated[str, typer.Option(help="Data: float16 or int8.")] = "float16",
    batch_size: Annotated[int, typer.Option(help="Data: rows at once.", min=1)] = 32,
    rows_per_shard: Annotated[int, typer.Option(help="Data: rows in a Parquet file.", min=1)] = 512,
    engine: Annotated[
        str | None, typer.Option(help="Data: ray or spark, to share the work out; this process alone if left out.")
    ] = None,
    workers: Annotated[int, typer.Option(help="Data: workers of the engine.", min=1)] = 1,
    channels: Annotated[
        bool, typer.Option("--channels", help="Data as recipes name it: tell which channels carry each class.")
    ] = False,
    rows: Annotated[int, typer.Option(help="Channels: rows to look at.", min=1)] = 256,
) -> None:
    """Give label, score and saliency of one image or one text, and the map's sum beside the logit; or explain data.

    Example: mhex explain outputs/demo/mhex-resnet-fashion-mnist coat.png --contrast runner_up

    Example: mhex explain outputs/demo/mhex-bert-product-reviews "great phone, poor battery" --output why.html

    Example: mhex explain outputs/demo/mhex-bert-product-reviews - --stride 32 < letter.txt

    Example: mhex explain outputs/demo/mhex-bert-product-reviews reviews.csv --words --output explained

    Example: mhex explain outputs/demo/mhex-resnet-fashion-mnist sample:fashion_mnist --channels --output channels

    Example: mhex explain MODEL photos/ --overlays --engine ray --workers 2 --output explained

    One input is explained by its label's lead over the mean of the other labels; --contrast none explains the logit,
    as the answers to data do unless a contrast is named.

    A run over data that was ended goes on with the same command.
    """
    from hf_mhex.loading import load

    if output is not None:
        check_folder(output.parent)
    place = find_device(device)
    network, processor = load(model, revision)
    network = network.to(place)
    if channels:
        from hf_mhex.cli.channels import report_channels

        given = {"target": target, "contrast": contrast, "blocks": blocks, "decay": decay, "rollout": rollout or None}
        given |= {
            "stride": stride,
            "streaming": streaming or None,
            "column": column,
            "id-column": id_column,
            "engine": engine,
            "refine": refine or None,
        }
        given |= {"target-column": target_column, "words": words or None, "overlays": overlays or None}
        foreign = [name for name, value in given.items() if value is not None]
        if foreign:
            raise ValueError(
                f"--{foreign[0]} does not apply with --channels, which takes --split, --rows and --output."
            )
        report_channels(network, processor, item, split, rows, output or Path("outputs/channels"), json_)
        return
    options = label_options(network.config, target, contrast) | {"decay": decay, "rollout": rollout, "refine": refine}
    if blocks is not None:
        try:
            options["blocks"] = None if blocks == "all" else [int(block) for block in blocks.split(",")]
        except ValueError:
            raise ValueError(f"--blocks must be numbers separated by commas, or all, got {blocks!r}.") from None
    of_data: dict = {"column": column, "id_column": id_column, "target_column": target_column, "words": words}
    of_data |= {
        "overlays": overlays,
        "map_dtype": map_dtype,
        "batch_size": batch_size,
        "rows_per_shard": rows_per_shard,
        "engine": engine,
        "workers": workers,
    }
    if split is not None or names_data(item):
        if stride is not None:
            raise ValueError(f"--stride is for one text, {item!r} is data; explain its texts one by one.")
        data = {"source": item, "split": split, "streaming": streaming}
        options |= of_data | {"block_maps": blocks is not None}
        explain_rows(network, processor, data, output, options, json_)
        return
    names = ("column", "id_column", "target_column", "words", "overlays", "engine")
    of_rows = [name for name in names if of_data[name]]
    if of_rows or streaming:
        cure = "name a folder or a file of rows, or with --split a data set on the Hub"
        raise ValueError(f"--{(of_rows or ['streaming'])[0].replace('_', '-')} is for data, {item!r} is not; {cure}.")
    if stride is not None:
        options["stride"] = stride
    if contrast is None:
        from hf_mhex.explaining.explanation import lead_contrast

        options["contrast"] = lead_contrast(network.config)
    explain_one(network, processor, item, output, options, json_)


def names_data(item: str) -> bool:
    """Whether an input is a folder or the name of a file of rows; what is longer, or has spaces, is a text."""
    if not 0 < len(item) <= 255:
        return False
    is_name = not any(map(str.isspace, item)) or Path(item).is_file()
    return Path(item).is_dir() or (is_name and item.lower().endswith(DATA_FILES))


def free_name(path: Path) -> Path:
    """The path, with a number where a file of that name is there already."""
    names = (path.with_stem(f"{path.stem}-{number}") for number in count(2))
    return next(name for name in chain([path], names) if not name.exists())


def explain_rows(network, processor, data: dict, output: Path | None, options: dict, as_json: bool) -> None:
    """Explain data and say how much of it."""
    from hf_mhex.data.source import open_data
    from hf_mhex.explaining.dataset import explain_dataset
    from hf_mhex.families import family_of

    if output is None:
        raise ValueError(f"INPUT {data['source']!r} is data: name a folder for the answers by --output.")
    if Path(data["source"]).is_dir() and output.resolve().is_relative_to(Path(data["source"]).resolve()):
        raise ValueError(
            f"--output {str(output)!r} lies in the folder that is explained, where answers would be explained in turn; "
            "name one outside of it."
        )
    seen = sys.stderr.isatty()  # a bar; elsewhere a line
    if not seen:
        echo(f"explaining {data['source']} ...", err=True)
    rows = open_data(**data, kind=family_of(network).kind)
    found = explain_dataset(network, processor, rows, output, progress=seen, **options)
    if found.rows == found.bad:
        raise ValueError(f"no row of {data['source']!r} could be explained; the column error of {output} says why.")
    if as_json:
        numbers = {"shards": found.shards, "rows": found.rows, "bad": found.bad}
        typer.echo(json.dumps({"output": str(output), **numbers}))
        return
    bad = f", {found.bad} of them bad (column error)" if found.bad else ""
    echo(f"{output}: {found.rows} rows in {found.shards} Parquet file{'s' * (found.shards != 1)}{bad}")


def explain_one(network, processor, item: str, output: Path | None, options: dict, as_json: bool) -> None:
    """Explain one image or one text, and print what was found."""
    import hf_mhex
    from hf_mhex.families import family_of

    is_text = family_of(network).kind == "text"
    as_page = output is not None and output.suffix.lower() in (".html", ".htm")
    if as_page and not is_text:
        raise ValueError(f"--output {str(output)!r} is a page, which texts have; name a picture, as why.png.")
    found = hf_mhex.explain(network, processor, sys.stdin.read() if item == "-" else item, **options)
    if output is None and not is_text:
        output = free_name(Path(f"{Path(item).stem}-saliency.png"))
    if output and as_page:
        write_whole(output, found.page)
    elif output:
        with whole(output) as place:
            found.picture.save(place)
    if as_json:
        typer.echo(json.dumps(found.record | {"output": output and str(output)}))
        return
    echo(found.title)
    if found.coloured is not None:
        from rich.console import Console

        Console().print(found.coloured)
    echo(f"{found.sentence}\nmap's sum {found.record['sum']:+.5f}, explained {found.explained:+.5f}")
    if output:
        echo(str(output))
