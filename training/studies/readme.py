"""How do pictures and figures get into the README? `python -m hf_mhex.training.studies.readme [outputs/demo]`."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

from hf_mhex.benchmarks.explanations.index import overview
from hf_mhex.environment import ran_on
from hf_mhex.training.studies.accuracy_report import overview as overview_of_accuracy


def demo_table(result: dict) -> str:
    """The demo's results.json as a Markdown table with what it ran on."""
    rows = [
        f"| {row['model']} | {row['accuracy']:.3f} | {row['majority_class']:.3f} | {row['completeness_error']:.1e} | "
        f"{row['map_share_of_time']:.0%} |"
        for row in result["models"]
    ]
    head = [
        "| model | accuracy | majority class | completeness error | map's share of the time |",
        "|---|---|---|---|---|",
    ]
    footer = f"*Seed {result['seed']}, {result['seconds']:.0f} s on {ran_on([result])}.*"
    return "\n".join([*head, *rows, "", footer])


def with_tables(readme: str, results: Path) -> str:
    """The README's text with the tables between its marks renewed from the rows in `results`."""
    tables = {
        "demo": demo_table(json.loads((results / "demo.json").read_text())),
        "explanations": overview(results / "explanations"),
        "accuracy": overview_of_accuracy(results / "accuracy"),
    }
    for name, table in tables.items():
        begin, end = f"<!-- {name} table -->", f"<!-- end of {name} table -->"
        readme = re.sub(f"{begin}.*?{end}", lambda found, t=f"{begin}\n{table}\n{end}": t, readme, flags=re.DOTALL)
    return readme


def main(checkout: Path, demo: Path | None = None) -> None:
    """Renew the README's tables; where a demo is given, first copy its picture to docs/, its results to results/."""
    if demo is not None:
        shutil.copy(demo / "overlays.png", checkout / "docs" / "demo.png")
        shutil.copy(demo / "results.json", checkout / "results" / "demo.json")
    readme = checkout / "README.md"
    readme.write_text(with_tables(readme.read_text(), checkout / "results"))


if __name__ == "__main__":
    main(Path.cwd(), *map(Path, sys.argv[1:2]))
