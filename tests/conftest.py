"""What a run leaves out, said at its end."""

from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LEFT = pytest.StashKey[Counter]()


def pytest_configure(config):
    config.stash[LEFT] = Counter()


def pytest_deselected(items):
    """Count the tests that are left out for being slow, by their room."""
    for item in items:
        if item.get_closest_marker("slow"):
            item.config.stash[LEFT][item.path.relative_to(ROOT / "tests").parts[0]] += 1


def pytest_sessionfinish(session):
    if hasattr(session.config, "workeroutput"):  # a process of pytest-xdist
        session.config.workeroutput["left"] = dict(session.config.stash[LEFT])


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node):
    """Take one process's counts: every one of them collects all tests."""
    node.config.stash[LEFT] = Counter(getattr(node, "workeroutput", {}).get("left"))


def pytest_terminal_summary(terminalreporter, config):
    left = config.stash[LEFT]
    if left:
        rooms = ", ".join(f"{room} {count}" for room, count in sorted(left.items()))
        terminalreporter.write_line(f"Left to the slow targets of the Makefile, {left.total()} tests: {rooms}.")
