"""The timm architectures that an image family takes: every registered name is tried, and what is taken is measured.

    python -m hf_mhex.training.studies.architectures FAMILY results/architectures

writes `results/architectures/FAMILY.jsonl`, one line of counts and then one line an architecture, and the page
`results/architectures/FAMILY.md`. Bodies of more than 60 million parameters are counted and not run. A run that was
cut short goes on where it stood; other versions of the libraries start afresh.
"""

from __future__ import annotations

import argparse
import gc
import json
from collections import Counter
from pathlib import Path

import timm
import torch
import transformers
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from transformers import PreTrainedModel

from hf_mhex.benchmarks.tables import markdown_table
from hf_mhex.conversion import load_trunk
from hf_mhex.families import FAMILIES, Family
from hf_mhex.writing import write_whole

SEED = 0
BATCH, SIZE = 2, 64  # images, pixels
DROP_PATH = 0.1
LABELS = 10  # of the network that is run
COUNTED_LABELS = 1000  # of the heads that are counted
BOUND = 1e-5
LARGEST = 60_000_000  # parameters of a body that is run


def versions() -> dict[str, str]:
    """The versions that an answer depends on."""
    return {"timm": timm.__version__, "torch": torch.__version__, "transformers": transformers.__version__}


def tried(family: Family, architecture: str) -> int | str:
    """How many parameters the body has without its gates; where the family refuses, why, in the words of its error."""
    try:
        with torch.device("meta"):
            body = family.body(family.config(architecture=architecture))
    except Exception as error:  # timm's networks raise what they like when they are made
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        return kind + " ".join(str(error).removeprefix(f"architecture={architecture!r} ").split())
    return count(body) - sum(map(count, body.gates))


def count(module: nn.Module) -> int:
    """A module's parameters."""
    return sum(parameter.numel() for parameter in module.parameters())


def survey(family: Family, architectures: list[str]) -> dict:
    """Which names are taken, and for which reasons how many of the others are refused, with the first name each."""
    answers = {name: tried(family, name) for name in architectures}
    refused = Counter(reason for reason in answers.values() if isinstance(reason, str))
    first = {answer: name for name, answer in reversed(answers.items())}
    return {
        **versions(),
        "family": family.name,
        "registered": len(architectures),
        "accepted": {name: size for name, size in answers.items() if isinstance(size, int)},
        "refused": [{"reason": reason, "count": n, "first": first[reason]} for reason, n in refused.most_common()],
    }


@torch.no_grad()
def plain_network(architecture: str, pixels: torch.Tensor) -> nn.Module:
    """timm's network with random weights, every norm's among them (no branch is zero), and statistics of `pixels`."""
    network = timm.create_model(architecture, num_classes=0, drop_path_rate=DROP_PATH)
    for name, parameter in network.named_parameters():
        if parameter.ndim == 1 and name.endswith("weight"):
            nn.init.uniform_(parameter, 0.5, 1.5)
        elif parameter.ndim == 1:
            nn.init.normal_(parameter, std=0.1)
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    network.train().forward_features(pixels)
    for norm, momentum in zip(norms, momenta):
        norm.momentum = momentum
    return network


@torch.no_grad()
def difference(plain: nn.Module, model: PreTrainedModel, pixels: torch.Tensor, train: bool) -> float:
    """The largest |difference| of the final features, in units of the largest feature; one seed for both."""
    found = []
    for forward in (plain.train(train).forward_features, model.train(train).base_model):
        torch.manual_seed(SEED)
        found.append(forward(pixels))
    expected, ours = found[0], found[1].last_hidden_state
    return ((ours - expected).abs().max() / expected.abs().max()).item()


@torch.no_grad()
def enliven(model: PreTrainedModel, pixels: torch.Tensor) -> None:
    """Random gates with scores of about size 1, and random heads with logits of size 2; in eval mode."""
    model.eval()
    descriptors = model.base_model(pixels, explain=lambda block, features: features.p).explanations
    for gate, descriptor in zip(model.base_model.gates, descriptors):
        nn.init.normal_(gate.weight)
        gate.weight.div_(gate(descriptor).std())
    for head in model.heads:
        nn.init.normal_(head.weight)
    block_logits = model(pixels).block_logits
    for block, head in enumerate(model.heads):
        head.weight.mul_(2 / block_logits[:, block].std())


def completeness_error(model: PreTrainedModel, pixels: torch.Tensor) -> float:
    """The largest |sum of a map - its logit| / max(1, |logit|): the blocks' maps and the combined one, every label."""
    answer = model.generate_saliency(pixel_values=pixels, target="all")
    maps = [(answer.saliency, answer.logits), *zip(answer.block_saliency, answer.block_logits.unbind(1))]
    errors = []
    for saliency, logits in maps:
        sums = saliency.double().flatten(2).sum(-1)
        errors.append(((sums - logits).abs() / logits.abs().clamp(min=1)).max())
    return torch.stack(errors).max().item()


def measure(family: Family, architecture: str) -> dict:
    """One row: blocks, parameters, the distance from timm's own features, and the completeness error of the maps.

    Raises ValueError for an architecture that the family does not take.
    """
    config = family.config(
        architecture=architecture, num_labels=LABELS, architecture_kwargs={"drop_path_rate": DROP_PATH}
    )
    model = family.classifier(config)
    torch.manual_seed(SEED)
    about = timm.get_pretrained_cfg(architecture)
    size = about.input_size[-1] if about is not None and about.fixed_input_size else SIZE
    pixels = torch.randn(BATCH, config.num_channels, size, size)
    plain = plain_network(architecture, pixels)
    load_trunk(model, plain.state_dict(), f"timm's {architecture!r}")
    channels = [gate.out_features for gate in model.base_model.gates]
    blocks = {type(block).__name__.removeprefix("MHEX") for block in model.base_model.blocks}
    row = {
        "architecture": architecture,
        "block": ", ".join(sorted(blocks)),
        "blocks": len(channels),
        "body_parameters": count(plain),
        "gate_parameters": sum(map(count, model.base_model.gates)),
        "head_parameters": COUNTED_LABELS * sum(channels),
        "eval_difference": difference(plain, model, pixels, train=False),
        "train_difference": difference(plain, model, pixels, train=True),
    }
    del plain
    enliven(model, pixels)
    return {**row, "completeness_error": completeness_error(model, pixels)}


def works(row: dict) -> bool:
    """Whether all that was measured of an architecture lies within the bound (NaN does not)."""
    return all(row[name] <= BOUND for name in ("eval_difference", "train_difference", "completeness_error"))


def read(path: Path) -> list[dict]:
    """The lines of a file of JSON lines; none if it is not there."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def render(lines: list[dict]) -> str:
    """The Markdown page of a file's lines."""
    summary, *rows = lines
    title = f"MHEX-{FAMILIES['mhex_' + summary['family']].label}"
    taken, refused = summary["accepted"], summary["refused"]
    head = ["architecture", "block", "works", "blocks", "body, M", "gates, M", "gates, % of body"]
    head += [f"heads for {COUNTED_LABELS} labels, M", "eval difference", "train difference", "completeness error"]
    cells = []
    for row in sorted(rows, key=lambda row: list(taken).index(row["architecture"])):
        body, gates, heads = (row[f"{part}_parameters"] for part in ("body", "gate", "head"))
        cells.append([row["architecture"], row["block"], "yes" if works(row) else "no", str(row["blocks"])])
        cells[-1] += [f"{body / 1e6:.1f}", f"{gates / 1e6:.1f}", f"{100 * gates / body:.0f}", f"{heads / 1e6:.1f}"]
        cells[-1] += [f"{row[f'{name}_difference']:.1g}" for name in ("eval", "train")]
        cells[-1] += [f"{row['completeness_error']:.1g}"]
    libraries = ", ".join(f"{name} {summary[name]}" for name in ("timm", "torch", "transformers"))
    page = [
        f"# The timm architectures that {title} takes",
        "",
        f"Made by `python -m hf_mhex.training.studies.architectures {summary['family']} results/architectures`: "
        f"{libraries}, on a CPU.",
        "",
        f"timm registers {summary['registered']} names. {title} takes {len(taken)} of them; the {len(rows)} of at most "
        f"{LARGEST // 10**6} M parameters were measured, and {sum(works(row) for row in rows)} work.",
        "",
        f"Each was run on {BATCH} random images of {SIZE} px, or of the one size that it takes, with random weights; "
        "every norm's weight is drawn from 0.5 to 1.5, so that no residual branch is zero. "
        "The differences are the largest absolute ones between the "
        "final feature maps of timm's network and of ours holding its weights (gates at their start, W1 = 0), in units "
        f"of the largest feature: in eval mode, and in training mode with drop path {DROP_PATH} under one seed. The "
        "completeness error is the largest |sum of a map - logit| / max(1, |logit|) of float32 maps with random gates "
        f"and heads, over the combined map and every block's and over {LABELS} labels. An architecture works if all "
        f"three are at most {BOUND:g}. Parameters are in millions; the body is timm's without its classifier.",
        "",
        markdown_table(head, cells),
        "",
        "## What is refused",
        "",
        f"{sum(reason['count'] for reason in refused)} names are refused when a model is made, each in the words below "
        "after its name. They are other networks, or such with other blocks. Where timm itself cannot make the network "
        "as a body without pooling, its error is quoted.",
        "",
        markdown_table(
            ["reason", "first name", "names"],
            [
                [reason["reason"].replace("|", "\\|"), f"`{reason['first']}`", str(reason["count"])]
                for reason in refused
            ],
        ),
    ]
    return "\n".join(page).rstrip() + "\n"


def main() -> None:
    """Survey, measure what has not been measured, and write the page."""
    parser = argparse.ArgumentParser(
        prog="python -m hf_mhex.training.studies.architectures", description=__doc__.splitlines()[0]
    )
    parser.add_argument("family", choices=[family.name for family in FAMILIES.values() if family.library == "timm"])
    parser.add_argument("output", type=Path, help="folder of the pages: FAMILY.jsonl and FAMILY.md are written")
    given = parser.parse_args()
    family, output = FAMILIES[f"mhex_{given.family}"], given.output
    records, page = output / f"{given.family}.jsonl", output / f"{given.family}.md"
    output.mkdir(parents=True, exist_ok=True)
    lines = read(records)
    if not lines or lines[0] != lines[0] | versions() | {"family": family.name}:
        lines = [survey(family, timm.list_models())]
        write_whole(records, json.dumps(lines[0]) + "\n")
    measured = {row["architecture"] for row in lines[1:]}
    for architecture, size in lines[0]["accepted"].items():
        if architecture not in measured and size <= LARGEST:
            row = measure(family, architecture)
            with records.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            print(f"{architecture}: {'works' if works(row) else 'FAILS'}", flush=True)
            gc.collect()
    write_whole(page, render(read(records)))
    print(f"{page}: {len(lines[0]['accepted'])} of {lines[0]['registered']} names")


if __name__ == "__main__":
    main()
