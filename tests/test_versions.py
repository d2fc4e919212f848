"""The declared lower bounds are those that the fast tests were run with, and the run had no failure."""

import json
from pathlib import Path

import pytest

import versions

ROOT = Path(__file__).parents[1]
ROWS = {row["name"]: row for row in map(json.loads, (ROOT / "results" / "versions.jsonl").read_text().splitlines())}


def test_the_declared_bounds_are_the_tested_ones():
    pytest.importorskip("tomllib", reason="pyproject.toml is read by Python 3.11 or newer; use one to check the bounds")
    row, bounds = ROWS["lowest"], versions.requirements(versions.declared())
    assert row["bounds"] == bounds
    for name, bound in bounds.items():
        tested, asked = release(row["versions"][name]), release(bound)
        assert tested[: len(asked)] == asked, name  # 77.0.1 is the lowest setuptools 77


@pytest.mark.parametrize("name", ["lowest", "latest"])
def test_nothing_failed(name):
    assert ROWS[name]["failures"] == [] and ROWS[name]["failed"] == 0 and ROWS[name]["passed"] > 3000


def test_the_page_is_made_from_the_rows():
    assert (ROOT / "results" / "versions.md").read_text() == versions.page(list(ROWS.values()))


def test_extras_are_followed_and_names_are_one():
    project = {"dependencies": ["Torch>=2.6"], "optional-dependencies": {"demo": ["hf-mhex[test]"], "test": ["a_b==1"]}}
    assert versions.requirements({"project": project}) == {"torch": "2.6", "a-b": "1"}


def release(version: str) -> tuple[int, ...]:
    """The numbers of a version."""
    return tuple(int(part) for part in version.partition("+")[0].split("."))
