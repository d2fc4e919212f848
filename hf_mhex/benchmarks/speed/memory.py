"""Memory that a call needs at its peak, asked of the system in a process that has done nothing else.

On the processor: resident memory at its highest (VmHWM) during the call minus resident memory before it, after another
prediction has warmed the libraries up; what is let go is given back at once (MALLOC_MMAP_THRESHOLD_), so that the peak
is that of what is held. On CUDA: torch's own count. `python -m hf_mhex.benchmarks.speed.memory` is that process.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import torch

from hf_mhex.benchmarks.speed.methods import PREDICTION, prepare
from hf_mhex.benchmarks.speed.subjects import make_networks, make_subject


def resident(field: str) -> float:
    """VmRSS (now) or VmHWM (at its highest) of this process, in megabytes."""
    status = Path("/proc/self/status").read_text()
    [kilobytes] = re.findall(rf"{field}:\s+(\d+)", status)
    return int(kilobytes) * 1024 / 1e6


def measure(
    network: str, batch: int, size: int, labels: int, threads: int, method: str, seed: int, device: str
) -> float:
    """The peak of one call in this process."""
    torch.set_num_threads(threads)
    networks = make_networks(network, labels, seed, device)
    prepare(PREDICTION, make_subject(networks, network, 1, size, labels, seed))()
    call = prepare(method, make_subject(networks, network, batch, size, labels, seed))
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        return (torch.cuda.max_memory_allocated() - before) / 1e6
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # count VmHWM anew
    call()
    return resident("VmHWM") - before


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    print(round(measure(**{name: value for name, value in asked.items() if name != "part"}), 2))
