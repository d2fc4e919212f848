"""The trial of part consistency in docs: means over seeds, and paired differences from the plain setting."""

import json

import pytest
from scipy.stats import ttest_rel

from hf_mhex.training.studies.part_consistency import OVERVIEWS, SETS, overview

MEASURES = OVERVIEWS["maps that point"][1]


def rows_of(values):
    """Rows of a set by arm and seed, every measure the same value."""
    return [
        {"set": "shapes", "arm": arm, "seed": seed, **dict.fromkeys(MEASURES, value)}
        for arm, found in values.items()
        for seed, value in enumerate(found)
    ]


def written(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_differences_are_paired_by_seed(tmp_path):
    plain, own = [0.2, 0.3, 0.25, 0.4], [0.5, 0.65, 0.5, 0.72]
    path = written(tmp_path / "rows.jsonl", rows_of({"default": plain, "shares": own[::-1]})[::-1])
    lines = overview(path, "maps that point").splitlines()
    assert len(lines) == 4 and lines[2].split("|")[3].strip() == f"{sum(plain) / 4:.3f}"
    test = ttest_rel(own[::-1], plain)
    interval = test.confidence_interval(0.95)
    difference = (sum(own) - sum(plain)) / 4
    expected = f"{sum(own) / 4:.3f} {difference:+.3f} [{interval.low:+.3f}, {interval.high:+.3f}]"
    assert [cell.strip() for cell in lines[3].split("|")[3:-1]] == [expected] * len(MEASURES)


@pytest.mark.parametrize("name", OVERVIEWS)
def test_a_set_without_an_arm_or_a_measure_is_left_out(tmp_path, name):
    path = written(tmp_path / "rows.jsonl", rows_of({"default": [0.1, 0.2]}))
    assert not any(data in overview(path, name) for data in SETS)
