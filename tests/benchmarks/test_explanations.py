"""The comparison: chosen on validation rows, measured on test rows, going on after a stop, telling who loses."""

import copy
import json

import pytest
import timm
import torch
from PIL import Image

from hf_mhex.baselines import Method, cams
from hf_mhex.baselines.networks import Strip, grid_of
from hf_mhex.benchmarks.explanations import Images, Sizes, Texts, explain_quality, write_report
from hf_mhex.benchmarks.explanations.images import ImageMeasures
from hf_mhex.benchmarks.explanations.index import write_index
from hf_mhex.benchmarks.explanations.loading import image_part, shuffled, signal_part, text_part
from hf_mhex.benchmarks.explanations.methods import CONTROLS, PAPER, REFINED_MORE, ROLLOUT, methods_for, mhex_map
from hf_mhex.benchmarks.explanations.pictures import chosen_methods, page_of_maps, page_of_words, plot_measures
from hf_mhex.benchmarks.explanations.report import TABLES
from hf_mhex.evaluation.controls import gaussian_blur
from hf_mhex.modeling.feature_extraction_mhex_signal import MHEXSignalFeatureExtractor
from hf_mhex.training.plain import PlainSignalClassifier
from networks import batch_for, lively, lively_bert, lively_resnet

pytest.importorskip("captum", reason="the methods compared with are in the extra bench: make test-extras")

SIZES = Sizes(rows=5, questions=4, sanity=2, slow=2, chosen=3, samples=5, steps=4)


def image_parts(model, count=24):
    """Validation and test images whose labels are what the network answers, so that mosaics can be built."""
    parts = []
    for seed in (0, 1):
        pixels = 2 * torch.randn(count, 3, 24, 24, generator=torch.Generator().manual_seed(seed))
        with torch.no_grad():
            parts.append(Images(pixels, model(pixels).logits.argmax(-1)))
    return parts


def strips(count=24):
    """A network of signals and its validation and test signals of 117 points, as images of one line."""
    network = Strip(lively("signal", torch.float32, num_labels=3))
    parts = []
    for seed in (0, 1):
        pixels = 2 * torch.randn(
            count, network.config.num_channels, 1, 117, generator=torch.Generator().manual_seed(seed)
        )
        with torch.no_grad():
            parts.append(Images(pixels, network(pixels).logits.argmax(-1)))
    return network, parts


def text_parts(count=8):
    """Validation and test texts of 1 to 9 content tokens."""
    parts = []
    for seed in (0, 1):
        generator = torch.Generator().manual_seed(seed)
        ids = [
            torch.cat([torch.tensor([1]), torch.randint(10, 120, (1 + row % 9,), generator=generator)])
            for row in range(count)
        ]
        parts.append(
            Texts(tuple(torch.cat([row, torch.tensor([2])]) for row in ids), torch.zeros(count).long(), 9, 0, (0, 1, 2))
        )
    return parts


@pytest.fixture(scope="module")
def network():
    return lively_resnet(torch.float32, num_labels=3)


@pytest.fixture(scope="module")
def found(network, tmp_path_factory):
    """The rows of a small comparison on images."""
    output = tmp_path_factory.mktemp("quality")
    parts = image_parts(network)
    rows = explain_quality(
        {"mhex": network}, *parts, output, SIZES, ["input x gradient"], command="c", say=lambda _: None
    )
    return rows, output, parts


def test_every_row_says_what_made_it(found):
    rows, output, _ = found
    lines = [json.loads(line) for line in (output / "rows-mhex.jsonl").read_text().splitlines()]
    assert lines == json.loads(json.dumps(rows))
    for row in rows:
        assert (
            row["seed"] == 0 and row["command"] == "c" and row["sizes"] == vars(SIZES) and "torch" in row["environment"]
        )
    methods = {row["method"] for row in rows if row["part"] == "test"}
    assert methods >= {"MHEX", "MHEX, defaults", "input x gradient", *CONTROLS} and "Grad-CAM" not in methods


def test_settings_are_chosen_on_the_validation_part_alone(found):
    rows = found[0]
    (choice,) = [row for row in rows if row["part"] == "validation" and row["method"] == "MHEX"]
    best = max(choice["tried"], key=lambda tried: tried["score"])
    assert choice["chosen"] == best["settings"] and len(choice["tried"]) == 15
    parts = [found["settings"].get("part") for found in choice["tried"]]
    assert parts[0] is None and {"last half", "last"} <= set(parts)
    for tried in choice["tried"]:
        assert tried["score"] == pytest.approx(tried["pointing"] + tried["removal"], abs=1e-4)
    for row in rows:
        if row["part"] == "test" and row["method"] == "MHEX":
            assert row["settings"] == choice["chosen"]


def test_controls_give_their_known_answers(found):
    by = {(row["method"], row["group"]): row["values"] for row in found[0] if row["part"] == "test"}
    assert by["constant", "grid 2x2"]["grid pointing 2x2"] == pytest.approx([0.25] * 4)
    assert by["constant", "rows"]["ROAD combined"] == [0] * 5
    for blind in ("constant", "centred Gaussian", "random", "input edges"):
        assert by[blind, "rows"]["random logit"] == [1] * 2 and by[blind, "rows"]["randomised"] == [1] * 2
    assert by["MHEX", "rows"]["random logit"] != [1] * 2


def test_a_stopped_run_goes_on_and_makes_nothing_twice(found, network, tmp_path, monkeypatch):
    rows, output, parts = found
    lines = (output / "rows-mhex.jsonl").read_text().splitlines()
    (tmp_path / "rows-mhex.jsonl").write_text("\n".join(lines[:-2]) + "\n" + lines[-2][:40])  # killed while writing
    measured = []
    original = ImageMeasures.measure

    def count(self, group, call, slow=False):
        measured.append(group)
        return original(self, group, call, slow)

    monkeypatch.setattr(ImageMeasures, "measure", count)
    again = explain_quality(
        {"mhex": network}, *parts, tmp_path, SIZES, ["input x gradient"], command="c", say=lambda _: None
    )
    assert len(measured) == 2
    timeless = [{**row, "took": 0, "values": {**row.get("values", {}), "seconds": 0}} for row in again]
    assert timeless == [{**row, "took": 0, "values": {**row.get("values", {}), "seconds": 0}} for row in rows]


@pytest.mark.parametrize("family", ["resnet", "bert"])
def test_the_papers_row_is_the_papers_own_map(family):
    model, inputs = lively(family, torch.float32), batch_for(family)
    target = torch.zeros(len(next(iter(inputs.values()))), dtype=torch.long)
    image = "pixel_values" in inputs
    methods = {method.name: method for method in methods_for("images" if image else "texts", "mhex")}
    found = methods[PAPER].call(model, inputs["pixel_values"] if image else inputs, target)
    options = {"decay": 0.9, "sharpness": (0.35, 0.1)} if image else {"decay": 1.0, "blocks": [0, 1, 2]}
    assert torch.equal(found, model.paper_saliency(**inputs, target=target, normalize=None, **options).saliency)


def test_methods_that_a_network_lacks_are_left_out(tmp_path):
    """No rollout on convolutions, and no CAM where no linear layer follows the pooling."""
    from hf_mhex.benchmarks.explanations.run import listed
    from hf_mhex.benchmarks.journal import Journal

    journal = Journal(tmp_path / "rows.jsonl")
    journal.add({"part": "validation", "network": "mhex", "method": "MHEX", "group": "choice", "chosen": {}})
    for family, rolls in (("resnet", False), ("vit", True)):
        found = {method.name: method for method in listed("images", "mhex", lively(family), None, journal, True)}
        assert (ROLLOUT in found) == rolls and len(found["MHEX"].settings) == (24 if rolls else 15)
    plain = timm.create_model("vit_tiny_patch16_224", depth=1).eval()
    assert "CAM" not in {method.name for method in listed("images", "plain", plain, None, journal, True)}


def test_networks_are_measured_apart_and_add_up_to_the_same_rows(network, tmp_path):
    plain = copy.deepcopy(network)
    given = ({"mhex": network, "plain": plain}, *image_parts(network))
    rest = {"sizes": SIZES, "only": ["saliency"], "say": lambda _: None}
    first = explain_quality(*given, tmp_path, **rest, on="plain")
    assert {row["network"] for row in first} == {"plain"} and not (tmp_path / "rows-mhex.jsonl").exists()
    both = explain_quality(*given, tmp_path, **rest)
    assert [row for row in both if row["network"] == "plain"] == first
    assert both == explain_quality(*given, tmp_path, **rest, on="mhex")
    with pytest.raises(ValueError, match="on must be one of mhex, plain"):
        explain_quality(*given, tmp_path, **rest, on="other")


def test_rows_of_other_sizes_are_refused(found, network):
    _, output, parts = found
    with pytest.raises(ValueError, match="another folder"):
        explain_quality({"mhex": network}, *parts, output, SIZES, seed=1, say=lambda _: None)
    other = lively_resnet(torch.float32, num_labels=4)
    for networks in ({"mhex": other}, {"mhex": network, "plain": other}):
        with pytest.raises(ValueError, match="made with weights=.*; name another folder"):
            explain_quality(networks, *parts, output, SIZES, say=pytest.fail)
    with pytest.raises(ValueError, match="only must name"):
        explain_quality({"mhex": network}, *parts, output, SIZES, ["Gradcam"], say=lambda _: None)
    with pytest.raises(ValueError, match="rows must be"):
        Sizes(rows=0)


def test_tables_plots_and_maps_are_written(found, network, tmp_path):
    rows, _, parts = found
    summary = write_report(rows, tmp_path, "A title")
    text = (tmp_path / "tables.md").read_text()
    for wanted in (
        "# A title",
        "### Localisation",
        "### Where MHEX loses",
        "### Which implementation ran",
        "Settings, chosen",
        "*constant*",
    ):
        assert wanted in text
    tables = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert all(len({line.count(" | ") for line in lines[:1] + lines[2:]}) == 1 for lines in tables)
    assert not any("|  |" in lines[0] for lines in tables)  # no column without a name
    entry = summary["mhex"]["input x gradient"]["measures"]["grid pointing 2x2"]
    assert entry["lower quartile"] <= entry["median"] <= entry["upper quartile"] and "mhex minus this" in entry
    assert all(path.stat().st_size > 5000 for path in plot_measures(summary, tmp_path))
    methods = chosen_methods(rows, "images", "mhex")
    assert {method.name for method, _ in methods} == set(summary["mhex"])

    def picture(pixels):
        return (pixels.sigmoid() * 255).byte().permute(1, 2, 0).numpy()

    page = page_of_maps(network, parts[1], methods[:3], picture, tmp_path / "maps.png", rows=2)
    assert Image.open(page).width > 300


def test_an_index_tells_how_mhex_stands_in_each_set(found, tmp_path):
    rows, _, _ = found
    for name in ("one", "two"):
        write_report(rows, tmp_path / name, name)
    text = write_index(tmp_path).read_text()
    summary = json.loads((tmp_path / "two" / "summary.json").read_text())["mhex"]
    best = summary["input x gradient"]["measures"]["grid pointing 2x2"]["mean"]  # the only other method
    assert "## one" in text and "[tables](two/tables.md)" in text and "measures-mhex" not in text
    line = next(line for line in text.splitlines() if "grid pointing 2x2" in line)
    assert f"| input x gradient: {best:.3f}" in line
    assert line.rstrip("| ").endswith("0.25")
    with pytest.raises(ValueError, match="summary.json"):
        write_index(tmp_path / "one")


def test_the_report_names_a_method_that_is_surely_better(tmp_path):
    common = {"part": "test", "network": "mhex", "group": "rows", "source": "ours", "slow": False, "settings": {}}
    common |= {"sizes": vars(SIZES), "seed": 0, "command": "", "environment": {"hf-mhex": "0.1.0"}}
    values = [0.1, 0.2, 0.15, 0.1, 0.2, 0.1]
    rows = [
        common | {"method": "MHEX", "values": {"ROAD combined": values, "infidelity": values}},
        common | {"method": "other", "values": {"ROAD combined": [v + 0.3 for v in values], "infidelity": values}},
        common | {"method": "few", "values": {"ROAD combined": [9.0, 9.0], "infidelity": values}},
        common | {"method": "random", "values": {"ROAD combined": values, "infidelity": [v - 0.05 for v in values]}},
    ]
    own = {"ROAD combined": [v + 0.1 for v in values], "infidelity": [v - 0.05 for v in values]}
    rows.append(common | {"method": REFINED_MORE, "values": own})
    write_report(rows, tmp_path, "t")
    text, of_refined = (tmp_path / "tables.md").read_text().split("### Where MHEX")[1:]
    assert f"- **ROAD combined**: other (by 0.300 over 6 rows); {REFINED_MORE} (by 0.100 over 6 rows)." in text
    assert "- **ROAD combined**: other (by 0.200 over 6 rows)." in of_refined and "infidelity" not in of_refined
    assert f"- **infidelity**: random (by 0.050 over 6 rows, a control); {REFINED_MORE} (by 0.050" in text


def test_the_report_says_whether_published_orders_show(tmp_path):
    common = {"part": "test", "network": "plain", "group": "rows", "source": "ours", "slow": False, "settings": {}}
    common |= {"sizes": vars(SIZES), "seed": 0, "command": "", "environment": {"hf-mhex": "0.1.0"}}
    low, high = [0.1, 0.2, 0.15, 0.1, 0.2, 0.1], [0.5, 0.7, 0.6, 0.5, 0.6, 0.5]
    rows = [
        common | {"method": "Score-CAM", "values": {"insertion": high, "deletion": high[:5]}},
        common | {"method": "Grad-CAM", "values": {"insertion": low, "deletion": low}},
        common | {"method": "LIME", "values": {"insertion": high[:2]}},
        common | {"method": "occlusion", "values": {"insertion": low[:2]}},
    ]
    write_report(rows, tmp_path, "t")
    lines = (tmp_path / "tables.md").read_text().split("Do published orders show here?")[1].splitlines()
    cells = [line.split(" | ") for line in lines if line.startswith("|") and " above " in line]
    by = {f"{line[0].strip('| ')}: {line[1][:4]}": " | ".join(line) for line in cells}
    assert "| shows |" in by["insertion: Scor"] and "Score-CAM - Grad-CAM +0." in by["insertion: Scor"]
    assert "| reversed |" in by["deletion: Scor"]  # lower is better there
    assert "| not sure |" in by["insertion: LIME"]  # two rows say nothing
    assert len(by) == 3  # orders of methods that were not measured are left out


def test_controls_of_texts_give_their_known_answers(texts):
    by = {row["method"]: row["values"] for row in texts[0] if row["part"] == "test"}
    for blind in ("constant", "centred Gaussian", "random", "attention rollout"):
        assert by[blind]["random logit"] == pytest.approx([1] * SIZES.slow)
    assert by["saliency"]["comprehensiveness (mask)"] != by["random"]["comprehensiveness (mask)"]


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """The rows of a small comparison on texts, the folder, and the network with its parts."""
    output, model, parts = tmp_path_factory.mktemp("texts"), lively_bert(torch.float32, num_labels=3), text_parts()
    methods = ["saliency", "LIME", "attention rollout"]
    return explain_quality({"mhex": model}, *parts, output, SIZES, methods, say=lambda _: None), output, model, parts


def test_texts_go_through_the_whole_table(texts, tmp_path):
    summary = write_report(texts[0], tmp_path, "texts")["mhex"]
    assert set(summary["LIME"]["measures"]) & set(TABLES["Faithfulness"]) and "input edges" not in summary
    assert summary["LIME"]["measures"]["comprehensiveness (mask)"]["rows"] == SIZES.slow
    assert summary["constant"]["measures"]["random logit"]["mean"] == 1


@pytest.mark.parametrize("kind", ["image", "signal"])
def test_squares_go_one_after_another_and_another_class_is_the_second_likeliest(network, kind):
    """Squares of an image; of a signal as many intervals."""
    cells = 7
    if kind == "image":
        part, width = image_parts(network)[1], 24
        lines = [side * cells // 24 for side in range(24)]
        square = torch.tensor([[cells * line + column for column in lines] for line in lines])
    else:
        network, (_, part), width = *strips(), 117
        square = torch.tensor([[place * cells**2 // 117 for place in range(117)]])
    sizes = Sizes(rows=2, questions=4, sanity=2, slow=2, chosen=3, samples=5, steps=cells**2)
    measures = ImageMeasures(network, part, sizes)
    found = measures.measure("another class", mhex_map)["another class, insertion - deletion 7x7"]
    by_answer = measures.measure("choice", mhex_map)["choice"]
    for row, values in enumerate(zip(by_answer, found)):
        image = part.pixels[row]
        with torch.no_grad():
            ranked = network(image[None]).logits[0].argsort(descending=True).tolist()
        for label, value in zip(ranked, values):
            saliency = mhex_map(network, image[None], torch.tensor([label]))[0]
            order = sorted(range(cells**2), key=lambda number: -float(saliency[square == number].double().sum()))
            blurred, areas = gaussian_blur(image, 0.1 * width), []
            for start, end in ((blurred, image), (image, torch.zeros_like(image))):
                changed, curve = start.clone(), []
                for number in [None, *order]:
                    changed[:, square == number] = end[:, square == number]
                    with torch.no_grad():
                        curve.append(float(network(changed[None]).logits[0].softmax(-1)[label]))
                areas.append(sum(curve) / cells**2 - (curve[0] + curve[-1]) / 2 / cells**2)
            assert value == pytest.approx(areas[0] - areas[1], abs=1e-5)


@pytest.mark.parametrize("kind", ["mhex", "plain"])
def test_signals_go_through_the_whole_table(kind, tmp_path):
    """Every method that images have, without the pointing, and with settings chosen by removal alone."""
    network, parts = strips()
    if kind == "plain":
        torch.manual_seed(1)
        network = Strip(PlainSignalClassifier(network.config).eval())
    found = explain_quality({kind: network}, *parts, tmp_path, SIZES, say=lambda _: None)
    expected = [method.name for method in methods_for("images", kind) if method.name not in (ROLLOUT, "CAM")]
    summary = write_report(found, tmp_path, "signals")[kind]
    assert set(summary) == {*expected, *(["blurred MHEX"] if kind == "mhex" else [])}
    for name, entry in summary.items():
        assert "grid pointing 2x2" not in entry["measures"] and "ROAD combined 7x7" in entry["measures"], name
    if kind == "mhex":
        [tried] = [row["tried"] for row in found if row["part"] == "validation" and row["method"] == "MHEX"]
        assert set(tried[0]) == {"settings", "removal", "score"}


def test_methods_ask_a_network_of_signals_about_strips():
    """Maps over strips are those of the signals, by the network itself and by a method that knows nothing of them."""
    network, (_, part) = strips()
    values, target = part.pixels[:3, :, 0], torch.tensor([0, 1, 2])
    expected = network.model.generate_saliency(input_values=values, target=target, refine=2).saliency
    assert torch.equal(mhex_map(network, part.pixels[:3], target, refine=2)[:, 0], expected)
    given = values.clone().requires_grad_()
    network.model(input_values=given).logits[range(3), target].sum().backward()
    [method] = [found for found in methods_for("images", "mhex") if found.name == "input x gradient"]
    torch.testing.assert_close(method.call(network, part.pixels[:3], target)[:, 0], (values * given.grad).sum(1))
    assert network.generate_saliency(pixel_values=part.pixels[:1], upsample=False).saliency is None
    for sizes in (
        {"widths": [8, 16], "depths": [1, 1], "strides": [1, 2]},
        {"widths": [8], "depths": [2], "strides": [1]},
    ):
        shallow = Strip(lively("signal", torch.float32, **sizes))
        for method in cams.METHODS:  # they try three stages
            for settings in method.settings:
                assert method.call(shallow, part.pixels[:1], target[:1], **settings).shape == (1, 1, 117)
    assert grid_of((1, 117), 7) == (1, 49) and grid_of((1, 30), 7) == (1, 30) and grid_of((24, 5), 7) == (7, 5)


def test_a_plain_twin_scores_the_papers_measures(network):
    plain = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(3, 3)).eval()
    measures = ImageMeasures(network, image_parts(network)[1], SIZES, {"plain network": plain})
    found = measures.measure("rows", mhex_map)
    assert found["AVG drop (plain network)"] != found["AVG drop (same)"] and len(found["EAD (plain network)"]) == 5


def test_signals_become_strips():
    extractor = MHEXSignalFeatureExtractor()
    part = signal_part([[0.0, 1.0, 2.0, 3.0, 4.0], [1.0] * 5], [0, 1], extractor)
    assert part.pixels.shape == (2, 1, 1, 5) and part.pixels[0].flatten().tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="signals must have at least 5 points to be judged by removal, got 4"):
        signal_part([[0.0] * 4], [0], extractor)
    with pytest.raises(ValueError, match="signals must all have one length, got 6 to 7 points"):
        signal_part([[0.0] * 7, [0.0] * 6], [0, 1], extractor)


def test_pictures_and_texts_become_parts():
    from transformers import AutoTokenizer

    from hf_mhex import image_processor_for
    from minilm import MINILM

    processor = image_processor_for(lively_resnet().config, image_size=24)
    part = image_part([Image.new("L", (30, 20)), Image.new("RGB", (24, 24))], [0, 1], processor)
    assert part.pixels.shape == (2, 3, 24, 24) and part.labels.tolist() == [0, 1]
    tokenizer = AutoTokenizer.from_pretrained(MINILM)
    texts = text_part(["good", "a longer text of several words"], [1, 0], tokenizer, 5)
    assert [len(ids) for ids in texts.ids] == [3, 5] and texts.mask_id == tokenizer.mask_token_id
    assert tokenizer.mask_token_id not in texts.special_ids
    assert sorted(shuffled(9, 1)) == list(range(9)) and shuffled(9, 1) == shuffled(9, 1) != shuffled(9, 2)


def test_texts_side_by_side_are_a_page(tmp_path):
    from transformers import AutoTokenizer

    from minilm import MINILM

    tokenizer = AutoTokenizer.from_pretrained(MINILM)
    model = lively_bert(torch.float32, num_labels=2, vocab_size=tokenizer.vocab_size)
    texts = ["good phone", "the battery is poor"]
    part = text_part(texts, [1, 0], tokenizer, 20)
    page = page_of_words(model, tokenizer, texts, [(Method("MHEX", mhex_map), {})], part, tmp_path / "p.html")
    assert page.read_text().count("<article") == 2 and "battery" in page.read_text()
