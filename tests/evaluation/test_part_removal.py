"""What a map foretells of parts that are taken away, derived again row by row and set by set."""

import json

import pytest
import torch
from transformers import AutoTokenizer
from typer.testing import CliRunner

from hf_mhex import image_processor_for
from hf_mhex.cli import app
from hf_mhex.evaluation import part_removal
from hf_mhex.evaluation.part_removal import part_numbers, removed, single_rows, tokenizer_options
from hf_mhex.training.models import minilm_folder
from networks import batch_for, lively
from schemas import write_medmnist

KINDS = ("resnet", "vit", "signal", "bert", "deberta_v2")


@pytest.mark.parametrize("name", KINDS)
def test_derived_again(name):
    """The change, the errors and the correlations of two rows, by loops over sets and parts."""
    model, inputs = lively(name, torch.float64), batch_for(name, torch.float64, batch=2)
    mask = {"mask_id": 5} if name == "bert" else {}
    found = part_removal(model, [inputs], rows=2, draws=5, seed=3, **mask)
    draw, errors, even, changes, related = torch.Generator().manual_seed(3), [], [], [], []
    refined_errors, refined_related = [], []
    refines = name != "deberta_v2"  # it is given no mask token
    tokens = {"mask_token_id": 5} if mask else {}
    for one in single_rows([inputs], 2):
        given = one[model.main_input_name]
        text = not given.is_floating_point()
        sides = given.shape[2:] if given.ndim > 2 else given.shape[1:]
        numbers = torch.arange(given.shape[1]) if text else part_numbers(tuple(sides), 7 if len(sides) == 2 else 16)
        count = int(numbers.max()) + 1
        sizes = torch.randint(1, count + 1, (5, 1), generator=draw)
        gone = torch.rand(5, count, generator=draw).argsort(1).argsort(1) < sizes
        answer = model.generate_saliency(**one, contrast="mean")
        lead, target = float(answer.explained), int(answer.target)
        finer = model.generate_saliency(**one, contrast="mean", refine=4, **tokens) if refines else answer
        said, finer_said, real = [], [], []
        for chosen in gone:
            places = torch.tensor([bool(chosen[int(n)]) for n in numbers.flatten()]).view(numbers.shape)
            said.append(float(sum(answer.saliency[0][numbers == part].sum() for part in range(count) if chosen[part])))
            sums = [finer.saliency[0][numbers == part].sum() for part in range(count) if chosen[part]]
            finer_said.append(float(sum(sums)))
            changed = dict(one)
            if mask:
                changed["input_ids"] = torch.where(places, 5, given)
            elif text:
                changed["attention_mask"] = torch.where(places, 0, one.get("attention_mask", torch.ones_like(given)))
            else:
                changed[model.main_input_name] = torch.where(places, torch.zeros_like(given), given)
            logits = model(**changed).logits[0].detach()
            others = [float(logits[k]) for k in range(len(logits)) if k != target]
            real.append(lead - (float(logits[target]) - sum(others) / len(others)))
        said, finer_said, real = (torch.tensor(values, dtype=torch.float64) for values in (said, finer_said, real))
        refined_errors.append((finer_said - real).abs().mean())
        refined_related.append(torch.corrcoef(torch.stack([finer_said, real]))[0, 1])
        errors.append((said - real).abs().mean())
        even.append((lead * gone.double().mean(1) - real).abs().mean())
        changes.append(real.abs().mean())
        related.append(torch.corrcoef(torch.stack([said, real]))[0, 1])
    for interval, values in (
        (found.error, errors),
        (found.even_error, even),
        (found.change, changes),
        (found.correlation, related),
        *([(found.refined_error, refined_errors), (found.refined_correlation, refined_related)] if refines else []),
    ):
        assert interval.estimate == pytest.approx(float(torch.stack(values).mean()), rel=1e-6, abs=1e-9)
    assert (found.rows, found.draws, found.score) == (2, 5, "lead")
    assert (found.refined_error is None) == (found.refined_correlation is None) == (not refines)


def test_an_additive_network_is_foretold_exactly():
    """Where the network is linear in its parts, the map is right on every set: no error, correlation and slope 1."""

    class Additive(torch.nn.Module):
        main_input_name, device = "input_values", torch.device("cpu")
        config = type("Config", (), {"num_labels": 1, "problem_type": "regression"})()

        def forward(self, input_values):
            return type("Output", (), {"logits": input_values.sum(1, keepdim=True)})()

        def generate_saliency(self, input_values, contrast, **options):
            sums = input_values.sum(1, keepdim=True)
            return type("Answer", (), {"saliency": input_values, "logits": sums, "target": torch.zeros(1)})()

    rows = [{"input_values": torch.randn(3, 40, generator=torch.Generator().manual_seed(1))}]
    found = part_removal(Additive(), rows)
    assert found.error.estimate == pytest.approx(0, abs=1e-5) and found.slope == pytest.approx(1)
    assert found.correlation.estimate == pytest.approx(1) and found.even_error.estimate > 0.1
    assert (found.rows, found.score) == (3, "logit")


def test_without_a_gradient_refined_maps_are_left_out():
    model, inputs = lively("resnet"), batch_for("resnet", batch=2)
    with torch.inference_mode():
        found = part_removal(model, [inputs], rows=2, draws=5, seed=3)
    whole = part_removal(model, [inputs], rows=2, draws=5, seed=3)
    assert found.refined_error is None is found.refined_correlation and whole.refined_error is not None
    assert found.error.estimate == pytest.approx(whole.error.estimate)


def test_special_tokens_and_padding_stay():
    model, inputs = lively("bert"), batch_for("bert", batch=1)
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    inputs["attention_mask"][0, -3:] = 0
    (one,) = single_rows([inputs], 1)
    assert one["input_ids"].shape[1] == inputs["input_ids"].shape[1] - 3
    special = (int(one["input_ids"][0, 0]),)
    seen = []
    model.register_forward_pre_hook(lambda _m, _a, given: seen.append(given["input_ids"]), with_kwargs=True)
    part_removal(model, [inputs], rows=1, special_ids=special, mask_id=5)
    kept = one["input_ids"][0] == special[0]
    for ids in seen:
        assert (ids[:, kept] == special[0]).all()
    assert any((ids == 5).any() for ids in seen)


def test_unknown_words_are_parts_too():
    tokenizer = AutoTokenizer.from_pretrained(minilm_folder())
    options = tokenizer_options(tokenizer)
    assert tokenizer.unk_token_id not in options["special_ids"]
    assert {tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.pad_token_id} <= set(options["special_ids"])


def test_what_stands_for_a_part():
    pixels = torch.ones(1, 3, 2, 2)
    gone = torch.tensor([[[True, False], [False, False]]])
    assert removed({"pixel_values": pixels}, "pixel_values", gone)["pixel_values"][0, :, 0, 0].tolist() == [0, 0, 0]
    assert part_numbers((3, 2), 7).tolist() == [[0, 1], [2, 3], [4, 5]]
    assert part_numbers((8,), 3).tolist() == [0, 0, 0, 1, 1, 1, 2, 2]


def test_wrong_numbers_are_refused():
    model, inputs = lively("resnet"), batch_for("resnet")
    with pytest.raises(ValueError, match="rows must be at least 1 and draws at least 2"):
        part_removal(model, [inputs], rows=0)
    with pytest.raises(ValueError, match="no row has two parts"):
        part_removal(lively("bert"), [{"input_ids": torch.tensor([[7]])}])


def test_the_command_prints_and_writes_it(tmp_path):
    """Rows at even distances of the file, so that a file sorted by label gives rows of each."""
    model = lively("resnet", num_labels=2)
    model.save_pretrained(tmp_path / "model")
    image_processor_for(model.config, image_size=28).save_pretrained(tmp_path / "model")
    write_medmnist(tmp_path / "data.npz", 2, colour=True)
    given = ["evaluate", str(tmp_path / "model"), str(tmp_path / "data.npz"), "--parts", "4", "--device", "cpu"]
    printed = CliRunner().invoke(app, given)
    assert printed.exit_code == 0, printed.output
    assert "an even map" in printed.output and "4 rows without random parts" in printed.output
    record = json.loads(CliRunner().invoke(app, [*given, "--json"]).stdout)["part_removal"]
    assert record["rows"] == 4 and record["error"]["low"] <= record["error"]["estimate"] <= record["error"]["high"]
