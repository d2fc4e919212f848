"""A training of every family beside its plain network by the same recipe, and gates of low rank beside full ones.

    python -m hf_mhex.training.studies.families results/families [--only "roberta;vit"]
    make families ONLY="roberta;vit"

Images are trained from scratch on the embedded Fashion-MNIST. Texts are the embedded product reviews; they start from
the first layers of MiniLM, a BERT, whose weights BERT, RoBERTa, DistilBERT and DeBERTa-v2 can each hold in their own
form, and ModernBERT from its word embeddings alone. Signals are the embedded coffee. Every run is one JSON line in
OUTPUT.jsonl; a stopped study goes on where it was. The page beside it (.md) is written anew.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Annotated

import torch
import typer
from transformers import CONFIG_MAPPING, AutoModel, AutoTokenizer, PreTrainedModel

from hf_mhex.benchmarks.journal import Journal
from hf_mhex.benchmarks.tables import markdown_table
from hf_mhex.environment import environment, made_at, ran_on, source_commit
from hf_mhex.evaluation.intervals import student_interval
from hf_mhex.families import FAMILIES
from hf_mhex.training.models import minilm_folder
from hf_mhex.training.studies.accuracy import UNMASKED, Study, run_one
from hf_mhex.training.studies.signals import coffee_fold
from hf_mhex.writing import write_whole

LAYERS = 2  # of MiniLM's six
TEXT = ("num_train_epochs=2", "max_length=32", "per_device_train_batch_size=16", UNMASKED)
IMAGE = ("image_size=28", "model.config={}", "mosaics=0", "num_train_epochs=4")
BESIDE_PLAIN: dict[str, tuple[str, ...]] = {"plain": (), "MHEX": ()}


@dataclass(frozen=True)
class Entry:
    """Two networks that are compared.

    Args:
        about: what they are, in words. changes: of the recipe that both have. rate: learning rate of both.
        arms: the two, the first as the base: name to further changes; "plain" is the plain network.
        seeds: paired runs.
    """

    about: str
    changes: tuple[str, ...]
    rate: float
    arms: dict[str, tuple[str, ...]]
    seeds: int = 3

    @property
    def study(self) -> Study:
        """Recipe and measure."""
        image = any(change.startswith("architecture=") for change in self.changes)
        factor = None if image else 5.0  # a plain text classifier starts small and learns faster
        recipe = "sample_fashion_mnist" if image else "sample_product_reviews"
        return Study(recipe, (IMAGE if image else TEXT) + self.changes, ("accuracy",), (self.rate,), self.seeds, factor)


def image(about: str, architecture: str, arguments: str, rate: float, **others) -> Entry:
    """An entry of images, from scratch."""
    changes = (f"architecture={architecture}", f"architecture_kwargs={{{arguments}}}")
    family = "resnet" if architecture.startswith("resnet") else architecture.partition("_")[0]
    return Entry(about, (f"model.family={family}", *changes), rate, **{"arms": BESIDE_PLAIN, **others})


def text(family: str, start: str, rate: float = 2e-4, **others) -> Entry:
    """An entry of texts; its weights are made when it runs."""
    return Entry(start, (f"model.family={family}",), rate, **{"arms": BESIDE_PLAIN, **others})


FIRST = f"MiniLM's first {LAYERS} layers"
ENTRIES = {
    "resnet": image("4 basic blocks", "resnet18", "layers: [1, 1, 1, 1], channels: [16, 32, 48, 64]", 1e-2),
    "convnext": image(
        "4 blocks, patches of 2, stride 8", "convnext_atto",
        "depths: [1, 1, 1, 1], dims: [24, 32, 48, 64], patch_size: 2, output_stride: 8, ls_init_value: 0.1", 3e-3,
    ),
    "vit": image(
        "4 blocks, patches of 4", "vit_tiny_patch16_224",
        "img_size: 28, patch_size: 4, embed_dim: 64, depth: 4, num_heads: 4", 2e-3,
    ),
    "swin": image(
        "3 blocks, patches of 2, windows of 7", "swin_tiny_patch4_window7_224",
        "img_size: 28, patch_size: 2, embed_dim: 32, depths: [1, 2], num_heads: [2, 4], window_size: 7", 2e-3,
    ),
    "bert": text("bert", FIRST),
    "roberta": text("roberta", FIRST),
    "distilbert": text("distilbert", FIRST),
    "deberta_v2": text("deberta_v2", f"{FIRST}, and places relative to each other from 0"),
    "modernbert": text("modernbert", "MiniLM's word embeddings, 2 fresh layers", 5e-4),
    "signal": Entry("3 blocks from scratch", (), 2e-3, BESIDE_PLAIN, 5),
    "ranks, images": image(
        "ResNet of 4 bottlenecks; the low rank is the default", "resnet26",
        "layers: [1, 1, 1, 1], channels: [16, 24, 32, 48]", 1e-2, seeds=5,
        arms={"full gates": ("model.config.gate_rank=null",), "low rank": ()},
    ),
}  # fmt: skip


def run_study(output: Path, only: list[str] | None = None, say: Callable[[str], None] = print) -> list[dict]:
    """Make the rows that `output`.jsonl lacks, and return all of them.

    Args:
        only: names of ENTRIES; None for all. Raises ValueError for another.
    """
    unknown = sorted(set(only or ()) - set(ENTRIES))
    if unknown:
        raise ValueError(f"only must be among {'; '.join(ENTRIES)}; got {', '.join(unknown)}.")
    journal = Journal(output.with_suffix(".jsonl"))
    common = {"commit": source_commit(), "environment": environment()}
    for name in only or ENTRIES:
        for seed in range(1, ENTRIES[name].seeds + 1):
            for arm in ENTRIES[name].arms:
                about = {"entry": name, "arm": arm, "seed": seed}
                if journal.find(**about) is None:
                    say(f"{name}: {arm}, seed {seed}")
                    for found in run_entry(name, arm, seed):
                        journal.add(about | found | common)
    return journal.rows


def run_entry(name: str, arm: str, seed: int) -> list[dict]:
    """The rows of one run: of its arm alone, and for signals, whose study trains both at once, of its arm's part."""
    entry = ENTRIES[name]
    if name == "signal":
        record = coffee_fold(seed - 1)
        return [{"test": {"accuracy": record["plain" if arm == "plain" else "mhex"]}, "rows": rows_of(record)}]
    with tempfile.TemporaryDirectory() as folder:
        changes = list(entry.arms[arm])
        if entry.study.recipe == "sample_product_reviews":
            family = entry.changes[0].partition("=")[2]
            save_as(family, Path(folder))
            changes.append(f"model.weights={folder}")
        return [run_one(entry.study, "plain" if arm == "plain" else "MHEX", entry.rate, seed, changes, ("test",))]


def rows_of(record: dict) -> dict[str, int]:
    """Numbers of rows as the other runs name them."""
    return {"train": record["train"], "test": record["test"]}


@cache
def minilm() -> PreTrainedModel:
    """MiniLM's first layers."""
    return AutoModel.from_pretrained(minilm_folder(), num_hidden_layers=LAYERS)


def save_as(family: str, folder: Path) -> None:
    """Save a plain network of a text family that starts from MiniLM, with MiniLM's tokenizer.

    BERT, RoBERTa and DistilBERT are the same network under other names. DeBERTa-v2 is too while its relative
    positions are 0. ModernBERT has the word embeddings alone.
    """
    source, model_type = minilm(), next(f.sources[0] for f in FAMILIES.values() if f.name == family)
    given = source.config
    shape = {"vocab_size": given.vocab_size, "pad_token_id": given.pad_token_id}
    if family == "distilbert":
        shape |= {"dim": given.hidden_size, "n_layers": LAYERS, "n_heads": given.num_attention_heads}
        shape |= {"hidden_dim": given.intermediate_size, "max_position_embeddings": given.max_position_embeddings}
    else:
        shape |= {"hidden_size": given.hidden_size, "num_attention_heads": given.num_attention_heads}
        shape |= {"intermediate_size": given.intermediate_size, "num_hidden_layers": LAYERS}
        shape |= {"layer_norm_eps": given.layer_norm_eps, "type_vocab_size": given.type_vocab_size}
        shape |= {"max_position_embeddings": given.max_position_embeddings + (family == "roberta")}
    if family == "deberta_v2":
        shape |= {"relative_attention": True, "pos_att_type": ["c2p"], "share_att_key": True, "position_buckets": 32}
    if family == "modernbert":
        marks = {"cls_token_id": 101, "sep_token_id": 102, "bos_token_id": 101, "eos_token_id": 102}
        shape |= marks | {"num_hidden_layers": 2, "intermediate_size": given.hidden_size}
        del shape["type_vocab_size"], shape["layer_norm_eps"]
    torch.manual_seed(0)
    model = AutoModel.from_config(CONFIG_MAPPING[model_type](**shape))
    state = {RENAMED[family](name): value for name, value in source.state_dict().items()}
    MOVED.get(family, lambda _: None)(state)
    own = model.state_dict()
    wanted = [name for name in own if "pooler" not in name and "rel_embeddings" not in name]
    if family == "modernbert":
        wanted = ["embeddings.tok_embeddings.weight"]
    model.load_state_dict({name: state[name] for name in wanted}, strict=False)
    if family == "deberta_v2":
        torch.nn.init.zeros_(model.encoder.rel_embeddings.weight)
    model.save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(minilm_folder())
    tokenizer.model_input_names = ["input_ids", "attention_mask"]
    tokenizer.save_pretrained(folder)


def renamed(*pairs: tuple[str, str]) -> Callable[[str], str]:
    """Replacement of parts of a key, in order."""

    def rename(name: str) -> str:
        for old, new in pairs:
            name = name.replace(old, new)
        return name

    return rename


RENAMED = {  # BERT's keys as the families'
    "bert": renamed(),
    "roberta": renamed(),
    "modernbert": renamed(("word_embeddings", "tok_embeddings")),
    "deberta_v2": renamed(("self.query", "self.query_proj"), ("self.key", "self.key_proj"),
                          ("self.value", "self.value_proj")),
    "distilbert": renamed(
        ("encoder.layer", "transformer.layer"), ("attention.self.query", "attention.q_lin"),
        ("attention.self.key", "attention.k_lin"), ("attention.self.value", "attention.v_lin"),
        ("attention.output.dense", "attention.out_lin"), ("attention.output.LayerNorm", "sa_layer_norm"),
        ("intermediate.dense", "ffn.lin1"), ("output.dense", "ffn.lin2"), ("output.LayerNorm", "output_layer_norm"),
    ),
}  # fmt: skip


def move_roberta(state: dict) -> None:
    """RoBERTa counts positions from the padding token's number plus 1."""
    places = state["embeddings.position_embeddings.weight"]
    state["embeddings.position_embeddings.weight"] = torch.cat([torch.zeros_like(places[:1]), places])


def move_distilbert(state: dict) -> None:
    """DistilBERT has no segments: the first one's embedding goes into the words'."""
    state["embeddings.word_embeddings.weight"] = (
        state["embeddings.word_embeddings.weight"] + state["embeddings.token_type_embeddings.weight"][0]
    )


def move_deberta(state: dict) -> None:
    """DeBERTa divides scores by the root of 2 more, for its second kind of them."""
    for name in state:
        if "query_proj" in name:
            state[name] = state[name] * 2**0.5


MOVED = {"roberta": move_roberta, "distilbert": move_distilbert, "deberta_v2": move_deberta}


def accuracies(rows: list[dict], name: str, arm: str) -> dict[int, float]:
    """Test accuracy by seed."""
    return {row["seed"]: row["test"]["accuracy"] for row in rows if row["entry"] == name and row["arm"] == arm}


def line(rows: list[dict], name: str) -> list[str] | None:
    """An entry's line of the table; None below two pairs of seeds."""
    base, other = (accuracies(rows, name, arm) for arm in ENTRIES[name].arms)
    seeds = sorted(set(base) & set(other))
    if len(seeds) < 2:
        return None
    found = student_interval([other[seed] - base[seed] for seed in seeds])
    counts = next(row["rows"] for row in rows if row["entry"] == name)
    means = [f"{fmean(values[seed] for seed in seeds):.4f}" for values in (base, other)]
    difference = f"{100 * found.estimate:+.2f} [{100 * found.low:+.2f}, {100 * found.high:+.2f}]"
    rate = f"{ENTRIES[name].rate:g}"
    return [
        name,
        ENTRIES[name].about,
        f"{counts['train']}, {counts['test']}",
        rate,
        str(len(seeds)),
        *means,
        difference,
    ]


def render(rows: list[dict]) -> str:
    """The page of the rows."""
    parts = ["# A training of every family", INTRODUCTION, f"Made by `make families` on {ran_on(rows)}{made_at(rows)}."]
    heads = ["network", "start", "rows (training, test)", "learning rate", "seeds"]
    for title, arms in (("Beside the plain network", ("plain", "MHEX")), (GATES, ("full gates", "low rank"))):
        found = [line(rows, name) for name, entry in ENTRIES.items() if tuple(entry.arms) == arms]
        lines = [cells for cells in found if cells is not None]
        if lines:
            columns = [*heads, *arms, "difference in points"]
            parts += [f"## {title}", markdown_table(columns, lines)]
    return "\n\n".join(parts) + "\n"


GATES = "Gates of low rank beside full ones"
INTRODUCTION = f"""Small networks, both of a row by one recipe: accuracy of the last weights on the test rows, the mean
over seeds, and the difference paired by seed with its 95 % interval (Student's t; signals: by fold, of 12 test spectra
each). Images: the embedded Fashion-MNIST at 28 px, from scratch, with `{" ".join(IMAGE)}`.
Texts: the embedded product reviews with `{" ".join(TEXT)}`; the plain network's classifier, which starts small, learns
five times faster than the rest. Learning rates were set beforehand, none was chosen by these rows. Few rows and seeds:
this shows that each family learns as its plain network does, not how good it can be."""


def main(
    output: Annotated[Path, typer.Argument(help="Path without a suffix: .jsonl and .md are written.")],
    only: Annotated[str | None, typer.Option(help="Entries, separated by semicolons; a wrong one lists them.")] = None,
) -> None:
    """Train every family beside its plain network, and gates of low rank beside full ones."""
    names = [name.strip() for name in only.split(";")] if only else None
    rows = run_study(output, names, lambda said: typer.echo(said, err=True))
    page = output.with_suffix(".md")
    write_whole(page, render(rows))
    typer.echo(str(page))


if __name__ == "__main__":
    typer.run(main)
