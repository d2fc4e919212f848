"""Conformance of MHEX classifiers: what holds for every family, to be checked on a checkpoint or family of your own."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from hf_mhex.data import Row
from hf_mhex.explaining.batch import Answer, Prepared, collate, prepare
from hf_mhex.export.graphs import export_program, graph_of
from hf_mhex.loading import load
from hf_mhex.modeling.mhex_maps import select_classes

CONTRASTS = (None, "mean", "runner_up", "softmax", 0)
ROUNDING = 1e-8  # how far two ways to one value may lie apart in float64, relative to the largest value
Finding = tuple[float, float, str]  # found, allowed, of what


@dataclass(frozen=True)
class CheckLine:
    """What one check found: the worst value, what is allowed, and of what; or `error`, why it could not be made."""

    name: str
    found: float
    allowed: float
    what: str
    error: str = ""

    @property
    def ok(self) -> bool:
        """Whether the check holds; NaN does not."""
        return not self.error and self.found <= self.allowed

    def __str__(self) -> str:
        said = self.error or (f"{self.found:.1e}, allowed {self.allowed:.0e} ({self.what})" if self.what else "skipped")
        return f"{'ok    ' if self.ok else 'FAILED'} {self.name}: {said}"


@dataclass(frozen=True)
class CheckReport:
    """What `check_model` found, a line a check."""

    lines: tuple[CheckLine, ...]

    @property
    def ok(self) -> bool:
        """Whether every check holds."""
        return all(line.ok for line in self.lines)

    def __str__(self) -> str:
        return "\n".join(map(str, self.lines))


def check_model(model, inputs, processor=None) -> CheckReport:
    """Check what every MHEX classifier promises, on copies of a model; `model` itself is left as it is.

    Comparisons are made in float64. Gates that are still at 0 say nothing: in the copies they are drawn at random.

    Args:
        model: an MHEX classifier of a registered family or of your own.
        inputs: a batch of at least two rows, as the model takes it ({"input_ids": ..., "attention_mask": ...}; texts of
            different lengths are best), or with `processor` a list of texts or images.
        processor: its tokenizer or image processor; it is then saved and loaded with the model.

    Raises AssertionError, with the whole report, where a check fails; ValueError or TypeError for inputs that are none.
    """
    if isinstance(inputs, Mapping):
        batch = dict(inputs)
    elif processor is None:
        raise TypeError(f"inputs must be a dict of tensors where no processor is given, got {type(inputs).__name__}.")
    else:
        batch = _tensors(inputs, model, processor)
    rows = len(next(iter(batch.values()))) if batch else 0
    if rows < 2:
        raise ValueError(f"inputs must hold at least two rows, got {rows}: rows are compared with the batch.")
    batch = {name: value.to(model.device) for name, value in batch.items()}
    single = _lively(_copy(model, torch.float32), batch)
    with torch.random.fork_rng():
        report = CheckReport(tuple(_run(name, check, single, batch, processor) for name, check in CHECKS.items()))
    if not report.ok:
        raise AssertionError(f"{type(model).__name__} does not hold what an MHEX classifier promises:\n{report}")
    return report


def _run(name: str, check: Callable, model, batch: dict, processor) -> CheckLine:
    """The worst finding of a check, relative to what is allowed; what it raises becomes its line."""
    try:
        findings = list(check(model, batch, processor))
    except Exception as error:
        return CheckLine(name, 0.0, 0.0, "", f"{type(error).__name__}: {error}")
    broken = [finding for finding in findings if not finding[0] <= finding[1]]
    return CheckLine(name, *(broken or sorted(findings, key=lambda f: f[0] / f[1] if f[1] else 0) or [(0, 0, "")])[-1])


def _tensors(values, model, processor) -> dict[str, torch.Tensor]:
    """The batch of a list of texts or images; whatever reading one raises."""
    found = list(prepare([Row(number, "", value) for number, value in enumerate(values)], model, processor))
    for item in found:
        if isinstance(item, Answer) and item.error is not None:
            raise item.error
    return collate([item for item in found if isinstance(item, Prepared)], processor)


def _copy(model, dtype: torch.dtype):
    """A copy in eval mode and another dtype, all of whose weights learn."""
    return copy.deepcopy(model).to(dtype).eval().requires_grad_(True)


@torch.no_grad()
def _lively(model, batch: dict):
    """The model with random gates where they are 0, of scores of size 1."""
    generator = torch.Generator().manual_seed(0)
    for block, gate in enumerate(model.base_model.gates):
        if not gate.weight.any():
            gate.weight.copy_(torch.randn(gate.weight.shape, generator=generator))
            gate.weight.div_(model.base_model(**batch).gate_scores[block].std() + 1e-9)
    return model


def _apart(found: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest difference, relative to the largest expected value; infinite for other shapes."""
    if found.shape != expected.shape:
        return float("inf")
    size = expected.abs().max().item()
    return (found - expected).abs().max().item() / (size or 1.0)


def _answers(found, expected, what: str, allowed: float) -> Iterator[Finding]:
    """Compare two answers of `generate_saliency`, tensor by tensor."""
    for name in ("logits", "block_logits", "explained", "saliency"):
        yield _apart(found[name], expected[name]), allowed, f"{name}, {what}"
    for block, maps in enumerate(zip(found.block_saliency, expected.block_saliency)):
        yield _apart(*maps), allowed, f"map of block {block}, {what}"


def _sums(model, batch: dict, allowed: float, **options) -> Iterator[Finding]:
    """How far maps are from adding up to logits, relative to the largest logit (or 1)."""
    found = model.generate_saliency(**batch, target="all", **options)
    labels, size = model.config.num_labels, max(1.0, found.logits.abs().max().item())
    every, contrast = found.logits.new_zeros(()), options.get("contrast")
    rows = select_classes("all", contrast, labels, every, found.logits)[2].expand(len(found.logits), -1, -1)
    what = ", ".join(f"{name}={value!r}" for name, value in options.items()) or "target='all'"
    expected = (rows * found.logits[:, None]).sum(-1)
    yield (found.explained - expected).abs().max().item() / size, allowed, f"explained, {what}"
    yield (found.saliency.flatten(2).sum(-1) - expected).abs().max().item() / size, allowed, f"map, {what}"
    for block, maps in enumerate(found.block_saliency):
        expected = (rows * found.block_logits[:, block, None]).sum(-1)
        yield (maps.flatten(2).sum(-1) - expected).abs().max().item() / size, allowed, f"block {block}, {what}"
    for target in range(labels):
        if target == options.get("contrast"):  # which is refused
            continue
        one = model.generate_saliency(**batch, target=target, **options)
        yield _apart(one.saliency, found.saliency[:, target]), 1e-3, f"map of target {target} alone, {what}"


def check_sum(model, batch, _) -> Iterator[Finding]:
    """Maps of every contrast and target add up to the logit, to 1e-5 of it in float32."""
    for contrast in CONTRASTS if model.config.num_labels > 1 else CONTRASTS[:1]:
        yield from _sums(model, batch, 1e-5, contrast=contrast)
    if model.base_model.can_roll_out:
        yield from _sums(model, batch, 1e-5, rollout=True)


def check_rows(model, batch, _) -> Iterator[Finding]:
    """A row has the answer that it has alone."""
    model = _copy(model, torch.float64)
    together = model.generate_saliency(**batch)
    for row in range(len(together.logits)):
        alone = model.generate_saliency(**{name: value[row : row + 1] for name, value in batch.items()})
        for name in ("logits", "block_logits", "explained", "saliency"):
            yield _apart(alone[name][0], together[name][row]), ROUNDING, f"{name} of row {row} alone"


def check_padding(model, batch, processor) -> Iterator[Finding]:
    """Padding on either side changes nothing and gets exactly 0; so do positions of an image that are masked."""
    if "attention_mask" not in model.input_names:
        return
    model = _copy(model, torch.float64)
    if "input_ids" not in batch:
        yield from _masked_positions(model, batch)
        return
    pad = getattr(processor, "pad_token_id", None)
    pad = (model.config.pad_token_id or 0) if pad is None else pad
    mask = batch.get("attention_mask", torch.ones_like(batch["input_ids"])).bool()
    for row, kept in enumerate(mask):
        ids = batch["input_ids"][row, kept][None]
        alone = model.generate_saliency(input_ids=ids, attention_mask=torch.ones_like(ids))
        more = min(3, model.max_tokens - ids.shape[1])
        for side, sizes in (("left", (more, 0)), ("right", (0, more))):
            longer = {"input_ids": nn.functional.pad(ids, sizes, value=pad)}
            longer["attention_mask"] = nn.functional.pad(torch.ones_like(ids), sizes)
            inside = longer["attention_mask"].bool()[0]
            places = (torch.arange(len(inside), device=ids.device) - sizes[0]).clamp(min=0)[None]
            answers = [model.generate_saliency(**longer)]  # its positions may be counted from the padding, or be given
            answers += [model.generate_saliency(**longer, position_ids=places)] if sizes[0] else []
            found = min(answers, key=lambda answer: _apart(answer.logits, alone.logits))
            what = f"row {row} padded on the {side}"
            yield _apart(found.logits, alone.logits), ROUNDING, f"logits, {what}"
            yield _apart(found.saliency[:, inside], alone.saliency), ROUNDING, f"map, {what}"
            yield found.saliency[:, ~inside].abs().sum().item(), 0.0, f"map of the padding, {what}"


def _masked_positions(model, batch: dict) -> Iterator[Finding]:
    whole = model.generate_saliency(**batch)
    places = whole.block_saliency[0].flatten(1)
    mask = torch.ones_like(places, dtype=torch.bool)
    yield from _answers(model.generate_saliency(**batch, attention_mask=mask), whole, "mask of True", ROUNDING)
    mask[:, ::2] = False
    found = model.generate_saliency(**batch, attention_mask=mask)
    for block, maps in enumerate(found.block_saliency):
        yield maps.flatten(1)[~mask].abs().sum().item(), 0.0, f"masked positions of block {block}"
    size = max(1.0, found.logits.abs().max().item())
    yield (found.saliency.flatten(1).sum(-1) - found.explained).abs().max().item() / size, 1e-10, "map under a mask"


def check_saving(model, batch, processor) -> Iterator[Finding]:
    """A saved model is loaded with the same answers; with a processor by `hf_mhex.load`."""
    expected = model.generate_saliency(**batch)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        if processor is None:
            loaded = type(model).from_pretrained(folder)
        else:
            processor.save_pretrained(folder)
            loaded, again = load(folder)
            yield float(type(again) is not type(processor)), 0.0, "class of the loaded processor"
        for name, value in loaded.state_dict().items():
            yield float(not torch.equal(value.to(model.device), model.state_dict()[name])), 0.0, f"change of {name}"
        yield from _answers(loaded.to(model.device).generate_saliency(**batch), expected, "loaded again", 1e-5)


def check_half_precision(model, batch, _) -> Iterator[Finding]:
    """In bfloat16 and float16 logits and maps are float32 and add up; a network that overflows is passed over."""
    for dtype in (torch.bfloat16, torch.float16):
        half = _copy(model, dtype)
        found = half.generate_saliency(**batch)
        if found.logits.isfinite().all():
            wrong = {found.logits.dtype, found.saliency.dtype, found.block_saliency[0].dtype} - {torch.float32}
            yield float(len(wrong)), 0.0, f"dtypes other than float32 in {dtype}"
            yield from _sums(half, batch, 1e-5)


def check_training_mode(model, batch, _) -> Iterator[Finding]:
    """A map in training mode is that of eval mode, and changes no buffer."""
    expected, trained = model.generate_saliency(**batch), _copy(model, torch.float32).train()
    yield from _answers(trained.generate_saliency(**batch), expected, "in training mode", 0.0)
    for (name, value), (_, before) in zip(trained.named_buffers(), model.named_buffers()):
        yield float(not torch.equal(value, before)), 0.0, f"change of the buffer {name}"


def _gradients(model, batch: dict, checkpointing: bool) -> dict[str, torch.Tensor | None]:
    """The gradients of the loss in training mode."""
    model, config = _copy(model, torch.float64).train(), model.config
    if checkpointing:
        # Its name before transformers 5.24 is gradient_checkpointing_enable.
        enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
        enable({"use_reentrant": False})
    rows, labels = len(next(iter(batch.values()))), torch.arange(config.num_labels)
    goal = (labels[None] == torch.arange(rows)[:, None] % config.num_labels).double()
    if config.problem_type in (None, "single_label_classification") and config.num_labels > 1:
        goal = goal.argmax(-1)
    torch.manual_seed(0)
    model(**batch, labels=goal.to(model.device)).loss.backward()
    return {name: weight.grad for name, weight in model.named_parameters()}


def check_gradients(model, batch, _) -> Iterator[Finding]:
    """Every weight has a finite gradient, every gate and head one that is not 0."""
    for name, gradient in _gradients(model, batch, False).items():
        own = ".gate." in name or name.startswith("heads.")
        missing = gradient is None or not gradient.isfinite().all() or (own and not gradient.any())
        yield float(missing), 0.0, f"no gradient of {name}"


def check_checkpointing(model, batch, _) -> Iterator[Finding]:
    """Checkpointing changes no gradient."""
    if model.supports_gradient_checkpointing:
        plain, checkpointed = (_gradients(model, batch, way) for way in (False, True))
        for name, gradient in plain.items():
            if gradient is not None:
                yield _apart(checkpointed[name], gradient), ROUNDING, f"gradient of {name}"


def check_export(model, *_) -> Iterator[Finding]:
    """`torch.export` gives the answers of the model."""
    graph = graph_of(model)
    example = graph.example(batch=3, seed=1)
    found = export_program(model).module()(**example)
    for name, expected in graph(**example).items():
        yield _apart(found[name], expected), 1e-4, f"{name} of the exported graph"


CHECKS: dict[str, Callable] = {
    "sum": check_sum,
    "rows": check_rows,
    "padding": check_padding,
    "saving": check_saving,
    "half precision": check_half_precision,
    "training mode": check_training_mode,
    "gradients": check_gradients,
    "checkpointing": check_checkpointing,
    "export": check_export,
}
