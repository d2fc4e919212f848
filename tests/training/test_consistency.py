"""Part consistency derived again slowly in float64: what the map says of a part, and what parts are taught."""

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from peft import get_peft_model
from torch.nn.parallel import DistributedDataParallel

import hf_mhex
from hf_mhex.training import PartConsistency, part_consistency_loss
from hf_mhex.training import consistency as tested
from networks import IMAGES, ONE_GRAPH, SIGNALS, TEXTS, batch_for, checkpoint_activations, lively

SINGLE, SEVERAL, NUMBERS = "single_label_classification", "multi_label_classification", "regression"
MASK = 3


def labels_for(kind, rows):
    if kind == SINGLE:
        return torch.arange(rows) % 4
    values = torch.randn(rows, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return (values > 0).double() if kind == SEVERAL else values


def settings_for(family, **options):
    return PartConsistency(**({"mask_id": MASK} if family in TEXTS else {}), share=1.0, **options)


def seen(monkeypatch):
    """What the function draws, kept: the rows and their kept positions."""
    kept, draw = [], tested.draw_parts
    monkeypatch.setattr(tested, "draw_parts", lambda *given: kept.append(draw(*given)) or kept[-1])
    return kept


def by_hand(family, model, inputs, labels, parts, weight):
    """The loss row by row: whole rows, rows without their parts, and the map's sum over what is kept."""
    total = model(**inputs, labels=labels).loss * len(labels)
    maps = model.generate_saliency(**inputs, target="all").saliency
    term = 0.0
    for part in parts:
        row = {name: value[part.row : part.row + 1].clone() for name, value in inputs.items()}
        name = model.main_input_name
        if family in TEXTS and part.removal == "mask":
            row[name][0, ~part.keep] = MASK
        elif family in TEXTS:
            row["attention_mask"][0, ~part.keep] = 0
        else:
            row[name][0].masked_fill_(~part.keep, 0)
        answer = model(**row, labels=labels[part.row : part.row + 1])
        total = total + answer.loss
        said = (maps[part.row] * part.keep).flatten(1).sum(1)
        p, logit = answer.logits[0].softmax(-1), answer.logits[0]
        if model.config.problem_type == SINGLE:
            term = term + (p * (p.log() - said.softmax(-1).log())).sum()
        elif model.config.problem_type == NUMBERS:
            term = term + (logit - said).square().sum() / 4
        else:
            p, q = logit.sigmoid(), said.sigmoid()
            term = term + (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).sum() / 4
    return (total + weight * term) / len(labels)


@pytest.mark.parametrize("kind", [SINGLE, SEVERAL, NUMBERS])
@pytest.mark.parametrize("family", ["bert", "resnet", "vit", *SIGNALS])
def test_the_loss_is_what_its_formula_says(family, kind, monkeypatch):
    model = lively(family, problem_type=kind)
    inputs, labels = batch_for(family, torch.float64, batch=4), labels_for(kind, 4)
    kept = seen(monkeypatch)
    options = {} if family in TEXTS else {"removals": ("zero",)}
    found = part_consistency_loss(model, inputs, labels, settings_for(family, weight=1.7, **options))
    assert len(kept[0]) == 4
    assert torch.allclose(found, by_hand(family, model, inputs, labels, kept[0], 1.7), rtol=1e-9)


@pytest.mark.parametrize("family", [*TEXTS, *IMAGES, *SIGNALS])
def test_the_claim_is_the_map_over_what_is_kept(family, monkeypatch):
    """Carried to every block's own positions, rectified too; and hidden from attention, for texts."""
    model = lively(family, rectified=True, binary_share=0.5, instance_share=0.1)
    inputs, labels = batch_for(family, torch.float64, batch=4), labels_for(SINGLE, 4)
    kept = seen(monkeypatch)
    options = {"removals": ("attention",) if family in TEXTS else ("zero",)}
    found = part_consistency_loss(model, inputs, labels, settings_for(family, weight=3.0, **options))
    assert torch.allclose(found, by_hand(family, model, inputs, labels, kept[0], 3.0), rtol=1e-8)


@pytest.mark.parametrize("family, target", [("bert", "query"), ("vit", "qkv")])
def test_with_lora_the_loss_is_that_of_the_network_it_adapts(family, target):
    """A new adapter changes nothing, so the loss stays; and it learns."""
    model, settings = lively(family), settings_for(family)
    inputs, labels = batch_for(family, torch.float64, batch=4), labels_for(SINGLE, 4)
    losses = []
    for adapted in (False, True):
        if adapted:
            model = get_peft_model(model, hf_mhex.lora_config(model, r=2, target_modules=[target])).double().eval()
        draws = torch.Generator().manual_seed(7)
        losses.append(part_consistency_loss(model, inputs, labels, settings, generator=draws))
    assert torch.allclose(*losses, rtol=1e-9)
    losses[1].backward()
    assert any(weight.grad.any() for name, weight in model.named_parameters() if "lora_B" in name)


@ONE_GRAPH
@pytest.mark.parametrize("family", ["bert", "resnet"])
def test_a_compiled_network_has_the_loss_of_the_network_itself(family, request):
    """It leaves its graph where the map of a part is read."""
    request.addfinalizer(torch.compiler.reset)
    model, settings = lively(family), settings_for(family)
    inputs, labels = batch_for(family, torch.float64, batch=4), labels_for(SINGLE, 4)
    losses = []
    for called in (model, torch.compile(model, backend="eager")):
        draws = torch.Generator().manual_seed(7)
        losses.append(part_consistency_loss(called, inputs, labels, settings, generator=draws))
    assert torch.allclose(*losses, rtol=1e-9)
    losses[1].backward()
    assert model.heads[0].weight.grad.any()


@pytest.mark.parametrize("family", ["bert", "resnet", *SIGNALS])
def test_gradients_are_those_of_small_changes(family):
    model = lively(family)
    inputs, labels = batch_for(family, torch.float64, batch=3), labels_for(SINGLE, 3)

    def loss():
        draws = torch.Generator().manual_seed(5)
        return part_consistency_loss(model, inputs, labels, settings_for(family, weight=2.0), generator=draws)

    loss().backward()
    for weight in (model.heads[0].weight, model.base_model.gates[1].weight):
        place = weight.grad.abs().argmax().item()
        wanted, step = weight.grad.flatten()[place].item(), 1e-6
        with torch.no_grad():
            flat = weight.view(-1)
            flat[place] += step
            above = loss()
            flat[place] -= 2 * step
            below = loss()
            flat[place] += step
        assert (above - below).item() / (2 * step) == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("family", ["bert", "resnet", *SIGNALS])
def test_eight_rows_are_four_times_two(family):
    model = lively(family)
    inputs, labels = batch_for(family, torch.float64, batch=8), labels_for(SINGLE, 8)
    settings = PartConsistency(mask_id=MASK) if family in TEXTS else PartConsistency()
    found = []
    for size in (8, 2):
        model.zero_grad()
        draws = torch.Generator().manual_seed(2)
        for start in range(0, 8, size):
            some = {name: value[start : start + size] for name, value in inputs.items()}
            if family in TEXTS:  # each padded to its own longest
                longest = int(some["attention_mask"].sum(1).max())
                some = {name: value[:, :longest] for name, value in some.items()}
            given = labels[start : start + size]
            part_consistency_loss(model, some, given, settings, generator=draws, num_items_in_batch=8).backward()
        found.append(
            {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}
        )
    whole, accumulated = found
    for name, gradient in whole.items():
        assert torch.allclose(accumulated[name], gradient, rtol=1e-9, atol=1e-11), name


def test_everything_kept_costs_nothing_and_nothing_kept_is_taught_to_say_nothing(monkeypatch):
    model = lively("resnet")
    inputs, labels = batch_for("resnet", torch.float64, batch=3), labels_for(SINGLE, 3)
    for kept in (True, False):
        monkeypatch.setattr(tested, "kept_cells", lambda sides, most, draw, kept=kept: torch.full(sides, kept))
        found = tested.part_consistency_outputs(model, inputs, labels, PartConsistency(share=1.0, removals=("zero",)))
        empty = model(torch.zeros_like(inputs["pixel_values"])).logits.log_softmax(-1)
        uniform = (empty.exp() * (empty + torch.tensor(4.0).double().log())).sum(-1).mean()
        assert torch.allclose(found.part_loss, uniform * (not kept), atol=1e-9)


def test_one_channel_signals_and_every_fill():
    """[B, L] is [B, 1, L]; each fill stands where a part was, and nothing else changes."""
    row = torch.randn(2, 40, generator=torch.Generator().manual_seed(0))
    for kind in tested.FILLS:
        keep = tested.kept_cells((40,), 7, torch.Generator().manual_seed(1))
        part = tested.Part(0, keep, kind, torch.Generator().manual_seed(3))
        fill = tested.filled(row[None], [part])[0]
        again = tested.Part(0, keep, kind, torch.Generator().manual_seed(3))
        assert fill.shape == row.shape
        assert torch.allclose(tested.filled(row[None, 0], [again])[0], fill[0], atol=1e-6) or kind == "noise"
        if kind == "mean":
            assert torch.allclose(fill, row.mean(1, keepdim=True).expand_as(row))


@pytest.mark.parametrize("family", ["bert", "resnet"])
def test_processes_that_share_draws_lose_the_parts_of_one(family, monkeypatch):
    model, inputs, labels = lively(family), batch_for(family, torch.float64, batch=4), labels_for(SINGLE, 4)
    settings, kept = settings_for(family), seen(monkeypatch)

    def loss(rows, shard):
        part = {name: value[rows] for name, value in inputs.items()}
        draws, items = torch.Generator().manual_seed(7), torch.tensor(4)
        return part_consistency_loss(
            model, part, labels[rows], settings, generator=draws, num_items_in_batch=items, shard=shard
        )

    whole = loss(slice(0, 4), (0, 1))
    halves = [loss(slice(0, 2), (0, 2)), loss(slice(2, 4), (1, 2))]
    assert torch.allclose(sum(halves), whole, rtol=1e-9)
    assert all(torch.equal(one.keep, other.keep) for one, other in zip(kept[0], kept[1] + kept[2], strict=True))


def test_a_mask_token_outside_the_vocabulary_is_refused():
    settings = PartConsistency(mask_id=10**6)
    with pytest.raises(
        ValueError, match=r"mask_id must lie in \[0, \d+\].* got 1000000. Use the model's own tokenizer"
    ):
        part_consistency_loss(lively("bert"), batch_for("bert", batch=4), labels_for(SINGLE, 4), settings)


def test_special_tokens_and_padding_stay():
    ids, mask = torch.tensor([1, 9, 8, 7, 6, 2, 0, 0]), torch.tensor([1, 1, 1, 1, 1, 1, 0, 0])
    lost = torch.zeros(8, dtype=torch.bool)
    for seed in range(60):
        draw = torch.Generator().manual_seed(seed)
        lost |= ~tested.kept_tokens(ids, mask, PartConsistency(special_ids=(0, 1, 2)), draw)
    assert lost.tolist() == [False, True, True, True, True, False, False, False]


def test_rows_without_a_label_lose_nothing_and_the_share_is_kept():
    given, labels = torch.zeros(400, 3, 8, 8), torch.arange(400) % 2 * 101 - 100
    parts = tested.draw_parts(given, None, labels, PartConsistency(share=0.25), torch.Generator().manual_seed(0))
    assert all(labels[part.row] == 1 for part in parts)
    assert 30 < len(parts) < 72
    assert {part.removal for part in parts} == {"zero", "blur"}
    assert {int(part.keep.sum()) for part in parts} > {0}


def test_rows_whose_number_is_minus_100_lose_parts_as_others_do():
    given, labels = torch.zeros(8, 3, 8, 8), torch.full((8, 1), -100.0)
    assert len(tested.draw_parts(given, None, labels, PartConsistency(share=1.0), torch.Generator())) == 8
    model = lively("resnet", num_labels=1, problem_type=NUMBERS)
    inputs = batch_for("resnet", torch.float64, batch=4)
    found = part_consistency_loss(model, inputs, torch.full((4,), -100.0).double(), PartConsistency(share=1e-6))
    assert torch.allclose(found, model(**inputs, labels=torch.full((4,), -100.0).double()).loss)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"weight": -1.0}, "part_consistency"),
        ({"weight": float("inf")}, "part_consistency must be finite and at least 0, got inf"),
        ({"weight": float("nan")}, "part_consistency must be finite and at least 0, got nan"),
        ({"share": 0}, "part_share"),
        ({"parts": 1}, "parts"),
        ({"removals": ("black",)}, "part_removals"),
        ({"removals": ()}, "part_removals"),
    ],
)
def test_settings_that_cannot_be_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        PartConsistency(**options)


def test_numbers_of_parts_and_labels_are_asked_for():
    with pytest.raises(TypeError, match="parts must be an int, the cells along a side; got 2.5"):
        PartConsistency(parts=2.5)
    with pytest.raises(TypeError, match="labels must be given for part consistency, got NoneType; pass those of"):
        part_consistency_loss(lively("resnet"), batch_for("resnet", torch.float64, batch=2), None)


def test_removals_of_another_kind_are_refused():
    model, labels = lively("resnet"), labels_for(SINGLE, 2)
    inputs = batch_for("resnet", torch.float64, batch=2)
    with pytest.raises(ValueError, match="images and signals"):
        part_consistency_loss(model, inputs, labels, PartConsistency(removals=("mask",)))
    with pytest.raises(ValueError, match="mask_id"):
        given = batch_for("bert", torch.float64, batch=2)
        part_consistency_loss(lively("bert"), given, labels, PartConsistency(removals=("mask",)))
    with pytest.raises(ValueError, match="pixel_values"):
        part_consistency_loss(model, {}, labels)


def test_wrapped_or_checkpointed_it_is_the_same_and_every_weight_learns(tmp_path):
    inputs, labels = batch_for("resnet", torch.float64, batch=4), labels_for(SINGLE, 4)
    found = []
    dist.init_process_group("gloo", store=dist.FileStore(str(tmp_path / "store"), 1), rank=0, world_size=1)
    try:
        for how in ("alone", "checkpointed", "wrapped"):
            model = lively("resnet").train()
            for norm in (module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)):
                norm.eval()
            if how == "checkpointed":
                checkpoint_activations(model)
            called = DistributedDataParallel(model) if how == "wrapped" else model
            for _ in range(2):
                model.zero_grad()
                draws = torch.Generator().manual_seed(4)
                loss = part_consistency_loss(called, inputs, labels, generator=draws)
                loss.backward()
            found.append((loss.item(), {name: weight.grad for name, weight in model.named_parameters()}))
    finally:
        dist.destroy_process_group()
    (loss, gradients), *others = found
    assert None not in gradients.values()
    for other, same in others:
        assert other == pytest.approx(loss, rel=1e-12)
        for name, gradient in gradients.items():
            assert torch.allclose(same[name], gradient, rtol=1e-9, atol=1e-12), name


def test_a_plain_network_gets_the_usual_loss_of_both(monkeypatch):
    class Plain(torch.nn.Module):
        main_input_name = "pixel_values"

        def forward(self, pixel_values, labels, num_items_in_batch):
            logits = pixel_values.flatten(1)[:, :4]
            loss = F.cross_entropy(logits, labels, reduction="sum") / num_items_in_batch
            return Answer(loss, logits)

    class Answer(dict):
        def __init__(self, loss, logits):
            super().__init__(loss=loss, logits=logits)
            self.loss, self.logits = loss, logits

    pixels, labels = torch.randn(4, 3, 8, 8, dtype=torch.float64), torch.arange(4)
    kept = seen(monkeypatch)
    settings = PartConsistency(weight=0.0, share=1.0, removals=("zero",))
    found = part_consistency_loss(Plain(), {"pixel_values": pixels}, labels, settings)
    changed = torch.stack([pixels[part.row] * part.keep for part in kept[0]])
    wanted = sum(F.cross_entropy(values.flatten(1)[:, :4], labels) for values in (pixels, changed))
    assert torch.allclose(found, wanted)
