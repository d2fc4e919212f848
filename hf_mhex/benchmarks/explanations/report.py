"""Report of measured rows: tables with intervals, differences paired by row, and where MHEX loses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from hf_mhex.benchmarks.explanations.methods import CONTROLS, MHEX, REBUILT, REFINED_MORE
from hf_mhex.benchmarks.explanations.orders import compare_orders, orders_section
from hf_mhex.benchmarks.tables import markdown_table
from hf_mhex.environment import ran_on
from hf_mhex.escaping import code_markdown, escaped_markdown
from hf_mhex.evaluation.intervals import Interval, bootstrap, paired_difference
from hf_mhex.writing import write_whole

UP, DOWN, NEITHER = "higher", "lower", "neither"
TABLES = {
    "Localisation": {"grid pointing 2x2": UP, "grid pointing 3x3": UP},
    "Faithfulness": {
        "insertion - deletion": UP,
        "insertion": UP,
        "deletion": DOWN,
        "insertion - deletion 7x7": UP,
        "insertion - deletion 14x14": UP,
        "another class, insertion - deletion 7x7": UP,
        "ROAD combined": UP,
        "ROAD combined 7x7": UP,
        "ROAD morf": DOWN,
        "ROAD lerf": UP,
        "comprehensiveness (mask)": UP,
        "sufficiency (mask)": DOWN,
        "comprehensiveness (delete)": UP,
        "sufficiency (delete)": DOWN,
        "sensitivity-n": UP,
        "infidelity": DOWN,
        "FFid+": UP,
        "FFid-": DOWN,
    },
    "The paper's measures": {
        "AVG drop (plain network)": UP,
        "SAD (plain network)": UP,
        "EAD (plain network)": UP,
        "AVG drop (mhex network)": UP,
        "SAD (mhex network)": UP,
        "EAD (mhex network)": UP,
        "AVG drop (same)": UP,
        "SAD (same)": UP,
        "EAD (same)": UP,
        "text drop (plain network)": UP,
        "text drop (mhex network)": UP,
        "text drop (same)": UP,
    },
    "Sanity": {"random logit": DOWN, "randomised": DOWN, "complexity rise": UP},
    "Form": {"Gini": NEITHER, "entropy": NEITHER, "area": NEITHER},
}
DIRECTIONS = {name: direction for table in TABLES.values() for name, direction in table.items()}
MEDIANS = ("grid pointing 2x2", "grid pointing 3x3")
ARROWS = {UP: " ↑", DOWN: " ↓", NEITHER: ""}
AGAINST = {"mhex minus this": MHEX, "refined minus this": REFINED_MORE}  # what every method is paired with


def write_report(rows: list[dict], output: Path, title: str) -> dict:
    """Write summary.json and tables.md into `output`; return the summary.

    The summary holds, by network, method and measure, the mean (of the Grid Pointing Game also median and quartiles)
    with its interval, and the differences of `AGAINST` from the method with their own.
    """
    choices = [row for row in rows if row["part"] == "validation"]
    tested = [row for row in rows if row["part"] == "test"]
    summary = summarise(tested)
    write_whole(output / "summary.json", json.dumps(summary, indent=1) + "\n")
    parts = [f"# {escaped_markdown(title)}", about(rows)]
    for network, methods in summary.items():
        parts.append(f"## On the {network} network")
        parts += [table(name, columns, methods) for name, columns in TABLES.items() if present(columns, methods)]
        parts += [losses(methods, key) for key, method in AGAINST.items() if method in methods]
        compared = compare_orders(tested, network, lambda name: DIRECTIONS[name] == DOWN)
        if compared:
            parts.append(orders_section(compared))
        parts.append(costs(methods))
    if choices:
        parts.append(chosen(choices))
    write_whole(output / "tables.md", "\n\n".join(parts) + "\n")
    return summary


def about(rows: list[dict]) -> str:
    """What the tables rest on."""
    first = rows[0]
    sizes = ", ".join(f"{name} {value}" for name, value in first["sizes"].items())
    made = f"Made by {code_markdown(first['command'])}." if first["command"] else ""
    return (
        f"{made} Seed {first['seed']}; {sizes}. {ran_on(rows)}.\n\nMeans with 95 % bootstrap intervals (percentile, "
        "2,000 resamples; the Grid Pointing Game resamples mosaics). The explained class is the network's own answer. "
        "An arrow shows the better direction. A dagger marks methods with many passes a row, judged on fewer rows; an "
        "asterisk marks values that differ from MHEX's on the same rows (paired interval without 0, at least five rows "
        "or mosaics). A double dagger marks methods that were measured by an implementation that has been replaced "
        "since, and not measured again (docs/paper.md and docs/taylor.md measure the new ones). "
        "docs/evaluation.md defines each measure."
    )


def summarise(rows: list[dict]) -> dict:
    """Intervals by network, method and measure."""
    found: dict = {}
    for row in rows:
        methods = found.setdefault(row["network"], {})
        by = {"source": row["source"], "implementation": ran_by(row), "replaced": replaced(row)}
        entry = methods.setdefault(
            row["method"], by | {"slow": row["slow"], "settings": row["settings"], "measures": {}}
        )
        values = row["values"]
        if "seconds" in values:
            entry["seconds"] = values["seconds"]
        if "randomised by stage" in values:
            entry["randomised by stage"] = values["randomised by stage"]
        for name in DIRECTIONS:
            if name in values:
                entry["measures"][name] = statistics(name, values[name], values.get("mosaic"))
                for key, method in AGAINST.items():
                    about = (row["network"], method, row["group"])
                    own = next((r for r in rows if (r["network"], r["method"], r["group"]) == about), None)
                    if own is not None and row["method"] != method:
                        entry["measures"][name][key] = difference(own["values"], values, name)
    return found


def statistics(name: str, values: list[float], groups) -> dict:
    """Mean and its interval; of the Grid Pointing Game also median with interval, and quartiles."""
    mean = bootstrap(values, groups)
    found = {"mean": mean.estimate, "low": mean.low, "high": mean.high, "rows": len(values), "drawn": mean.rows}
    if name in MEDIANS:
        median = bootstrap(values, groups, "median")
        lower, upper = np.quantile(values, [0.25, 0.75])
        found |= {"median": median.estimate, "median low": median.low, "median high": median.high}
        found |= {"lower quartile": float(lower), "upper quartile": float(upper)}
    return found


def difference(own: dict, other: dict, name: str) -> dict:
    """MHEX minus another method on the rows that both have."""
    count = min(len(own[name]), len(other[name]))
    groups = own["mosaic"][:count] if "mosaic" in own else None
    found: Interval = paired_difference(own[name][:count], other[name][:count], groups)
    return {"mean": found.estimate, "low": found.low, "high": found.high, "rows": count, "drawn": found.rows}


def better_by(paired: dict | None) -> int:
    """1 where MHEX's value is surely higher on the same rows, -1 where it is surely lower, 0 where neither is sure.

    Fewer than five independent rows or mosaics are never sure: a bootstrap over them says little.
    """
    if paired is None or paired["drawn"] < 5:
        return 0
    return int(paired["low"] > 0) - int(paired["high"] < 0)


def present(columns, methods: dict) -> list[str]:
    """The columns that any method has."""
    return [name for name in columns if any(name in entry["measures"] for entry in methods.values())]


def label(name: str, entry: dict) -> str:
    """A method's name with its chosen settings."""
    settings = ", ".join(f"{key} {value}" for key, value in entry["settings"].items())
    mark = (" †" if entry["slow"] else "") + (" ‡" if entry["replaced"] else "")
    text = f"{name}{mark}" + (f" ({settings})" if settings else "")
    return f"*{text}*" if name in CONTROLS else text


def ran_by(row: dict) -> str:
    """What computed the maps of a row, with its version; rows of before 0.2.0 kept the version of hf-mhex alone."""
    if row.get("implementation"):
        return row["implementation"]
    own = row["source"] == "ours"
    return f"hf-mhex {row['environment']['hf-mhex']}" if own else f"{row['source']}, version not kept"


def replaced(row: dict) -> bool:
    """Whether a method was measured by an implementation that has been replaced since."""
    return row["method"] in REBUILT and not row.get("implementation")


def table(name: str, columns: dict, methods: dict) -> str:
    """One Markdown table: a line for each method, controls in italics."""
    shown = present(columns, methods)
    heads = []
    for column in shown:
        heads.append(column + ARROWS[DIRECTIONS[column]])
        heads += [f"{column}, median [quartiles]"] if column in MEDIANS else []
    lines = []
    for method, entry in methods.items():
        cells = [text for column in shown for text in cell(column, entry["measures"].get(column))]
        lines.append((label(method, entry), *cells))
    return f"### {name}\n\n" + markdown_table(("method", *heads), lines)


def cell(column: str, found: dict | None) -> list[str]:
    """The text of one measure of one method: mean and interval, and for the Grid Pointing Game the quartiles."""
    if found is None:
        return ["", ""] if column in MEDIANS else [""]
    star = "*" if better_by(found.get("mhex minus this")) else ""
    cells = [f"{found['mean']:.3f}{star} [{found['low']:.3f}, {found['high']:.3f}]"]
    if column in MEDIANS:
        cells.append(f"{found['median']:.2f} [{found['lower quartile']:.2f}, {found['upper quartile']:.2f}]")
    return cells


def losses(methods: dict, key: str) -> str:
    """Where another method is surely better than one of `AGAINST` on the same rows, measure by measure."""
    lines = [f"### Where {AGAINST[key]} loses", ""]
    for name, direction in DIRECTIONS.items():
        if direction == NEITHER:
            continue
        better = []
        for method, entry in methods.items():
            paired = entry["measures"].get(name, {}).get(key)
            if better_by(paired) == (-1 if direction == UP else 1):
                size = f"{abs(paired['mean']):.3f} over {paired['rows']} rows"
                better.append(f"{method} (by {size}{', a control' if method in CONTROLS else ''})")
        if better:
            lines.append(f"- **{name}**: {'; '.join(better)}.")
    if len(lines) == 2:
        lines.append("No method is surely better in any measure on these rows.")
    return "\n".join(lines)


def costs(methods: dict) -> str:
    """What computed each method's maps, and its processor seconds: other work on the machine does not lengthen them."""
    lines = [
        (label(method, entry), entry["implementation"], f"{entry['seconds']:.4f}" if timed(method, entry) else "")
        for method, entry in methods.items()
    ]
    table = markdown_table(("method", "computed by", "seconds"), lines)
    return f"### Which implementation ran, and its processor seconds an explanation\n\n{table}"


def timed(method: str, entry: dict) -> bool:
    """Whether a method's time says anything: controls ask no network."""
    return "seconds" in entry and method not in CONTROLS


def chosen(choices: list[dict]) -> str:
    """The settings that were tried on the validation part, a line each, with both halves of what they are chosen by."""
    halves = [name for name in ("pointing", "removal") if name in choices[0]["tried"][0]]
    lines = []
    for row in choices:
        for found in row["tried"]:
            mark = "**" if found["settings"] == row["chosen"] else ""
            cells = [f"{found[name]:.3f}" for name in halves] + [f"{mark}{found['score']:.3f}{mark}"]
            settings = f"{mark}{written(found['settings'])}{mark}"
            lines.append((row["network"], row["method"], settings, *cells))
    return "\n\n".join(
        [
            "## Settings, chosen on the validation part",
            f"By {' + '.join(halves)} (docs/evaluation.md says what they are); the chosen ones in bold.",
            markdown_table(("network", "method", "settings", *halves, "sum"), lines),
        ]
    )


def written(settings: dict) -> str:
    """Settings in words."""
    return ", ".join(f"{key} {value}" for key, value in settings.items()) or "defaults"
