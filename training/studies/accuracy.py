"""What MHEX costs in accuracy: networks by one recipe, each at its own learning rate, over seeds, paired by seed.

    python -m hf_mhex.training.studies.accuracy ag_news source=ag_news_test.csv
    make accuracy SET=ag_news SOURCE=ag_news_test.csv

Every run is one JSON line in OUTPUT/SET.jsonl; a stopped study goes on where it was. Learning rates are chosen on
validation rows, and only runs at the chosen rate see the test rows.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import stdev
from typing import Annotated

import numpy as np
import typer

from hf_mhex.benchmarks.journal import Journal, without_folders
from hf_mhex.environment import environment, source_commit
from hf_mhex.evaluation.intervals import student_interval
from hf_mhex.training.job import prepare
from hf_mhex.training.recipe import load_recipe
from hf_mhex.training.run import describe, make_trainer, scores

UNTAUGHT = "model.config={rectified: false, binary_share: 0, instance_share: 0}"  # the method's own loss
POINTING = ["model.config.rectified=true", "model.config.binary_share=0.5", "mosaics=0.5"]
ARMS = {
    "plain": ["model.kind=plain"],
    "plain at one rate": ["model.kind=plain"],
    "gates": ["model.config.deep_supervision_weight=0", "model.config.head_decay=0"],
    "MHEX": [],
    "light": ["model.config.deep_supervision_weight=0.2"],
    "pointing": POINTING,
    "instances": [*POINTING, "model.config.instance_share=0.05"],
    "consistency": ["part_consistency=1.0"],
}
THRESHOLD = "balanced_accuracy_at_threshold"  # of two labels; the threshold is chosen on validation rows
MASKED = "part_consistency=0.0"  # rows without some parts, for every network of a study
UNMASKED = "part_consistency=null"
LAST_WEIGHTS = ["eval_strategy=no", "save_strategy=no", "load_best_model_at_end=false"]
LEAST_MARGIN = 0.005


@dataclass(frozen=True)
class Study:
    """One data set: its recipe with changes, what is compared, the learning rates to choose from and the seeds.

    Args:
        measures: metrics of the recipe, or THRESHOLD; rates are chosen by the first.
        classifier_factor: learning rate of the plain network's classifier, which starts small, over that of the rest;
            None for the same.
        arms: among ARMS.
    """

    recipe: str
    changes: tuple[str, ...]
    measures: tuple[str, ...]
    rates: tuple[float, ...]
    seeds: int
    classifier_factor: float | None = None
    arms: tuple[str, ...] = ("plain", "gates", "MHEX")


STUDIES = {
    "fashion_mnist": Study(
        "fashion_mnist",
        (
            "max_train_rows=10000",
            "num_train_epochs=6",
            "image_size=28",
            UNTAUGHT,
            "mosaics=0",
            "mosaic_epochs=4",
        ),
        ("accuracy",),
        (1e-3, 3e-3, 1e-2, 3e-2),
        5,
        arms=("plain", "gates", "MHEX", "pointing"),
    ),
    "fashion_mnist_56px": Study(
        "fashion_mnist",
        (
            "max_train_rows=5000",
            "num_train_epochs=8",
            UNTAUGHT,
            "mosaics=0",
            "mosaic_epochs=6",
        ),
        ("accuracy",),
        (3e-3, 1e-2),
        5,
        arms=("plain", "MHEX", "pointing", "instances"),
    ),
    "pneumoniamnist": Study(
        "medmnist/pneumoniamnist",
        ("image_size=28", "num_train_epochs=10", UNMASKED),
        ("medmnist_auc", "balanced_accuracy"),
        (3e-4, 1e-3, 3e-3, 1e-2),
        10,
        arms=("plain", "gates", "MHEX", "light"),
    ),
    "ag_news": Study(
        "ag_news_minilm_7600",
        ("max_train_rows=2400", "num_train_epochs=1", UNMASKED),
        ("accuracy",),
        (1e-4, 2e-4, 4e-4),
        5,
        5.0,
        ("plain", "plain at one rate", "gates", "MHEX"),
    ),
    "ag_news_fresh": Study(
        "ag_news_minilm_7600",
        ("max_train_rows=2400", "num_train_epochs=1", "split_seed=1", UNMASKED),
        ("accuracy",),
        (2e-4,),
        10,
        5.0,
        ("plain", "MHEX"),
    ),
    "fashion_mnist_parts": Study(
        "fashion_mnist",
        ("max_train_rows=5000", "num_train_epochs=8", "image_size=28", "mosaics=0", MASKED),
        ("accuracy",),
        (3e-3, 1e-2, 3e-2),
        10,
        arms=("plain", "consistency"),
    ),
    "pneumoniamnist_parts": Study(
        "medmnist/pneumoniamnist",
        ("image_size=28", "num_train_epochs=10", MASKED),
        ("medmnist_auc", "balanced_accuracy", THRESHOLD),
        (1e-3, 3e-3, 1e-2),
        10,
        arms=("plain", "consistency"),
    ),
    "ag_news_parts": Study(
        "ag_news_minilm_7600",
        ("max_train_rows=2400", "num_train_epochs=1", MASKED),
        ("accuracy",),
        (1e-4, 2e-4, 4e-4),
        20,
        5.0,
        ("plain", "consistency"),
    ),
}


def run_study(
    name: str,
    overrides: Iterable[str],
    output: Path,
    arms: Iterable[str] | None = None,
    command: str = "",
    say: Callable[[str], None] = print,
) -> list[dict]:
    """Make the rows of a study that `output`/NAME.jsonl lacks, and return all of them.

    Args:
        overrides: of the recipe, such as `source=...`. arms: names among the study's, None for all.

    Raises ValueError for a study or an arm that is not there, and whatever training raises.
    """
    if name not in STUDIES:
        raise ValueError(f"SET must be one of {', '.join(STUDIES)}; got {name!r}.")
    study, journal = STUDIES[name], Journal(output / f"{name}.jsonl")
    wanted = list(study.arms if arms is None else arms)
    unknown = sorted(set(wanted) - set(study.arms))
    if unknown:
        raise ValueError(f"arms must be among {', '.join(study.arms)}; got {', '.join(unknown)}.")
    common = {"command": command, "commit": source_commit(), "environment": environment()}
    for arm in wanted:
        for rate in study.rates if len(study.rates) > 1 else ():
            about = {"part": "tuning", "arm": arm, "rate": rate, "seed": 0}
            if journal.find(**about) is None:
                say(f"{name}: {arm}, learning rate {rate:g}, chosen on validation rows")
                journal.add(about | run_one(study, arm, rate, 0, overrides, ("validation",)) | common)
        rate = chosen_rate(journal.rows, arm, study)
        for seed in range(1, study.seeds + 1):
            about = {"part": "test", "arm": arm, "rate": rate, "seed": seed}
            if journal.find(**about) is None:
                say(f"{name}: {arm}, learning rate {rate:g}, seed {seed}")
                journal.add(about | run_one(study, arm, rate, seed, overrides, ("validation", "test")) | common)
    return journal.rows


def chosen_rate(rows: list[dict], arm: str, study: Study) -> float:
    """The learning rate with the best first measure on validation rows; where there is one alone, that one."""
    if len(study.rates) == 1:
        return study.rates[0]
    tried = [row for row in rows if row["part"] == "tuning" and row["arm"] == arm and row["rate"] in study.rates]
    return max(tried, key=lambda row: row["validation"][study.measures[0]])["rate"]


def run_one(study: Study, arm: str, rate: float, seed: int, overrides: Iterable[str], splits: Iterable[str]) -> dict:
    """Train one network and measure its last weights on `splits`; nothing of it is kept."""
    rates = [f"learning_rate={rate}"]
    if study.classifier_factor is not None:
        rates.append(f"head_learning_rate={rate * (study.classifier_factor if arm == 'plain' else 1)}")
    changes = [*study.changes, *LAST_WEIGHTS, *rates, f"training.seed={seed}", *ARMS[arm], *overrides]
    recipe = load_recipe(study.recipe, changes)
    with tempfile.TemporaryDirectory() as folder:
        arguments = recipe.training_arguments(Path(folder))
        job = prepare(recipe, seed)
        trainer = make_trainer(recipe, arguments, job)
        took = trainer.train().metrics["train_runtime"]
        found = {split: scores(trainer, getattr(job, split), split) for split in splits}
        if THRESHOLD in study.measures:
            answers = {split: trainer.predict(getattr(job, split)) for split in found}
            for split, answer in answers.items():
                found[split][THRESHOLD] = at_threshold(*answers["validation"][:2], *answer[:2])
    about = describe(recipe, job, seed, arguments.world_size, arguments.device)
    kept = {name: about[name] for name in ("recipe", "rows", "parameters", "threads")}
    measured = {split: {name: values[name] for name in study.measures} for split, values in found.items()}
    return kept | measured | {"minutes": round(took / 60, 2)}


def at_threshold(chosen_logits, chosen_labels, logits, labels) -> float:
    """Balanced accuracy of two labels, where label 1 begins at the difference of logits [N, 2] that is best on the
    chosen rows; labels [N] or [N, 1]."""
    from sklearn.metrics import balanced_accuracy_score, roc_curve

    wrong, right, thresholds = roc_curve(np.ravel(chosen_labels), chosen_logits[:, 1] - chosen_logits[:, 0])
    threshold = thresholds[(right - wrong).argmax()]
    return float(balanced_accuracy_score(np.ravel(labels), logits[:, 1] - logits[:, 0] >= threshold))


def margin_of(rows: list[dict], measure: str) -> float:
    """How much worse still counts as no worse: half a point, or one standard deviation of the plain network's seeds."""
    plain = by_seed(rows, "plain", measure)
    return max(LEAST_MARGIN, stdev(plain.values()) if len(plain) > 1 else 0.0)


def by_seed(rows: list[dict], arm: str, measure: str) -> dict[int, float]:
    """The test results of an arm."""
    return {row["seed"]: row["test"][measure] for row in rows if row["part"] == "test" and row["arm"] == arm}


def compare(rows: list[dict], arm: str, measure: str) -> dict | None:
    """Arm minus plain over the seeds that both have: mean and 95 % interval (paired, Student's t); None below two.

    `no_worse`: the interval's lower end is above minus the margin. `better`: it is above 0.
    """
    plain, own = by_seed(rows, "plain", measure), by_seed(rows, arm, measure)
    differences = [own[seed] - plain[seed] for seed in sorted(set(plain) & set(own))]
    if len(differences) < 2:
        return None
    found = student_interval(differences)
    margin = margin_of(rows, measure)
    verdict = {"no_worse": found.low > -margin, "better": found.low > 0}
    interval = {"mean": found.estimate, "low": found.low, "high": found.high, "seeds": found.rows}
    return interval | {"margin": margin} | verdict


def main(
    study: Annotated[str, typer.Argument(metavar="SET", help="Name of a study; a wrong one lists them.")],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Values to change.")] = None,
    arms: Annotated[str | None, typer.Option(help="Names separated by commas; a wrong one lists them. All.")] = None,
    output: Annotated[Path, typer.Option(help="Folder for rows and page.")] = Path("outputs/accuracy"),
) -> None:
    """Measure what MHEX costs in accuracy: each network at its own learning rate, over paired seeds."""
    from hf_mhex.training.studies.accuracy_report import write_page

    wanted = [name.strip() for name in arms.split(",")] if arms else None
    command = " ".join(["python -m hf_mhex.training.studies.accuracy", study, *map(without_folders, overrides or [])])
    run_study(study, overrides or [], output, wanted, command, lambda line: typer.echo(line, err=True))
    typer.echo(str(write_page(output)))


if __name__ == "__main__":
    typer.run(main)
