"""Which lever makes the maps better, and what does it cost? One factor at a time from a fixed base, over seeds.

    mhex benchmark ablation images source=FOLDER_OF_FASHION_MNIST      # or: make ablation SET=images SOURCE=...
    mhex benchmark ablation radiographs source=pneumoniamnist.npz

Everything is measured on validation rows: defaults are chosen here, and the published tables see the test rows. Every
run is one JSON line in OUTPUT/SET.jsonl; a stopped study goes on where it was.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import fmean, median

from hf_mhex.environment import environment, source_commit
from hf_mhex.journal import Journal
from hf_mhex.quality.images import ImageMeasures
from hf_mhex.quality.loading import image_part, text_part
from hf_mhex.quality.methods import mhex_map
from hf_mhex.quality.parts import Sizes
from hf_mhex.quality.texts import TextMeasures
from hf_mhex.training.accuracy import LAST_WEIGHTS
from hf_mhex.training.block_weights import fit_block_weights, weighed_map
from hf_mhex.training.guided_upsampling import guided_map
from hf_mhex.training.job import Job, prepare
from hf_mhex.training.recipe import load_recipe
from hf_mhex.training.run import make_trainer, scores
from hf_mhex.training.variants import (
    cut_mix,
    distil_heads,
    erase_patches,
    fade_block_losses,
    mask_tokens,
    weigh_block_losses,
)

ROWS = 1000  # validation rows that mosaics and texts are drawn from
SIZES = Sizes(rows=48, questions=108, slow=24)
FITTED = 64  # validation rows, the last ones, that weights of blocks are fitted on
RECTIFIED, MOSAICS, FEWER = "model.config.rectified=true", "mosaics=0.5", "mosaics=0.25"
EARLY, BLOCKS = "mosaic_epochs=6", "model.config.deep_supervision_weight=0.2"
SLOW_HEADS = "head_learning_rate={}"  # of gates and heads; the body's is 3e-3
FASTER = "learning_rate=1e-2"
INSTANCE = "model.config.instance_share={}"
BINARY, HALF = "model.config.binary_share=1", "model.config.binary_share=0.5"
POINTING = (RECTIFIED, HALF, MOSAICS, EARLY)
BODY = "model.architecture_kwargs={{layers: [1, 2, 2, 1], channels: [32, 64, 96, 128], output_stride: {}}}"
VARIANTS = {  # done to the trainer before it trains
    "deeper heads' losses weigh more": partial(weigh_block_losses, deeper=True),
    "earlier heads' losses weigh more": partial(weigh_block_losses, deeper=False),
    "block losses fade out": fade_block_losses,
    "heads learn from the last": distil_heads,
    "random erasing": erase_patches,
    "CutMix": cut_mix,
    "token masking": mask_tokens,
}


@dataclass(frozen=True)
class Ablation:
    """One family: the recipe with its changes, the factors (overrides by name), and the maps that are judged.

    A factor that no override makes is among `VARIANTS`. `maps` and `fitted` are options of `generate_saliency`; the
    blocks of `fitted` weigh what block_weights.py finds. `others` are maps that a function makes.
    """

    recipe: str
    changes: tuple[str, ...]
    factors: dict[str, tuple[str, ...]]
    maps: dict[str, dict]
    fitted: dict[str, dict] = field(default_factory=dict)
    others: dict[str, Callable] = field(default_factory=dict)


IMAGE_MAPS = {"defaults": {}, "softmax contrast": {"contrast": "softmax"}, "last block": {"blocks": [-1]}}
GUIDED = {"guided upsampling": guided_map}
ABLATIONS = {
    "images": Ablation(
        "fashion_mnist",
        (
            "max_train_rows=5000",
            "num_train_epochs=8",
            "learning_rate=3e-3",
            "model.config={}",
            "mosaics=0",
            "mosaic_epochs=null",
        ),
        {
            "base": (),
            "gates of rank 16": ("model.config.gate_rank=16",),
            "rectified": (RECTIFIED,),
            "binary loss": (BINARY,),
            "mosaics": (MOSAICS,),
            "rectified, binary loss, mosaics": (RECTIFIED, BINARY, MOSAICS),
            "rectified, half binary loss, mosaics": (RECTIFIED, HALF, MOSAICS),
            "rectified, half binary loss, fewer mosaics": (RECTIFIED, HALF, FEWER),
            "rectified, half binary loss, mosaics in 6 of 8 epochs": POINTING,
            "the same, heads ten times slower": (*POINTING, SLOW_HEADS.format("3e-4")),
            "the same, heads thirty times slower": (*POINTING, SLOW_HEADS.format("1e-4")),
            "the same, heads a hundred times slower": (*POINTING, SLOW_HEADS.format("3e-5")),
            "the same, all at a rate of 1e-2": (*POINTING, FASTER),
            "at 1e-2, instance share 0.02": (*POINTING, FASTER, INSTANCE.format(0.02)),
            "at 1e-2, instance share 0.05": (*POINTING, FASTER, INSTANCE.format(0.05)),
            "at 1e-2, instance share 0.2": (*POINTING, FASTER, INSTANCE.format(0.2)),
            "at 1e-2, stride 16": (*POINTING, FASTER, BODY.format(16)),
            "at 1e-2, stride 16, instance share 0.05": (*POINTING, FASTER, BODY.format(16), INSTANCE.format(0.05)),
            "the same, stride 32 instead of 8": (*POINTING, BODY.format(32)),
            "base at a rate of 1e-2": (FASTER,),
            "block losses at 0.2": (BLOCKS,),
            "block losses fade out": (),
            "deeper heads' losses weigh more": (),
            "earlier heads' losses weigh more": (),
            "heads learn from the last": (),
            "random erasing": (),
            "CutMix": (),
            "antialiased strides": ("model.architecture=resnetblur18",),
            "stride 16 instead of 8": (BODY.format(16),),
            "stride 32 instead of 8": (BODY.format(32),),
        },
        IMAGE_MAPS,
        {"fitted weights": {}},
        GUIDED,
    ),
    "radiographs": Ablation(
        "medmnist/pneumoniamnist",
        ("image_size=28", "num_train_epochs=10", "model.config={}", "metrics=[accuracy]"),
        {
            "base": (),
            "rectified": (RECTIFIED,),
            "half binary loss": (HALF,),
            "rectified, half binary loss": (RECTIFIED, HALF),
            "half binary loss, instance share 0.2": (HALF, INSTANCE.format(0.2)),
        },
        IMAGE_MAPS,
        others=GUIDED,
    ),
    "texts": Ablation(
        "sample_product_reviews",
        ("model.config={}",),
        {
            "base": (),
            "rectified": (RECTIFIED,),
            "binary loss": (BINARY,),
            "rectified, binary loss": (RECTIFIED, BINARY),
            "binary loss, instance share 0.2": (BINARY, INSTANCE.format(0.2)),
            "block losses fade out": (),
            "deeper heads' losses weigh more": (),
            "earlier heads' losses weigh more": (),
            "heads learn from the last": (),
            "token masking": (),
        },
        {
            "defaults": {},
            "softmax contrast": {"contrast": "softmax"},
            "first block": {"blocks": [0]},
            "first three blocks alike": {"blocks": [0, 1, 2], "decay": 1.0},
            "rollout": {"rollout": True},
            "rollout, softmax contrast, blocks alike": {"rollout": True, "contrast": "softmax", "decay": 1.0},
        },
        {"fitted weights": {}, "rollout, fitted weights": {"rollout": True}},
    ),
}


def run_ablation(
    name: str,
    overrides: Iterable[str],
    output: Path,
    seeds: int = 3,
    factors: Iterable[str] | None = None,
    command: str = "",
    say: Callable[[str], None] = print,
) -> list[dict]:
    """Make the rows that `output`/NAME.jsonl lacks, and return all of them.

    Raises ValueError for a set or a factor that is not there, and whatever training raises.
    """
    if name not in ABLATIONS:
        raise ValueError(f"SET must be one of {', '.join(ABLATIONS)}; got {name!r}.")
    ablation, journal = ABLATIONS[name], Journal(output / f"{name}.jsonl")
    wanted = list(ablation.factors if factors is None else factors)
    unknown = sorted(set(wanted) - set(ablation.factors))
    if unknown:
        raise ValueError(f"factors must be among {'; '.join(ablation.factors)}; got {'; '.join(unknown)}.")
    common = {"command": command, "commit": source_commit(), "environment": environment()}
    for seed in range(seeds):
        for factor in wanted:
            about = {"factor": factor, "seed": seed}
            if journal.find(**about) is None:
                say(f"{name}: {factor}, seed {seed}")
                journal.add(about | run_one(ablation, factor, seed, overrides) | common)
    return journal.rows


def run_one(ablation: Ablation, factor: str, seed: int, overrides: Iterable[str]) -> dict:
    """Train one network, and measure its accuracy and its maps on validation rows."""
    changes = [*ablation.changes, *LAST_WEIGHTS, *ablation.factors[factor], f"training.seed={seed}", *overrides]
    recipe = load_recipe(ablation.recipe, changes)
    with tempfile.TemporaryDirectory() as folder:
        job = prepare(recipe, seed)
        trainer = make_trainer(recipe, recipe.training_arguments(Path(folder)), job)
        if factor in VARIANTS:
            VARIANTS[factor](trainer)
        took = trainer.train().metrics["train_runtime"]
        accuracy = scores(trainer, job.validation, "validation")["accuracy"]
    measures = measures_for(job, recipe.model.family, slice(ROWS), SIZES)
    calls = {name: partial(mhex_map, **options) for name, options in ablation.maps.items()} | ablation.others
    found = {name: judge(measures, call) for name, call in calls.items()}
    weights = {}
    if ablation.fitted:
        last = measures_for(job, recipe.model.family, slice(-FITTED, None), replace(SIZES, rows=FITTED))
        weights = {name: fit_block_weights(last, options) for name, options in ablation.fitted.items()}
    for name, fitted in weights.items():
        found[name] = judge(measures, partial(weighed_map, weights=fitted, options=ablation.fitted[name]))
    return {
        "accuracy": accuracy,
        "maps": found,
        "block_weights": {name: [round(weight, 5) for weight in fitted.tolist()] for name, fitted in weights.items()},
        "rows": len(job.train),
        "minutes": round(took / 60, 2),
    }


def measures_for(job: Job, family: str, wanted: slice, sizes: Sizes) -> ImageMeasures | TextMeasures:
    """The measures over the wanted validation rows; their order is that of the split, drawn by its seed."""
    model, rows = job.model.eval(), job.validation
    labels = [int(label) for label in rows.labels[wanted]]
    if family == "resnet":
        pictures = [rows[row]["image"] for row in range(len(rows))[wanted]]
        return ImageMeasures(model, image_part(pictures, labels, job.processor, model.config.num_channels), sizes)
    texts = [job.processor.decode(ids, skip_special_tokens=True) for ids in rows.encodings["input_ids"][wanted]]
    return TextMeasures(model, text_part(texts, labels, job.processor, job.processor.model_max_length), sizes)


def judge(measures: ImageMeasures | TextMeasures, call: Callable) -> dict[str, float]:
    """Measures of the maps that `call` makes: means, of the Grid Pointing Game the median too."""
    if isinstance(measures, TextMeasures):
        found = measures.measure("rows", call)
        names = [f"{what} ({how})" for what in ("comprehensiveness", "sufficiency") for how in ("mask", "delete")]
        return {name: round(fmean(found[name]), 5) for name in names}
    result = {}
    for grid in ("2x2", "3x3"):
        values = measures.measure(f"grid {grid}", call)[f"grid pointing {grid}"]
        result |= {f"grid pointing {grid}": round(fmean(values), 5), f"{grid}, median": round(median(values), 5)}
    return result | {"insertion - deletion": round(fmean(measures.measure("choice", call)["choice"]), 5)}
