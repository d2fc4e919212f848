"""The paper's two analyses of a network on a set, of channels and of heads, as small files beside the tables."""

from __future__ import annotations

import json
from pathlib import Path

from hf_mhex.benchmarks.explanations.parts import Images, Texts, image_scores, probabilities, text_scores
from hf_mhex.benchmarks.tables import markdown_table
from hf_mhex.escaping import escaped_markdown
from hf_mhex.evaluation import average_drop, text_drop, unit_range
from hf_mhex.evaluation.channels import channel_report
from hf_mhex.evaluation.collaboration import collaboration
from hf_mhex.evaluation.drop import special_ids
from hf_mhex.pictures.channels import write_channels
from hf_mhex.writing import make_folder, write_whole

BATCH = 8


def write_analyses(model, part: Images | Texts, processor, output: Path, rows: int = 256, few: int = 64) -> list[Path]:
    """Write analyses.md, channels.json with its pictures, and collaboration.json into `output`; return the paths.

    Args:
        model: an MHEX classifier in eval mode. processor: its image processor or tokenizer. part: test rows.
        rows: for the channels. few: for the collaboration, which takes two gradients a block and row.
    """
    make_folder(output)
    batches = batches_of(part, rows)
    reports = channel_report(model, batches, 4, 4, "mean" if model.config.num_labels > 1 else None)
    record, paths = write_channels(reports, model, processor, batches, output)
    heads = collaboration(model, batches_of(part, few), drop_of(model, processor)).summary()
    write_whole(output / "collaboration.json", json.dumps(heads, indent=1) + "\n")
    text = "\n\n".join([channels_section(record, paths, min(rows, len(part))), collaboration_section(heads)])
    write_whole(output / "analyses.md", text + "\n")
    return [output / "analyses.md", output / "collaboration.json", *paths]


def batches_of(part: Images | Texts, count: int) -> list[dict]:
    """The first `count` rows as inputs of `forward` with labels, in order."""
    chosen = []
    for first in range(0, min(count, len(part)), BATCH):
        rows = list(range(first, min(first + BATCH, count, len(part))))
        if isinstance(part, Images):
            inputs = {"pixel_values": part.pixels[rows]}
        else:
            inputs = {name: part.inputs(rows)[name] for name in ("input_ids", "attention_mask")}
        chosen.append(inputs | {"labels": part.labels[rows]})
    return chosen


def drop_of(model, processor):
    """`drop(batch) -> [B]`: the paper's hard drop (text drop for texts) by the model's own default map.

    Raises ValueError for a model of signals, which have none.
    """
    if model.main_input_name not in ("pixel_values", "input_ids"):
        raise ValueError(f"model must be for images or texts, {type(model).__name__} is not; no drop is defined there.")

    def of_images(batch: dict):
        pixels = batch["pixel_values"].to(model.device)
        answer = model.generate_saliency(pixel_values=pixels)
        scores = probabilities(image_scores(model))
        return average_drop(scores, pixels, unit_range(answer.saliency), answer.target)

    def of_texts(batch: dict):
        given = {name: batch[name].to(model.device) for name in ("input_ids", "attention_mask")}
        answer = model.generate_saliency(**given)
        scores = probabilities(text_scores(model))
        rest = (answer.saliency, answer.target, processor.mask_token_id, special_ids(processor))
        return text_drop(scores, given["input_ids"], given["attention_mask"], *rest)

    return of_images if model.main_input_name == "pixel_values" else of_texts


def channels_section(record: list[dict], paths: list[Path], rows: int) -> str:
    """The channels of each class as a Markdown table, with links to their pictures."""
    columns = ("class", "rows", "logit", "by block", "block/channel: contribution (share)")
    lines = []
    for entry in record:
        blocks = ", ".join(f"{value:+.2f}" for value in entry["by_block"])
        found = "; ".join(
            f"{c['block']}/{c['channel']}: {c['contribution']:+.3f} ({c['share']:+.1%})" for c in entry["channels"]
        )
        lines.append((escaped_markdown(entry["label"]), entry["rows"], f"{entry['logit']:+.2f}", blocks, found))
    pictures = [f"[{path.name}]({path.name})" for path in paths if path.suffix != ".json"]
    return "\n\n".join(
        [
            "# Channels that carry a class",
            f"Over {rows} test rows, those that the network answers with the class. A channel's contribution is what "
            "it adds to the logit against the other classes' mean; its share is of the sizes of all channels' "
            "contributions. The logit is the sum over all channels of all blocks.",
            markdown_table(columns, lines),
            *([f"Where they look: {', '.join(pictures)}."] if pictures else []),
        ]
    )


def collaboration_section(heads: list[dict]) -> str:
    """The collaboration of neighbouring heads as a Markdown table."""
    columns = ("block", "cosine with the next head", "with confidence", "with the drop")
    lines = []
    for row in heads:
        cells = [f"{row['cosine']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]"]
        for name in ("with confidence", "with drop"):
            cells.append(f"{row[name]['correlation']:+.2f} [{row[name]['low']:+.2f}, {row[name]['high']:+.2f}]")
        lines.append((row["block"], *cells))
    return "\n\n".join(
        [
            "# Collaboration of neighbouring heads",
            f"Over {heads[0]['rows']} test rows, with 95 % bootstrap intervals: the cosine between the gradients that "
            "a block's own head and the next block's head send into its W1 (1: both want the same change of the "
            "gate), and its rank correlation with the answer's probability and with the paper's drop.",
            markdown_table(columns, lines),
        ]
    )
