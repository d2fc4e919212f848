"""What do a class's channels look for? A sheet of image regions for each class, or a page of words."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from hf_mhex.evaluation.channels import Channel, ClassReport
from hf_mhex.modeling.mhex_words import ExplainedText, words_from_tokens
from hf_mhex.pictures.maps import overlay, words_html
from hf_mhex.processors import restore_image


def write_channels(
    reports: list[ClassReport], model, processor, batches: list[dict], folder: Path
) -> tuple[list[dict], list[Path]]:
    """Write channels.json and the pictures of the examples into `folder`; return the record and the paths.

    Args:
        reports: of `channel_report` over `batches`. processor: the model's image processor or tokenizer.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names, size = model.config.id2label, len(batches[0]["labels"])
    record, path = record_of(reports, names), folder / "channels.json"
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")

    def picture(row: int) -> np.ndarray:
        return restore_image(batches[row // size]["pixel_values"][row % size], processor)

    def tokens(row: int) -> list[str]:
        batch = batches[row // size]
        length = int(batch["attention_mask"][row % size].sum())
        return processor.convert_ids_to_tokens(batch["input_ids"][row % size][:length].tolist())

    draw, look = (channel_sheets, picture) if model.main_input_name == "pixel_values" else (channel_page, tokens)
    shown = any(channel.examples for report in reports for channel in report.channels)
    return record, [path, *(draw(reports, names, look, folder) if shown else [])]


def channel_sheets(reports: list[ClassReport], names: dict[int, str], picture: Callable, folder: Path) -> list[Path]:
    """One PNG for each class with channels: a line for each channel, its strongest rows side by side.

    Args:
        picture: `picture(row)` is the image of a row, uint8 [H, W, 3].
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
            Image.fromarray(np.vstack(padded)).quantize(256).save(paths[-1])
    return paths


def channel_page(reports: list[ClassReport], names: dict[int, str], tokens: Callable, folder: Path) -> list[Path]:
    """One HTML page: the strongest texts of each class's channels, their words coloured by the channel's share.

    Args:
        tokens: `tokens(row)` are the tokens of a row, as the tokenizer writes them ("##" before a word's later pieces).
    """
    entries = []
    for report in reports:
        for channel in report.channels:
            heading = f"{names[report.label]}: {channel_name(channel)}"
            for example in channel.examples:
                explained = text_of_tokens(tokens(example.row), example.map.tolist())
                entries.append((explained, heading, example.contribution))
    path = folder / "channels.html"
    path.write_text(words_html(entries, title="What channels read"), encoding="utf-8")
    return [path]


def channel_name(channel: Channel) -> str:
    """A channel in words."""
    return f"block {channel.block}, channel {channel.channel} ({channel.share:+.1%} of the logit's parts)"


def text_of_tokens(tokens: list[str], scores: list[float]) -> ExplainedText:
    """Tokens as a text with scored words; those in square brackets are special. Scores beyond them are left out."""
    text, offsets, word_ids, number = "", [], [], -1
    for token in tokens:
        special = token.startswith("[") and token.endswith("]") and len(token) > 2
        piece = token.removeprefix("##")
        if special:
            offsets.append((0, 0))
            word_ids.append(None)
            continue
        if not token.startswith("##") or number < 0:
            number += 1
            text += " " if text else ""
        offsets.append((len(text), len(text) + len(piece)))
        word_ids.append(number)
        text += piece
    return words_from_tokens(text, offsets, word_ids, scores[: len(tokens)])


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
