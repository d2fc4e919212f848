"""Cases of the table: networks, batches, sizes, classes and threads, the most wanted ones first."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from hf_mhex.benchmarks.speed.methods import (
    BACKWARD,
    CLOSED,
    EVERY,
    GIVEN,
    GRAD_CAM,
    INTEGRATED,
    PASSES,
    PLAIN,
    PLAIN_STEP,
    PREDICTED,
    PREDICTION,
    ROLLOUT,
    SHAP,
    SOFTMAX,
    STEP,
)
from hf_mhex.benchmarks.speed.subjects import DEPTHS, FAMILY_NETWORKS, FULL, RANK, kind_of

PARTS = ("comparison", "passes", "growth", "memory", "families", "profile", "compiled", "onnx")
NETWORKS = ("resnet50", "bert-base", "resnet18", "minilm", "resnet50-rank64")  # of the published table
PROFILED = ("resnet50", "minilm")
LONGEST = "bert-base"  # takes too long for methods of many passes
LABELS, SIZES = 10, {"image": 224, "text": 128, "signal": 1000}
PIXELS = SIZES["image"]


@dataclass(frozen=True)
class Case:
    """Methods that take turns on one network with one batch.

    Args:
        part: one of PARTS. batch, size, labels: rows, pixels a side or tokens, and classes. threads: of the processor.
        methods: names that run in every round. seldom: names that run in every `every`-th round.
        rounds: share of the rounds asked for, at least 3.
        clock: "wall", or "processor": this process's own time, which other work on the machine does not enter.
    """

    part: str
    network: str
    batch: int
    size: int
    labels: int = LABELS
    threads: int = 2
    methods: tuple[str, ...] = tuple(CLOSED)
    seldom: tuple[str, ...] = ()
    every: int = 5
    rounds: float = 1.0
    clock: str = "wall"

    def about(self) -> dict:
        """What a row of this case is found again by."""
        kept = ("part", "network", "batch", "size", "labels", "threads")
        return {name: value for name, value in asdict(self).items() if name in kept}


def usual_size(network: str) -> int:
    """Pixels a side, tokens, or points."""
    return SIZES[kind_of(network)]


def all_cases(networks: tuple[str, ...] | None = None, parts: tuple[str, ...] = PARTS) -> list[Case]:
    """The cases of some networks and parts, in the order in which they are measured.

    Args:
        networks: None for `NETWORKS`, and in the part "families" for `FAMILY_NETWORKS`.
    """
    found, few = [], (PLAIN, PREDICTION, GIVEN, SOFTMAX)
    chosen = NETWORKS if networks is None else networks
    ranked = [network for network in chosen if RANK in network or network.endswith(FULL)]
    full = [network for network in chosen if network not in ranked]
    for batch in (8, 32):
        found += [Case("comparison", network, batch, usual_size(network), methods=few) for network in ranked]
    for batch in (8, 32, 1):
        for network in full:
            methods = tuple(CLOSED) if batch < 32 else few
            seldom = tuple(BACKWARD) if batch < 32 else ()
            found.append(Case("comparison", network, batch, usual_size(network), methods=methods, seldom=seldom))
    for network in ("resnet18", "minilm"):
        found.append(Case("comparison", network, 8, usual_size(network), threads=1, seldom=tuple(BACKWARD), rounds=0.5))
    for network in full:
        if network == LONGEST:
            continue
        methods = (PLAIN, GIVEN, *PASSES)
        found.append(Case("passes", network, 1, usual_size(network), methods=methods, rounds=0.1))
    for network in full:
        found.append(Case("memory", network, 8, usual_size(network), methods=(*CLOSED, GRAD_CAM)))
    found = [case for case in found if case.part in parts and case.network in chosen]
    if "growth" in parts:
        found += [case for case in growth_cases() if networks is None or case.network in networks]
    if "profile" in parts:
        ours = (PLAIN, PREDICTION, GIVEN)
        found += [
            Case("profile", network, 8, usual_size(network), threads=1, methods=ours, rounds=0.5)
            for network in networks or PROFILED
        ]
    if "compiled" in parts:
        ours = (PLAIN, PREDICTION, GIVEN)
        found += [
            Case("compiled", network, 8, usual_size(network), threads=1, methods=ours, clock="processor")
            for network in networks or FAMILY_NETWORKS
        ]
    if "onnx" in parts:
        three = (PLAIN, PREDICTION, PREDICTED)
        found += [
            Case("onnx", network, batch, usual_size(network), threads=1, methods=three, clock="processor")
            for network in networks or FAMILY_NETWORKS
            for batch in (1, 8)
        ]
    return found + family_cases(networks or FAMILY_NETWORKS, parts)


def family_cases(networks: tuple[str, ...], parts: tuple[str, ...]) -> list[Case]:
    """Networks beside their plain forms on one thread, with training steps; and their memory, where both parts are
    asked for.
    """
    if "families" not in parts:
        return []
    usual: dict = {"part": "families", "batch": 8, "threads": 1, "clock": "processor"}
    methods, steps = (PLAIN, PREDICTION, GIVEN, EVERY), (PLAIN_STEP, STEP)
    found = [
        Case(network=network, size=usual_size(network), methods=methods, seldom=steps, every=3, **usual)
        for network in networks
    ]
    if "memory" in parts:
        few = (PLAIN, PREDICTION, GIVEN)
        small = [network for network in networks if network in FAMILY_NETWORKS]
        found += [Case("memory", network, 8, usual_size(network), methods=few) for network in small]
    return found


def growth_cases() -> list[Case]:
    """One thing grows at a time, of one row: rows, pixels a side, tokens, classes, and blocks.

    By the processor's time on one thread, which other work on the machine does not enter. Methods of many passes run
    once, where that takes seconds. Long rows have fewer rounds, and small cases come first.
    """
    ours, once = (PLAIN, PREDICTION, GIVEN), (INTEGRATED, SHAP)

    def case(network: str, batch: int, size: int, labels: int = LABELS, more=(), passes: bool = False, long=False):
        methods, seldom = (*ours, *more), once if passes else ()
        every, rounds = 10**6, 0.1 if long else 0.3
        return Case("growth", network, batch, size, labels, 1, methods, seldom, every, rounds, "processor")

    camera = (EVERY, GRAD_CAM)
    found = [case("resnet18", batch, PIXELS, more=camera, long=batch > 8) for batch in (1, 2, 4, 8, 16, 32, 64)]
    found += [
        case("resnet18", 1, size, more=camera, passes=size <= PIXELS, long=size > 448)
        for size in (64, 112, 224, 448, 1024)
    ]
    found += [
        case("modernbert-small", 1, size, more=(EVERY, ROLLOUT), passes=size <= 128, long=size > 512)
        for size in (32, 128, 512, 2048, 8192)
    ]
    found += [case("resnet18", 1, PIXELS, labels, more=camera) for labels in (2, 10, 100, 1000)]
    found += [case(network, 1, 64, more=(EVERY, ROLLOUT)) for network in DEPTHS]
    known: dict = {}  # the usual case stands in several series
    for each in found:
        about = tuple(each.about().values())
        known[about] = max(known.get(about, each), each, key=lambda one: len(one.seldom))
    return sorted(known.values(), key=lambda case: case.batch * case.size ** (2 if case.network == "resnet18" else 1))
