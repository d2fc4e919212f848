"""Channels of a class by what drives them: a sheet of image regions for each class, or a page of words."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from itertools import accumulate
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from hf_mhex.evaluation.channels import Channel, ClassReport, Example
from hf_mhex.modeling.mhex_words import ExplainedText, words_from_tokens
from hf_mhex.pictures.maps import overlay
from hf_mhex.pictures.words import words_html
from hf_mhex.processors import restore_image
from hf_mhex.writing import make_folder, whole, write_whole


def write_channels(
    reports: list[ClassReport], model, processor, batches: list[dict], folder: Path
) -> tuple[list[dict], list[Path]]:
    """Write channels.json and the pictures of the examples into `folder`; return the record and the paths.

    Channels of signals have no pictures.

    Args:
        reports: of `channel_report` over `batches`. processor: the model's image processor or tokenizer.
    """
    make_folder(folder)
    names, size = model.config.id2label, len(batches[0]["labels"])
    record, path = record_of(reports, names), folder / "channels.json"
    write_whole(path, json.dumps(record, indent=1) + "\n")

    def picture(row: int) -> np.ndarray:
        pixels = restore_image(batches[row // size]["pixel_values"][row % size], processor)
        return pixels if pixels.shape[-1] in (1, 3) else pixels.mean(-1).round().astype(np.uint8)

    def text(example: Example) -> ExplainedText:
        ids = batches[example.row // size]["input_ids"][example.row % size]
        return text_of_ids(ids.tolist(), example.map.tolist(), processor)

    paths = [path]
    if any(channel.examples for report in reports for channel in report.channels):
        if model.main_input_name == "pixel_values":
            paths += channel_sheets(reports, names, picture, folder)
        elif model.main_input_name == "input_ids":
            paths += channel_page(reports, names, text, folder)
    return record, paths


def channel_sheets(reports: list[ClassReport], names: dict[int, str], picture: Callable, folder: Path) -> list[Path]:
    """One PNG for each class with channels: a line for each channel, its strongest rows side by side.

    Args:
        picture: `picture(row)` is the image of a row, uint8 [H, W] or [H, W, channels].
    """
    paths = []
    for report in reports:
        lines = []
        for channel in report.channels:
            title = (
                f"block {channel.block}, channel {channel.channel}\n{channel.contribution:+.3f} ({channel.share:+.1%})"
            )
            shown = [overlay(picture(e.row), e.map, title=title, size=128) for e in channel.examples]
            if shown:
                lines.append(np.hstack([np.asarray(tile.convert("RGB")) for tile in shown]))
        if lines:
            paths.append(folder / f"channels-{report.label}.png")
            width = max(line.shape[1] for line in lines)
            padded = [np.pad(line, [(0, 0), (0, width - line.shape[1]), (0, 0)], constant_values=255) for line in lines]
            with whole(paths[-1]) as place:
                Image.fromarray(np.vstack(padded)).quantize(256).save(place)
    return paths


def channel_page(reports: list[ClassReport], names: dict[int, str], text: Callable, folder: Path) -> list[Path]:
    """One HTML page: the strongest texts of each class's channels, their words coloured by the channel's share.

    Args:
        text: `text(example)` is an example's text with its words.
    """
    entries = []
    for report in reports:
        for channel in report.channels:
            heading = f"{names[report.label]}: {channel_name(channel)}"
            for example in channel.examples:
                entries.append((text(example), heading, example.contribution))
    path = folder / "channels.html"
    write_whole(path, words_html(entries, title="What channels read"))
    return [path]


def channel_name(channel: Channel) -> str:
    """A channel in words."""
    return f"block {channel.block}, channel {channel.channel} ({channel.share:+.1%} of the logit's parts)"


def text_of_ids(ids: Sequence[int], scores: Sequence[float], tokenizer) -> ExplainedText:
    """Tokens as a text with scored words; those that frame or pad the text are special.

    The words are those of the tokenizer itself, whatever its marks of a word's later pieces. Where it does not read its
    own text back as these tokens, every token is a word.

    Args:
        tokenizer: a fast one. ids, scores: one of each a token, T, padded on any side.
    """
    frame = {tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.pad_token_id}
    frame |= {tokenizer.bos_token_id, tokenizer.eos_token_id}
    own = [place for place, token in enumerate(ids) if token not in frame]
    kept = [ids[place] for place in own]
    text = tokenizer.decode(kept).strip()
    read = tokenizer(text, add_special_tokens=False)
    if read["input_ids"] == kept:
        found = [(read.encodings[0].offsets[k], read.encodings[0].word_ids[k]) for k in range(len(kept))]
    else:
        pieces = [tokenizer.decode([token]).strip() for token in kept]
        ends = accumulate(len(piece) + 1 for piece in pieces)
        text = " ".join(pieces)
        found = [((end - 1 - len(piece), end - 1), number) for number, (piece, end) in enumerate(zip(pieces, ends))]
    places = dict(zip(own, found))
    offsets, word_ids = zip(*(places.get(place, ((0, 0), None)) for place in range(len(ids))))
    return words_from_tokens(text, offsets, word_ids, scores)


def record_of(reports: list[ClassReport], names: dict[int, str]) -> list[dict]:
    """The reports as JSON values; of an example's map the place of its largest value, as shares of the sides."""
    return [
        {
            "label": names[report.label],
            "rows": report.rows,
            "logit": report.logit,
            "by_block": list(report.by_block),
            "channels": [
                {
                    **{name: value for name, value in vars(channel).items() if name != "examples"},
                    "examples": [
                        {"row": e.row, "contribution": e.contribution, "peak": peak(e.map)} for e in channel.examples
                    ],
                }
                for channel in report.channels
            ],
        }
        for report in reports
    ]


def peak(values: torch.Tensor) -> list[int]:
    """Where the size of a map is greatest: [line, column], or [token]."""
    return [int(place) for place in np.unravel_index(int(values.abs().argmax()), tuple(values.shape))]
