"""What a run leaves out, said at its end; and what tests of several rooms share."""

import gc
import shutil
import tempfile
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LEFT = pytest.StashKey[Counter]()
TARGETS = {  # where slow tests stand, and what runs them; the first that fits
    "hub/test_app.py": "test-app",
    "hub/test_space.py": "test-app",
    "hub/": "test-hub",
    "common/": "test-common",
    "test_docs.py": "test-docs",
    "explaining/test_engines.py": "test-engines",
    "modeling/test_older_transformers.py": "test-older",
    "": "test-slow",
}


def pytest_configure(config):
    config.stash[LEFT] = Counter()
    gc.set_threshold(100_000, 50, 100)  # torch and its kin hold a million objects, which need no second look


def pytest_deselected(items):
    """Count the tests that are left out for being slow, by the target that runs them."""
    for item in items:
        if item.get_closest_marker("slow"):
            place = item.path.relative_to(ROOT / "tests").as_posix()
            item.config.stash[LEFT][next(TARGETS[start] for start in TARGETS if place.startswith(start))] += 1


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
        targets = ", ".join(f"make {target} {count}" for target, count in sorted(left.items()))
        terminalreporter.write_line(f"Left out for being slow, {left.total()} tests: {targets}.")


def pytest_unconfigure(config):
    """Say that a disk is full: tests fail of it in many ways, and pytest-xdist ends in an error of its own."""
    places = set() if hasattr(config, "workerinput") else {tempfile.gettempdir(), str(ROOT)}
    for place in places:
        left = shutil.disk_usage(place).free // 2**20
        if left < 200:
            print(f"{left} MB are left where {place} is. Tests need some 600 MB there; free them, or set TMPDIR.")


@pytest.fixture
def only_new_objects_collected():
    """Let `gc.collect` look at what the test makes, not each time at all that torch and its kin hold."""
    gc.freeze()
    yield
    gc.unfreeze()
