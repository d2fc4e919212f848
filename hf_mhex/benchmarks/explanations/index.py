"""Index of the compared sets, and how MHEX stands in each.

    python -m hf_mhex.benchmarks.explanations.index results/explanations

It first writes every set's tables again from its rows. The index is made from the sets' summary.json alone: for each
network and main measure MHEX, the best other method, the best control, and chance.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from hf_mhex.benchmarks.explanations.methods import CONTROLS, DEFAULT, MHEX, REFINED, REFINED_MORE
from hf_mhex.benchmarks.explanations.pictures import CHANCE, MAIN
from hf_mhex.benchmarks.explanations.report import DIRECTIONS, UP, better_by, write_report
from hf_mhex.benchmarks.journal import Journal
from hf_mhex.benchmarks.tables import markdown_table
from hf_mhex.writing import write_whole

COLUMNS = ("measure", "MHEX", "its defaults", "refined", "by 4 passes", "best other method", "best control", "chance")
SHORT = tuple(measure for measure in MAIN if measure not in ("grid pointing 2x2", "random logit"))
LINKS = {
    "tables.md": "tables",
    "measures-mhex.png": "plot",
    "measures-plain.png": "plot of the plain network",
    "maps-mhex.png": "maps side by side",
    "maps-mhex.html": "maps side by side",
    "maps-plain.png": "maps of the plain network",
    "maps-plain.html": "maps of the plain network",
    "analyses.md": "channels and heads",
}


def write_tables(folder: Path) -> list[Path]:
    """Write summary.json and tables.md of every set in a folder again, from its rows; return the sets' folders."""
    found = []
    for first in sorted(folder.glob("*/rows-mhex.jsonl")):
        rows = [row for path in sorted(first.parent.glob("rows-*.jsonl")) for row in Journal(path).rows]
        write_report(rows, first.parent, f"Explanations compared: {first.parent.name}")
        found.append(first.parent)
    return found


def write_index(folder: Path) -> Path:
    """Write README.md into a folder of sets; ValueError where none of its folders holds a summary.json."""
    summaries = sorted(folder.glob("*/summary.json"))
    if not summaries:
        raise ValueError(f"folder={str(folder)!r} holds no set: no folder in it has a summary.json.")
    parts = [
        "# Explanations compared",
        "`make benchmark` makes a folder for each set, and this page from their summaries; [Measuring explanations]"
        "(../../docs/evaluation.md) defines the measures. Means on the test rows with 95 % intervals. Settings were "
        "chosen on validation rows. An asterisk marks methods that differ from MHEX on the same rows for sure, a ring "
        "(°) those that differ from the map refined by 4 passes; a dagger those of many passes, judged on fewer rows. "
        "`CAM of the last block` is MHEX's own last head; `refined` takes one backward pass, `by 4 passes` four.",
    ]
    for path in summaries:
        found = json.loads(path.read_text(encoding="utf-8"))
        links = [
            f"[{text}]({path.parent.name}/{name})" for name, text in LINKS.items() if (path.parent / name).exists()
        ]
        parts += [f"## {path.parent.name}", ", ".join(links), standing(found)]
    write_whole(folder / "README.md", "\n\n".join(parts) + "\n")
    return folder / "README.md"


def standing(summary: dict) -> str:
    """A Markdown table of the main measures on each network."""
    return markdown_table(("network", *COLUMNS), standing_rows(summary))


def standing_rows(summary: dict) -> list[tuple[str, ...]]:
    """Rows of network and COLUMNS."""
    lines = []
    for network, methods in summary.items():
        mhex = [name for name in methods if name.startswith(MHEX)]
        others = [name for name in methods if name not in CONTROLS and name not in mhex]
        for measure in MAIN:
            if not any(measure in entry["measures"] for entry in methods.values()):
                continue
            own = [written(methods, name, measure) for name in (MHEX, DEFAULT, REFINED, REFINED_MORE)]
            best = [best_of(methods, names, measure) for names in (others, CONTROLS)]
            chance = f"{CHANCE[measure]:.2f}" if measure in CHANCE else ""
            title = f"{measure} ({DIRECTIONS[measure]} is better)"
            lines.append((network, title, *own, *best, chance))
    return lines


def overview(folder: Path) -> str:
    """One short table over all sets, on the MHEX networks alone: the measures that tell methods apart."""
    lines = []
    for path in sorted(folder.glob("*/summary.json")):
        methods = json.loads(path.read_text(encoding="utf-8"))["mhex"]
        for _, measure, *rest in standing_rows({"mhex": methods}):
            if measure.rsplit(" (", 1)[0] in SHORT:
                lines.append((path.parent.name, measure, *rest))
    return markdown_table(("set", *COLUMNS), lines)


def best_of(methods: dict, names, measure: str) -> str:
    """The best of some methods in a measure, by its mean."""
    found = [name for name in names if measure in methods.get(name, {"measures": {}})["measures"]]
    if not found:
        return ""
    sign = 1 if DIRECTIONS[measure] == UP else -1
    best = max(found, key=lambda name: sign * methods[name]["measures"][measure]["mean"])
    return f"{best}{' †' if methods[best]['slow'] else ''}: {written(methods, best, measure)}"


def written(methods: dict, name: str, measure: str) -> str:
    """A method's mean and interval in a measure; empty where it was not measured."""
    found = methods.get(name, {"measures": {}})["measures"].get(measure)
    if found is None:
        return ""
    marks = [mark for key, mark in (("mhex minus this", "*"), ("refined minus this", "°")) if better_by(found.get(key))]
    return f"{found['mean']:.3f}{''.join(marks)} [{found['low']:.3f}, {found['high']:.3f}]"


if __name__ == "__main__":
    write_tables(Path(sys.argv[1]))
    print(write_index(Path(sys.argv[1])))
