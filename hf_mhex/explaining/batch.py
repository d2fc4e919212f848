"""Rows explained a batch at a time: the step that a data set's explanation and other frameworks' workers share."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import PreTrainedConfig

from hf_mhex.data import Row
from hf_mhex.data.images import read_image, to_pixel_values
from hf_mhex.data.labels import keys_of
from hf_mhex.explaining.signals import to_input_values
from hf_mhex.explaining.words import words_of
from hf_mhex.families import FAMILIES, family_of
from hf_mhex.modeling.mhex_maps import (
    check_blocks,
    check_mask_token,
    check_names,
    check_one_map,
    check_options,
    check_refine,
)
from hf_mhex.modeling.mhex_words import ExplainedText, read_texts
from hf_mhex.modeling.pipeline_mhex import scores_of
from hf_mhex.processors import max_length, restore_image

if TYPE_CHECKING:
    import pandas
    from pyspark.sql.types import StructType

IMPORTED_IN = os.getpid()
# of `generate_saliency`, for rows of data
OPTIONS = ("contrast", "blocks", "decay", "rollout", "refine", "mask_token_id")


@dataclass
class Prepared:
    """A row ready for the model.

    Args:
        inputs: pixels [C, H, W], points [C, L], or lists by the tokenizer's names.
        size: what batches are ordered by; rows of another `group` stand in another batch.
        texts: a text and its second one or None. encoding: the tokenizer's, of a text.
    """

    row: Row
    inputs: Any
    size: int = 0
    group: tuple = ()
    texts: tuple[str, str | None] = ("", None)
    encoding: Any = None


@dataclass
class Answer:
    """What was found of a row, or the `error` that was raised.

    Args:
        target: label explained. scores, logits: [K]. explained: what the map adds up to.
        saliency: [H, W] or [T], without padding. block_saliency: the blocks' own.
    """

    row: Row
    error: Exception | None = None
    prepared: Prepared | Any = None
    target: int = -1
    logits: np.ndarray | Any = None
    scores: np.ndarray | Any = None
    explained: float = float("nan")
    saliency: np.ndarray | Any = None
    block_saliency: tuple[np.ndarray, ...] = ()

    @property
    def words(self) -> ExplainedText:
        """The words that the map of a text falls on."""
        text, pair = self.prepared.texts
        return words_of(text, pair, self.prepared.encoding, self.saliency.tolist())

    @property
    def reason(self) -> str | None:
        """The error in a line."""
        if self.error is None:
            return None
        lines = str(self.error).strip().splitlines()
        return f"{type(self.error).__name__}: {lines[0] if lines else ''}"


def with_mask_token(processor, options: dict) -> dict:
    """The options with the tokenizer's mask token, where the map of a text is to be refined and they name none."""
    known = getattr(processor, "mask_token_id", None)
    named = options.get("mask_token_id") is not None
    return options if named or not options.get("refine") else options | {"mask_token_id": known}


def check_row_options(model, processor, target, options: dict) -> dict:
    """Options of `generate_saliency` for rows of data, each with its value; ValueError or TypeError for a wrong one.

    Checked before the first row: what `explain_rows` meets is a row's own error.
    """
    labels = model.config.num_labels
    if target is not None and (type(target) is not int or not 0 <= target < labels):
        raise ValueError(f"target must be None or a class index in [0, {labels - 1}], got {target!r}.")
    found = dict.fromkeys(OPTIONS) | {"rollout": False, "refine": False} | options
    found["blocks"] = check_blocks(found["blocks"], model.num_blocks)
    check_options(found["contrast"], found["decay"], None, labels, target)
    if found["rollout"] not in (False, model.base_model.can_roll_out):
        raise ValueError(f"rollout must be False for {type(model).__name__}, got {found['rollout']!r}.")
    check_refine(found["refine"])
    found["refine"] = int(found["refine"])
    found = with_mask_token(processor, found)
    if found["refine"]:
        check_one_map(model, target, True)
        check_absent(model, found["refine"], found["mask_token_id"])
    return found


def check_absent(model, refine: int, mask_token_id) -> None:
    """Raise ValueError for a token that cannot stand for an absent word in maps that are to be refined."""
    if family_of(model).kind != "text":
        if mask_token_id is not None:
            raise ValueError(f"mask_token_id stands for a word, and the model reads none; got {mask_token_id!r}.")
    elif mask_token_id is None:
        cure = "name a token that stands for an absent word, mask_token_id=..., or use refine=False"
        raise ValueError(f"refine={refine} of texts needs a mask token, which the tokenizer lacks; {cure}.")
    else:
        check_mask_token(mask_token_id, model.config.vocab_size)


def explain_rows(
    model,
    processor,
    rows: Sequence[Row],
    options: dict,
    batch_size: int,
    advance: Callable[[int], Any] = lambda count: None,
) -> list[Answer]:
    """The answers to some rows, in their order.

    A row's own `target`, a label's name or number, is explained where `options` have the target "row". ValueError and
    TypeError of one row become its answer's error and spoil no other; all else is raised.

    Args:
        options: of `generate_saliency`.
        advance: called with the number of rows that are done.
    """
    answers: dict[int, Answer] = {}
    good = []
    for item in prepare(rows, model, processor):
        if isinstance(item, Answer):
            answers[item.row.number] = item
        else:
            good.append(item)
    advance(len(answers))
    for batch in batches_of(good, batch_size):
        answers |= {answer.row.number: answer for answer in _explain_batch(model, processor, batch, options)}
        advance(len(batch))
    return [answers[row.number] for row in rows]


def _explain_batch(model, processor, batch: Sequence[Prepared], options: dict) -> list[Answer]:
    """The answers to a batch; where its inputs are refused, to each row by itself."""
    try:
        if options.get("target") == "row":
            targets = torch.tensor([_target_of(item.row, model.config) for item in batch])
            options = options | {"target": targets}
        inputs = {name: value.to(model.device) for name, value in collate(batch, processor).items()}
        found = model.generate_saliency(**inputs, **options)
    except (ValueError, TypeError) as error:
        if len(batch) == 1:
            return [Answer(batch[0].row, error)]
        return [answer for item in batch for answer in _explain_batch(model, processor, [item], options)]
    scores = scores_of(found.logits, model.config).cpu()
    logits, explained, target = found.logits.cpu(), found.explained.cpu(), found.target.cpu()
    saliency, *blocks = (maps.float().cpu() for maps in (found.saliency, *found.block_saliency))
    answers = []
    for index, item in enumerate(batch):
        if not logits[index].isfinite().all():
            answers.append(Answer(item.row, ValueError("the model's logits are not finite.")))
            continue
        kept = slice(None) if item.encoding is None else inputs["attention_mask"][index].bool().cpu()
        answers.append(
            Answer(
                row=item.row,
                prepared=item,
                target=int(target[index]),
                logits=logits[index].float().numpy(),
                scores=scores[index].float().numpy(),
                explained=float(explained[index]),
                saliency=saliency[index][kept].numpy(),
                block_saliency=tuple(maps[index][kept].numpy() for maps in blocks),
            )
        )
    return answers


def _target_of(row: Row, config: PreTrainedConfig) -> int:
    """The index of the label that a row asks for; ValueError where it asks for none, or for one that there is not."""
    keys = keys_of(row.target)
    if keys in ((), ("-1",)):  # how `datasets` writes a missing class
        raise ValueError("the row holds no target.")
    names = config.id2label.values()
    return label_index(config, next((key for key in keys if key in names), keys[-1]), "target")


def label_index(config: PreTrainedConfig, label: str, name: str = "label") -> int:
    """The index of a label given by its name or its number; ValueError with the labels there are."""
    names = [config.id2label[index] for index in range(config.num_labels)]
    if label in names:
        return names.index(label)
    if label.isdecimal() and int(label) < len(names):
        return int(label)
    raise ValueError(f"{name} must be a label ({', '.join(names)}) or a number below {len(names)}, got {label!r}.")


def prepare(rows: Sequence[Row], model, processor) -> Iterator[Prepared | Answer]:
    """Each row ready for the model, or its answer with what was raised."""
    kind = family_of(model).kind
    return (_prepare_texts if kind == "text" else _prepare_arrays)(rows, model, processor)


def _prepare_arrays(rows: Sequence[Row], model, processor) -> Iterator[Prepared | Answer]:
    """Images and signals."""
    for row in rows:
        try:
            if family_of(model).kind == "signal":
                values = to_input_values(row.value, model, processor)
            else:
                values = to_pixel_values(read_image(row.value, model.config.num_channels), processor)
        except (ValueError, TypeError, OSError) as error:
            yield Answer(row, error)
        else:
            yield Prepared(row, values, group=tuple(values.shape))


def _prepare_texts(rows: Sequence[Row], model, processor) -> Iterator[Prepared | Answer]:
    """Texts and pairs as tokens; too long ones are cut off."""
    singles: list = []
    pairs: list = []
    for row in rows:
        try:
            texts = read_texts(row.value)
        except (ValueError, TypeError) as error:
            yield Answer(row, error)
        else:
            (singles if texts[1] is None else pairs).append((row, texts))
    for good in (singles, pairs):
        if not good:
            continue
        first, second = ([texts[place] for _, texts in good] for place in (0, 1))
        found = processor(
            first,
            second if good is pairs else None,
            truncation=True,
            max_length=max_length(model, processor),
            return_attention_mask=True,
        )
        if not found.encodings:
            raise ValueError("processor must be a fast tokenizer (use_fast=True).")
        for index, (row, texts) in enumerate(good):
            inputs = {name: values[index] for name, values in found.items()}
            yield Prepared(row, inputs, len(inputs["input_ids"]), texts=texts, encoding=found.encodings[index])


def batches_of(prepared: Sequence[Prepared], batch_size: int) -> Iterator[list[Prepared]]:
    """Batches of images or signals of one size, or of texts of near lengths, so that little is padded."""
    ordered = sorted(prepared, key=lambda item: (item.group, item.size))
    for _, group in groupby(ordered, key=lambda item: item.group):
        items = list(group)
        for start in range(0, len(items), batch_size):
            yield items[start : start + batch_size]


def collate(batch: Sequence[Prepared], processor) -> dict[str, torch.Tensor]:
    """pixel_values [B, C, H, W], input_values [B, C, L], or what the tokenizer gives, [B, T]."""
    if batch[0].encoding is None:
        [name] = processor.model_input_names
        return {name: torch.stack([item.inputs for item in batch])}
    columns = {name: [item.inputs[name] for item in batch] for name in batch[0].inputs}
    # on the right, whatever the tokenizer's side: absolute positions must not depend on the batch
    return dict(processor.pad(columns, padding_side="right", return_attention_mask=True, return_tensors="pt"))


def seen_picture(item: Prepared, processor) -> np.ndarray:
    """The picture that the model saw, uint8 [H, W, 1 or 3]; of other numbers of bands their mean."""
    pixels = restore_image(item.inputs, processor)
    return pixels if pixels.shape[-1] in (1, 3) else pixels.mean(-1, keepdims=True).round().astype(np.uint8)


class Explainer:
    """A callable on batches of columns; a worker loads the model at its first batch and keeps it.

    `Explainer("folder")(batch)`, or with the extras `data` and `engines`:

        data.map(Explainer("folder"), batched=True)                                        # datasets
        data.map_batches(Explainer, fn_constructor_args=("folder",), concurrency=2)        # Ray Data, two workers
        explainer = Explainer("folder")
        rows.mapInPandas(explainer.map_frames, explainer.schema(rows.schema))              # Spark

    The answer is the batch's columns and `label`, `score`, `logit`, `explained`, `map` ([H, W] or [T]) and `error`
    (empty where there is none; else the others are empty or NaN); of texts also `words` and `word_scores`. A column of
    the batch with such a name, as a `label` often has, is replaced with a warning: keep it by a `prefix`.

    Args:
        source: folder or Hub id of a model. revision: branch, tag or commit.
        column: of the images or texts (or pairs, as dicts); found by its name if None.
        target: label to explain, None for the predicted one.
        batch_size: rows that pass through the model at once.
        device: None for the accelerator where there is one.
        prefix: what the names of the answer's own columns begin with, as "why_".
        options: `contrast`, `blocks`, `decay`, `rollout`, `refine` and `mask_token_id` of `generate_saliency`.

    Raises TypeError for an unknown option; at the first batch ValueError or TypeError for a value that cannot be.
    """

    def __init__(
        self,
        source: str,
        *,
        revision: str | None = None,
        column: str | None = None,
        target: int | None = None,
        batch_size: int = 32,
        device: str | torch.device | None = None,
        prefix: str = "",
        **options,
    ):
        check_names(options, OPTIONS, "Explainer")
        if type(batch_size) is not int or batch_size < 1:
            raise ValueError(f"batch_size must be an int of at least 1, got {batch_size!r}.")
        self.source, self.revision, self.column, self.device = source, revision, column, device
        self.options, self.target, self.batch_size, self.prefix = options, target, batch_size, prefix
        self._loaded: tuple[Any, Any] | None = None

    def __getstate__(self) -> dict:
        """What travels to a worker: everything but the model."""
        return self.__dict__ | {"_loaded": None}

    def __call__(self, batch: dict[str, Sequence]) -> dict[str, Sequence]:
        """The batch's columns with those of the explanations; ValueError where the column of inputs cannot be told."""
        if self._loaded is None:
            if os.getpid() != IMPORTED_IN:  # a fork has lost OpenMP's threads, and would wait for them for ever
                torch.set_num_threads(1)
            self._loaded = _load_once(self.source, self.revision, self.device, _state_of(self.source))
        model, processor = self._loaded
        options = check_row_options(model, processor, self.target, self.options) | {"target": self.target}
        from hf_mhex.data.opening import find_input

        column = self.column or find_input(list(batch), family_of(model).input, "column")
        if column not in batch:
            raise ValueError(f"column={column!r} must be a column of the batch: {', '.join(batch)}.")
        rows = [Row(number, str(number), value) for number, value in enumerate(batch[column])]
        answers = explain_rows(model, processor, rows, options, self.batch_size)
        good = [answer.error is None for answer in answers]
        names, nan = model.config.id2label, float("nan")
        # of the same type as a map: engines refuse columns of several types
        nothing = np.zeros((0, 0) if family_of(model).kind == "image" else 0, np.float32)
        found: dict[str, list] = {
            "label": [names[answer.target] if fine else "" for answer, fine in zip(answers, good)],
            "score": [float(answer.scores[answer.target]) if fine else nan for answer, fine in zip(answers, good)],
            "logit": [float(answer.logits[answer.target]) if fine else nan for answer, fine in zip(answers, good)],
            "explained": [answer.explained for answer in answers],
            "map": [answer.saliency if fine else nothing for answer, fine in zip(answers, good)],
            "error": [answer.reason or "" for answer in answers],
        }
        if family_of(model).kind == "text":
            words = [answer.words.words if fine else () for answer, fine in zip(answers, good)]
            found["words"] = [[word.text for word in row] for row in words]
            found["word_scores"] = [[word.score for word in row] for row in words]
        found = {self.prefix + name: values for name, values in found.items()}
        replaced = [name for name in found if name in batch]
        if replaced:
            cure = "Explainer(..., prefix='why_') keeps them"
            warnings.warn(f"columns of the data are replaced: {', '.join(replaced)}; {cure}.", stacklevel=2)
        return {**batch, **found}

    def map_frames(self, frames: Iterator[pandas.DataFrame]) -> Iterator[pandas.DataFrame]:
        """The tables with the columns of the explanations, as Spark's `mapInPandas` hands them over."""
        import pandas

        for frame in frames:
            found = self({name: frame[name].tolist() for name in frame})
            name = f"{self.prefix}map"
            found[name] = [list(values) for values in found[name]]  # of an image its rows: Arrow takes no matrix
            yield pandas.DataFrame(found)

    def schema(self, rows: StructType) -> StructType:
        """The schema of Spark's table after `map_frames`: that of the rows and the columns of the explanations.

        Fields of the rows that explanations replace are left out.
        """
        from pyspark.sql.types import StructType

        from hf_mhex.loading import source_config

        kind = FAMILIES[source_config(self.source, self.revision)["model_type"]].kind
        found = "label string, score double, logit double, explained double, "
        found += f"map {'array<array<float>>' if kind == 'image' else 'array<float>'}, error string"
        found += ", words array<string>, word_scores array<double>" if kind == "text" else ""
        own = StructType.fromDDL(found).fields
        for field in own:
            field.name = self.prefix + field.name
        names = {field.name for field in own}
        return StructType([field for field in rows.fields if field.name not in names] + own)


def _state_of(source: str) -> tuple:
    """What changes when a folder's model is saved anew."""
    folder = Path(source)
    return tuple(sorted((path.name, path.stat().st_mtime_ns) for path in folder.iterdir())) if folder.is_dir() else ()


@lru_cache(maxsize=1)
def _load_once(source: str, revision: str | None, device: str | torch.device | None, state: tuple) -> tuple[Any, Any]:
    """Model and processor, kept for the next callable that arrives at this worker: an engine sends one with each task.

    Args:
        state: `_state_of` the source; another one loads anew.
    """
    from hf_mhex.loading import load

    model, processor = load(source, revision)
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else "cpu"
    return model.to(device or found), processor
