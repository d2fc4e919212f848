"""The table of situations: what is tried holds, what is wrong is seen, and the published page is whole."""

import json
from pathlib import Path

import pytest
import torch

import hf_mhex
from hf_mhex.families import FAMILIES
from hf_mhex.modeling import mhex
from hf_mhex.training.studies import situations
from hf_mhex.training.studies.situations import SITUATIONS, main, measure, render
from networks import family_named

ROOT = Path(__file__).parents[2]
FIXTURES = ROOT / "tests" / "fixtures"
SLOW = ("compile", "torch.export", "ONNX")  # ten seconds and more each


@pytest.mark.parametrize("situation", [name for name in SITUATIONS if name not in SLOW])
@pytest.mark.parametrize("name", ["distilbert", "resnet"])
def test_what_is_tried_holds(name, situation):
    row = measure(family_named(name), situation, FIXTURES)
    assert "error" not in row, row
    assert row["works"] is (None if (name, situation) == ("resnet", "left padding") else True), row


def test_a_map_that_does_not_add_up_is_seen(monkeypatch):
    right = mhex.combine_maps
    monkeypatch.setattr(mhex, "combine_maps", lambda *given: 1.01 * right(*given))
    row = measure(family_named("bert"), "mixed sizes", FIXTURES)
    assert row["works"] is False and row["sum"] > 1e-3 and row["answer"] < 1e-5


def test_a_switch_that_threads_share_is_seen(monkeypatch):
    monkeypatch.setattr(mhex, "eval_view", lambda model: model)
    row = measure(family_named("resnet"), "threads", FIXTURES)
    assert row["works"] is False and row["answer"] > 1e-2


def test_an_error_is_a_row(monkeypatch):
    def refuse(*unused, **named):
        raise RuntimeError("no\nmore")

    monkeypatch.setattr(situations, "cpu_offload", refuse)
    row = measure(family_named("resnet"), "offload", FIXTURES)
    assert row["works"] is False and row["error"] == "RuntimeError: no"
    assert "| RuntimeError: no |" in render([row])


def test_a_stopped_run_goes_on(tmp_path, monkeypatch):
    arguments = [str(FIXTURES), str(tmp_path), "--family", "resnet", "--situation", "mixed sizes"]
    main(arguments)
    page = (tmp_path / "situations.md").read_text()
    monkeypatch.setattr(situations, "measure", None)  # would be called again
    main(arguments)
    assert (tmp_path / "situations.md").read_text() == page and "| mixed sizes | " in page


def test_the_published_page_is_that_of_its_rows_and_everything_holds():
    rows = [json.loads(line) for line in (ROOT / "results" / "situations.jsonl").read_text().splitlines()]
    assert render(rows) == (ROOT / "results" / "situations.md").read_text()
    tried = {(row["family"], row["situation"]) for row in rows}
    there = {path.name for path in FIXTURES.iterdir()}
    families = [entry.name for entry in FAMILIES.values() if f"{entry.model_type}-{hf_mhex.__version__}" in there]
    assert tried == {(name, situation) for name in families for situation in SITUATIONS}
    assert not [row for row in rows if row["works"] is False]
    assert sum(row["works"] is None for row in rows) == sum(
        entry.kind != "text" for entry in FAMILIES.values() if entry.name in families
    )


def test_infinite_or_missing_numbers_do_not_hold(monkeypatch):
    def broken(case):
        plain = situations.answer(case.model, case.batch)
        yield {name: torch.full_like(value, float("nan")) for name, value in plain.items()}, plain

    monkeypatch.setitem(situations.SITUATIONS, "bf16", (broken, 1.0))
    assert measure(family_named("resnet"), "bf16", FIXTURES)["works"] is False
