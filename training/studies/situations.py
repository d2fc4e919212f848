"""Situations that a model gets into, each tried on a small saved model of every family, with the largest difference.

    python -m hf_mhex.training.studies.situations tests/fixtures results

writes `results/situations.jsonl`, a line a family and situation, and the page `results/situations.md`. A run that was
cut short goes on where it stood; rows of other versions of the libraries are made again.
"""

from __future__ import annotations

import argparse
import copy
import json
import tempfile
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
from accelerate import Accelerator, cpu_offload, disk_offload, dispatch_model
from accelerate.state import AcceleratorState
from datasets import Dataset
from peft import PeftModel, get_peft_model
from torch import nn
from transformers import Trainer, TrainingArguments
from transformers.utils import logging

import hf_mhex
from hf_mhex.adapters import lora_config
from hf_mhex.benchmarks.journal import Journal
from hf_mhex.benchmarks.tables import markdown_table
from hf_mhex.environment import EXTRAS, environment, ran_on
from hf_mhex.export import export_onnx, export_program, graph_of, open_onnx, run_onnx
from hf_mhex.families import FAMILIES, Family
from hf_mhex.writing import write_whole

SEED = 0
ROWS = 4  # of the batch
SUM = 1e-5  # how far a map's sum may lie from its logit, relative to max(1, |logit|)
EXACT, HALF = 1e-4, float("inf")  # how far an answer may lie from the plain one, relative to its largest value
TARGET = 1  # the label that an exported graph explains
NAMES = ("logits", "block_logits", "saliency")


@dataclass(frozen=True)
class Case:
    """A small model in float32 and eval mode, a batch for it, and a folder to write to."""

    model: nn.Module
    batch: dict[str, torch.Tensor]
    folder: Path

    def copy(self) -> nn.Module:
        """A model of one's own."""
        return copy.deepcopy(self.model)

    def labels(self) -> torch.Tensor:
        """A label a row."""
        return torch.arange(ROWS) % self.model.config.num_labels


def answer(model, batch: dict, **options) -> dict[str, torch.Tensor]:
    """The logits and the maps of all labels, and what each map is to add up to."""
    found = model.generate_saliency(**{"target": "all", **batch, **options})
    given = options.get("target")
    return {**{name: found[name] for name in NAMES}, "goal": found.logits if given is None else found.logits[:, given]}


# Each situation yields pairs: what was answered in it, and what the same weights answer plainly.


def trained(case: Case) -> Iterator[tuple[dict, dict]]:
    """A model that `Trainer` has just trained in bfloat16, in training mode still, beside what it saved."""
    model = case.copy()
    rows = [{name: value[row].tolist() for name, value in case.batch.items()} for row in range(ROWS)]
    data = Dataset.from_list([row | {"labels": label} for row, label in zip(rows, case.labels().tolist())])
    arguments = TrainingArguments(
        str(case.folder / "run"),
        max_steps=3,
        per_device_train_batch_size=2,
        learning_rate=1e-3,
        use_cpu=True,
        bf16=True,
        seed=SEED,
        report_to="none",
        logging_strategy="no",
        save_strategy="no",
        disable_tqdm=True,
    )
    trainer = Trainer(model, arguments, train_dataset=data.with_format("torch"))
    trainer.train()
    trainer.save_model(case.folder / "trained")
    yield answer(trainer.model, case.batch), answer(type(model).from_pretrained(case.folder / "trained"), case.batch)


def accelerated(case: Case) -> Iterator[tuple[dict, dict]]:
    """A model in training mode after a loop over Accelerate in bfloat16, beside what was saved of it."""
    AcceleratorState._reset_state(reset_partial_state=True)  # it is one a process; Trainer does so too
    accelerator = Accelerator(cpu=True, mixed_precision="bf16")
    model, optimizer = accelerator.prepare(bare := case.copy().train(), torch.optim.SGD(bare.parameters(), lr=1e-3))
    for _ in range(3):
        accelerator.backward(model(**case.batch, labels=case.labels()).loss)
        optimizer.step()
        optimizer.zero_grad()
    whole = accelerator.unwrap_model(model)
    whole.save_pretrained(case.folder / "accelerated")
    again = type(whole).from_pretrained(case.folder / "accelerated")
    yield answer(whole, case.batch), answer(again, case.batch)


def adapted(case: Case) -> Iterator[tuple[dict, dict]]:
    """LoRA after three steps: active beside merged and loaded again, disabled beside the model before."""
    parts = dict(case.model.base_model.named_modules())
    matrices = [name for name, part in parts.items() if isinstance(part, nn.Linear)]
    matrices += [name for name, part in parts.items() if isinstance(part, (nn.Conv1d, nn.Conv2d)) and part.groups == 1]
    config = lora_config(case.model, r=2, target_modules=matrices)
    model = get_peft_model(case.copy(), config)
    optimizer = torch.optim.SGD([weight for weight in model.parameters() if weight.requires_grad], lr=1e-3)
    for _ in range(3):
        model.train()(**case.batch, labels=case.labels()).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    active = answer(model, case.batch)
    model.save_pretrained(case.folder / "adapter")
    loaded = PeftModel.from_pretrained(case.copy(), case.folder / "adapter").eval()
    yield active, answer(loaded, case.batch)
    yield active, answer(loaded.merge_and_unload(), case.batch)
    with model.eval().disable_adapter():
        yield answer(model, case.batch), answer(case.model, case.batch)


def offloaded(case: Case) -> Iterator[tuple[dict, dict]]:
    """All weights on the CPU or the disk until they are needed, and heads on the disk beside a body in memory."""
    plain, device = answer(case.model, case.batch), torch.device("cpu")
    yield answer(cpu_offload(case.copy(), execution_device=device), case.batch), plain
    yield answer(disk_offload(case.copy(), str(case.folder / "all"), execution_device=device), case.batch), plain
    parts = {case.model.base_model_prefix: "cpu", "heads": "disk"}
    spread = dispatch_model(case.copy(), parts, main_device="cpu", offload_dir=str(case.folder / "heads"))
    yield answer(spread, case.batch), plain


def halved(dtype: torch.dtype) -> Callable[[Case], Iterator[tuple[dict, dict]]]:
    """The situation of a half precision."""

    def tried(case: Case) -> Iterator[tuple[dict, dict]]:
        """Weights in half precision, and under autocast, beside float32."""
        plain = answer(case.model, case.batch)
        yield answer(case.copy().to(dtype), case.batch), plain
        with torch.autocast("cpu", dtype=dtype):
            yield answer(case.model, case.batch), plain

    return tried


def compiled(case: Case) -> Iterator[tuple[dict, dict]]:
    """`torch.compile` of the maps as one graph, by inductor."""
    torch.compiler.reset()
    function = torch.compile(case.model.generate_saliency, fullgraph=True)
    found = function(**case.batch, target="all")
    yield {**{name: found[name] for name in NAMES}, "goal": found.logits}, answer(case.model, case.batch)


def one_label(case: Case, found: dict[str, torch.Tensor]) -> tuple[dict, dict]:
    """The answer of an exported graph, for one label, beside the plain one."""
    return found | {"goal": found["logits"][:, TARGET]}, answer(case.model, case.batch, target=TARGET)


def exported(case: Case) -> Iterator[tuple[dict, dict]]:
    """`torch.export`, made on another batch, saved and loaded."""
    torch.export.save(export_program(case.model, target=TARGET), case.folder / "model.pt2")
    yield one_label(case, torch.export.load(case.folder / "model.pt2").module()(**case.batch))


def as_onnx(case: Case) -> Iterator[tuple[dict, dict]]:
    """ONNX in onnxruntime, made on another batch."""
    session = open_onnx(export_onnx(case.model, case.folder / "model.onnx", target=TARGET))
    yield one_label(case, {name: torch.from_numpy(found) for name, found in run_onnx(session, case.batch).items()})


def padded_left(case: Case) -> Iterator[tuple[dict, dict]]:
    """Texts padded on the left, their positions counted from the first token, beside those padded on the right."""
    if "attention_mask" not in case.batch:
        return
    plain, mask = answer(case.model, case.batch), case.batch["attention_mask"]
    places = torch.empty_like(mask)
    for row, kept in enumerate(mask.sum(-1).tolist()):
        places[row] = (torch.arange(mask.shape[1]) + kept) % mask.shape[1]
    turned = {name: value.gather(1, places) for name, value in case.batch.items()}
    found = [answer(case.model, turned)]
    if "position_ids" in case.model.input_names:
        counted = (turned["attention_mask"].cumsum(-1) - 1).clamp(min=0)
        found.append(answer(case.model, turned | {"position_ids": counted}))
    for given in found:  # back to the right
        there = places[:, None].expand_as(given["saliency"])
        given["saliency"] = torch.empty_like(given["saliency"]).scatter(2, there, given["saliency"])
    yield min(((given, plain) for given in found), key=lambda pair: apart(*pair))


def mixed(case: Case) -> Iterator[tuple[dict, dict]]:
    """Each row alone, without padding, beside the batch of rows of several lengths; images are of one size a batch."""
    plain = answer(case.model, case.batch)
    for row in range(ROWS):
        alone = {name: value[row : row + 1] for name, value in case.batch.items()}
        expected = {name: value[row : row + 1] for name, value in plain.items()}
        if "attention_mask" in alone:
            kept = int(alone["attention_mask"].sum())
            alone = {name: value[:, :kept] for name, value in alone.items()}
            expected["saliency"] = expected["saliency"][..., :kept]
        yield answer(case.model, alone), expected


def in_threads(case: Case) -> Iterator[tuple[dict, dict]]:
    """Eight threads on one model in training mode; a buffer that they change counts as infinite."""
    model, plain = case.copy().train(), answer(case.model, case.batch)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: answer(model, case.batch), range(16)))
    changed = any(not torch.equal(one, two) for one, two in zip(model.buffers(), case.model.buffers()))
    for given in found:
        yield given | ({"saliency": given["saliency"] + float("inf")} if changed else {}), plain


SITUATIONS: dict[str, tuple[Callable[[Case], Iterator[tuple[dict, dict]]], float]] = {  # and what an answer may differ
    "Trainer": (trained, EXACT),
    "Accelerate": (accelerated, EXACT),
    "PEFT": (adapted, EXACT),
    "offload": (offloaded, EXACT),
    "bf16": (halved(torch.bfloat16), HALF),
    "fp16": (halved(torch.float16), HALF),
    "compile": (compiled, EXACT),
    "torch.export": (exported, EXACT),
    "ONNX": (as_onnx, EXACT),
    "left padding": (padded_left, EXACT),
    "mixed sizes": (mixed, EXACT),
    "threads": (in_threads, EXACT),
}


def apart(found: dict, expected: dict) -> float:
    """The largest difference of logits and maps, relative to the largest plain value of each."""
    differences = []
    for name in NAMES:
        size = expected[name].abs().max()
        differences.append(((found[name] - expected[name]).abs().max() / size).item())
    return max(differences)


def off_sum(found: dict) -> float:
    """The largest |sum of a map - its logit| / max(1, |its logit|)."""
    goal = found["goal"]
    sums = found["saliency"].double().flatten(goal.ndim).sum(-1)
    return ((sums - goal).abs() / goal.abs().clamp(min=1)).max().item()


def saved_model(family: Family, fixtures: Path) -> Path:
    """The folder of the family's small model as this version saved it."""
    return fixtures / f"{family.model_type}-{hf_mhex.__version__}"


def load_case(family: Family, fixtures: Path, folder: Path) -> Case:
    """The family's saved model of this version, and a random batch of it."""
    model = family.classifier.from_pretrained(saved_model(family, fixtures))
    return Case(model, graph_of(model).example(ROWS, seed=SEED), folder)


def measure(family: Family, situation: str, fixtures: Path) -> dict:
    """One row: the largest difference of a sum and of an answer; None where the situation cannot come up."""
    torch.manual_seed(SEED)
    tried, bound = SITUATIONS[situation]
    row = {"family": family.name, "situation": situation, "seed": SEED, "environment": environment()}
    with tempfile.TemporaryDirectory() as folder:
        case = load_case(family, fixtures, Path(folder))
        try:
            pairs = list(tried(case))
        except Exception as error:  # whatever goes wrong is what the row is for
            return {**row, "works": False, "error": f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"}
    if not pairs:
        return {**row, "works": None}
    sums, answers = max(off_sum(found) for found, _ in pairs), max(apart(*pair) for pair in pairs)
    works = sums <= SUM and answers <= bound  # NaN is neither
    return {**row, "works": works, "sum": float(f"{sums:.2g}"), "answer": float(f"{answers:.2g}")}


def cell(row: dict | None) -> str:
    """A row in the table: its two differences."""
    if row is None:
        return "not tried"
    if row["works"] is None:
        return "-"
    return row.get("error") or f"{row['sum']:.0e}, {row['answer']:.0e}{'' if row['works'] else ' **no**'}"


def render(rows: list[dict]) -> str:
    """The page of the rows."""
    found = {(row["family"], row["situation"]): row for row in rows}
    names = list(dict.fromkeys(row["family"] for row in rows))
    labels = [FAMILIES[f"mhex_{name}"].label for name in names]
    table = [[situation, *(cell(found.get((name, situation))) for name in names)] for situation in SITUATIONS]
    tried = [row for row in rows if row["works"] is not None]
    said = [f"- {name}: {' '.join((tried.__doc__ or '').split())}" for name, (tried, _) in SITUATIONS.items()]
    page = [
        "# Situations that were tried",
        "",
        "Made by `make situations` on the small models in tests/fixtures, whose gates and heads are random: "
        f"{ran_on(rows)}, seed {SEED}, {ROWS} rows. {sum(row['works'] for row in tried)} of {len(tried)} hold.",
        "",
        "Each cell has two differences, the largest over rows, labels and ways. First |sum of a map - its logit| / "
        f"max(1, |logit|); it holds up to {SUM:g}. Then the answer (logits, blocks' logits, maps) against that of the "
        "same weights in float32, eval mode, one call, relative to its largest value; it holds up to "
        f"{EXACT:g}; in half precision it is told and not judged. A dash: does not come up.",
        "",
        markdown_table(["situation", *labels], table),
        "",
        *said,
    ]
    return "\n".join(page) + "\n"


def run(fixtures: Path, output: Path, families: list[Family], situations: list[str]) -> None:
    """Measure what has no row of these versions yet, and write the page anew after each row."""
    journal, present = Journal(output / "situations.jsonl"), environment()
    for family in families:
        for situation in situations:
            missing = situation == "ONNX" and not all(map(find_spec, EXTRAS["export"]))
            if missing or journal.find(family=family.name, situation=situation, environment=present):
                continue
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the libraries' own; what matters is in the row
                row = measure(family, situation, fixtures)
            journal.add(row)
            print(f"{family.name}, {situation}: {cell(row)}", flush=True)
            order = {name: place for place, name in enumerate(FAMILIES)}
            latest = {(line["family"], line["situation"]): line for line in journal.rows}
            lines = sorted(latest.values(), key=lambda line: order[f"mhex_{line['family']}"])
            write_whole(output / "situations.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
            write_whole(output / "situations.md", render(lines))


def main(arguments: list[str] | None = None) -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("fixtures", type=Path, help="folder of small saved models, FAMILY-VERSION")
    parser.add_argument("output", type=Path, help="folder of situations.jsonl and situations.md")
    parser.add_argument("--family", action="append", help="a family's name; all")
    parser.add_argument("--situation", action="append", choices=SITUATIONS, help="all")
    given = parser.parse_args(arguments)
    logging.disable_progress_bar()
    there = [family for family in FAMILIES.values() if saved_model(family, given.fixtures).is_dir()]
    unknown = set(given.family or ()) - {family.name for family in there}
    if unknown or not there:
        parser.error(f"{given.fixtures} has no model of {', '.join(sorted(unknown)) or 'any family'} of this version.")
    families = [family for family in there if given.family is None or family.name in given.family]
    run(given.fixtures, given.output, families, given.situation or list(SITUATIONS))


if __name__ == "__main__":
    main()
