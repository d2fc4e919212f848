"""Report of measured costs: ratios with intervals, targets beside what was found, growth, a plot."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from hf_mhex.benchmarks.speed.methods import (
    EVERY,
    GIVEN,
    GRAD_CAM,
    GRAD_CAM_PLAIN,
    INT8,
    INTEGRATED,
    PLAIN,
    PLAIN_STEP,
    PREDICTED,
    PREDICTION,
    SHAP,
    STEP,
)
from hf_mhex.benchmarks.speed.subjects import FAMILY_NETWORKS, kind_of
from hf_mhex.benchmarks.tables import markdown_table
from hf_mhex.environment import made_at, ran_on
from hf_mhex.escaping import code_markdown
from hf_mhex.evaluation.intervals import Interval, bootstrap
from hf_mhex.writing import whole, write_whole

LARGE = ("resnet18", "resnet50", "resnet50-full", "resnet50-rank64", "bert-base")
GOALS = (  # (method, against, most, least, part, networks, batches)
    (PREDICTION, PLAIN, 1.03, None, "comparison", LARGE, (8, 32)),
    (GIVEN, PLAIN, 1.06, None, "comparison", LARGE, (8, 32)),
    (EVERY, PLAIN, 1.10, None, "comparison", LARGE, (8,)),
    (GRAD_CAM, GIVEN, None, 2.5, "comparison", LARGE, (1, 8)),
    (GRAD_CAM_PLAIN, GIVEN, None, 2.5, "comparison", LARGE, (1, 8)),
    ("Grad-CAM (torchcam)", GIVEN, None, 2.5, "comparison", LARGE, (1, 8)),
    (INTEGRATED, GIVEN, None, 50, "passes", ("resnet18", "resnet50", "resnet50-full", "minilm"), (1,)),
    (SHAP, GIVEN, None, 200, "passes", ("resnet18", "resnet50", "resnet50-full", "minilm"), (1,)),
    (PREDICTION, PLAIN, 1.03, None, "memory", LARGE, (8,)),
    (GIVEN, PLAIN, 1.03, None, "memory", LARGE, (8,)),
)
TARGETS = {  # of a family beside its plain network: column to (method, against, most, part, what is compared)
    "prediction": (PREDICTION, PLAIN, 1.03, "families", "milliseconds"),
    "with map": (GIVEN, PLAIN, 1.06, "families", "milliseconds"),
    "all classes": (EVERY, PLAIN, 1.10, "families", "milliseconds"),
    "training step": (STEP, PLAIN_STEP, 1.10, "families", "milliseconds"),
    "memory": (PREDICTION, PLAIN, 1.03, "memory", "megabytes"),
    "memory with map": (GIVEN, PLAIN, 1.03, "memory", "megabytes"),
    "parameters": (PREDICTION, PLAIN, 1.15, "families", "parameters"),
}
PLOTTED = "resnet18"  # where it was measured
UNITS = {"image": "px", "text": "tokens", "signal": "points"}
VARIED = {"batch": "batch", "size": "image side or length", "labels": "classes", "blocks": "blocks"}
TOLD = 12  # operators of a profile


class Rows:
    """The measured rows, found by case and method."""

    def __init__(self, rows: list[dict]):
        self.rows = rows

    def find(self, method: str, **about) -> dict | None:
        """The row of a method whose fields are these, or None."""
        about = about | {"method": method}
        return next((row for row in self.rows if all(row[name] == value for name, value in about.items())), None)

    def ratio(self, method: str, against: str, of: str = "milliseconds", **about) -> Interval | None:
        """Median over rounds of one method's time over another's in the same round, with its interval; or that of their
        "megabytes" or "parameters", which have none.
        """
        one, two = self.find(method, **about), self.find(against, **about)
        if one is None or two is None:
            return None
        if of != "milliseconds":
            return bootstrap([one[of] / two[of]])
        pairs = zip(one["milliseconds"], two["milliseconds"])
        return bootstrap([a / b for a, b in pairs if a is not None and b is not None], statistic="median")

    def values(self, name: str, **about) -> list:
        """The different values of a field among the rows with these fields, in their order."""
        found = [row[name] for row in self.rows if all(row[key] == value for key, value in about.items())]
        return list(dict.fromkeys(found))


def shown(value: float) -> str:
    """Three digits."""
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def with_interval(found: Interval | None) -> str:
    """A ratio with its interval; a dash for what was not measured."""
    if found is None:
        return "-"
    middle = shown(found.estimate)
    return middle if found.rows == 1 else f"{middle} [{shown(found.low)}, {shown(found.high)}]"


def goal_table(rows: Rows) -> str:
    """Targets, and what was found."""
    lines = []
    for method, against, most, least, part, networks, batches in GOALS:
        for network in networks:
            for batch in batches:
                about: dict = {"part": part, "network": network, "batch": batch}
                if part == "memory":
                    about["of"] = "megabytes"
                if part == "comparison":
                    about["threads"] = 2
                found = rows.ratio(method, against, **about)
                if found is None:
                    continue
                met = found.estimate <= most if most is not None else found.estimate >= (least or 0.0)
                target = f"<= {most:.2f}" if most is not None else f">= {least:g}"
                kind = "memory of " if part == "memory" else ""
                what = f"{kind}{method} : {against}"
                lines.append((what, network, str(batch), target, with_interval(found), "yes" if met else "no"))
    return markdown_table(("what", "network", "batch", "target", "measured", "met"), lines)


def comparison_tables(rows: Rows, part: str) -> str:
    """A table a network and number of threads: methods down, batches across, each against the plain network."""
    tables = []
    for network in rows.values("network", part=part):
        for threads in rows.values("threads", part=part, network=network):
            about = {"part": part, "network": network, "threads": threads}
            batches = sorted(rows.values("batch", **about))
            size, unit = rows.values("size", **about)[0], UNITS[kind_of(network)]
            lines = []
            for method in rows.values("method", **about):
                cells = [with_interval(rows.ratio(method, PLAIN, **about, batch=batch)) for batch in batches]
                alone = rows.find(method, **about, batch=1)
                lines.append((method, *cells, shown(median_time(alone)) if alone else "-"))
            columns = ("method", *(f"batch {batch}" for batch in batches), "ms a row, batch 1")
            tables.append(f"**{network}, {size} {unit}, {threads} thread{'s' * (threads > 1)}**")
            tables.append(markdown_table(columns, lines))
    return "\n\n".join(tables)


def median_time(row: dict) -> float:
    """Median milliseconds of a row's rounds."""
    return float(np.median([value for value in row["milliseconds"] if value is not None]))


def grown(row: dict) -> dict:
    """A row's sizes; of the networks "layers-N" one name and the number of blocks."""
    name, mark, depth = row["network"].partition("layers-")
    about = {name: row.get(name) for name in (*VARIED, "threads")}
    return about | {"network": "BERT, 128 wide" if mark else name, "blocks": int(depth) if mark else None}


def growth_series(rows: Rows) -> dict[tuple[str, str], dict[str, list[tuple[int, float]]]]:
    """(network, what grows) to method to [(its value, median milliseconds)]: rows that differ in it alone."""
    alike: dict[tuple, list[tuple[dict, dict]]] = {}
    for row in rows.rows:
        if row["part"] == "growth":
            about = grown(row)
            for varied in VARIED:
                fixed = tuple(value for name, value in about.items() if name != varied)
                alike.setdefault((about["network"], varied, fixed), []).append((about, row))
    found: dict[tuple[str, str], dict] = {}
    networks = sorted({network for network, _, _ in alike}, reverse=True)  # images first
    for network, varied, fixed in sorted(alike, key=lambda key: (networks.index(key[0]), list(VARIED).index(key[1]))):
        series: dict[str, list] = {}
        for about, row in alike[network, varied, fixed]:
            series.setdefault(row["method"], []).append((about[varied], median_time(row)))
        series = {method: sorted(points) for method, points in series.items() if len(points) > 1}
        if series:
            found[network, varied] = series
    return found


def growth_tables(rows: Rows) -> str:
    """Milliseconds by what grows, and the exponent of the power law between its smallest and its largest value."""
    tables = []
    for (network, varied), series in growth_series(rows).items():
        values = sorted({value for points in series.values() for value, _ in points})
        lines = []
        for method, points in series.items():
            times = dict(points)
            cells = [shown(times[value]) if value in times else "-" for value in values]
            (first, low), (last, high) = points[0], points[-1]
            lines.append((method, *cells, f"{math.log(high / low) / math.log(last / first):.2f}"))
        tables.append(f"**{network}: {VARIED[varied]}** (milliseconds)")
        tables.append(markdown_table((VARIED[varied], *map(str, values), "exponent"), lines))
    return "\n\n".join(tables)


def memory_table(rows: Rows) -> str:
    """Megabytes at the peak of one call besides the loaded networks."""
    networks = [network for network in rows.values("network", part="memory") if network not in FAMILY_NETWORKS]
    lines = []
    for method in dict.fromkeys(
        m for network in networks for m in rows.values("method", part="memory", network=network)
    ):
        cells = []
        for network in networks:
            row = rows.find(method, part="memory", network=network)
            ratio = rows.ratio(method, PREDICTION, "megabytes", part="memory", network=network)
            cells.append("-" if row is None or ratio is None else f"{row['megabytes']:.0f} ({shown(ratio.estimate)})")
        lines.append((method, *cells))
    return markdown_table(("method", *networks), lines)


PROFILE = (
    "Every operator's own time by torch's profiler, on one thread, in milliseconds: medians over rounds in which the "
    "three take turns. The sum's ratio is the median of the rounds' own, in brackets its 95 % bootstrap interval."
)


def profile_tables(rows: Rows) -> str:
    """A table a network: the operators that take most, and those that differ most, beside the plain network's."""
    tables = []
    for network in rows.values("network", part="profile"):
        about = {"part": "profile", "network": network}
        found = {row["method"]: row for row in rows.rows if row["part"] == "profile" and row["network"] == network}
        operators = {method: row["operators"] for method, row in found.items()}
        whole, plain = median_time(found[PLAIN]), operators[PLAIN]

        def more(name: str, operators=operators, plain=plain) -> float:
            return operators[GIVEN].get(name, 0.0) - plain.get(name, 0.0)

        names = sorted({name for times in operators.values() for name in times}, key=lambda name: -abs(more(name)))
        told = sorted(names[:TOLD], key=lambda name: -operators[GIVEN].get(name, 0.0))
        lines = []
        for label, chosen in [*((name, [name]) for name in told), ("all others", names[TOLD:])]:
            sums = {
                method: math.fsum(times.get(name, 0.0) for name in chosen) for method, times in operators.items()
            }  # as sum adds from Python 3.12 on
            added = [f"{100 * (sums[method] - sums[PLAIN]) / whole:+.1f} %" for method in (PREDICTION, GIVEN)]
            lines.append((label, *(f"{sums[method]:.2f}" for method in (PLAIN, PREDICTION, GIVEN)), *added))
        ratios = [with_interval(rows.ratio(method, PLAIN, **about)) for method in (PREDICTION, GIVEN)]
        totals = [f"{median_time(found[method]):.1f}" for method in (PLAIN, PREDICTION, GIVEN)]
        lines.append(("sum", *totals, *ratios))
        columns = ("operator", PLAIN, PREDICTION, GIVEN, "prediction adds", "with the map")
        batch, size = found[PLAIN]["batch"], found[PLAIN]["size"]
        tables.append(f"**{network}, batch {batch}, {size} {UNITS[kind_of(network)]}**")
        tables.append(markdown_table(columns, lines))
    return "\n\n".join(tables)


def judged(ratio: Interval | None, most: float) -> str:
    """A ratio with its interval, and a dagger where it is above its target; "-" where it was not measured."""
    return with_interval(ratio) + (" †" if ratio is not None and ratio.estimate > most else "")


RUNTIME = (
    "Each call is a graph of its own, exported alike with a free batch: the processor's time on one thread. Ratios are "
    "against the plain network in the same precision; 8 bits are dynamic, of weights, with gates and heads left out. A "
    "dagger: above the target, 1.05 of a prediction and 1.10 with its map."
)


def runtime_table(rows: Rows) -> str:
    """Each network's ratios in ONNX Runtime by batch and precision, and the plain network's milliseconds."""
    lines = []
    for network in rows.values("network", part="onnx"):
        for batch in rows.values("batch", part="onnx", network=network):
            about, cells = {"part": "onnx", "network": network, "batch": batch}, [network, str(batch)]
            for precision in ("", INT8):
                plain = rows.find(PLAIN + precision, **about)
                cells.append("-" if plain is None else shown(median_time(plain)))
                for method, most in ((PREDICTION, 1.05), (PREDICTED, 1.10)):
                    cells.append(judged(rows.ratio(method + precision, PLAIN + precision, **about), most))
            lines.append(cells)
    columns = ("plain, ms", "prediction", "with map", "plain, int8, ms", "prediction, int8", "with map, int8")
    return markdown_table(("network", "batch", *columns), lines)


COMPILED = (
    "Every family's network by `torch.compile` and inductor, for the shapes of the batch: the processor's time on one "
    "thread. Ratios are against the compiled plain network. A dagger: above the target, 1.05 of a prediction and 1.10 "
    "with its map."
)


def compiled_table(rows: Rows) -> str:
    """Each network's ratios as compiled graphs, and the compiled plain network's milliseconds."""
    lines = []
    for network in rows.values("network", part="compiled"):
        about = {"part": "compiled", "network": network}
        plain, cells = rows.find(PLAIN, **about), []
        for method, most in ((PREDICTION, 1.05), (GIVEN, 1.10)):
            cells.append(judged(rows.ratio(method, PLAIN, **about), most))
        if plain is not None:
            batch = f"{plain['batch']} x {plain['size']} {UNITS[kind_of(network)]}"
            lines.append((network, batch, shown(median_time(plain)), *cells))
    return markdown_table(("network", "batch", "plain, ms", "prediction", "with map"), lines)


FAMILIES = (
    "Networks of real width with few blocks (costs are those of a block), with the library's default gates, beside "
    "their plain forms: the processor's time on one thread, which other work on the machine does not enter. A map is "
    "that of a given target; all classes are 10. A training step is forward, loss, backward and AdamW, in a third of "
    "the rounds. Memory is that of a call besides the loaded networks. A dagger: above the target."
)


def family_table(rows: Rows) -> str:
    """Each network of the part beside its plain form; a dagger where the ratio is above the target."""
    targets = {name: target for name, target in TARGETS.items() if target[3] in rows.values("part")}
    lines = []
    for network in rows.values("network", part="families"):
        batch, size = (rows.values(name, part="families", network=network)[0] for name in ("batch", "size"))
        cells = [network, f"{batch} x {size} {UNITS[kind_of(network)]}"]
        for method, against, most, part, of in targets.values():
            ratio = rows.ratio(method, against, of, part=part, network=network)
            cells.append(judged(ratio, most))
        lines.append(cells)
    first = ["target, at most", "", *(f"{most:.2f}" for _, _, most, _, _ in targets.values())]
    return markdown_table(("network", "batch", *targets), [first, *lines])


def rounds_of(found: list[dict]) -> str:
    """How often methods were timed, each number once: "3, 6 or 30"."""
    counts = {sum(time is not None for time in row["milliseconds"]) for row in found if "milliseconds" in row}
    *first, last = map(str, sorted(counts)) if counts else ["1"]
    return f"{', '.join(first)} or {last}" if first else last


def write_report(found: list[dict], output: Path) -> list[Path]:
    """Write `output`/tables.md and its pictures, speed.png and growth.png, from rows, and return their paths."""
    rows, first = Rows(found), found[0]
    measured = rows.values("part")
    command = first["command"] + ("" if "--parts" in first["command"] else f" --parts {','.join(measured)}")
    parts = [
        "# What an explanation costs",
        f"{code_markdown(command)} on {first['device']}: {ran_on(found)}{made_at(found)}. "
        f"Seed {first['seed']}, {rounds_of(found)} rounds a method. "
        "Methods take turns in one process; a ratio is the "
        "median over rounds, in brackets its 95 % bootstrap interval. Random weights, 10 classes unless said "
        "otherwise.",
    ]
    if set(measured) - {"families", "growth", "profile", "compiled", "onnx"}:
        parts += ["## Targets", goal_table(rows)]
    if "families" in measured:
        parts += ["## Every family", FAMILIES, family_table(rows)]
    if "comparison" in measured:
        parts += ["## Time against the plain network's prediction", comparison_tables(rows, "comparison")]
    if "passes" in measured:
        parts += ["## Methods of many passes", comparison_tables(rows, "passes")]
    if "growth" in measured:
        parts += ["## Growth", growth_tables(rows)]
    if "compiled" in measured:
        parts += ["## Compiled", COMPILED, compiled_table(rows)]
    if "onnx" in measured:
        parts += ["## In ONNX Runtime", RUNTIME, runtime_table(rows)]
    if "profile" in measured:
        parts += ["## Where the time goes", PROFILE, profile_tables(rows)]
    if any(network not in FAMILY_NETWORKS for network in rows.values("network", part="memory")):
        text = "Megabytes besides the loaded networks, batch 8, a fresh process each (in brackets: of a prediction's)."
        parts += ["## Memory", text, memory_table(rows)]
    tables = output / "tables.md"
    write_whole(tables, "\n\n".join(parts) + "\n")
    pictures = [plot(rows, output / "speed.png")] if {"comparison", "passes"} & set(measured) else []
    return [tables, *pictures, *([plot_growth(rows, output / "growth.png")] if "growth" in measured else [])]


def plot(rows: Rows, path: Path) -> Path:
    """Each method's time against the plain network's, batch 1, on a logarithmic scale."""
    figure = Figure(figsize=(7, 3.6), dpi=90, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    networks = rows.values("network")
    network = PLOTTED if PLOTTED in networks else networks[0]
    bars = {}
    for part in ("passes", "comparison"):
        for method in rows.values("method", part=part, network=network):
            ratio = rows.ratio(method, PLAIN, part=part, network=network, batch=1, threads=2)
            if ratio is not None:
                bars[method] = ratio.estimate
    names = sorted(bars, key=bars.__getitem__, reverse=True)
    colours = ["tab:red" if name.startswith("MHEX") else "tab:gray" for name in names]
    axes.barh(range(len(names)), [bars[name] for name in names], color=colours)
    for height, name in enumerate(names):
        axes.text(bars[name], height, f" {shown(bars[name])}", va="center", fontsize=7)
    axes.set_yticks(range(len(names)), names, fontsize=7)
    axes.set(xscale="log", xlim=(None, 2 * max(bars.values(), default=1)))
    axes.set_title(f"time of one explanation, {network}, plain prediction = 1", fontsize=9)
    with whole(path) as place:
        figure.savefig(place)
    return path


def plot_growth(rows: Rows, path: Path) -> Path:
    """A panel for each thing that grows: milliseconds of every method, both axes logarithmic."""
    series = growth_series(rows)
    figure = Figure(figsize=(2.6 * max(2, len(series)), 3.2), dpi=90, layout="constrained")
    FigureCanvasAgg(figure)
    methods = list(dict.fromkeys(method for found in series.values() for method in found))
    for panel, ((network, varied), found) in zip(figure.subplots(1, len(series), squeeze=False)[0], series.items()):
        for method, points in found.items():
            colour, line = f"C{methods.index(method) % 10}", "-" if method.startswith("MHEX") else "--"
            panel.plot(*zip(*points), line, color=colour, marker=".", linewidth=1, label=method)
        unit = UNITS[kind_of(network)] if varied == "size" else VARIED[varied]
        panel.set(xscale="log", yscale="log", xlabel="pixels a side" if unit == "px" else unit)
        panel.set_title(network, fontsize=9)
        panel.tick_params(labelsize=7)
    figure.axes[0].set_ylabel("milliseconds")
    handles = {text: line for axes in figure.axes for line, text in zip(*axes.get_legend_handles_labels())}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=3, fontsize=7)
    with whole(path) as place:
        figure.savefig(place)
    return path
