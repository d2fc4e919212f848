"""The accuracy rows as a page: one table a data set with means over seeds, paired differences and verdicts."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean, stdev

from hf_mhex.benchmarks.journal import Journal
from hf_mhex.benchmarks.tables import markdown_table
from hf_mhex.environment import made_at, ran_on
from hf_mhex.training.studies.accuracy import STUDIES, Study, by_seed, chosen_rate, compare, margin_of
from hf_mhex.writing import write_whole

MEANING = {  # "heads" and "small heads" were made at commit 215dee0 and before
    "plain": "plain network",
    "plain at one rate": "plain network, its classifier at the rate of the rest",
    "gates": "gates alone (last head only)",
    "heads": "deep supervision alone (gates held at 1)",
    "MHEX": "MHEX",
    "small heads": "MHEX, its heads starting as small as `nn.Linear` does",
    "light": "MHEX, its blocks' losses at 0.2",
    "pointing": "MHEX for maps that point (rectified, half binary loss, mosaics in the first epochs)",
    "instances": "MHEX for maps that point, instance share 0.05 (as the recipe has it)",
    "consistency": "MHEX with part consistency",
}


def write_page(folder: Path) -> Path:
    """Write `folder`/README.md from the rows of every study in it; return its path."""
    parts = ["# Does MHEX cost accuracy?", INTRODUCTION]
    for name in STUDIES:
        rows = Journal(folder / f"{name}.jsonl").rows
        if any(row["part"] == "test" for row in rows):
            parts += [f"## {name}", about(name, rows), table(name, rows)]
    page = folder / "README.md"
    write_whole(page, "\n\n".join(parts) + "\n")
    return page


INTRODUCTION = """Networks by one recipe, each at the learning rate that did best on validation rows (seed 0), then
over further seeds on the test rows, whose last weights are measured. Differences are paired by seed, with 95 %
intervals by Student's t. *No worse*: the interval's lower end is above minus the margin, which is half a point or one
standard deviation between the plain network's seeds, whichever is larger. *Better*: it is above 0; several verdicts
stand side by side, uncorrected. On ag_news heads that start small (the plain network's classifier too) learn five
times faster than the rest, large ones as fast; the plain network with its classifier at the rate of the rest is, at
its best, as good on validation rows (0.9053), so its test rows were not asked. How large heads start was chosen on
validation rows of seed 0, after test rows of small heads had been seen; the rows named small heads are those, made as
arm MHEX of commit c7b44d7 and renamed. That is why ag_news_fresh asks again, at the rate chosen before, on another
split of the same file: 1,219 of its 1,520 test rows were not among ag_news's. Five of its seeds could not tell (-0.26
[-1.48, +0.95]; one MHEX network ended two points below the others), so five more were added. fashion_mnist_56px, the
recipe's own image size with fewer rows, was added after the loss of maps that point had been seen at 28 pixels, and
after validation rows of one seed had shown none at 56; its arm with an instance share came last, the share chosen on
the ablation's validation rows. On pneumoniamnist blocks' losses at 0.2 were added after the
loss in balanced accuracy of deep supervision had been seen. In rows older than commit 532a8ba, but for
fashion_mnist_56px's, commits were written in afterwards, from what was checked out. In the sets named parts both
networks are taught rows without some of their parts (`part_consistency=0.0`), and MHEX has the term besides;
balanced_accuracy_at_threshold is asked at the threshold that is best on validation rows. Five seeds of ag_news_parts
(+0.28 [-1.63, +2.19]), of fashion_mnist_parts (-0.17 [-0.51, +0.17]) and of pneumoniamnist_parts (balanced accuracy
-1.04 [-3.15, +1.06]) could not tell, so five more were added; ten of ag_news_parts (+0.26 [-0.60, +1.11]) could not
either, so ten more, and no more after that. Every run is a line of the `.jsonl` beside this page;
`make accuracy SET=... SOURCE=...` makes what is missing, and this page."""


def overview(folder: Path) -> str:
    """One line a set, measure and network of MHEX: how it stands to the plain network."""
    lines = []
    for name, study in STUDIES.items():
        rows = Journal(folder / f"{name}.jsonl").rows
        for measure in study.measures:
            for arm in ("MHEX", "pointing", "instances", "consistency"):
                if compare(rows, arm, measure) is not None:
                    plain, own = (fmean(by_seed(rows, kind, measure).values()) for kind in ("plain", arm))
                    margin = f"{100 * margin_of(rows, measure):.2f}"
                    stands = f"{verdict(rows, arm, measure)} ({margin})"
                    lines.append([name, measure, f"{plain:.4f}", MEANING[arm], f"{own:.4f}", stands])
    columns = ["set", "measure", "plain network", "network", "value", "difference in points (margin)"]
    return markdown_table(columns, lines)


def about(name: str, rows: list[dict]) -> str:
    """What a study's table rests on."""
    study = STUDIES[name]
    first = next(row for row in rows if row["part"] == "test")
    sizes = ", ".join(f"{count} {split}" for split, count in first["rows"].items())
    return (
        f"Recipe `{study.recipe}` with {', '.join(f'`{change}`' for change in study.changes)}; rows: {sizes}. Made by "
        f"`{first['command']}` on {ran_on(rows)}{made_at(rows)}."
    )


def table(name: str, rows: list[dict]) -> str:
    """One study as a Markdown table."""
    study = STUDIES[name]
    heads = ["network", "parameters", "learning rate (others tried)"]
    for measure in study.measures:
        heads += [f"{measure} (sd)", f"difference (margin {100 * margin_of(rows, measure):.2f} points)"]
    lines = []
    for arm in MEANING:
        values = [by_seed(rows, arm, measure) for measure in study.measures]
        if not values[0]:
            continue
        parameters = next(row["parameters"] for row in rows if row["arm"] == arm)
        cells = [MEANING[arm], f"{parameters / 1e6:.2f} M", rates(rows, arm, study)]
        for measure, found in zip(study.measures, values):
            spread = f" ({stdev(found.values()):.4f})" if len(found) > 1 else ""
            cells += [f"{fmean(found.values()):.4f}{spread}, {len(found)} seeds", verdict(rows, arm, measure)]
        lines.append(cells)
    return markdown_table(heads, lines)


def rates(rows: list[dict], arm: str, study: Study) -> str:
    """The learning rate that an arm was tested at, and those that it was not."""
    chosen = chosen_rate(rows, arm, study)
    tried = sorted({row["rate"] for row in rows if row["part"] == "tuning" and row["arm"] == arm} - {chosen})
    return f"{chosen:g} ({', '.join(f'{rate:g}' for rate in tried) or 'given'})"


def verdict(rows: list[dict], arm: str, measure: str) -> str:
    """The paired difference from the plain network in points, and what it means."""
    found = None if arm == "plain" else compare(rows, arm, measure)
    if found is None:
        return ""
    words = "better" if found["better"] else "no worse" if found["no_worse"] else "not shown to be no worse"
    return f"{100 * found['mean']:+.2f} [{100 * found['low']:+.2f}, {100 * found['high']:+.2f}]: {words}"
