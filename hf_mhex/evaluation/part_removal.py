"""How well a map foretells what a model says without a part of its input, in logits, beside a map that is even.

A map adds up to the logit, so it says of every part what the logit owes to it. Here the part is taken away, and what
the map said is compared with what happens: faithfulness correlation (Bhatt et al., arXiv 2005.00631) and mean error.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass

import torch

from hf_mhex.evaluation.drop import content_tokens, special_ids
from hf_mhex.evaluation.faithfulness import pearson
from hf_mhex.evaluation.intervals import Interval, bootstrap
from hf_mhex.modeling.mhex_maps import check_one_map, select_classes

CELLS, INTERVALS = 7, 16  # parts along a side of an image, and of a signal; the parts of a text are its tokens
DRAWS = 16
PASSES = 4  # of refined maps
REMOVALS = {"image": "filled with the mean colour", "signal": "set to the mean", "text": "out of sight of all others"}


@dataclass(frozen=True)
class PartRemoval:
    """What a map said of random parts, and what happened without them. All in logits; intervals over rows, 95 %.

    Args:
        rows, draws: how many rows, and how many random sets of parts of each.
        score: what is explained, "lead" over the mean of the other labels, or "logit".
        parts, removal: what a part is and how it goes, in words.
        change: mean size of the real change. error, refined_error, even_error: mean distance of the change that the
            map, the map refined by 4 passes, and an even map of the same sum, foretells. correlation,
            refined_correlation, even_correlation: of foretold and real change within a row. Those of refined maps are
            None for texts without a `mask_id` and where no gradient can be had.
        slope: the real change for each logit that is foretold, by least squares.
    """

    rows: int
    draws: int
    score: str
    parts: str
    removal: str
    change: Interval
    error: Interval
    even_error: Interval
    correlation: Interval
    even_correlation: Interval
    slope: float
    refined_error: Interval | None = None
    refined_correlation: Interval | None = None

    def as_dict(self) -> dict:
        """As JSON takes it; the rows are those of every interval, and said once."""
        found = asdict(self)
        for value in found.values():
            if isinstance(value, dict):
                del value["rows"]
        return found


@dataclass(frozen=True, eq=False)
class WithoutParts:
    """What the map of one row said of M sets of its parts, and what happened without them, in logits.

    Args:
        said, even: by how much what is explained falls, as the map and as an even map of the same sum foretell it, [M].
        real: by how much it fell, [M]; a contrast's weights are those of the whole row.
        explained: what was explained of the whole row. logits: [K] of the whole row. without: [M, K] of what was left.
    """

    said: torch.Tensor
    even: torch.Tensor
    real: torch.Tensor
    explained: float
    logits: torch.Tensor
    without: torch.Tensor


def without_parts(
    model, inputs: dict, numbers: torch.LongTensor, gone: torch.BoolTensor, mask_id: int | None = None, **options
) -> WithoutParts:
    """Take sets of parts away from one row, and compare what its map said with what happens.

    Args:
        model: an MHEX classifier in eval mode. inputs: of one row [1, ...], on its device.
        numbers: the part of each position of the map, see `row_parts`. gone: the sets, [M, parts].
        mask_id: as in `part_removal`. options: of `generate_saliency`.
    """
    answer = model.generate_saliency(**inputs, **options)
    parts = part_sums(answer.saliency[0], numbers, gone.shape[1])
    places = gone[:, numbers.clamp(min=0)] & (numbers >= 0)
    with torch.no_grad():
        without = model(**removed(inputs, model.main_input_name, places, mask_id)).logits.cpu().double()
    logits = answer.logits.cpu().double()
    target, contrast = answer.target.long().cpu(), options.get("contrast")
    weights = select_classes(target, contrast, logits.shape[1], logits, logits)[-1][0, 0]
    explained = float(logits[0] @ weights)
    return WithoutParts(
        said=gone.double() @ parts,
        even=gone.double().mean(1) * parts.sum(),
        real=explained - without @ weights,
        explained=explained,
        logits=logits[0],
        without=without,
    )


def part_sums(saliency: torch.Tensor, numbers: torch.LongTensor, count: int) -> torch.Tensor:
    """What a map [*positions] gives to each of `count` parts, [count] in float64."""
    inside = numbers >= 0
    sums = torch.zeros(count, dtype=torch.float64)
    return sums.index_add_(0, numbers[inside], saliency.cpu().double()[inside])


def part_removal(
    model, batches: Iterable[dict], rows: int = 32, draws: int = DRAWS, seed: int = 0, special_ids=(), mask_id=None
) -> PartRemoval:
    """Take random parts away from the first rows of batches and compare what the map said with what happens.

    The lead is explained where labels exclude each other, else the logit of the label with the highest one. Parts are
    7 x 7 squares of an image, 16 intervals of a signal, tokens of a text; a draw takes a number of them, all numbers
    being alike in chance.

    Args:
        model: an MHEX classifier in eval mode, on any device. batches: dicts of its inputs; labels are ignored.
        special_ids, mask_id: of the tokenizer. Special tokens stay. With `mask_id` it stands for a removed token;
            without it the token is taken out of attention.

    Raises ValueError where no row has two parts, and for rows or draws below 1 and 2.
    """
    if rows < 1 or draws < 2:
        raise ValueError(f"rows must be at least 1 and draws at least 2, got {rows} and {draws}.")
    generator = torch.Generator().manual_seed(seed)
    exclusive = model.config.num_labels > 1 and model.config.problem_type in (None, "single_label_classification")
    kind = {"pixel_values": "image", "input_values": "signal"}.get(model.main_input_name, "text")
    refines = (kind != "text" or mask_id is not None) and gives_gradient(model)
    found = []
    for inputs in single_rows(batches, rows):
        inputs = {name: value.to(model.device) for name, value in inputs.items() if name != "labels"}
        numbers = row_parts(model, inputs, kind, special_ids)
        count = int(numbers.max()) + 1
        if count < 2:
            continue
        sizes = torch.randint(1, count + 1, (draws, 1), generator=generator)
        gone = torch.rand(draws, count, generator=generator).argsort(1).argsort(1) < sizes
        contrast = "mean" if exclusive else None
        row = without_parts(model, inputs, numbers, gone, mask_id, contrast=contrast)
        refined = row.said
        if refines:
            options = {"contrast": contrast, "refine": PASSES, "mask_token_id": mask_id if kind == "text" else None}
            saliency = model.generate_saliency(**inputs, **options).saliency[0]
            refined = gone.double() @ part_sums(saliency, numbers, count)
        found.append((row.said, row.even, row.real, refined))
    if not found:
        raise ValueError("no row has two parts that could be taken away; give longer texts or larger inputs.")
    map_said, even_said, real, refined_said = (torch.stack(column) for column in zip(*found))
    size = float(map_said.square().sum())
    words = {"image": f"squares of a {CELLS} x {CELLS} grid", "signal": f"{INTERVALS} intervals", "text": "tokens"}
    return PartRemoval(
        rows=len(found),
        draws=draws,
        score="lead" if exclusive else "logit",
        parts=words[kind],
        removal="replaced by the mask token" if kind == "text" and mask_id is not None else REMOVALS[kind],
        change=bootstrap(real.abs().mean(1)),
        error=bootstrap((map_said - real).abs().mean(1)),
        even_error=bootstrap((even_said - real).abs().mean(1)),
        correlation=bootstrap([pearson(*pair) for pair in zip(map_said, real)]),
        even_correlation=bootstrap([pearson(*pair) for pair in zip(even_said, real)]),
        slope=float((map_said * real).sum()) / size if size else 0.0,
        refined_error=bootstrap((refined_said - real).abs().mean(1)) if refines else None,
        refined_correlation=bootstrap([pearson(*pair) for pair in zip(refined_said, real)]) if refines else None,
    )


def gives_gradient(model) -> bool:
    """Whether maps of a model can be refined here: not in inference mode, and not where its layers are quantized."""
    try:
        check_one_map(model, None, True)
    except ValueError:
        return False
    return True


def tokenizer_options(processor) -> dict:
    """`special_ids` and `mask_id` of a text's tokenizer; nothing for other processors."""
    if not hasattr(processor, "all_special_ids"):
        return {}
    return {"special_ids": special_ids(processor), "mask_id": processor.mask_token_id}


def single_rows(batches: Iterable[dict], rows: int) -> Iterator[dict]:
    """The first rows of batches, each as a batch of one, without its padding."""
    left = rows
    for batch in batches:
        for row in range(len(next(iter(batch.values())))):
            if left == 0:
                return
            left -= 1
            one = {name: value[row : row + 1] for name, value in batch.items()}
            if "input_ids" in one and "attention_mask" in one:
                there = one["attention_mask"][0] != 0
                one = {name: value[:, there] if name != "labels" else value for name, value in one.items()}
            yield one


def row_parts(model, inputs: dict, kind: str, special_ids=()) -> torch.LongTensor:
    """The number of the part that each position of a row's map lies in, -1 for none: [H, W], [L] or [T], on the CPU."""
    given = inputs[model.main_input_name]
    if kind != "text":
        sides = tuple(given.shape[2:]) or (given.shape[1],)
        return part_numbers(sides, CELLS if kind == "image" else INTERVALS)
    mask = inputs.get("attention_mask", torch.ones_like(given))
    content = content_tokens(given, mask, special_ids)[0].cpu()
    return torch.where(content, content.cumsum(0) - 1, -1)


def part_numbers(sides: tuple[int, ...], cells: int) -> torch.LongTensor:
    """The number of the cell of a grid, `cells` along each side or as many as there are positions, [*sides]."""
    numbers = torch.zeros((), dtype=torch.long)
    for side in sides:
        line = torch.arange(side) * min(cells, side) // side
        numbers = numbers[..., None] * min(cells, side) + line
    return numbers


def removed(inputs: dict, name: str, gone: torch.BoolTensor, mask_id: int | None = None) -> dict:
    """The inputs of one row [1, ...], once for every set of positions that goes [M, *positions]."""
    given = inputs[name]
    gone = gone.to(given.device)
    more = {key: value.expand(len(gone), *value.shape[1:]) for key, value in inputs.items()}
    if given.is_floating_point():
        more[name] = given.masked_fill(gone if given.ndim == gone.ndim else gone[:, None], 0)
    elif mask_id is not None:
        more[name] = given.masked_fill(gone, mask_id)
    else:
        mask = inputs.get("attention_mask", torch.ones_like(given))
        more["attention_mask"] = mask.masked_fill(gone, 0)
    return more
