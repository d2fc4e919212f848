"""Orders of methods that published comparisons agree on, and what the same rows say of each."""

from __future__ import annotations

from dataclasses import dataclass

from hf_mhex.benchmarks.tables import markdown_table
from hf_mhex.evaluation.intervals import paired_difference

GRADIENTS = ("saliency", "input x gradient", "integrated gradients", "GradientSHAP")


@dataclass(frozen=True)
class Order:
    """A published order: each method of `better` above each of `worse` in a measure.

    Args:
        source: who found it, and on what.
    """

    measure: str
    better: tuple[str, ...]
    worse: tuple[str, ...]
    source: str


ORDERS = (
    Order(
        "grid pointing 2x2",
        ("Grad-CAM", "LayerCAM"),
        GRADIENTS,
        "Rao et al., Towards Better Understanding Attribution Methods (2022), ImageNet",
    ),
    Order("insertion", ("Score-CAM",), ("Grad-CAM", "Grad-CAM++"), "Wang et al., Score-CAM (2020), ImageNet"),
    Order("deletion", ("Score-CAM",), ("Grad-CAM", "Grad-CAM++"), "Wang et al., Score-CAM (2020), ImageNet"),
    Order("insertion", ("LIME",), ("occlusion",), "Petsiuk et al., RISE (2018), ImageNet"),
    Order("deletion", ("LIME",), ("occlusion",), "Petsiuk et al., RISE (2018), ImageNet"),
    Order(
        "comprehensiveness (mask)",
        ("integrated gradients",),
        ("input x gradient",),
        "Sanyal & Ren, Discretized Integrated Gradients (2021), sentiment",
    ),
    Order("comprehensiveness (mask)", ("LIME",), ("saliency", "random"), "DeYoung et al., ERASER (2020)"),
    Order(
        "comprehensiveness (mask)",
        ("attention x gradient",),
        ("attention rollout",),
        "Chefer et al., Transformer Interpretability Beyond Attention (2021), film reviews",
    ),
)


def compare_orders(rows: list[dict], network: str, lower_is_better) -> list[dict]:
    """For each order whose methods were measured on a network, the paired differences of every pair.

    Args:
        rows: test rows of a comparison. lower_is_better: `lower_is_better(measure) -> bool`.

    Each answer holds the order, and `pairs`: better, worse, and mean, low and high of the difference in the published
    direction (above 0: as published), over the rows that both have.
    """
    values = {
        (row["method"], name): (row["values"][name], row["values"].get("mosaic"))
        for row in rows
        if row["network"] == network and row["part"] == "test"
        for name in row["values"]
    }
    found = []
    for order in ORDERS:
        pairs = []
        for better in order.better:
            for worse in order.worse:
                if (better, order.measure) not in values or (worse, order.measure) not in values:
                    continue
                (left, groups), (right, _) = values[better, order.measure], values[worse, order.measure]
                if lower_is_better(order.measure):
                    left, right = right, left
                count = min(len(left), len(right))
                groups = groups[:count] if groups else None
                difference = paired_difference(left[:count], right[:count], groups)
                pairs.append(
                    {"better": better, "worse": worse, "mean": difference.estimate}
                    | {"low": difference.low, "high": difference.high, "drawn": difference.rows}
                )
        if pairs:
            found.append({"order": order, "pairs": pairs})
    return found


def verdict(pairs: list[dict]) -> str:
    """What the pairs say together, in a word or two; fewer than five rows or mosaics are never sure."""
    sure = [(pair["low"] > 0) - (pair["high"] < 0) if pair["drawn"] >= 5 else 0 for pair in pairs]
    if all(sign > 0 for sign in sure):
        return "shows"
    if all(sign < 0 for sign in sure):
        return "reversed"
    if any(sign > 0 for sign in sure):
        return "shows in part" if min(sure) >= 0 else "mixed"
    return "reversed in part" if any(sign < 0 for sign in sure) else "not sure"


def orders_section(compared: list[dict]) -> str:
    """A Markdown table of the orders: measure, methods, source, whether it shows, and each pair's difference."""
    lines = []
    for entry in compared:
        order, pairs = entry["order"], entry["pairs"]
        claimed = f"{', '.join(order.better)} above {', '.join(order.worse)}"
        shown = "; ".join(
            f"{pair['better']} - {pair['worse']} {pair['mean']:+.3f} [{pair['low']:+.3f}, {pair['high']:+.3f}]"
            for pair in pairs
        )
        lines.append((order.measure, claimed, order.source, verdict(pairs), shown))
    return "\n\n".join(
        [
            "### Do published orders show here?",
            "Differences are in the published direction, paired by row: above 0 is as published.",
            markdown_table(("measure", "published order", "source", "here", "differences"), lines),
        ]
    )
