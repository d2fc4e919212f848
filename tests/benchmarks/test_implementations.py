"""Which implementation ran: every row, summary and table names it with its version, and it is the one that ran."""

import copy
import json
import re
import sys
from dataclasses import replace
from importlib import import_module
from importlib.metadata import version

import pytest
import torch

from hf_mhex.baselines import image_methods, text_methods
from hf_mhex.baselines.cams import LAST_BLOCK_CAM, PLAIN_CAM
from hf_mhex.benchmarks.explanations import Images, Sizes, Texts, explain_quality, run, write_report
from hf_mhex.benchmarks.explanations.methods import CONTROLS, methods_for, tensor_of
from networks import batch_for, lively, lively_bert, lively_resnet

pytest.importorskip("captum", reason="the methods compared with are in the extra bench: make test-extras")
pytest.importorskip("pytorch_grad_cam", reason="the methods compared with are in the extra bench: make test-extras")

SIZES = Sizes(rows=2, questions=2, sanity=1, slow=1, chosen=2, samples=2, steps=2)
MODULES = {"captum": "captum", "grad-cam": "pytorch_grad_cam", "lime": "lime", "shap": "shap", "torchcam": "torchcam"}
FEW = {"LIME": {"samples": 60}, "SHAP partition": {"evaluations": 60}, "occlusion": {"cells": 4}}
FEW["T-Explainer"] = {"cells": 3}


def quick(model, inputs, target, **settings):
    """A map in place of a method's own: which rows there are is asked here, not what they say."""
    given = tensor_of(inputs)
    return (given.flatten(1, -3).mean(1) if given.ndim > 2 else given).float() / 100


def parts(kind):
    """A network and its validation and test rows."""
    generator = torch.Generator().manual_seed(0)
    if kind == "texts":
        ids = tuple(torch.cat([torch.tensor([1]), torch.randint(10, 120, (4,), generator=generator), torch.tensor([2])])
                    for _ in range(4))  # fmt: skip
        part = Texts(ids, torch.zeros(4).long(), 9, 0, (0, 1, 2))
        return lively_bert(torch.float32, num_labels=3), part, part
    model = lively_resnet(torch.float32, num_labels=3)
    pixels = 2 * torch.randn(24, 3, 24, 24, generator=generator)
    with torch.no_grad():
        part = Images(pixels, model(pixels).logits.argmax(-1))
    return model, part, part


@pytest.mark.parametrize("kind", ["images", "texts"])
def test_every_row_summary_and_table_names_what_ran(kind, tmp_path, monkeypatch):
    def replaced(*arguments):
        return [replace(method, call=quick, settings=method.settings[:1]) for method in methods_for(*arguments)]

    monkeypatch.setattr(run, "methods_for", replaced)
    network, *rows = parts(kind)
    networks = {"mhex": network, "plain": copy.deepcopy(network)}
    found = explain_quality(networks, *rows, tmp_path, SIZES, say=lambda _: None)
    summary = write_report(found, tmp_path, "t")
    text, index = (tmp_path / "tables.md").read_text(), json.loads((tmp_path / "summary.json").read_text())
    sections = dict(zip(("mhex", "plain"), text.split("### Which implementation ran")[1:]))
    assert {row["network"] for row in found} == set(sections) == set(summary) == set(index)
    tested = [row for row in found if row["part"] == "test"]
    names = {network: {row["method"] for row in tested if row["network"] == network} for network in networks}
    wanted = {method.name for method in (image_methods() if kind == "images" else text_methods())}
    assert all(wanted | {name for name in CONTROLS if "edges" not in name and "blurred" not in name} <= names[network]
               for network in networks)  # fmt: skip
    for row in tested:
        package, release = re.match(r"([a-z-]+) (\d[\w.]+)(, .+)?$", row["implementation"]).group(1, 2)
        assert package == ("hf-mhex" if row["source"] == "ours" else row["source"])
        assert release == (row["environment"]["hf-mhex"] if package == "hf-mhex" else version(package))
        assert index[row["network"]][row["method"]]["implementation"] == row["implementation"]
        shown = next(
            line for line in sections[row["network"]].splitlines() if line.strip("| *").startswith(row["method"])
        )
        assert row["implementation"] in shown, shown


def test_rows_of_before_say_which_package_ran_and_that_its_version_was_not_kept(tmp_path):
    common = {"part": "test", "network": "mhex", "group": "rows", "slow": False, "settings": {}, "seed": 0}
    common |= {"sizes": vars(SIZES), "command": "", "environment": {"hf-mhex": "0.1.0"}}
    rows = [
        common | {"method": method, "source": source, "values": {"insertion": [0.1] * 6, "seconds": 0.1}}
        for method, source in (("MHEX", "ours"), ("saliency", "captum"), ("T-Explainer", "ours"))
    ]
    found = write_report(rows, tmp_path, "t")["mhex"]
    by = {method: entry["implementation"] for method, entry in found.items()}
    assert by == {"MHEX": "hf-mhex 0.1.0", "saliency": "captum, version not kept", "T-Explainer": "hf-mhex 0.1.0"}
    assert [found[method]["replaced"] for method in by] == [False, False, True]
    assert "T-Explainer ‡" in (tmp_path / "tables.md").read_text()


def ran(call) -> set[str]:
    """The libraries whose functions are called while `call` runs."""
    seen: set[str] = set()

    def note(frame, event, argument):
        if event == "call" and frame.f_code.co_name != "<module>":
            seen.add(str(frame.f_globals.get("__name__")).partition(".")[0])

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        call()
    finally:
        sys.setprofile(before)
    return seen & set(MODULES.values())


IMAGE = {method.name: method for method in [*image_methods(), LAST_BLOCK_CAM]}
TEXT = {method.name: method for method in text_methods()}
CASES = [("images", name) for name in IMAGE] + [("texts", name) for name in TEXT]
SLOW = [pytest.param(*case, marks=[pytest.mark.slow] * case[1].startswith("SHAP")) for case in CASES]


@pytest.mark.parametrize(("kind", "name"), SLOW)
def test_the_library_that_a_method_names_is_the_one_that_runs(kind, name):
    method = (IMAGE if kind == "images" else TEXT)[name]
    if method.source != "ours":
        import_module(MODULES[method.source])  # what runs at import says nothing
    if kind == "images":
        model, inputs = lively("resnet", torch.float32), torch.randn(1, 3, 32, 32)
    else:
        model = lively_bert(torch.float32)
        inputs = {**batch_for("bert", batch=1), "mask_id": 9, "pad_id": 0, "special_ids": (0, 1, 2)}
    found = ran(lambda: method.call(model, inputs, torch.tensor([0]), **FEW.get(name, {})))
    assert found == (set() if method.source == "ours" else {MODULES[method.source]})


def test_the_cam_of_a_plain_network_is_our_own():
    import timm

    model = timm.create_model("resnet18", num_classes=3, layers=[1, 1, 1, 1], channels=[8, 8, 8, 8]).eval()
    assert PLAIN_CAM.source == "ours" and not ran(
        lambda: PLAIN_CAM.call(model, torch.randn(1, 3, 32, 32), torch.tensor([1]))
    )
