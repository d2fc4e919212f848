"""The reference models: a recipe, trained, its maps judged on test rows, laid down ready for the Hub.

    python -m hf_mhex.training.studies.reference mhex-bert-ag-news source=ag_news_test.csv
    make reference MODEL=mhex-bert-ag-news SOURCE=ag_news_test.csv

OUTPUT/NAME        the model with its code, processor, card, picture and results.json
OUTPUT/runs/NAME   the training run, from which a stopped one goes on
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from hf_mhex.benchmarks.explanations.analyses import batches_of
from hf_mhex.benchmarks.explanations.loading import image_part, shuffled, text_part
from hf_mhex.benchmarks.explanations.parts import Images, Texts
from hf_mhex.benchmarks.explanations.summary import summarise_quality
from hf_mhex.benchmarks.journal import Journal, without_folders
from hf_mhex.data.rows import read_data
from hf_mhex.environment import source_commit
from hf_mhex.evaluation.intervals import student_interval
from hf_mhex.evaluation.part_removal import part_removal, tokenizer_options
from hf_mhex.hub.card import MAJORITY, record_of_training, write_card
from hf_mhex.loading import load
from hf_mhex.processors import max_length
from hf_mhex.training.recipe import Recipe, load_recipe
from hf_mhex.training.run import train
from hf_mhex.training.studies.accuracy import STUDIES, by_seed
from hf_mhex.writing import write_whole

JUDGED = 1000  # test rows that the maps' measures draw from
ROWS = 32  # of them lose parts
SHOWN = 3


@dataclass(frozen=True)
class Reference:
    """A model of a recipe, with changes to it, and the set and the arm of the study of accuracy that are nearest."""

    recipe: str
    changes: tuple[str, ...] = ()
    study: tuple[str, str] = ("", "")


REFERENCES = {
    "mhex-resnet-fashion-mnist-10k": Reference(
        "fashion_mnist", ("max_train_rows=10000",), ("fashion_mnist_56px", "instances")
    ),
    "mhex-resnet-pneumoniamnist": Reference("medmnist/pneumoniamnist", (), ("pneumoniamnist_parts", "consistency")),
    "mhex-bert-ag-news": Reference("ag_news_minilm_7600", (), ("ag_news_parts", "consistency")),
}
ACCURACY = Path("results/accuracy")


def make_reference(
    name: str, overrides: Iterable[str], output: Path, revision: str, command: str = "", cards: Path | None = None
) -> Path:
    """Train, judge and describe a reference model; return its folder. What is trained already is not trained again.

    Args:
        overrides: of the recipe, such as `source=...`. revision: what the card's snippet pins. cards: a folder whose
            NAME also gets the card, with what it was rendered from.

    Raises ValueError for a name that is not there, and whatever training raises.
    """
    if name not in REFERENCES:
        raise ValueError(f"MODEL must be one of {', '.join(REFERENCES)}; got {name!r}.")
    reference = REFERENCES[name]
    recipe = load_recipe(reference.recipe, [*reference.changes, *overrides])
    run, folder = output / "runs" / name, output / name
    result = run / "result.json"
    row = json.loads(result.read_text(encoding="utf-8")) if result.is_file() else train(recipe, run, run.exists())
    shutil.copytree(run / "model", folder, dirs_exist_ok=True)
    part, items, majority = test_rows(recipe, folder)
    record = record_of_training(row) or {}
    record["prediction"][MAJORITY] = majority
    commit = source_commit()
    record |= {"command": command or record["command"]} | ({"commit": commit} if commit else {})
    record["plain_twin"] = twin_of(reference, ACCURACY)
    model, processor = load(folder)
    record["explanation"] = summarise_quality(model, part, seed=row["seed"])
    told = part_removal(model, batches_of(part, ROWS), ROWS, seed=row["seed"], **tokenizer_options(processor))
    record["part_removal"] = told.as_dict()
    write_whole(folder / "results.json", json.dumps(record, indent=2) + "\n")
    for place in [folder] if cards is None else [folder, cards / name]:
        write_card(folder, f"hf-mhex/{name}", revision, items, place)
    return folder


def twin_of(reference: Reference, folder: Path) -> dict:
    """How the plain network of the study of accuracy does beside the model's kind, as cards tell it.

    Args:
        folder: of the study's rows.
    """
    name, arm = reference.study
    rows, study = Journal(folder / f"{name}.jsonl").rows, STUDIES[name]
    measures = []
    for measure in study.measures:
        kinds = {kind: by_seed(rows, kind, measure) for kind in (arm, "plain")}
        seeds = sorted(set.intersection(*map(set, kinds.values())))
        values = {kind: [found[seed] for seed in seeds] for kind, found in kinds.items()}
        apart = [own - plain for own, plain in zip(values[arm], values["plain"])]
        figures = {"own": values[arm], "plain": values["plain"], "difference": apart}
        measures.append({"measure": measure} | {name: figure(found) for name, found in figures.items()})
    size = next(row["rows"]["train"] for row in rows if row["part"] == "test")
    by = f"the recipe {study.recipe} on {size:,} rows, each at its own learning rate (set {name} in results/accuracy)"
    return {"by": by, "seeds": len(seeds), "measures": measures}


def figure(values: list[float]) -> dict[str, float]:
    """Mean and 95 % interval by Student's t."""
    found = student_interval(values)
    return {"estimate": found.estimate, "low": found.low, "high": found.high}


def test_rows(recipe: Recipe, folder: Path):
    """Test rows ready for the measures, the first few as pictures or texts, and the most frequent label's share."""
    model, processor = load(folder)
    kind = recipe.model.registered.kind
    rows = read_data(recipe.data, kind, recipe.model.problem_type, getattr(model.config, "num_channels", None)).test
    every = [int(label) for label in rows.labels]
    chosen = shuffled(len(rows), 0)[:JUDGED]
    labels = [every[row] for row in chosen]
    majority = max(Counter(every).values()) / len(every)
    items = [rows[row][kind] for row in chosen]
    part: Images | Texts
    if kind == "image":
        part = image_part(items, labels, processor, model.config.num_channels)
    else:
        part = text_part(items, labels, processor, max_length(model, processor))
    return part, items[:SHOWN], majority


def main(
    name: Annotated[str, typer.Argument(metavar="MODEL", help="Name of a reference model; a wrong one lists them.")],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Values to change.")] = None,
    revision: Annotated[str, typer.Option(help="Tag that the card's snippet pins.")] = "v0.1.0",
    output: Annotated[Path, typer.Option(help="Folder for models and their runs.")] = Path("outputs/reference"),
    cards: Annotated[Path | None, typer.Option(help="Folder that also gets card, facts, results and picture.")] = None,
) -> None:
    """Train a reference model, judge its maps on test rows, and lay it down ready for the Hub."""
    command = " ".join(["python -m hf_mhex.training.studies.reference", name, *map(without_folders, overrides or [])])
    typer.echo(str(make_reference(name, overrides or [], output, revision, command, cards)))


if __name__ == "__main__":
    typer.run(main)
