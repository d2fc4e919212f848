"""The time that `import hf_mhex` adds to `import torch, transformers`, by fresh processes in turn.

    python -m hf_mhex.training.studies.import_time [ROUNDS]

prints one JSON row, kept in results/import_time.json: the median over rounds of the difference, and its quartiles.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys

from hf_mhex.environment import environment

CODE = (
    "import time, torch, transformers; start = time.perf_counter(); import hf_mhex; print(time.perf_counter() - start)"
)


def added(rounds: int) -> list[float]:
    """Seconds that each of `rounds` fresh processes spent on hf_mhex after torch and transformers."""
    command = [sys.executable, "-c", CODE]
    return [float(subprocess.run(command, capture_output=True, text=True, check=True).stdout) for _ in range(rounds)]


def main(rounds: int = 15) -> None:
    """Measure and print."""
    seconds = added(rounds)
    low, median, high = (round(value, 3) for value in statistics.quantiles(seconds, n=4))
    row = {"seconds": median, "quartiles": [low, high], "rounds": rounds, "environment": environment()}
    print(json.dumps(row, indent=1))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
