"""Cases of the table: networks, batches, sizes, classes and threads, the most wanted ones first."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from hf_mhex.benchmarks.speed.methods import (
    BACKWARD,
    CLOSED,
    GIVEN,
    GRAD_CAM,
    PASSES,
    PLAIN,
    PREDICTED,
    PREDICTION,
    SOFTMAX,
)
from hf_mhex.benchmarks.speed.subjects import RANK, is_image

PARTS = ("comparison", "passes", "growth", "memory")
NETWORKS = ("resnet50", "bert-base", "resnet18", "minilm", "resnet50-rank64")  # of the published table
LONGEST = "bert-base"  # takes too long for methods of many passes
LABELS, PIXELS, TOKENS = 10, 224, 128


@dataclass(frozen=True)
class Case:
    """Methods that take turns on one network with one batch.

    Args:
        part: one of PARTS. batch, size, labels: rows, pixels a side or tokens, and classes. threads: of the processor.
        methods: names that run in every round. seldom: names that run in every `every`-th round.
        rounds: share of the rounds asked for, at least 3.
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

    def about(self) -> dict:
        """What a row of this case is found again by."""
        kept = ("part", "network", "batch", "size", "labels", "threads")
        return {name: value for name, value in asdict(self).items() if name in kept}


def usual_size(network: str) -> int:
    """Pixels a side, or tokens."""
    return PIXELS if is_image(network) else TOKENS


def all_cases(networks: tuple[str, ...] = NETWORKS, parts: tuple[str, ...] = PARTS) -> list[Case]:
    """The cases of some networks and parts, in the order in which they are measured."""
    found, few = [], (PLAIN, PREDICTION, GIVEN, SOFTMAX)
    ranked = [network for network in networks if RANK in network]
    full = [network for network in networks if network not in ranked]
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
    found += growth_cases()
    for network in full:
        found.append(Case("memory", network, 8, usual_size(network), methods=(*CLOSED, GRAD_CAM)))
    return [case for case in found if case.part in parts and case.network in networks]


def growth_cases() -> list[Case]:
    """One thing grows at a time, on the small networks."""
    few: dict = {"part": "growth", "rounds": 0.3, "methods": (PLAIN, PREDICTION, GIVEN)}
    many: dict = few | {"methods": (PREDICTION, GIVEN, PREDICTED, SOFTMAX)}
    found = [Case(network="resnet18", batch=batch, size=PIXELS, **few) for batch in (1, 2, 4, 16, 32)]
    found += [Case(network="resnet18", batch=8, size=size, **few) for size in (112, 160, 224, 320, 448)]
    found += [Case(network="minilm", batch=8, size=size, **few) for size in (32, 64, 128, 256, 512)]
    found += [Case(network="resnet18", batch=8, size=PIXELS, labels=labels, **many) for labels in (2, 100, 1000)]
    return found
