"""RIS, ROS, RES and PGI of explanations of images and texts, a JSON line for each network and method."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

import torch

from hf_mhex import evaluation as ev
from hf_mhex.baselines import Method, implementation_of, text_methods
from hf_mhex.baselines.cams import METHODS as CAMS
from hf_mhex.baselines.gradients import IMAGE_METHODS as GRADIENTS
from hf_mhex.baselines.networks import device_of
from hf_mhex.baselines.perturbations import METHODS as PERTURBATIONS
from hf_mhex.baselines.taylor import taylor_explanations
from hf_mhex.benchmarks.explanations.images import in_batches
from hf_mhex.benchmarks.explanations.methods import DEFAULT, PAPER_METHOD, ROLLOUT, can_roll_out, mhex_map
from hf_mhex.benchmarks.explanations.parts import (
    Images,
    Texts,
    image_scores,
    logits_of_part,
    maps_of,
    on_device,
    probabilities,
    text_scores,
)
from hf_mhex.benchmarks.journal import Journal
from hf_mhex.benchmarks.tables import markdown_table
from hf_mhex.environment import environment, ran_on
from hf_mhex.escaping import code_markdown, escaped_markdown
from hf_mhex.evaluation.stability import prediction_gap, relative_stability, run_stability
from hf_mhex.explaining.dataset import weights_digest
from hf_mhex.writing import write_whole

MEASURES = {"RIS": "lower", "ROS": "lower", "RES": "lower", "PGI": "higher"}
NAMES = ("Grad-CAM", "input x gradient", "integrated gradients", "LIME", "T-Explainer")


def methods_of(network: str, inputs: str = "images", only: list[str] | None = None) -> list[Method]:
    """The methods that are compared on a network, "mhex" or a plain one, over "images" or "texts".

    `only` names those to compare with; MHEX's own are always there. Raises ValueError for a name that is not known.
    """
    unknown = [name for name in only or () if name not in NAMES]
    if unknown:
        raise ValueError(f"only={unknown[0]!r} is none of the methods compared with: {', '.join(NAMES)}.")
    known = (*CAMS, *GRADIENTS, *PERTURBATIONS) if inputs == "images" else text_methods()
    shared = [method for method in known if method.name in NAMES and (only is None or method.name in only)]
    if network != "mhex":
        return shared
    own = [Method(DEFAULT, mhex_map), PAPER_METHOD]
    own += [Method(ROLLOUT, partial(mhex_map, rollout=True), fits=can_roll_out)] if inputs == "texts" else []
    return own + shared


def compare(
    networks: dict,
    test: Images | Texts,
    output: Path,
    rows: int,
    seed: int,
    command: str = "",
    say: Callable = print,
    only: list[str] | None = None,
) -> list[dict]:
    """One JSON line for each network and method in `output`/rows.jsonl; the network's own answer is explained.

    T-Explainer's line also has, over the same rows with the first 200 of `test` as background, phi_0, the size of the
    rest that its terms leave, and the steps that were taken. Rows that are there are not made again. Raises ValueError
    for rows made with another number of rows, another seed or another network.
    """
    part, journal = test.take(torch.arange(min(rows, len(test)))), Journal(output / "rows.jsonl")
    made_with: dict[str, dict] = {}
    for kind, network in networks.items():
        made_with[kind] = {"rows": len(part), "seed": seed, "weights": {kind: weights_digest(network)}}
        journal.check(made_with[kind], network=kind)
    for kind, network in networks.items():
        target = logits_of_part(network, part).argmax(-1)
        inputs, score = given_to(network, part)
        for method in methods_of(kind, "images" if isinstance(test, Images) else "texts", only):
            if not method.fits(network) or journal.find(network=kind, method=method.name) is not None:
                continue
            say(f"{kind}: {method.name}")
            torch.manual_seed(seed)
            call = in_batches(method.call) if isinstance(test, Images) else partial(maps_of, method.call)
            given = (network, inputs, target)
            values = relative_stability(call, score, *given, seed=seed) | {"RES": run_stability(call, *given)}
            values["PGI"] = prediction_gap(score, inputs, call(*given), target, seed=seed)
            found = {name: [round(value, 6) for value in one.tolist()] for name, one in values.items()}
            extra = {"taylor": taylor_facts(network, part, target, test)} if method.name == "T-Explainer" else {}
            about = {"network": kind, "method": method.name, "implementation": implementation_of(method)}
            made = made_with[kind] | {"command": command, "environment": environment()}
            journal.add(about | {"values": found} | extra | made)
    return journal.rows


def given_to(network, part: Images | Texts) -> tuple:
    """A part's rows as methods take them, all at once, and `score(inputs)`: the network's probabilities [B, K]."""
    if isinstance(part, Images):
        return part.pixels, probabilities(image_scores(network))
    scores = text_scores(network)
    return part.inputs(range(len(part))), lambda given: scores(given["input_ids"], given["attention_mask"]).softmax(-1)


def taylor_facts(network, part: Images | Texts, target, background: Images | Texts) -> dict:
    """Local accuracy of T-Explainer before and after the rest is spread, and its steps."""
    device = device_of(network)
    rows, others = (given_to(network, one)[0] for one in (part, background.take(range(min(200, len(background))))))
    if isinstance(part, Texts):
        rows, others = on_device(rows, device), on_device(others, device)
    with torch.no_grad():
        found = taylor_explanations(network, rows, target, others)
    return {
        "steps": [round(one.step, 5) for one in found],
        "phi_0": [round(one.phi_0, 4) for one in found],
        "answer": [round(one.answer, 4) for one in found],
        "rest": [round(one.rest, 4) for one in found],
        "error": max(abs(one.phi_0 + float(one.values.sum()) - one.answer) for one in found),
    }


def write_page(rows: list[dict], output: Path, title: str) -> Path:
    """Write tables.md: medians with intervals, T-Explainer's local accuracy, and which implementation ran."""
    heads = [f"{name} ({better} is better)" for name, better in MEASURES.items()]
    lines = []
    for row in rows:
        cells = [ev.bootstrap(row["values"][name], statistic="median") for name in MEASURES]
        texts = [f"{found.estimate:.3g} [{found.low:.3g}, {found.high:.3g}]" for found in cells]
        lines.append((row["network"], row["method"], *texts, row["implementation"]))
    local = [(row["network"], *local_accuracy(row["taylor"])) for row in rows if "taylor" in row]
    parts = [
        f"# Stability: {escaped_markdown(title)}",
        f"Made by {code_markdown(rows[0]['command'])} on {ran_on(rows)}. {rows[0]['rows']} test rows, "
        "the network's own answer explained; medians with 95 % bootstrap intervals.",
        markdown_table(("network", "method", *heads, "implementation"), lines),
        "T-Explainer's local accuracy: the median size of the rest over that of f(x) - phi_0, before it is spread, and "
        "the largest |phi_0 + sum - f(x)| afterwards.",
        markdown_table(("network", "steps", "rest before", "error after"), local),
    ]
    write_whole(output / "tables.md", "\n\n".join(parts) + "\n")
    return output / "tables.md"


def local_accuracy(facts: dict) -> tuple[str, str, str]:
    """T-Explainer's steps, the median size of its rest over that of f(x) - phi_0, and the error that is left."""
    moved = [(abs(r), abs(answer - phi)) for r, answer, phi in zip(facts["rest"], facts["answer"], facts["phi_0"])]
    shares = [rest / whole for rest, whole in moved if whole > 0]  # none: every answer is the mean answer
    share = f"{median(shares):.2f}" if shares else "-"
    return f"{min(facts['steps']):g} to {max(facts['steps']):g}", share, f"{facts['error']:.1e}"
