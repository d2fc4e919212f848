"""The paper's own comparison of image maps: its drops of the true label, scored by a network that made no map.

Source: Sun & Lio, arXiv 2501.01311, and the authors' notebook on BloodMNIST. Maps are brought to [0, 1] by min-max. The
map of the paper is rebuilt by `paper_map`; beside it stand the same CAMs upsampled with their sums kept, which is
another map (stages then weigh 1 : 1/4 : 1/16 : 1/64), and MHEX's default map. docs/paper.md lists what differs.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch

from hf_mhex import evaluation as ev
from hf_mhex.baselines import Method, implementation_of
from hf_mhex.baselines.cams import METHODS as CAMS
from hf_mhex.baselines.gradients import IMAGE_METHODS as GRADIENTS
from hf_mhex.benchmarks.explanations.images import in_batches
from hf_mhex.benchmarks.explanations.methods import DEFAULT, PAPER_METHOD, mhex_map, paper_options
from hf_mhex.benchmarks.explanations.parts import Images, image_scores, logits_of_part, probabilities
from hf_mhex.benchmarks.journal import Journal
from hf_mhex.benchmarks.tables import markdown_table
from hf_mhex.environment import environment, ran_on
from hf_mhex.escaping import code_markdown, escaped_markdown
from hf_mhex.explaining.dataset import weights_digest
from hf_mhex.modeling.mhex_maps import combine_maps, decay_factors
from hf_mhex.writing import write_whole

MEASURES = ("EAD", "SAD", "AVG drop")
CITED = {"MHEX": (0.189, 0.5007, 0.7212), "Grad-CAM": (0.111, 0.4993, 0.7765), "LayerCAM": (0.081, 0.5078, 0.7837)}


def sums_kept(model, inputs: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """The paper's CAMs with its sharpness and weights, upsampled so that sums stay, not values: [B, H, W]."""
    options = paper_options(inputs, model) | {"upsample": False}
    maps = model.paper_saliency(pixel_values=inputs, target=target, **options).block_saliency
    factors = decay_factors(list(range(len(maps))), options["decay"])
    return combine_maps([found[:, None] for found in maps], factors, tuple(inputs.shape[-2:]))[:, 0].float()


def methods_of(network: str) -> list[Method]:
    """The methods that are compared on a network, "mhex" or a plain one."""
    shared = [method for method in CAMS if method.name in ("Grad-CAM", "LayerCAM")]
    shared += [method for method in GRADIENTS if method.name == "integrated gradients"]
    if network != "mhex":
        return shared
    return [PAPER_METHOD, Method("the same CAMs, sums kept", sums_kept), Method(DEFAULT, mhex_map), *shared]


def compare(
    networks: dict,
    scorers: dict,
    test: Images,
    output: Path,
    rows: int = 200,
    command: str = "",
    say: Callable[[str], None] = print,
    seed: int = 0,
) -> list[dict]:
    """One JSON line for each network and method in `output`/rows.jsonl, its drops row by row; return all lines.

    Args:
        networks: "mhex", and "plain" where there is one: what is explained.
        scorers: networks that judge, by name; each network also judges itself ("itself").
        test: the first `rows` rows are explained, each for its true label. seed: what their order was drawn from.

    Rows that are there are not made again. Raises ValueError for rows made with another number of rows, another seed or
    other networks or scorers.
    """
    part = test.take(torch.arange(min(rows, len(test))))
    journal = Journal(output / "rows.jsonl")
    weights = {name: weights_digest(network) for name, network in {**networks, **scorers}.items()}
    made_with = {"rows": len(part), "seed": seed, "weights": weights}
    journal.check(made_with)
    for kind, network in networks.items():
        judges = {**scorers, "itself": network}
        for method in methods_of(kind):
            if journal.find(network=kind, method=method.name) is not None:
                continue
            say(f"{kind}: {method.name}")
            maps = in_batches(method.call)(network, part.pixels, part.labels)
            found = {name: drops(scorer, part, ev.unit_range(maps)) for name, scorer in judges.items()}
            about = {"network": kind, "method": method.name, "implementation": implementation_of(method)}
            accuracies = {name: accuracy(judge, part) for name, judge in {**networks, **scorers}.items()}
            made = {"accuracies": accuracies, "command": command, "environment": environment()}
            journal.add(about | {"values": found} | made_with | made)
    return journal.rows


def drops(scorer, part: Images, maps: torch.Tensor) -> dict[str, list[float]]:
    """EAD, SAD and hard drop of the true label, a value a row, by a scorer; maps [N, H, W] in [0, 1]."""
    found: dict[str, list[float]] = {name: [] for name in MEASURES}
    scores = probabilities(image_scores(scorer))
    for rows in torch.arange(len(part)).split(32):
        given = (scores, part.pixels[rows], maps[rows], part.labels[rows])
        hard = ev.average_drop(*given)
        found["AVG drop"] += hard.tolist()
        found["SAD"] += ev.soft_average_drop(*given).tolist()
        found["EAD"] += (hard * ev.area_weight(ev.marked_area(maps[rows]))).tolist()
    return {name: [round(value, 5) for value in values] for name, values in found.items()}


def accuracy(network, part: Images) -> float:
    """Share of rows that a network answers rightly."""
    return float((logits_of_part(network, part).argmax(-1) == part.labels).double().mean())


def write_page(rows: list[dict], output: Path, title: str) -> Path:
    """Write tables.md: for each scorer the drops with intervals, beside the figures that the authors' notebook has."""
    first = rows[0]
    shares = ", ".join(f"{name} {value:.3f}" for name, value in first["accuracies"].items())
    parts = [
        f"# The paper's measures: {escaped_markdown(title)}",
        f"Made by {code_markdown(first['command'])} on {ran_on(rows)}. {first['rows']} test rows, "
        f"the true label explained; accuracy on them: {shares}. Means with 95 % bootstrap intervals; higher is better.",
    ]
    for scorer in first["values"]:
        lines = []
        for row in rows:
            values = row["values"][scorer]
            lines.append((row["network"], row["method"], *(str(ev.bootstrap(values[name])) for name in MEASURES)))
        parts += [f"## Scored by {scorer}", markdown_table(("network", "method", *MEASURES), lines)]
    cited = [(name, *(f"{value:.4g}" for value in values)) for name, values in CITED.items()]
    parts += ["## Cited: the authors' BloodMNIST notebook", markdown_table(("method", *MEASURES), cited)]
    lines = [(row["network"], row["method"], row["implementation"]) for row in rows]
    parts += ["## Which implementation ran", markdown_table(("network", "method", "implementation"), lines)]
    write_whole(output / "tables.md", "\n\n".join(parts) + "\n")
    summary = {
        "accuracies": first["accuracies"],
        "means": {
            f"{row['network']}: {row['method']}": {
                scorer: {name: sum(values[name]) / len(values[name]) for name in MEASURES}
                for scorer, values in row["values"].items()
            }
            for row in rows
        },
    }
    write_whole(output / "summary.json", json.dumps(summary, indent=1) + "\n")
    return output / "tables.md"
