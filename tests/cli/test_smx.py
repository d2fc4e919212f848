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


def test_table_and_picture(tmp_path):
    torch.manual_seed(0)
    model = lively("signal", torch.float32, num_labels=2, axis=AXIS.tolist(), axis_name="wavenumber")
    signals = np.random.default_rng(0).normal(size=(30, 61))
    model.save_pretrained(tmp_path / "model")
    MHEXSignalFeatureExtractor().fit(signals).save_pretrained(tmp_path / "model")
    head = ",".join(["label", *(f"{place:g}" for place in AXIS)])
    lines = [",".join(["a", *(f"{value:.6f}" for value in row)]) for row in signals]
    (tmp_path / "spectra.csv").write_text("\n".join([head, *lines]) + "\n")
    (tmp_path / "zones.csv").write_text("name,start,stop\nlow,400,600\nmiddle,600,800\nhigh,800,1000\n")
    words = ["smx", str(tmp_path / "model"), str(tmp_path / "spectra.csv"), "--zones", str(tmp_path / "zones.csv")]
    found = CliRunner().invoke(app, [*words, "--output", str(tmp_path / "out"), "--repetitions", "1"])
    assert found.exit_code == 0, found.output + repr(found.exception)
    record = json.loads((tmp_path / "out" / "smx.json").read_text())
    assert {row["zone"] for row in record["zones"]} == {"low", "middle", "high"} and record["passes"] == 4
    assert "| zone | from | to | SMX |" in found.output and (tmp_path / "out" / "smx.png").stat().st_size > 1000
    (tmp_path / "zones.csv").write_text("name,start,stop\n<b>*low*,400,600\nrest,600,1000\n")
    given = [*words, "--output", str(tmp_path / "out"), "--repetitions", "1", "--device", "cpu", "--json"]
    printed = json.loads(CliRunner().invoke(app, given).stdout)
    assert {row["zone"] for row in printed["zones"]} == {"<b>*low*", "rest"}
    assert r"| \<b\>\*low\* |" in (tmp_path / "out" / "smx.md").read_text()  # no name is obeyed by Markdown
    (tmp_path / "zones.csv").write_text("name,start,stop\nlow,400,600\nmiddle,500,800\n")
    found = CliRunner().invoke(app, words)
    assert isinstance(found.exception, ValueError) and "must not overlap" in str(found.exception)
