"""Settings of a recipe besides transformers' TrainingArguments: one dataclass a section, checked when made."""

from dataclasses import dataclass, field

from hf_mhex.data.settings import bounded, choose
from hf_mhex.families import FAMILIES, Family
from hf_mhex.training.consistency import AUTO, PartConsistency

KINDS = ("mhex", "plain")
PROBLEMS = ("single_label_classification", "multi_label_classification", "regression")


@dataclass
class ModelSettings:
    """Which network. `kind: plain` trains the network that MHEX starts from by the same recipe, for comparison."""

    family: str | None = field(default=None, metadata={"help": "its name in the register; that of the architecture"})
    kind: str = field(default="mhex", metadata={"help": "mhex, or plain: the network without gates and block heads"})
    weights: str | None = field(
        default=None,
        metadata={
            "help": "text: a folder or Hub id, or 'minilm', the one of the demo extra; image: weights file, "
            "MHEX folder; signal: MHEX folder"
        },
    )
    architecture: str | None = field(default=None, metadata={"help": "timm's name of an image network"})
    architecture_kwargs: dict | None = field(default=None, metadata={"help": "changes to timm's architecture"})
    pretrained: bool = field(default=False, metadata={"help": "take the weights that timm publishes"})
    num_channels: int | None = field(default=None, metadata={"help": "of an image (3 if left out) or a signal (1)"})
    problem_type: str = field(default="single_label_classification", metadata={"help": " | ".join(PROBLEMS)})
    config: dict | None = field(default=None, metadata={"help": "fields of the model's config (head_decay, ...)"})

    def __post_init__(self):
        if self.family is None and self.architecture is not None:
            from hf_mhex.conversion import timm_family

            self.family = timm_family(self.architecture, {}).name
        choose("model.family", self.family, tuple(family.name for family in FAMILIES.values()))
        choose("model.kind", self.kind, KINDS)
        choose("model.problem_type", self.problem_type, PROBLEMS)
        if self.registered.kind == "text" and self.weights is None:
            raise ValueError("model.weights must name the network to start from: a folder, a Hub id or 'minilm'.")
        if self.registered.kind == "image" and self.architecture is None:
            raise ValueError("model.architecture must be timm's name of the network, such as 'resnet18'.")
        if self.registered.kind == "signal" and self.architecture is not None:
            raise ValueError(
                f"model.architecture={self.architecture!r} is for images; a network of signals is told by model.config "
                "(widths, depths, strides)."
            )

    @property
    def channels(self) -> int:
        """Channels of an image or a signal."""
        return self.num_channels or (1 if self.registered.kind == "signal" else 3)

    @property
    def registered(self) -> Family:
        """The family in the register."""
        return next(family for family in FAMILIES.values() if family.name == self.family)


@dataclass
class ProcessingSettings:
    """How a row becomes the model's input; the augmentation is for training rows alone."""

    image_size: int | None = field(default=None, metadata={"help": "pixels; timm's own if left out"})
    crop_pct: float | None = field(default=None, metadata={"help": "share of the shorter edge that is kept"})
    mean: list[float] | None = field(default=None, metadata={"help": "one a channel, for pixels in [0, 1]"})
    std: list[float] | None = field(default=None, metadata={"help": "one a channel, for pixels in [0, 1]"})
    flip: float = field(default=0.0, metadata={"help": "probability of mirroring left and right"})
    shift: float = field(default=0.0, metadata={"help": "largest shift, as a share of the size; edges are continued"})
    min_area: float = field(default=1.0, metadata={"help": "smallest share of the image in a random crop"})
    mosaics: float = field(
        default=0.0, metadata={"help": "share of batches joined to 2 x 2 mosaics whose parts are classified each"}
    )
    mosaic_epochs: int | None = field(default=None, metadata={"help": "epochs from the first with mosaics; all"})
    max_length: int = field(default=128, metadata={"help": "tokens"})
    standardise: str = field(
        default="point", metadata={"help": "mean and std of signals: by point, by channel, or none"}
    )

    def __post_init__(self):
        bounded("processing.flip", self.flip, 0, 1)
        bounded("processing.shift", self.shift, 0, 0.5)
        bounded("processing.min_area", self.min_area, 0.01, 1)
        bounded("processing.mosaics", self.mosaics, 0, 1)
        if self.mosaic_epochs is not None:
            bounded("processing.mosaic_epochs", self.mosaic_epochs, 0)
        bounded("processing.max_length", self.max_length, 1)
        choose("processing.standardise", self.standardise, ("point", "channel", "none"))


@dataclass
class OptimisationSettings:
    """What the optimiser does beyond TrainingArguments: skewed data, frozen blocks, learning rates by depth."""

    class_weights: str = field(default="none", metadata={"help": "none, or balanced: inverse to the label's rows"})
    sampling: str = field(
        default="shuffle", metadata={"help": "shuffle, balanced (labels alike, with replacement) or by_length (text)"}
    )
    freeze_blocks: int = field(default=0, metadata={"help": "freeze stem or embeddings and so many blocks; -1: all"})
    freeze_batch_norm: bool = field(default=False, metadata={"help": "keep the running statistics of every norm"})
    layer_decay: float = field(default=1.0, metadata={"help": "learning rate of a block over that of the next one"})
    head_learning_rate: float | None = field(default=None, metadata={"help": "that of gates and heads"})
    early_stopping_patience: int | None = field(default=None, metadata={"help": "evaluations without a better one"})
    part_consistency: float | str | None = field(
        default=AUTO,
        metadata={
            "help": "weight of the term by which maps say what parts do; 0: parts with their usual loss alone; null: "
            "neither; auto: 1 for texts of one label each whose tokenizer has [MASK], else null"
        },
    )
    part_share: float = field(default=0.5, metadata={"help": "rows that pass once more without some of their parts"})
    parts: int = field(default=7, metadata={"help": "most cells along a side of an image; each row draws its grid"})
    part_removals: list[str] | None = field(
        default=None, metadata={"help": "zero, mean, blur, noise for images and signals; mask, attention for texts"}
    )

    def __post_init__(self):
        choose("optimisation.class_weights", self.class_weights, ("none", "balanced"))
        choose("optimisation.sampling", self.sampling, ("shuffle", "balanced", "by_length"))
        bounded("optimisation.freeze_blocks", self.freeze_blocks, -1)
        bounded("optimisation.layer_decay", self.layer_decay, 1e-3, 1)
        if self.head_learning_rate is not None:
            bounded("optimisation.head_learning_rate", self.head_learning_rate, 1e-12)
        if self.early_stopping_patience is not None:
            bounded("optimisation.early_stopping_patience", self.early_stopping_patience, 1)
        if self.class_weights == "balanced" and self.sampling == "balanced":
            raise ValueError("optimisation.class_weights and .sampling are both 'balanced': skew would count twice.")
        if isinstance(self.part_consistency, str):
            choose("optimisation.part_consistency", self.part_consistency, (AUTO,))
        self.consistency(1.0 if isinstance(self.part_consistency, str) else self.part_consistency)

    def consistency(self, weight: float | None) -> PartConsistency | None:
        """The part consistency of a run whose weight is known (`usual_weight`); None for none."""
        if weight is None:
            return None
        removals = None if self.part_removals is None else tuple(self.part_removals)
        return PartConsistency(weight, self.part_share, self.parts, removals)


def needs_a_measure(patience: int) -> str:
    """The error of an early stop that has nothing to go by."""
    return (
        f"optimisation.early_stopping_patience={patience} counts evaluations without a better one; set "
        "training.eval_strategy (epoch or steps) and training.metric_for_best_model (loss, accuracy, ...)."
    )


@dataclass
class EvaluationSettings:
    """What is reported. Metrics are those of `hf_mhex.evaluation.metrics`; by default those of the problem type."""

    metrics: list[str] | None = field(default=None, metadata={"help": "names of hf_mhex.evaluation.metrics"})
    note: str | None = field(default=None, metadata={"help": "what a reader of the result row must know"})
