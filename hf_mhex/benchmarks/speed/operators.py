"""Where the time of a call goes: every operator's own time on the processor, by torch's profiler."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
from torch.profiler import ProfilerActivity, profile

LEAST = 0.001  # milliseconds of an operator that is told


def operator_times(call: Callable[[], object]) -> dict[str, float]:
    """Milliseconds of every operator in one call, without those of the operators that it calls."""
    with profile(activities=[ProfilerActivity.CPU]) as found:
        call()
    return {event.key: event.self_cpu_time_total / 1000 for event in found.key_averages()}


def profile_calls(calls: dict[str, Callable[[], object]], rounds: int, seed: int) -> list[dict]:
    """Rows with the sum over operators by round, and every operator's median over rounds, in milliseconds.

    Calls take turns, in an order drawn anew each round, after one call each to warm up.
    """
    order, names = random.Random(seed), list(calls)
    times: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for call in calls.values():
        call()
    for _ in range(rounds):
        order.shuffle(names)
        for name in names:
            times[name].append(operator_times(calls[name]))
    rows = []
    for name in calls:
        operators = sorted({operator for found in times[name] for operator in found})
        medians = {each: float(np.median([found.get(each, 0.0) for found in times[name]])) for each in operators}
        told = {each: round(value, 3) for each, value in medians.items() if value >= LEAST}
        sums = [round(sum(found.values()), 3) for found in times[name]]
        rows.append({"method": name, "milliseconds": sums, "operators": told})
    return rows
