"""Costs as measured and reported: turns, resumption, memory, ratios and goals; and the committed table."""

import dataclasses
import json
import math
import re
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from hf_mhex.benchmarks.speed import measure_speed, run, subjects, write_report
from hf_mhex.benchmarks.speed.cases import Case, all_cases, family_cases, growth_cases
from hf_mhex.benchmarks.speed.methods import (
    EVERY,
    GIVEN,
    GRAD_CAM,
    INT8,
    PLAIN,
    PLAIN_STEP,
    PREDICTED,
    PREDICTION,
    ROLLOUT,
    STEP,
    available,
    prepare,
)
from hf_mhex.benchmarks.speed.report import Rows
from hf_mhex.benchmarks.speed.subjects import FAMILY_NETWORKS, find_source
from hf_mhex.cli import app
from hf_mhex.families import FAMILIES
from networks import ONE_GRAPH

COMMITTED = Path(__file__).parents[2] / "results/speed"
SMALL = [
    Case(
        "comparison", "resnet18", batch, 32, labels=3, threads=1, methods=(PLAIN, PREDICTION), seldom=(GIVEN,), every=2
    )
    for batch in (1, 2)
]


@pytest.mark.slow
def test_a_run_that_was_stopped_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "all_cases", lambda networks, parts: SMALL[:1])
    first = measure_speed(tmp_path, rounds=5, say=lambda line: None)
    assert [row["method"] for row in first] == [PLAIN, PREDICTION, GIVEN]
    left_out = [[time is None for time in row["milliseconds"]] for row in first]
    assert left_out == [[False] * 5] * 2 + [[False, True, False, True, False]]
    assert all(time is None or time > 0 for row in first for time in row["milliseconds"])
    monkeypatch.setattr(run, "all_cases", lambda networks, parts: SMALL)
    said = []
    both = measure_speed(tmp_path, rounds=5, say=said.append)
    assert both[:3] == first and len(both) == 6 and len(said) == 1 and "batch 2" in said[0]
    assert [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()] == both
    with pytest.raises(ValueError, match="holds rows of other rounds or another seed"):
        measure_speed(tmp_path, rounds=6, say=said.append)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak is read from Linux's /proc")
def test_memory_is_that_of_the_features(tmp_path, monkeypatch):
    sizes = (64, 192)
    cases = [Case("memory", "resnet18", 4, size, threads=1, methods=(PREDICTION,)) for size in sizes]
    monkeypatch.setattr(run, "all_cases", lambda networks, parts: cases)
    rows = measure_speed(tmp_path, rounds=3, say=lambda line: None)
    small, large = (row["megabytes"] for row in rows)
    features = [4 * 64 * (size // 2) ** 2 * 4 / 1e6 for size in sizes]  # the stem's, in float32
    assert features[0] <= small < large and features[1] <= large <= 5 * features[1]


TORCH_CAM = "LayerCAM (torchcam)"
NARROW = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128}


SIZES = {"image": 224, "text": 16, "signal": 50}


@pytest.mark.parametrize(
    "name",
    [
        "roberta",
        "signal-small",
        *(pytest.param(n, marks=pytest.mark.slow) for n in ("vit_tiny_patch16_224", "resnet18-rank8")),
    ],
)
def test_any_family_is_timed_beside_its_plain_twin(name, monkeypatch):
    """Both forms take the same batch and answer alike in shape; methods that a network lacks are left out."""
    monkeypatch.setitem(subjects.SHAPES, "roberta", ("roberta", NARROW))
    networks = subjects.make_networks(name, 3, seed=0)
    subject = subjects.make_subject(networks, name, 2, SIZES[subjects.kind_of(name)], 3, seed=0)
    peers = [name for name, library in ((GRAD_CAM, "pytorch_grad_cam"), (TORCH_CAM, "torchcam")) if find_spec(library)]
    for call in (PLAIN, PREDICTION, GIVEN, ROLLOUT, PLAIN_STEP, STEP, *peers):
        if available(call, subject.mhex, subject.kind):
            prepare(call, subject)()
    assert available(ROLLOUT, subject.mhex, subject.kind) == (name in ("roberta", "vit_tiny_patch16_224"))
    assert available(GRAD_CAM, subject.mhex, subject.kind) == (subject.kind == "image")
    assert (subject.mhex.base_model.gates[-1].reduce is not None) == ("rank" in name)


def row(method, milliseconds, **about):
    case = {"part": "comparison", "network": "resnet18", "batch": 8, "size": 224, "labels": 10, "threads": 2}
    common = {"rounds": 3, "seed": 0, "device": "cpu", "command": "x", "environment": {"machine": "m"}}
    return case | about | common | {"method": method, "milliseconds": milliseconds}


def test_ratios_are_of_the_same_round_and_goals_are_judged(tmp_path):
    rows = [
        row(PLAIN, [100.0, 200.0, 400.0]),
        row(PREDICTION, [102.0, 204.0, 408.0]),
        row(GIVEN, [204.0, 306.0, 408.0]),
        row(GRAD_CAM, [None, 918.0, None]),
    ]
    tables = write_report(rows, tmp_path)[0].read_text()
    assert f"| {PREDICTION} : {PLAIN} | resnet18 | 8 | <= 1.03 | 1.02 [1.02, 1.02] | yes |" in tables
    assert f"| {GIVEN} : {PLAIN} | resnet18 | 8 | <= 1.06 | 1.53 [1.02, 2.04] | no |" in tables
    assert f"| {GRAD_CAM} : {GIVEN} | resnet18 | 8 | >= 2.5 | 3.00 | yes |" in tables


def test_every_family_has_a_small_network():
    assert {find_source(name).family.name for name in FAMILY_NETWORKS} == {f.name for f in FAMILIES.values()}


@torch.no_grad()
def test_the_plain_signal_network_is_that_of_the_family():
    """Its features are the body's while gates are open."""
    mhex, plain = subjects.make_networks("signal-small", 3, seed=0)
    for gate in mhex.base_model.gates:
        gate.reset_parameters()
    assert not any("gate" in name for name in plain.state_dict())
    state = {name: value for name, value in mhex.base_model.state_dict().items() if "gate" not in name}
    plain.body.load_state_dict(state)
    values = torch.randn(2, 1, 100)
    assert torch.equal(plain(values), plain.classifier(mhex.base_model(values).last_hidden_state.mean(-1)))


@pytest.mark.parametrize("name, low", [("resnet50", 16), ("resnet50-full", 0), ("resnet50-rank8", 16)])
def test_gates_are_the_library_s_own_unless_a_name_says_otherwise(name, low):
    mhex, _ = subjects.make_networks(name, 3, seed=0)
    assert sum(gate.reduce is not None for gate in mhex.base_model.gates) == low


@ONE_GRAPH
def test_compiled_networks_are_one_graph_each_and_judged(tmp_path):
    """Graphs are traced and run as they are: inductor's compiler takes minutes."""
    [case] = all_cases(("signal-small",), ("compiled",))
    subject = subjects.make_subject(subjects.make_networks(case.network, 3, seed=0), case.network, 2, 40, 3, seed=0)
    graphs: list = []
    subjects.compile_networks(subject, backend=lambda graph, inputs: graphs.append(graph) or graph.forward)
    for _ in range(2):
        for method in case.methods:
            prepare(method, subject)()
    assert len(graphs) == 3
    about = {"part": "compiled", "network": case.network, "size": 40}
    times = {PLAIN: 10.0, PREDICTION: 10.4, GIVEN: 11.2}
    found = [row(method, [time] * 3, **about) for method, time in times.items()]
    text = write_report(found, tmp_path)[0].read_text()
    assert "| signal-small | 8 x 40 points | 10.0 | 1.04 [1.04, 1.04] | 1.12 [1.12, 1.12] † |" in text


def test_families_are_measured_by_the_processor_s_time_and_judged(tmp_path, monkeypatch):
    case = dataclasses.replace(family_cases(("signal-small",), ("families",))[0], size=40, batch=2)
    monkeypatch.setattr(run, "all_cases", lambda networks, parts: [case])
    rows = measure_speed(tmp_path, rounds=3, say=lambda line: None)
    assert [found["method"] for found in rows] == [PLAIN, PREDICTION, GIVEN, EVERY, PLAIN_STEP, STEP]
    assert rows[0]["parameters"] < rows[1]["parameters"] < 1.15 * rows[0]["parameters"]
    changed = {PLAIN: [10.0] * 3, PREDICTION: [10.2] * 3, GIVEN: [11.0] * 3}
    rows = [found | {"milliseconds": changed.get(found["method"], found["milliseconds"])} for found in rows]
    [line] = [line for line in write_report(rows, tmp_path)[0].read_text().splitlines() if "| signal-small" in line]
    cells = [cell.strip() for cell in line.split("|")[1:-1]]
    assert cells[:4] == ["signal-small", "2 x 40 points", "1.02 [1.02, 1.02]", "1.10 [1.10, 1.10] †"]
    assert len(cells) == 7 and cells[6].startswith("1.")  # memory was not measured, and has no column


def test_growth_is_told_by_its_exponent(tmp_path):
    rows = [row(GIVEN, [5.0 * size**2] * 3, part="growth", size=size) for size in (112, 224, 448)]
    tables = write_report(rows, tmp_path)[0].read_text()
    line = next(line for line in tables.splitlines() if line.startswith(f"| {GIVEN} |"))
    assert line.split("|")[-2].strip() == f"{math.log(16) / math.log(4):.2f}"


def test_growth_with_blocks_is_a_series_of_its_own(tmp_path):
    rows = [
        row(method, [factor * depth] * 3, part="growth", network=f"layers-{depth}", batch=1, size=64)
        for depth in (6, 12, 24)
        for method, factor in ((PLAIN, 1.0), (GIVEN, 1.5))
    ]
    table, picture = write_report(rows, tmp_path)
    assert f"| {GIVEN} | 9.00 | 18.0 | 36.0 | 1.00 |" in table.read_text() and picture.name == "growth.png"


def test_growth_covers_the_ranges_it_promises():
    found = growth_cases()
    assert len({tuple(case.about().values()) for case in found}) == len(found)
    reached = {varied: {getattr(case, varied) for case in found} for varied in ("batch", "labels")}
    assert {1, 64} <= reached["batch"] and {2, 1000} <= reached["labels"]
    for kind, sizes in (("image", {64, 1024}), ("text", {32, 8192})):
        assert sizes <= {case.size for case in found if subjects.kind_of(case.network) == kind}
    assert {"layers-6", "layers-101"} <= {case.network for case in found}


def test_a_profile_tells_what_each_operator_takes(tmp_path, monkeypatch):
    case = Case("profile", "signal-small", 2, 40, threads=1, methods=(PLAIN, PREDICTION, GIVEN))
    monkeypatch.setattr(run, "all_cases", lambda networks, parts: [case])
    rows = measure_speed(tmp_path, rounds=3, say=lambda line: None)
    assert [found["method"] for found in rows] == [PLAIN, PREDICTION, GIVEN]
    for found in rows:
        assert any("convolution" in name for name in found["operators"])
        assert all(own >= 0 for own in found["operators"].values()) and sum(found["operators"].values()) > 0
    told = [found | {"operators": {"aten::mm": 8.0 + n}, "milliseconds": [8.0 + n] * 3} for n, found in enumerate(rows)]
    [table] = write_report(told, tmp_path)
    assert "| aten::mm | 8.00 | 9.00 | 10.00 | +12.5 % | +25.0 % |" in table.read_text()
    assert "| sum | 8.0 | 9.0 | 10.0 | 1.12 [1.12, 1.12] | 1.25 [1.25, 1.25] |" in table.read_text()


@pytest.mark.skipif(find_spec("onnxruntime") is None or find_spec("onnxscript") is None, reason="extra export")
def test_sessions_of_onnx_are_timed_and_judged(tmp_path, monkeypatch):
    cases = [dataclasses.replace(case, size=40) for case in all_cases(("signal-small",), ("onnx",))]
    monkeypatch.setattr(run, "all_cases", lambda networks, parts: cases)
    rows = measure_speed(tmp_path, rounds=3, say=lambda line: None)
    three = [PLAIN, PREDICTION, PREDICTED]
    names = [name + precision for name in three for precision in ("", INT8)]
    assert [(found["batch"], found["method"]) for found in rows] == [
        (batch, name) for batch in (1, 8) for name in names
    ]
    fixed = {PLAIN: 10.0, PREDICTION: 10.4, PREDICTED: 11.5}
    told = [found | {"milliseconds": [fixed[found["method"].removesuffix(INT8)]] * 3} for found in rows]
    cells = "10.0 | 1.04 [1.04, 1.04] | 1.15 [1.15, 1.15] †"
    assert f"| signal-small | 8 | {cells} | {cells} |" in write_report(told, tmp_path)[0].read_text()


@pytest.mark.parametrize(
    "folder",
    [COMMITTED, *(COMMITTED / part for part in ("families", "profile", "compiled", "onnx"))],
    ids=lambda folder: folder.name,
)
def test_a_committed_table_is_what_its_rows_say(tmp_path, folder):
    rows = [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]
    assert write_report(rows, tmp_path)[0].read_text() == (folder / "tables.md").read_text()
    assert all(picture.stat().st_size < 200_000 for picture in folder.glob("*.png"))


def test_the_docs_say_what_the_rows_say():
    rows = Rows([json.loads(line) for line in (COMMITTED / "rows.jsonl").read_text().splitlines()])
    cases = [
        {"network": network, "batch": batch} for network in ("resnet18", "resnet50", "bert-base") for batch in (8, 32)
    ]
    ratios = [rows.ratio(GIVEN, PREDICTION, part="comparison", threads=2, **case).estimate for case in cases]
    text = (COMMITTED / "../../docs/measured.md").read_text()
    stated = re.search(r"adds\s+at\s+most\s+(\d+)\s+%\s+to\s+the\s+time\s+of\s+a\s+prediction", text)
    assert int(stated[1]) == round(100 * (max(ratios) - 1))


@pytest.mark.parametrize(
    "arguments, words",
    [
        (
            ["--networks", "resnet19"],
            "network 'resnet19' is no timm network, no model type of transformers "
            f"({', '.join(subjects.SHAPES)} are known too), and no folder or Hub id with a config.json.",
        ),
        (["--networks", "gpt2"], "network 'gpt2' is a 'gpt2' model, which MHEX is not made from."),
        (
            ["--parts", "time"],
            "parts must be of comparison, passes, growth, memory, families, profile, compiled, onnx; got time.",
        ),
        (["--rounds", "2"], "rounds must be at least 3, got 2."),
    ],
)
def test_wrong_calls(tmp_path, arguments, words):
    found = CliRunner().invoke(app, ["benchmark", "speed", "--output", str(tmp_path / "new"), *arguments])
    assert isinstance(found.exception, ValueError) and str(found.exception) == words
    assert not (tmp_path / "new").exists()
