"""How do the demo's picture and figures get into the README? `python -m hf_mhex.training.readme outputs/demo`."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

BEGIN, END = "<!-- demo table -->", "<!-- end of demo table -->"


def demo_table(result: dict) -> str:
    """The demo's results.json as a Markdown table with what it ran on."""
    rows = [
        f"| {row['model']} | {row['accuracy']:.3f} | {row['majority_class']:.3f} | {row['completeness_error']:.1e} | "
        f"{row['map_share_of_time']:.0%} |"
        for row in result["models"]
    ]
    ran_on = ", ".join(f"{name} {value}" for name, value in result["environment"].items() if name != "machine")
    head = [
        "| model | accuracy | majority class | completeness error | map's share of the time |",
        "|---|---|---|---|---|",
    ]
    footer = f"*Seed {result['seed']}, {result['seconds']:.0f} s on {result['environment']['machine']}; {ran_on}.*"
    return "\n".join([*head, *rows, "", footer])


def with_table(readme: str, result: dict) -> str:
    """The README's text with the table between its two marks renewed."""
    return re.sub(f"{BEGIN}.*?{END}", f"{BEGIN}\n{demo_table(result)}\n{END}", readme, flags=re.DOTALL)


def main(demo: Path, checkout: Path) -> None:
    """Copy picture and results into docs/ and renew the README's table."""
    shutil.copy(demo / "overlays.png", checkout / "docs" / "demo.png")
    shutil.copy(demo / "results.json", checkout / "docs" / "demo.json")
    readme = checkout / "README.md"
    readme.write_text(with_table(readme.read_text(), json.loads((demo / "results.json").read_text())))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path.cwd())
