"""What points and what part consistency buys: four configurations by one recipe, over sets and seeds.

    python -m hf_mhex.training.studies.part_consistency [SET ...] [--arms ARM] [--data FOLDER] [--seeds N] [--one]

Every run is one JSON line in results/part_consistency.jsonl, and a stopped study goes on where it was; `--one` does the
next missing run and stops. `--table` writes results/part_consistency.md. "parts" is the control: rows without
parts with their usual loss, and no term. Measures are on validation rows, so that defaults may be chosen by them.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
import typer
from torch import nn

from hf_mhex import evaluation as ev
from hf_mhex.benchmarks.explanations.images import square_numbers, sums_of_squares
from hf_mhex.benchmarks.explanations.parts import image_scores, probabilities, text_scores
from hf_mhex.benchmarks.journal import Journal
from hf_mhex.benchmarks.tables import markdown_table
from hf_mhex.environment import environment, source_commit
from hf_mhex.evaluation.drop import special_ids
from hf_mhex.evaluation.intervals import student_interval
from hf_mhex.training.job import Job, prepare
from hf_mhex.training.recipe import load_recipe
from hf_mhex.training.run import make_trainer, scores
from hf_mhex.training.studies.shapes import NAMES, write_shapes
from hf_mhex.writing import write_whole

LAST = [
    "disable_tqdm=true",
    "eval_strategy=no",
    "save_strategy=no",
    "load_best_model_at_end=false",
    "logging_steps=1000",
]
POINTING = ["model.config.rectified=true", "model.config.binary_share=0.5", "model.config.instance_share=0.05"]
SHARES = ["model.config.rectified=false", "model.config.binary_share=0", "model.config.instance_share=0"]
WHOLE = "part_consistency=null"
ARMS = {
    "default": [*SHARES, WHOLE],
    "shares": [*POINTING, WHOLE],
    "rectified": ["model.config.rectified=true", *SHARES[1:], WHOLE],
    "binary": ["model.config.rectified=false", POINTING[1], "model.config.instance_share=0", WHOLE],
    "unrectified": ["model.config.rectified=false", *POINTING[1:], WHOLE],
    "parts": [*SHARES, "part_consistency=0.0"],
    "consistency": [*SHARES, "part_consistency=1.0"],
    "both": [*POINTING, "part_consistency=1.0"],
}
SHAPES = "shapes.npz"  # made where it is missing
SMALL = ["image_size=28", "mosaics=0", "per_device_train_batch_size=32"]
SETS = {
    "fashion_mnist": ("sample_fashion_mnist", [*SMALL, "max_train_rows=1200", "num_train_epochs=12"], None),
    "pneumoniamnist": (
        "medmnist/pneumoniamnist",
        [
            *SMALL,
            "max_train_rows=1200",
            "num_train_epochs=15",
            "learning_rate=3e-3",
            "model.architecture_kwargs={layers: [1, 2, 2, 1], channels: [32, 64, 96, 128], output_stride: 8}",
        ],
        "pneumoniamnist.npz",
    ),
    "shapes": (
        "medmnist/bloodmnist",
        [
            *SMALL,
            f"label_names=[{', '.join(NAMES)}]",
            "num_train_epochs=10",
            "learning_rate=3e-3",
            "model.architecture_kwargs={layers: [1, 2, 2, 1], channels: [32, 64, 96, 128], output_stride: 8}",
        ],
        SHAPES,
    ),
    "reviews": ("sample_product_reviews", ["num_train_epochs=2", "max_train_rows=800"], None),
    "ag_news": (
        "ag_news_minilm_7600",
        ["num_train_epochs=2", "max_train_rows=800", "learning_rate=2e-4"],
        "ag_news_test.csv",
    ),
}
ROWS, SAMPLES = 64, 32


def run_one(
    name: str, changes: list[str], seed: int, data: Path, alter: Callable[[nn.Module], None] | None = None
) -> tuple[dict, Job]:
    """Train one network, which `alter` may change first, and measure its map on the first validation rows."""
    recipe_name, small, file = SETS[name]
    if file == SHAPES and not (data / file).is_file():
        write_shapes(data / file)
    source = [f"source={data / file}"] if file else []
    recipe = load_recipe(recipe_name, [*small, *source, *LAST, f"training.seed={seed}", *changes])
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        arguments = recipe.training_arguments(Path(folder))
        job = prepare(recipe, seed)
        if alter is not None:
            alter(job.model)
        trainer = make_trainer(recipe, arguments, job)
        trainer.train()
        seconds = time.perf_counter() - started
        answer = scores(trainer, job.validation, "validation")
    measures = text_measures(job) if recipe.model.registered.kind == "text" else image_measures(job, seed)
    if file == SHAPES:
        measures |= truth_measures(job, np.load(data / file)["val_masks"])
    row: dict = {"epochs": int(arguments.num_train_epochs)}
    row |= {"accuracy": answer.get("accuracy", answer.get("medmnist_acc")), "auc": answer.get("medmnist_auc")}
    row |= {measure: round(value, 4) for measure, value in measures.items()}
    row |= {"train_seconds": round(seconds, 1), "rows": ROWS, "commit": source_commit(), **environment()}
    return row, job


def image_measures(job: Job, seed: int) -> dict[str, float]:
    """3 x 3 pointing, and by 7 x 7 squares insertion - deletion, ROAD and sensitivity-n, of the map as it is."""
    model = job.model.eval()
    batch = job.collate([job.validation[row] for row in range(min(300, len(job.validation)))])
    pixels, labels, ask = batch["pixel_values"], batch["labels"].flatten(), image_scores(model)
    logits, found = ask(pixels), {}
    rows = ((logits.argmax(-1) == labels) & (logits.softmax(-1).amax(-1) >= 0.5)).nonzero()[:, 0]
    try:
        asked = ev.build_mosaics(pixels[rows], labels[rows], 3, 12, seed, 3)
        maps = model.generate_saliency(pixel_values=asked.images[asked.mosaic], target=asked.target).saliency
        shares = ev.positive_share(maps, asked.cell, 3)
        found = {"pointing": float(shares.mean()), "pointing_median": float(shares.median())}
    except ValueError:  # too few images are classified rightly
        pass
    maps = model.generate_saliency(pixel_values=pixels[:ROWS]).saliency
    squares, rows = square_numbers(pixels.shape[-2:]), []
    for image, values, target in zip(pixels[:ROWS], maps, logits[:ROWS].argmax(-1).tolist()):
        terms = sums_of_squares(values)
        pixel_game = ev.ImageGame(probabilities(ask), image, target, "zero")

        def over(fill, game=pixel_game):
            return lambda keep: replace(game, fill=fill)(keep[:, squares])

        gained = ev.insertion_auc(over("blur"), terms) - ev.deletion_auc(over("zero"), terms)
        sensitive = ev.sensitivity_n(over("zero", ev.ImageGame(ask, image, target, "zero")), terms, 5, SAMPLES)
        road = ev.remove_and_debias(over("impute"), terms)["combined"]
        rows.append({"ins_del": gained, "road": road, "sensitivity_n": sensitive})
    return found | {measure: mean(row[measure] for row in rows) for measure in rows[0]}


def truth_measures(job: Job, masks: np.ndarray) -> dict[str, float]:
    """The share of the positive map that lies on the shape or within two pixels of it, and the share of the area."""
    model = job.model.eval()
    batch = job.collate([job.validation[row] for row in range(len(masks))])
    answer = model.generate_saliency(pixel_values=batch["pixel_values"])
    near = F.max_pool2d(torch.from_numpy(masks).float()[:, None], 5, stride=1, padding=2)[:, 0]
    positive = answer.saliency.clamp(min=0)
    shares = (positive * near).sum((1, 2)) / positive.sum((1, 2)).clamp(min=1e-12)
    right = answer.logits.argmax(-1) == batch["labels"].flatten()
    return {"on_shape": float(shares[right].mean()), "shape_area": float(near[right].mean())}


def text_measures(job: Job, rollout: bool = False) -> dict[str, float]:
    """Comprehensiveness, sufficiency and sensitivity-n by [MASK] and by deletion of the content tokens."""
    model, tokenizer, rows = job.model.eval(), job.processor, []
    ask = text_scores(model)
    special = special_ids(tokenizer)
    for row in range(ROWS):
        batch = job.collate([job.validation[row]])
        given = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
        answer = model.generate_saliency(**given, rollout=rollout)
        target, found = int(answer.target), {}
        for how in ("mask", "delete"):
            fixed = (given["input_ids"][0], given["attention_mask"][0], target, how)
            game = ev.TextGame(probabilities(ask), *fixed, tokenizer.mask_token_id, tokenizer.pad_token_id, special)
            values = answer.saliency[0][game.places]
            found[f"comprehensiveness_{how}"] = ev.comprehensiveness(game, values)
            found[f"sufficiency_{how}"] = ev.sufficiency(game, values)
            size = max(1, len(values) // 5)
            found[f"sensitivity_n_{how}"] = ev.sensitivity_n(replace(game, scores=ask), values, size, SAMPLES)
        rows.append(found)
    return {measure: mean(row[measure] for row in rows) for measure in rows[0]}


TAUGHT = {  # in words, what the arms that docs/ shows differ in
    "default": "the plain setting",
    "shares": "the three settings",
    "parts": "plain, with rows without parts",
    "consistency": "plain, with such rows and the term",
    "both": "the three settings, such rows and the term",
}
OVERVIEWS: dict[str, tuple[tuple[str, ...], dict[str, str]]] = {  # arms, and measures with their names, by table
    "maps that point": (
        ("default", "shares"),
        {"pointing": "pointing", "road": "ROAD", "ins_del": "insertion - deletion", "accuracy": "accuracy"},
    ),
    "parts of images": (
        ("default", "parts", "consistency", "shares", "both"),
        {"road": "ROAD", "ins_del": "insertion - deletion", "sensitivity_n": "sensitivity-n", "accuracy": "accuracy"},
    ),
    "parts of texts": (
        ("default", "parts", "consistency"),
        {
            "sufficiency_mask": "sufficiency (lower is better)",
            "comprehensiveness_mask": "comprehensiveness",
            "sensitivity_n_mask": "sensitivity-n",
            "accuracy": "accuracy",
        },
    ),
}


def overview(path: Path, name: str) -> str:
    """One of `OVERVIEWS` as a Markdown table of the rows in a file: means, and differences from the plain setting."""
    rows, lines = Journal(path).rows, []
    arms, measures = OVERVIEWS[name]
    for data in SETS:
        by_arm = {arm: {row["seed"]: row for row in rows if (row["set"], row["arm"]) == (data, arm)} for arm in arms}
        if all(by_arm.values()) and set(measures) <= by_arm["default"][0].keys():
            for arm, own in by_arm.items():
                cells = [against(own, by_arm["default"], measure).replace("<br>", " ") for measure in measures]
                lines.append([data if arm == "default" else "", TAUGHT[arm], *cells])
    return markdown_table(["set", "taught with", *measures.values()], lines)


def write_table(journal: Journal, path: Path) -> None:
    """Means over seeds and differences from the arm "default" on the same seeds, a table a set."""
    text = ["# Part consistency, small trial", ""]
    text += [
        "`python -m hf_mhex.training.studies.part_consistency` makes the rows of `part_consistency.jsonl`, and with",
        "`--table` this page. Small networks, short runs, few rows: they say where to look, not what to publish.",
        f"Means over seeds, on the first {ROWS} validation rows; squares are 7 x 7. Below a mean: the difference from",
        "`default`, paired by seed, with the 95 % interval of Student's t.",
        "",
    ]
    known = ("set", "arm", "seed", "epochs", "train_seconds", "rows", "commit")
    for name in SETS:
        rows = [row for row in journal.rows if row["set"] == name]
        measures = [m for m in rows[0] if m not in known and isinstance(rows[0][m], float)] if rows else []
        by_arm = {arm: {row["seed"]: row for row in rows if row["arm"] == arm} for arm in ARMS}
        lines = [
            [arm, str(len(own)), *(against(own, by_arm["default"], measure) for measure in measures)]
            for arm, own in by_arm.items()
            if own
        ]
        if lines:
            text += [f"## {name}", "", markdown_table(["arm", "seeds", *measures], lines), ""]
    write_whole(path, "\n".join(text))


def against(own: dict[int, dict], usual: dict[int, dict], measure: str) -> str:
    """A cell: the mean of a measure over an arm's rows, by seed, and how far it is from the usual arm's."""
    values = {seed: row[measure] for seed, row in own.items() if row.get(measure) is not None}
    if not values:
        return ""
    shared = [seed for seed in values if usual.get(seed, {}).get(measure) is not None]
    pairs = [values[seed] - usual[seed][measure] for seed in shared]
    cell = f"{mean(values.values()):.3f}"
    if own is usual or len(pairs) < 2:
        return cell
    found = student_interval(pairs)
    return f"{cell}<br>{found.estimate:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"


def main(
    sets: Annotated[list[str] | None, typer.Argument(help=f"among {', '.join(SETS)}; all")] = None,
    data: Annotated[
        Path, typer.Option(help="folder of pneumoniamnist.npz and ag_news_test.csv; shapes.npz is made there")
    ] = Path("."),
    seeds: Annotated[int, typer.Option(help="how many, from 0")] = 5,
    arms: Annotated[list[str] | None, typer.Option(help=f"among {', '.join(ARMS)}; all")] = None,
    output: Annotated[Path, typer.Option(help="folder of rows and table")] = Path("results"),
    one: Annotated[bool, typer.Option(help="the next missing run alone")] = False,
    table: Annotated[bool, typer.Option(help="write the table alone")] = False,
) -> None:
    """Run what is missing, or write the table."""
    journal = Journal(output / "part_consistency.jsonl")
    if table:
        write_table(journal, output / "part_consistency.md")
        return
    for seed in range(seeds):
        for name in sets or SETS:
            for arm in arms or ARMS:
                if journal.find(set=name, arm=arm, seed=seed) is None:
                    row = {"set": name, "arm": arm, "seed": seed} | run_one(name, ARMS[arm], seed, data)[0]
                    journal.add(row)
                    typer.echo(row)
                    if one:
                        return


if __name__ == "__main__":
    typer.run(main)
