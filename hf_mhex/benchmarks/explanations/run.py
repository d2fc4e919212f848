"""Making of a whole table: choose settings on validation rows, measure on test rows, one JSON line each."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import fmean

import torch

from hf_mhex.baselines import Method, implementation_of
from hf_mhex.benchmarks.explanations import images, texts
from hf_mhex.benchmarks.explanations.methods import CONTROLS, MHEX, blurred_mhex, can_roll_out, methods_for
from hf_mhex.benchmarks.explanations.parts import Images, Sizes, Texts
from hf_mhex.benchmarks.journal import Journal
from hf_mhex.environment import environment
from hf_mhex.explaining.dataset import weights_digest


def explain_quality(
    networks: dict[str, object],
    validation: Images | Texts,
    test: Images | Texts,
    output: Path,
    sizes: Sizes | None = None,
    only: list[str] | None = None,
    seed: int = 0,
    command: str = "",
    say: Callable[[str], None] = print,
    on: str | None = None,
) -> list[dict]:
    """Put every method through every measure and return the rows, which `output`/rows-NETWORK.jsonl hold.

    Args:
        networks: "mhex", and "plain" where there is one; in eval mode, on any device. Each scores the other's paper
            measures.
        on: explain this network alone. Each network has a file of its own, so two processes may run side by side.
        validation, test: rows of one family. Settings are chosen on the first, tables made from the second alone.
        only: names of methods, for a smaller table; controls and MHEX are always there.
        command: what the rows say they were made by.

    Rows that are there already are not made again; delete the file to start over. Raises ValueError for rows that were
    made with other sizes, another seed or other networks.
    """
    if on is not None and on not in networks:
        raise ValueError(f"on must be one of {', '.join(networks)}; got {on!r}.")
    sizes = sizes or Sizes()
    weights = {kind: weights_digest(network) for kind, network in networks.items()}
    made_with = {"sizes": vars(sizes), "seed": seed, "weights": weights}
    journals = {kind: Journal(output / f"rows-{kind}.jsonl") for kind in networks}
    for journal in journals.values():
        journal.check(made_with)
    common = made_with | {"command": command, "environment": environment()}
    classes = len(test.labels.unique())
    small = replace(sizes, rows=sizes.chosen, questions=sizes.chosen, slow=max(1, sizes.slow // 4))
    for kind in networks if on is None else [on]:
        others = {f"{name} network": other for name, other in networks.items() if name != kind}
        make: Callable = partial(
            images.ImageMeasures if isinstance(test, Images) else texts.TextMeasures, networks[kind]
        )
        measures = {
            "validation": make(validation, small, seed=seed),
            "test": make(test, sizes, others, list(others.values()), seed),
        }
        inputs = "images" if isinstance(test, Images) else "texts"
        for method in listed(inputs, kind, networks[kind], only, journals[kind], classes > 1):
            measure_method(journals[kind], measures, method, kind, common, say)
    return [row for journal in journals.values() for row in journal.rows]


def measure_method(journal: Journal, measures: dict, method: Method, kind: str, common: dict, say) -> None:
    """Choose a method's settings and add its rows, all that are not there."""
    settings = choose(journal, measures["validation"], method, kind, common, say)
    for group in measures["test"].groups(method.slow):
        about = {"part": "test", "network": kind, "method": method.name, "group": group}
        if journal.find(**about) is not None:
            continue
        say(f"{kind}: {method.name}, {group}")
        torch.manual_seed(common["seed"])
        start = time.process_time()
        found = measures["test"].measure(group, partial(method.call, **settings), method.slow)
        took = round(time.process_time() - start, 2)
        by = {"source": method.source, "implementation": implementation_of(method)}
        extra = by | {"slow": method.slow, "settings": settings, "took": took}
        journal.add(about | extra | {"values": rounded(found)} | common)


def listed(inputs: str, kind: str, network, only: list[str] | None, journal: Journal, several_classes: bool):
    """The methods that fit a network, in order; the blurred copy of MHEX last, with the settings that MHEX got by then.

    Raises ValueError for a name in `only` that no method has.
    """
    known = {method.name for other in ("mhex", "plain") for method in methods_for(inputs, other)}
    unknown = sorted(set(only or []) - known)
    if unknown:
        raise ValueError(f"only must name methods among {', '.join(sorted(known))}; got {', '.join(unknown)}.")
    for method in methods_for(inputs, kind, several_classes, kind == "mhex" and can_roll_out(network)):
        always = method.name in CONTROLS or method.name.startswith(MHEX)
        if (only is None or always or method.name in only) and method.fits(network):
            yield method
    if kind == "mhex":
        chosen = journal.find(part="validation", network=kind, method=MHEX, group="choice")
        assert chosen is not None  # MHEX is listed first, and its settings are chosen before the next is asked for
        yield blurred_mhex(chosen["chosen"])


def choose(journal: Journal, measures, method: Method, kind: str, common: dict, say) -> dict:
    """The settings of a method that do best on the validation part: {} where there is nothing to choose.

    One criterion for every method. Images: mean positive share in the 2 x 2 grid ("pointing") plus insertion - deletion
    by 7 x 7 squares ("removal"), so that neither localisation nor faithfulness is bought with the other; of signals
    the second alone. Texts: comprehensiveness - sufficiency by [MASK] ("removal"). The first of equals, which is the
    default.
    """
    if not method.settings:
        return {}
    about = {"part": "validation", "network": kind, "method": method.name, "group": "choice"}
    row = journal.find(**about)
    if row is None:
        say(f"{kind}: settings of {method.name}")
        tried: list[dict] = []
        for settings in method.settings:
            halves = criterion(measures, partial(method.call, **settings), method)
            tried.append({"settings": settings, **halves, "score": round(sum(halves.values()), 4)})
        best = max(tried, key=lambda found: found["score"])
        row = about | {"chosen": best["settings"], "tried": tried} | common
        journal.add(row)
    return row["chosen"]


def criterion(measures, call: Callable, method: Method) -> dict[str, float]:
    """What settings are chosen by, half by half; see `choose`."""
    found = {"removal": fmean(measures.measure("choice", call, method.slow)["choice"])}
    if measures.points:
        found["pointing"] = fmean(measures.measure("grid 2x2", call, method.slow)["grid pointing 2x2"])
    return {name: round(value, 4) for name, value in found.items()}


def rounded(found: dict) -> dict:
    """Values with four decimals (seconds with five), which is far below what the rows' number resolves."""
    return {
        name: [round(value, 4) for value in values] if isinstance(values, list) else round(values, 5)
        for name, values in found.items()
    }
