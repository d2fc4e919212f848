"""Measurement of a table of costs: methods take turns, round after round; one JSON line a method and case, at once."""

from __future__ import annotations

import gc
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from shutil import which

import torch

from hf_mhex.benchmarks.journal import Journal
from hf_mhex.benchmarks.speed.cases import PARTS, Case, all_cases
from hf_mhex.benchmarks.speed.methods import PLAIN, PREDICTION, available, prepare
from hf_mhex.benchmarks.speed.operators import profile_calls
from hf_mhex.benchmarks.speed.subjects import compile_networks, find_source, kind_of, make_networks, make_subject
from hf_mhex.environment import environment, source_commit

# What other methods come from, by the names of package and module: how a library does a thing changes by its version.
COMPARED = {"captum": "captum", "grad-cam": "pytorch_grad_cam", "torchcam": "torchcam", "shap": "shap"}
COMPARED |= {"onnx": "onnx", "onnxruntime": "onnxruntime"}
COMPILERS = ("g++", "clang++", "c++")  # what torch.compile needs one of on a processor


def measure_speed(
    output: Path,
    networks: list[str] | None = None,
    parts: list[str] | None = None,
    rounds: int = 30,
    seed: int = 0,
    command: str = "",
    say: Callable[[str], None] = print,
    device: str | None = None,
) -> list[dict]:
    """Measure every case and return the rows, which `output`/rows.jsonl holds.

    Args:
        networks: names as in `subjects.find_source`; those of `cases.all_cases`.
        parts: of `PARTS`; all, but for "onnx" where onnxruntime is missing, and "compiled" where a C++ compiler is.
        rounds: turns of each method; slow ones take a share of them.
        command: what the rows say they were made by.
        device: the first CUDA device where there is one, else the processor.

    A case whose rows are there is not measured again; delete the file to start over. Raises ValueError for names that
    do not exist and for rows made with other rounds, on another device or with another seed.
    """
    unknown = sorted(set(parts or ()) - set(PARTS))
    if unknown:
        raise ValueError(f"parts must be of {', '.join(PARTS)}; got {', '.join(unknown)}.")
    for network in networks or ():
        find_source(network)
    if rounds < 3:
        raise ValueError(f"rounds must be at least 3, got {rounds}.")
    journal = Journal(output / "rows.jsonl")
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    made_with = {"rounds": rounds, "seed": seed, "device": device}
    for row in journal.rows:
        if {name: row[name] for name in made_with} != made_with:
            raise ValueError(f"output={str(output)!r} holds rows of other rounds or another seed; name another folder.")
    if parts is None:
        missing = {"onnx": find_spec("onnxruntime") is None, "compiled": not any(map(which, COMPILERS))}
        parts = [part for part in PARTS if not missing.get(part)]
    common = made_with | {"command": command, "commit": source_commit()}
    common["environment"] = environment() | {name: version(name) for name in COMPARED if find_spec(COMPARED[name])}
    before = torch.get_num_threads()
    try:
        for case in all_cases(tuple(networks) if networks else None, tuple(parts or PARTS)):
            if journal.find(**case.about()) is None:
                say(f"{case.part}: {case.network}, batch {case.batch}, size {case.size}, {case.labels} classes, "
                    f"{case.threads} threads")  # fmt: skip
                measure = {"memory": measure_memory, "onnx": measure_sessions}.get(case.part, measure_times)
                for row in measure(case, rounds, seed, device):
                    journal.add(case.about() | row | common)
    finally:
        torch.set_num_threads(before)
    return journal.rows


def measure_times(case: Case, rounds: int, seed: int, device: str) -> list[dict]:
    """Rows with a method's milliseconds by round, None where it did not take part; and the networks' parameters."""
    torch.set_num_threads(case.threads)
    networks = make_networks(case.network, case.labels, seed, device)
    subject = make_subject(networks, case.network, case.batch, case.size, case.labels, seed)
    if case.part == "compiled":
        compile_networks(subject)
    names = [name for name in (*case.methods, *case.seldom) if available(name, subject.mhex, subject.kind)]
    calls = {name: prepare(name, subject) for name in names}
    turns = max(3, round(case.rounds * rounds))
    if case.part == "profile":
        return profile_calls(calls, turns, seed)
    tick = time.process_time if case.clock == "processor" and device == "cpu" else time.perf_counter
    times = take_turns(calls, turns, set(case.seldom), case.every, seed, device, tick)
    sizes = {PLAIN: subject.plain, PREDICTION: subject.mhex}
    counts = {name: {"parameters": sum(p.numel() for p in network.parameters())} for name, network in sizes.items()}
    return [{"method": name, "milliseconds": found} | counts.get(name, {}) for name, found in times.items()]


def measure_sessions(case: Case, rounds: int, seed: int, device: str) -> list[dict]:
    """Rows with the milliseconds by round of each method's session in ONNX Runtime, on the processor."""
    from hf_mhex.benchmarks.speed.runtime import run, sessions

    found = sessions(case.network, case.size, case.labels, case.threads, seed)
    networks = make_networks(case.network, case.labels, seed)
    subject = make_subject(networks, case.network, case.batch, case.size, case.labels, seed)
    calls = {name: partial(run, session, subject) for name, session in found.items()}
    times = take_turns(calls, max(3, round(case.rounds * rounds)), set(), case.every, seed, "cpu", time.process_time)
    return [{"method": name, "milliseconds": values} for name, values in times.items()]


def take_turns(
    calls: dict, rounds: int, seldom: set[str], every: int, seed: int, device: str, tick=time.perf_counter
) -> dict[str, list]:
    """Milliseconds of each call by round, in an order drawn anew each round, after one call each to warm up.

    Args:
        tick: the clock, in seconds.
    """
    order = random.Random(seed)
    times: dict[str, list] = {name: [None] * rounds for name in calls}
    for call in calls.values():
        call()
    gc.collect()
    gc.disable()  # a collection would fall on whoever is at it
    try:
        for number in range(rounds):
            names = [name for name in calls if name not in seldom or number % every == 0]
            order.shuffle(names)
            for name in names:
                wait(device)
                start = tick()
                calls[name]()
                wait(device)
                times[name][number] = round(1000 * (tick() - start), 3)
            gc.collect()
    finally:
        gc.enable()
    return times


def wait(device: str) -> None:
    """Until the device has done what it was asked for."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def measure_memory(case: Case, rounds: int, seed: int, device: str) -> list[dict]:
    """Rows with the megabytes that a method needs at its peak besides the loaded networks."""
    mhex = make_networks(case.network, case.labels, seed)[0]
    names = [name for name in case.methods if available(name, mhex, kind_of(case.network))]
    return [{"method": name, "megabytes": peak_megabytes(case, name, seed, device)} for name in names]


def peak_megabytes(case: Case, method: str, seed: int, device: str) -> float:
    """Megabytes at the peak of one call besides the loaded networks, from a fresh process.

    Raises RuntimeError where the process fails, as it does on systems without /proc and without CUDA.
    """
    asked = json.dumps(case.about() | {"method": method, "seed": seed, "device": device})
    command = [sys.executable, "-m", "hf_mhex.benchmarks.speed.memory", asked]
    found = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}
    )
    if found.returncode:
        raise RuntimeError(f"memory of {method} could not be measured: {found.stderr.strip().splitlines()[-1]}")
    return float(found.stdout.split()[-1])
