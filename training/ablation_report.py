"""What do the ablation's rows say? A page: for each set differences from the base with intervals, then every map."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from statistics import fmean, stdev

from hf_mhex.environment import made_at, ran_on
from hf_mhex.evaluation.intervals import student_interval
from hf_mhex.journal import Journal
from hf_mhex.training.ablation import ABLATIONS, Ablation


def write_page(folder: Path) -> Path:
    """Write `folder`/README.md from the rows in it; return its path."""
    parts = ["# Which lever makes the maps better?", INTRODUCTION]
    for name, ablation in ABLATIONS.items():
        rows = Journal(folder / f"{name}.jsonl").rows
        if rows:
            rows.sort(key=lambda row: (list(ablation.factors).index(row["factor"]), row["seed"]))
            parts += [f"## {name}", about(ablation, rows), "Factor minus base, maps by their defaults:"]
            parts += [differences(rows), "Every map:", table(rows)]
    page = folder / "README.md"
    page.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    return page


INTRODUCTION = """One factor at a time from a fixed base, and their combinations; the same seeds for all. Everything is
measured on validation rows; defaults are chosen here, and the published tables see the test rows. Differences are
paired by seed, with 95 % intervals by Student's t (three seeds make them wide); an asterisk marks those without 0 in
them, many stand side by side, uncorrected. Other columns are means, with standard deviations between seeds in
brackets. docs/evaluation.md defines the measures.

- *Rectified*: gates, heads and maps read ReLU(x + f). *Gates of rank 16*: W1 of blocks above 32 channels is a product.
- *Binary loss*: each head learns by the binary cross-entropy of every label instead of cross-entropy.
- *Mosaics*: half of the batches are joined to 2 x 2 images whose parts are classified each by the positions of its own;
  *fewer*: a quarter of them.
- *Block losses fade out*: their weight falls from 1 to 0 over training. *Deeper* or *earlier heads' losses weigh more*:
  weights rise or fall with depth in a straight line, 1 on average.
- *Instance share*: that share of the binary loss of a block's absent labels is taken at every position instead of
  their mean, as multiple-instance learning has it (`instance_share`). *At 1e-2*: the rectified, half binary loss with
  mosaics in 6 of 8 epochs, all at that learning rate.
- *The same, heads N times slower*: gates and heads learn at an Nth of the body's rate of 3e-3.
- *Fitted weights* (a map, not a training): the blocks' maps weigh what least squares finds between the cost of random
  removals, in the logit, and what the maps hold at what is removed, on the last 64 validation rows, which no measure of
  maps sees. The sum is that combination of the blocks' logits.
- *Heads learn from the last*: half of every earlier head's loss is its divergence from the last head, temperature 2.
- *Guided upsampling* (a map too): a cell's share falls more on those of its pixels that look like its mean colour; sums
  are kept (`training/guided_upsampling.py`).
- *CutMix*: half of the batches have a rectangle of another image in each, and both labels count by area.
- *Random erasing*: half of the training images have a rectangle of mean colour. *Token masking*: training texts have
  [MASK] for a share of their tokens, from none to half. Erased parts, by which maps are judged, are then known ones.
- *Antialiased strides*: timm's resnetblur18 of the same widths. *Stride*: of the last feature map."""


def about(ablation: Ablation, rows: list[dict]) -> str:
    """What a set's tables rest on."""
    counts = Counter(row["factor"] for row in rows).values()
    seeds = " to ".join(str(count) for count in sorted({min(counts), max(counts)}))
    base = f"Recipe `{ablation.recipe}` with {', '.join(f'`{change}`' for change in ablation.changes)}"
    made = f"Made by `{rows[0]['command']}` on {ran_on(rows)}{made_at(rows)}."
    return f"{base}; {rows[0]['rows']} training rows, seeds a factor: {seeds}. {made}"


def differences(rows: list[dict]) -> str:
    """Factor minus base, paired by seed, in accuracy and in the measures of the default map; from two seeds on."""
    names = list(rows[0]["maps"]["defaults"])
    lines = ["| factor | seeds | accuracy | " + " | ".join(names) + " |", "|---" * (len(names) + 3) + "|"]
    values = {(row["factor"], row["seed"]): (row["accuracy"], *row["maps"]["defaults"].values()) for row in rows}
    for factor in dict.fromkeys(row["factor"] for row in rows if row["factor"] != "base"):
        seeds = [seed for kind, seed in values if kind == factor and ("base", seed) in values]
        if len(seeds) > 1:
            pairs = [zip(values[factor, seed], values["base", seed]) for seed in seeds]
            columns = zip(*[[own - base for own, base in pair] for pair in pairs])
            lines.append(f"| {factor} | {len(seeds)} | " + " | ".join(map(signed, columns)) + " |")
    return "\n".join(lines)


def signed(differences: list[float]) -> str:
    """Mean and interval of differences, with an asterisk where 0 is not in it."""
    found = student_interval(differences)
    mark = "" if found.low <= 0 <= found.high else "*"
    return f"{found.estimate:+.3f}{mark} [{found.low:+.3f}, {found.high:+.3f}]"


def table(rows: list[dict]) -> str:
    """Means over seeds (standard deviations in brackets), a line for each factor and map."""
    names = list(next(iter(rows[0]["maps"].values())))
    lines = ["| factor | accuracy | map | " + " | ".join(names) + " |", "|---" * (len(names) + 3) + "|"]
    for factor in dict.fromkeys(row["factor"] for row in rows):
        own = [row for row in rows if row["factor"] == factor]
        accuracy = written([row["accuracy"] for row in own])
        for kind in (kind for kind in own[0]["maps"] if all(kind in row["maps"] for row in own)):
            cells = [written([row["maps"][kind][name] for row in own]) for name in names]
            lines.append(f"| {factor} | {accuracy} | {kind} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def written(values: list[float]) -> str:
    """Mean and standard deviation."""
    spread = f" ({stdev(values):.3f})" if len(values) > 1 else ""
    return f"{fmean(values):.3f}{spread}"
