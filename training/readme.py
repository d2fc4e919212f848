"""How do pictures and figures get into the README? `python -m hf_mhex.training.readme [outputs/demo]`."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

from hf_mhex.environment import ran_on
from hf_mhex.quality.index import overview
from hf_mhex.training.accuracy_report import overview as overview_of_accuracy


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


def with_tables(readme: str, docs: Path) -> str:
    """The README's text with the tables between its marks renewed from the results in `docs`."""
    tables = {
        "demo": demo_table(json.loads((docs / "demo.json").read_text())),
        "explanations": overview(docs / "explanations"),
        "accuracy": overview_of_accuracy(docs / "accuracy"),
    }
    for name, table in tables.items():
        begin, end = f"<!-- {name} table -->", f"<!-- end of {name} table -->"
        readme = re.sub(f"{begin}.*?{end}", lambda found, t=f"{begin}\n{table}\n{end}": t, readme, flags=re.DOTALL)
    return readme


def main(checkout: Path, demo: Path | None = None) -> None:
    """Copy the demo's picture and results into docs/, where a demo is given, and renew the README's tables."""
    if demo is not None:
        shutil.copy(demo / "overlays.png", checkout / "docs" / "demo.png")
        shutil.copy(demo / "results.json", checkout / "docs" / "demo.json")
    readme = checkout / "README.md"
    readme.write_text(with_tables(readme.read_text(), checkout / "docs"))


if __name__ == "__main__":
    main(Path.cwd(), *map(Path, sys.argv[1:2]))
