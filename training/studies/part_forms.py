"""Other forms of part consistency, each in place of the one that stands: what they buy, over sets and seeds.

    python -m hf_mhex.training.studies.part_forms [SET ...] [--forms FORM] [--data FOLDER] [--seeds N]

Sets, networks and measures are those of `part_consistency`, with "vit" besides: a small vision transformer on the
radiographs. Every run is one JSON line in results/part_forms.jsonl, and a stopped study goes on where it was; `--table`
writes results/part_forms.md. A form changes one thing, by settings or by putting a function of its own in the place of
one of hf_mhex.training.consistency for the length of a run.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import mean
from typing import Annotated
from unittest.mock import patch

import torch
import torch.nn.functional as F
import typer
from torch import nn

from hf_mhex import evaluation as ev
from hf_mhex.benchmarks.journal import Journal
from hf_mhex.benchmarks.tables import markdown_table
from hf_mhex.modeling.mhex import eval_view
from hf_mhex.modeling.mhex_blocks import through
from hf_mhex.training import consistency
from hf_mhex.training.job import Job
from hf_mhex.training.studies.part_consistency import ARMS, ROWS, SAMPLES, against, run_one, text_measures
from hf_mhex.writing import write_whole

STANDS = "as it stands"
VIT = {"img_size": 28, "patch_size": 4, "embed_dim": 64, "depth": 4, "num_heads": 4}
TRIED: dict[str, tuple[str, list[str]]] = {
    **{name: (name, []) for name in ("shapes", "pneumoniamnist", "ag_news", "reviews")},
    "vit": (
        "pneumoniamnist",
        [
            "model.family=vit",
            "model.architecture=vit_tiny_patch16_224",
            "model.architecture_kwargs={" + ", ".join(f"{name}: {value}" for name, value in VIT.items()) + "}",
            "learning_rate=1e-3",
        ],
    ),
}


@dataclass(frozen=True)
class Form:
    """One form of the term: the sets it is tried on, what it changes in words, and how.

    Args:
        changes: overrides of the recipe. places: what goes in the place of functions of `consistency`.
        alter: changes the network before it is trained.
    """

    sets: tuple[str, ...]
    words: str
    changes: tuple[str, ...] = ()
    places: Callable[[], dict[str, Callable]] = dict
    alter: Callable[[nn.Module], None] | None = field(default=None)


class Told(nn.Module):
    """A network's first convolution that is also told which pixels are exactly zero, by a channel that starts at 0."""

    def __init__(self, convolution: nn.Conv2d):
        super().__init__()
        self.convolution = convolution
        like = (convolution.out_channels, convolution.kernel_size, convolution.stride, convolution.padding)
        self.told = nn.Conv2d(1, *like, bias=False)
        nn.init.zeros_(self.told.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Pixels [B, C, H, W] to the convolution's output."""
        return self.convolution(x) + self.told((x == 0).all(1, keepdim=True).to(x.dtype))


def tell(model: nn.Module) -> None:
    """Put `Told` in the place of the first convolution."""
    name, first = next((name, found) for name, found in model.named_modules() if isinstance(found, nn.Conv2d))
    parent, _, own = name.rpartition(".")
    setattr(model.get_submodule(parent), own, Told(first))


def enlarge(model: nn.Module) -> None:
    """Let the heads of the first half of the blocks start four times as large."""
    with torch.no_grad():
        for head in model.heads[: len(model.heads) // 2]:
            head.weight.mul_(4)


def still(side: int) -> Callable[[], dict]:
    """No gradient through the answer (0) or the claim (1) of the term."""

    def places():
        usual = consistency.disagreement

        def disagreement(*sides):
            answer, claim, problem_type = (s.detach() if n == side else s for n, s in enumerate(sides))
            return usual(answer, claim, problem_type)

        return {"disagreement": disagreement}

    return places


def other_images() -> dict:
    """Another row of the batch in the place of removed pixels."""
    return {"filled": lambda values, parts: values.roll(1, 0)}


def antithetic() -> dict:
    """Each part beside what it leaves out, for half as many rows."""
    usual, usual_pooled = consistency.draw_parts, consistency.pooled_part

    def draw_parts(given, mask, labels, settings, *draws):
        found = usual(given, mask, labels, replace(settings, share=settings.share / 2), *draws)
        return [part for one in found for part in (one, replace(one, keep=~one.keep))]

    def pooled_part(features, rows, keep, text):
        sides = [usual_pooled(features, rows[side::2], keep[side::2], text) for side in (0, 1)]
        return torch.stack(sides, 1).flatten(0, 1)

    return {"draw_parts": draw_parts, "pooled_part": pooled_part}


def shapley() -> dict:
    """FastSHAP's: sizes by the Shapley kernel, each part beside what it leaves out, squared error on logits."""

    def kept_number(parts, draw):
        sizes = torch.arange(1, parts)
        count = sizes[torch.multinomial(1 / (sizes * (parts - sizes)), 1, generator=draw)]
        return torch.rand(parts, generator=draw).argsort().argsort() < count

    def disagreement(answer, claim, problem_type):
        return (answer - claim).square().mean(-1)

    return antithetic() | {"kept_number": kept_number, "disagreement": disagreement}


def deleted() -> dict:
    """Removed tokens are taken out and the gap is closed."""

    def joined(model, inputs, rows, parts, keep, settings):
        given = inputs["input_ids"]
        mask = inputs.get("attention_mask", torch.ones_like(given))
        order = (~keep).long().argsort(dim=1, stable=True)
        more = {name: value[rows] for name, value in inputs.items()}
        more |= {"input_ids": given[rows].gather(1, order), "attention_mask": (mask[rows] * keep).gather(1, order)}
        whole = {**inputs, "attention_mask": mask}
        return {name: torch.cat([whole[name], value]) for name, value in more.items()}

    return {"joined": joined}


def patches_hidden() -> dict:
    """Removed patches are hidden inside attention, by the network's own `attention_mask`."""

    def joined(model, inputs, rows, parts, keep, settings):
        pixels, side = inputs["pixel_values"], VIT["patch_size"]
        seen = keep[:, side // 2 :: side, side // 2 :: side].long()
        whole = seen.new_ones(len(pixels), *seen.shape[1:])
        return {
            "pixel_values": torch.cat([pixels, pixels[rows]]),
            "attention_mask": torch.cat([whole, seen]),
        }

    return {"joined": joined}


def rolled_out() -> dict:
    """The term on the map carried back through attention, whose shares are held still and taken in eval mode."""
    usual_joined, usual_pooled = consistency.joined, consistency.pooled_part
    carried: list[torch.Tensor] = []

    def joined(model, inputs, rows, parts, keep, settings):
        own = {name: value[rows] for name, value in inputs.items()}
        with torch.no_grad():
            shares = eval_view(model).base_model(**own, rollout=True).shares
            vectors = keep[:, None].to(next(model.parameters()).dtype)
            carried.clear()
            for block in range(len(shares)):
                vectors = through(shares[block], vectors, back=False)
                carried.append(vectors[:, 0])
        return usual_joined(model, inputs, rows, parts, keep, settings)

    def pooled_part(features, rows, keep, text):
        return usual_pooled(features, rows, carried.pop(0), text)

    return {"joined": joined, "pooled_part": pooled_part}


IMAGES, TEXTS = ("shapes", "pneumoniamnist"), ("ag_news", "reviews")
EVERY = (*IMAGES, *TEXTS, "vit")


def removed_by(*names: str) -> tuple[str, ...]:
    """The override that names removals."""
    return (f"part_removals=[{', '.join(names)}]",)


FORMS = {
    STANDS: Form(EVERY, "zero or blur; [MASK]"),
    "answer still": Form((*IMAGES, *TEXTS), "no gradient through the answer", places=still(0)),
    "claim still": Form((*IMAGES, *TEXTS), "no gradient through the claim", places=still(1)),
    "zero": Form(IMAGES, "zero alone", removed_by("zero")),
    "zero, told": Form(IMAGES, "zero alone, told by a channel", removed_by("zero"), alter=tell),
    "noise": Form(IMAGES, "noise alone", removed_by("noise")),
    "other images": Form(IMAGES, "pixels of another image", places=other_images),
    "every fill": Form(IMAGES, "zero, mean, blur or noise", removed_by(*consistency.FILLS)),
    "weight 4": Form(IMAGES, "a weight of 4", ("part_consistency=4.0",)),
    "a quarter": Form(IMAGES, "a quarter of the rows", ("part_share=0.25",)),
    "less decay": Form(IMAGES, "head_decay=0.8", ("model.config.head_decay=0.8",)),
    "early heads": Form(IMAGES, "early heads start four times as large", alter=enlarge),
    "antithetic": Form(IMAGES, "each part beside what it leaves out", places=antithetic),
    "Shapley": Form(IMAGES, "Shapley's sizes, such pairs, squared error on logits", places=shapley),
    "attention": Form(TEXTS, "hidden inside attention", removed_by("attention")),
    "either": Form(TEXTS, "[MASK] or hidden inside attention", removed_by("mask", "attention")),
    "deletion": Form(TEXTS, "taken out", places=deleted),
    "rollout": Form(TEXTS, "the term on maps of rollout", places=rolled_out),
    "patches hidden": Form(("vit",), "patches hidden inside attention", places=patches_hidden),
}


@dataclass(frozen=True)
class PatchGame:
    """Patches of one image [C, H, W]; what is not kept is hidden inside attention."""

    model: nn.Module
    image: torch.Tensor
    target: int

    @property
    def features(self) -> int:
        """The number of patches."""
        return (VIT["img_size"] // VIT["patch_size"]) ** 2

    @torch.no_grad()
    def __call__(self, keep: torch.Tensor) -> torch.Tensor:
        """Logit of the target, [M], float64, for keep [M, patches]."""
        pixels = self.image.expand(len(keep), -1, -1, -1)
        return self.model(pixel_values=pixels, attention_mask=keep.long()).logits[:, self.target].double()


def hidden_measures(job: Job) -> dict[str, float]:
    """Sensitivity-n where patches are hidden inside attention, of a fifth of them."""
    model, found = job.model.eval(), []
    pixels = job.collate([job.validation[row] for row in range(ROWS)])["pixel_values"]
    answer = model.generate_saliency(pixel_values=pixels)
    side = VIT["patch_size"]
    sums = side**2 * F.avg_pool2d(answer.saliency[:, None], side).flatten(1)
    for image, values, target in zip(pixels, sums, answer.target.tolist()):
        game = PatchGame(model, image, target)
        found.append(ev.sensitivity_n(game, values, game.features // 5, SAMPLES))
    return {"sensitivity_n_hidden": mean(found)}


def run_form(name: str, form: str, seed: int, data: Path) -> dict:
    """Train one network by one form and measure its maps; texts also those of rollout."""
    chosen, (known, changes) = FORMS[form], TRIED[name]
    with ExitStack() as stack:
        for place, function in chosen.places().items():
            stack.enter_context(patch.object(consistency, place, function))
        row, job = run_one(known, [*ARMS["consistency"], *changes, *chosen.changes], seed, data, chosen.alter)
    if name in TEXTS:
        row |= {f"rollout_{measure}": round(value, 4) for measure, value in text_measures(job, True).items()}
    if name == "vit":
        row |= {measure: round(value, 4) for measure, value in hidden_measures(job).items()}
    return {"set": name, "form": form, "seed": seed} | row


COLUMNS = {  # what the page shows, by kind of set
    "image": ("accuracy", "auc", "pointing", "ins_del", "road", "sensitivity_n"),
    "vit": ("accuracy", "pointing", "ins_del", "road", "sensitivity_n", "sensitivity_n_hidden"),
    "text": (
        "accuracy",
        "comprehensiveness_mask",
        "sufficiency_mask",
        "sensitivity_n_mask",
        "sufficiency_delete",
        "sensitivity_n_delete",
        "rollout_comprehensiveness_mask",
        "rollout_sufficiency_mask",
        "rollout_sensitivity_n_mask",
    ),
}


def write_table(journal: Journal, path: Path) -> None:
    """Means over seeds and differences from the form that stands on the same seeds, a table a set."""
    text = ["# Other forms of part consistency", ""]
    text += [
        "`python -m hf_mhex.training.studies.part_forms` makes the rows of `part_forms.jsonl`, and with `--table` this",
        "page. Networks, sets, rows and measures are those of [the small trial](part_consistency.md), and as small.",
        "Below a mean: its difference from the form that stands, paired by seed, and the 95 % interval of Student's t.",
        "",
    ]
    for name in TRIED:
        kind = "text" if name in TEXTS else "vit" if name == "vit" else "image"
        by_form = {
            form: {row["seed"]: row for row in journal.rows if (row["set"], row["form"]) == (name, form)}
            for form in FORMS
        }
        lines = [
            [FORMS[form].words, str(len(own)), *(against(own, by_form[STANDS], m) for m in COLUMNS[kind])]
            for form, own in by_form.items()
            if own
        ]
        text += [f"## {name}", "", markdown_table(["form", "seeds", *COLUMNS[kind]], lines), ""]
    write_whole(path, "\n".join(text))


def main(
    sets: Annotated[list[str] | None, typer.Argument(help=f"among {', '.join(TRIED)}; all")] = None,
    data: Annotated[
        Path, typer.Option(help="folder of pneumoniamnist.npz and ag_news_test.csv; shapes.npz is made there")
    ] = Path("."),
    seeds: Annotated[int, typer.Option(help="how many, from 0")] = 3,
    forms: Annotated[list[str] | None, typer.Option(help=f"among {', '.join(FORMS)}; all")] = None,
    output: Annotated[Path, typer.Option(help="folder of rows and table")] = Path("results"),
    table: Annotated[bool, typer.Option(help="write the table alone")] = False,
) -> None:
    """Run what is missing, or write the table."""
    journal = Journal(output / "part_forms.jsonl")
    if table:
        write_table(journal, output / "part_forms.md")
        return
    for seed in range(seeds):
        for name in sets or TRIED:
            for form in forms or FORMS:
                if name in FORMS[form].sets and journal.find(set=name, form=form, seed=seed) is None:
                    journal.add(run_form(name, form, seed, data))
                    typer.echo(journal.rows[-1])


if __name__ == "__main__":
    typer.run(main)
