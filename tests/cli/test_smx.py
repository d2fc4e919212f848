"""`mhex smx`: table and picture of a small model of signals, and data that cannot be read."""

import json

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from hf_mhex import MHEXSignalFeatureExtractor
from hf_mhex.cli import app
from networks import lively

pytest.importorskip("smx", reason="SMX is in the extra signals: make test-extras")
AXIS = np.linspace(400, 1000, 61)


def write(path, signals, axis=AXIS, label="a"):
    """A table of signals with a column a point."""
    lines = [",".join([label, *(f"{value:.6f}" for value in row)]) for row in signals]
    path.write_text("\n".join([",".join(["label", *(f"{place:g}" for place in axis)]), *lines]) + "\n")
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A small model of signals on an axis, and signals that it tells apart."""
    folder = tmp_path_factory.mktemp("signals")
    torch.manual_seed(0)
    network = lively("signal", torch.float32, num_labels=2, axis=AXIS.tolist(), axis_name="wavenumber")
    signals = np.random.default_rng(0).normal(size=(30, 61))
    network.save_pretrained(folder / "model")
    MHEXSignalFeatureExtractor().fit(signals).save_pretrained(folder / "model")
    return folder / "model", signals


HOLE = np.where((np.arange(30) == 4)[:, None] & (np.arange(61) == 9), np.nan, 1.0)
HEAD = "name,start,stop\n"
ZONES = HEAD + "low,400,600\nhigh,600,1000\n"


@pytest.mark.parametrize(
    ("axis", "change", "zones", "words"),
    [
        (AXIS[:60], lambda x: x[:, :60], ZONES, "signals of 60 points, but the model's axis has 61; resample"),
        (AXIS + 1, lambda x: x, ZONES, "data's axis runs from 401 to 1001, the model's from 400 to 1000; resample"),
        (np.r_[AXIS[:3][::-1], AXIS[3:]], lambda x: x, ZONES, "the data's axis runs from 420 to 1000, the model's"),
        (AXIS, lambda x: x * HOLE, ZONES, "1 of 30 signals with NaN or infinity, the first is row 4; fill"),
        (AXIS, lambda x: 0 * x, ZONES, "two predicted classes, which SMX compares; all 30 are of class"),
        (AXIS, lambda x: x[:3], ZONES, "at least 5 signals, of which SMX draws bags; got 3, add rows"),
        (AXIS, lambda x: x, HEAD + "high,600,1000\nlow,400,600\n", "sorted by their start, but 'low', from 400"),
        (AXIS, lambda x: x, HEAD + "low,400,700\nhigh,600,1000\n", "must not overlap, but 'high' starts at 600"),
        (AXIS, lambda x: x, HEAD + "low,300,600\n", "'low' .300.0, 600.0. lies outside the axis, 400.0 to 1000"),
        (AXIS, lambda x: x, HEAD + "low,401,402\n", "'low' holds no point of the axis; make it wider"),
        (AXIS, lambda x: x, HEAD + "low,4oo,600\n", "line 2: start of zone 'low' must be a place .* got '4oo'"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_in_a_line(axis, change, zones, words, model, tmp_path):
    folder, signals = model
    data = write(tmp_path / "spectra.csv", change(signals), axis)
    (tmp_path / "zones.csv").write_text(zones)
    given = ["smx", str(folder), str(data), "--zones", str(tmp_path / "zones.csv"), "--output", str(tmp_path / "out")]
    with pytest.raises(ValueError, match=words):
        CliRunner().invoke(app, given, catch_exceptions=False)
    assert not (tmp_path / "out").exists()


def test_table_and_picture(tmp_path):
    torch.manual_seed(0)
    model = lively("signal", torch.float32, num_labels=2, axis=AXIS.tolist(), axis_name="wavenumber")
    signals = np.random.default_rng(0).normal(size=(30, 61))
    model.save_pretrained(tmp_path / "model")
    MHEXSignalFeatureExtractor().fit(signals).save_pretrained(tmp_path / "model")
    head = ",".join(["label", *(f"{place:g}" for place in AXIS)])
    lines = [",".join(["a", *(f"{value:.6f}" for value in row)]) for row in signals]
    (tmp_path / "spectra.csv").write_text("\n".join([head, *lines]) + "\n")
    (tmp_path / "zones.csv").write_text(HEAD + "low,400,600\nmiddle,600,800\nhigh,800,1000\n")
    words = ["smx", str(tmp_path / "model"), str(tmp_path / "spectra.csv"), "--zones", str(tmp_path / "zones.csv")]
    found = CliRunner().invoke(app, [*words, "--output", str(tmp_path / "out"), "--repetitions", "1"])
    assert found.exit_code == 0, found.output + repr(found.exception)
    record = json.loads((tmp_path / "out" / "smx.json").read_text())
    assert {row["zone"] for row in record["zones"]} == {"low", "middle", "high"} and record["passes"] == 4
    assert "| zone | from | to | SMX |" in found.output and (tmp_path / "out" / "smx.png").stat().st_size > 1000
    (tmp_path / "zones.csv").write_text(HEAD + "<b>*low*,400,600\nrest,600,1000\n")
    words += ["--output", str(tmp_path / "out"), "--repetitions", "1", "--device", "cpu"]
    printed = json.loads(CliRunner().invoke(app, [*words, "--target", "1", "--json"]).stdout)
    assert (printed["target"], printed["signals"]) == (model.config.id2label[1], 30)
    assert printed["command"].endswith("/model spectra.csv --zones zones.csv --target 1 --repetitions 1")
    assert str(tmp_path) not in printed["command"]
    assert {row["zone"] for row in printed["zones"]} == {"<b>*low*", "rest"}
    assert r"| \<b\>\*low\* |" in (tmp_path / "out" / "smx.md").read_text()  # no name is obeyed by Markdown
    (tmp_path / "zones.csv").write_text(HEAD + "low,400,600\nmiddle,500,800\n")
    found = CliRunner().invoke(app, words)
    assert isinstance(found.exception, ValueError) and "must not overlap" in str(found.exception)


def test_a_plain_twin_has_smx_alone(model, tmp_path):
    from hf_mhex.training.plain import PlainSignalClassifier

    _folder, signals = model
    torch.manual_seed(0)
    network = PlainSignalClassifier(lively("signal", torch.float32, num_labels=2, axis=AXIS.tolist()).config)
    extractor = MHEXSignalFeatureExtractor().fit(signals)
    with torch.no_grad():  # half of the signals on either side
        logits = network.eval()(**extractor(signals, return_tensors="pt")).logits
        network.classifier.bias.sub_(logits.median(0).values)
    network.save_pretrained(tmp_path / "plain")
    extractor.save_pretrained(tmp_path / "plain")
    data = write(tmp_path / "spectra.csv", signals)
    (tmp_path / "zones.csv").write_text(ZONES)
    given = ["smx", str(tmp_path / "plain"), str(data), "--zones", str(tmp_path / "zones.csv"), "--json"]
    found = CliRunner().invoke(app, [*given, "--output", str(tmp_path / "out"), "--repetitions", "1"])
    assert found.exit_code == 0, found.output + repr(found.exception)
    zones = json.loads(found.stdout)["zones"]
    assert {row["zone"] for row in zones} == {"low", "high"} and not any("exact" in row for row in zones)
    assert "| zone | from | to | SMX |\n" in (tmp_path / "out" / "smx.md").read_text()
