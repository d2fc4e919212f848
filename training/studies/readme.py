"""Tables and pictures of README, docs and cards: `python -m hf_mhex.training.studies.readme [outputs/demo]`."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np

from hf_mhex.benchmarks.explanations.index import overview
from hf_mhex.benchmarks.journal import Journal
from hf_mhex.benchmarks.tables import markdown_table
from hf_mhex.data.samples import load_sample
from hf_mhex.environment import ran_on
from hf_mhex.explaining.display import show
from hf_mhex.hub.card import render_card
from hf_mhex.training.recipe import load_recipe
from hf_mhex.training.run import train
from hf_mhex.training.studies.accuracy_report import overview as overview_of_accuracy
from hf_mhex.training.studies.part_consistency import OVERVIEWS
from hf_mhex.training.studies.part_consistency import overview as overview_of_parts
from hf_mhex.training.studies.reference import REFERENCES, twin_of
from hf_mhex.writing import whole, write_whole

MADE = {  # pages in results/ that stand in docs/ without their titles, by the name in the marks
    "the paper's measures": "paper/sample_fashion_mnist/tables.md",
    "filters of Fashion-MNIST": "filters/fashion_mnist/filters.md",
    "stability": "stability/sample_fashion_mnist/tables.md",
    "single heads of Fashion-MNIST": "heads/fashion_mnist/heads.md",
    "single heads of product reviews": "heads/product_reviews/heads.md",
    "single heads of a plain network for Fashion-MNIST": "heads/fashion_mnist_plain/heads.md",
    "single heads of a plain network for product reviews": "heads/product_reviews_plain/heads.md",
    "filters of a plain network": "filters/fashion_mnist_plain/filters.md",
    "zones of coffee": "smx/coffee/smx.md",
    "zones of coffee by a plain network": "smx/coffee_plain/smx.md",
    "signals": "signals.md",
    "what gates add": "added.md",
}
REVIEW = "A great phone, but the battery is poor."
PAGES = (
    "README.md", "docs/measured.md", "docs/meaning.md", "docs/filters.md", "docs/heads.md", "docs/paper.md",
    "docs/signals.md", "docs/taylor.md", "docs/training.md",
)  # fmt: skip


def demo_table(result: dict) -> str:
    """The demo's results.json as a Markdown table with what it ran on."""
    forms = {"accuracy": ".3f", "majority_class": ".3f", "completeness_error": ".1e", "map_share_of_time": ".0%"}
    rows = [[row["model"], *(format(row[name], form) for name, form in forms.items())] for row in result["models"]]
    columns = ["model", "accuracy", "majority class", "completeness error", "map's share of the time"]
    footer = f"*Seed {result['seed']}, {result['seconds']:.0f} s on {ran_on([result])}.*"
    return f"{markdown_table(columns, rows)}\n\n{footer}"


TRAINED = ("pneumoniamnist.jsonl", "ag_news_minilm_7600.jsonl")  # runs of recipes in results/training


def runs_table(folder: Path) -> str:
    """What runs of recipes reached on their test rows, as a Markdown table."""
    lines = []
    for row in (row for name in TRAINED for row in Journal(folder / name).rows):
        test = row["test"]
        accuracy, auc = test.get("accuracy", test.get("medmnist_acc")), test.get("auc", test.get("medmnist_auc"))
        scores = (accuracy, test["balanced_accuracy"], test["macro_f1"], auc)
        size = f"{row['parameters'] / 1e6:.1f} M"
        lines.append([row["recipe"], row["kind"], *(f"{v:.3f}" for v in scores), f"{row['minutes']:.1f}", size])
    columns = ["recipe", "network", "test accuracy", "balanced accuracy", "macro F1", "AUC", "minutes", "parameters"]
    return markdown_table(columns, lines)


def depth_table(path: Path) -> str:
    """Balanced accuracy of each head alone and of all combined by each decay, as a Markdown table."""
    lines, decays = [], {}
    for row in Journal(path).rows:
        alone = ", ".join(f"{head['balanced_accuracy']:.3f}" for head in row["heads"])
        decays = {found["decay"]: f"{found['balanced_accuracy']:.3f}" for found in row["combined"]}
        lines.append([row["recipe"], alone, *decays.values(), f"{row['calibration_error']:.3f}"])
    return markdown_table(["recipe", "heads alone", *(f"decay {d:g}" for d in decays), "calibration error"], lines)


def with_tables(page: str, results: Path) -> str:
    """A page's text with the tables between its marks renewed from the rows in `results`."""
    tables = {
        "demo": demo_table(json.loads((results / "demo.json").read_text())),
        "explanations": overview(results / "explanations"),
        "accuracy": overview_of_accuracy(results / "accuracy"),
        "runs": runs_table(results / "training"),
        "depth": depth_table(results / "training" / "heads.jsonl"),
    } | {name: overview_of_parts(results / "part_consistency.jsonl", name) for name in OVERVIEWS}
    tables |= {name: (results / path).read_text().partition("\n\n")[2].strip() for name, path in MADE.items()}
    for name, table in tables.items():
        begin, end = f"<!-- {name} table -->", f"<!-- end of {name} table -->"
        made = f"{begin}\n{table}\n{end}".replace("\\", "\\\\")
        page = re.sub(f"{begin}.*?{end}", made, page, flags=re.DOTALL)
    return page


def start_pictures(demo: Path, docs: Path) -> None:
    """Write what the pages to start with show: the best labels of an image, a text and a spectrum, side by side.

    The spectrum's model is trained by its recipe, into `demo`, where it is not there yet.
    """
    coffee = demo / "coffee"
    if not (coffee / "model").is_dir():
        train(load_recipe("sample_coffee"), coffee)
    image = load_sample("fashion_mnist")["test"][0]["image"]
    shown = {
        "images": show(demo / "mhex-resnet-fashion-mnist", image),
        "text": show(demo / "mhex-bert-product-reviews", REVIEW, labels=2, rollout=True),
        "signals": show(coffee / "model", np.array(load_sample("coffee")["test"][0]["signal"])),
    }
    for name, found in shown.items():
        with whole(docs / f"start_{name}.png") as place:
            found.labels_picture.quantize(128).save(place, optimize=True)


def renew_card(folder: Path, twin: dict) -> None:
    """Render a reference model's card again from what lies beside it, with what is known of its plain twin now."""
    facts, about, record = (
        json.loads((folder / f"{name}.json").read_text(encoding="utf-8")) for name in ("facts", "about", "results")
    )
    record["plain_twin"] = twin
    write_whole(folder / "results.json", json.dumps(record, indent=2, ensure_ascii=False) + "\n")
    repo_id, revision = facts.pop("repo_id"), facts.pop("revision")
    write_whole(folder / "README.md", render_card(facts, about, record, repo_id, revision, "saliency.png"))


def main(checkout: Path, demo: Path | None = None) -> None:
    """Renew the pages' tables; where a demo is given, first copy its picture to docs/, its results to results/."""
    if demo is not None:
        shutil.copy(demo / "overlays.png", checkout / "docs" / "demo.png")
        shutil.copy(demo / "results.json", checkout / "results" / "demo.json")
        start_pictures(demo, checkout / "docs")
    for name, reference in REFERENCES.items():
        renew_card(checkout / "model_cards" / name, twin_of(reference, checkout / "results" / "accuracy"))
    for page in (checkout / name for name in PAGES):
        write_whole(page, with_tables(page.read_text(), checkout / "results"))


if __name__ == "__main__":
    main(Path.cwd(), *map(Path, sys.argv[1:2]))
