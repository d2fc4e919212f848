"""Explanation of a data set in shards: by this process or by the workers of an engine, taken up where it ended."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from os import PathLike
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
from tqdm.auto import tqdm
from transformers import PreTrainedConfig

from hf_mhex.data import Row
from hf_mhex.data.source import RowSource
from hf_mhex.explaining.batch import OPTIONS, Answer, check_row_options, explain_rows, seen_picture
from hf_mhex.explaining.engines import ENGINES, run_parts
from hf_mhex.explaining.shards import STORED, ShardWriter, keep_settings, remove_unfinished, shard_path
from hf_mhex.families import family_of
from hf_mhex.modeling.mhex_maps import check_names
from hf_mhex.pictures.maps import overlay
from hf_mhex.processors import check_processor
from hf_mhex.writing import whole

NO_ANSWER = (  # fields of a configuration that no answer and no map depends on
    "deep_supervision_weight", "label_smoothing", "class_weights", "binary_share", "instance_share",
    "initializer_range", "mhex_version", "trunk_arguments", "use_cache", "tie_word_embeddings",
)  # fmt: skip


@dataclass(frozen=True)
class DatasetExplanation:
    """What stands in `folder` at the end: its shards, their rows, and how many of these are `bad`."""

    folder: Path
    shards: int
    rows: int
    bad: int


def explain_dataset(
    model,
    processor,
    data,
    output: str | PathLike,
    *,
    column: str | None = None,
    id_column: str | None = None,
    target: int | None = None,
    target_column: str | None = None,
    blocks: list[int] | None = None,
    block_maps: bool = False,
    words: bool = False,
    overlays: bool = False,
    map_dtype: str = "float16",
    batch_size: int = 32,
    rows_per_shard: int = 512,
    engine: str | None = None,
    workers: int = 1,
    progress: bool = True,
    **options,
) -> DatasetExplanation:
    """Explain every row of a data set, with Parquet shards in a folder as the result.

    The columns: `row` (its number), `id`, `error` (why a row could not be explained; the rest is then null), `target`,
    `label`, `logits`, `score`, `explained`, `map` ([H, W] or [T], times `map_scale`: see `restore_map`), and where
    asked for `block_maps` with `block_scales`, `words`, `word_scores` and `special` (the share of special tokens).
    A shard holds `rows_per_shard` consecutive rows, is there in full or not at all, and is not made twice: the same
    call takes up a run that was ended. Memory depends on `batch_size` and, of texts, on `rows_per_shard`. With an
    `engine` its workers make the shards, each with a copy of the model; the rows are the same.

    Args:
        model: an MHEX classifier in eval mode, on its device.
        processor: its image processor or fast tokenizer.
        data: a split of `datasets`, streaming or not, a data frame of pandas, or an iterable of dicts.
        output: the folder; of workers on several machines, one that all of them see, as they must see the data.
        column, id_column: of the images or texts and of the ids; found by type and name if None.
        target: the class to explain, or None for the predicted one. target_column: of a label a row, its name or
            else its number, instead; a number of a source that names its labels means the label of that name.
        blocks: as in `generate_saliency`. block_maps: whether to keep their own maps too.
        words: whether to add the tokens of texts up to words.
        overlays: whether to paint images, to `overlays/<shard>/<row>.png`.
        map_dtype: "float16" or "int8".
        engine: "ray" or "spark" (extra `engines`), or None for this process alone. workers: of the engine, at once; a
            lost one's shard is made again. The Ray or Spark that this process is connected to is used, else one of
            its own on this machine.
        options: `contrast`, `decay`, `rollout`, `refine` and `mask_token_id` of `generate_saliency`.

    Raises ValueError or TypeError for an argument that cannot be, for a folder begun with other data, weights or
    settings (it names what differs), and for data without a row. Row by row, only ValueError and TypeError of the model
    are recorded; all else ends the run.
    """
    kind = family_of(model).input
    is_image = kind.name == "image"
    check_names(options, OPTIONS, "explain_dataset")
    check_processor(model, processor)
    _check(model, kind.name, target, target_column, words, overlays, map_dtype, batch_size, rows_per_shard)
    _check_engine(engine, workers)
    options = check_row_options(model, processor, target, options | {"blocks": blocks})
    labels = [model.config.id2label[number] for number in range(model.config.num_labels)]
    source = RowSource(data, kind, rows_per_shard, column, id_column, target_column, labels)
    if engine is not None and not source.by_number:
        raise ValueError(f"engine={engine!r} needs data whose rows are read by number; a stream is for engine=None.")
    folder = Path(output).absolute()
    settings = {"data": source.fingerprint(), "rows": len(source) if source.by_number else None}
    settings |= {"weights": weights_digest(model), "processor": processor_digest(processor)}
    settings |= answering_fields(model.config)
    settings |= {"rows_per_shard": rows_per_shard, "column": source.column, "id_column": source.id_column}
    settings |= {"target": target, "target_column": target_column, "block_maps": block_maps}
    settings |= {"words": words, "overlays": overlays, "map_dtype": map_dtype, **options}
    keep_settings(folder, settings)
    options["target"] = target if target_column is None else "row"
    run = _Run(model, processor, source, folder, options, is_image, block_maps, words, overlays, map_dtype, batch_size)
    with tqdm(total=_missing_rows(folder, source), unit="row", disable=not progress) as bar:
        if engine is None:
            for shard, rows in source.shards(lambda shard: not shard_path(folder, shard).exists()):
                run.explain_shard(shard, rows, bar.update)
        elif missing := _missing_shards(folder, source):
            for count in run_parts(
                engine, workers, run.explain_one_shard, missing, gpus=int(model.device.type == "cuda")
            ):
                bar.update(count)
    remove_unfinished(folder)
    return count_rows(Path(output))


def count_rows(folder: str | PathLike) -> DatasetExplanation:
    """Count what stands in a folder of explanations; ValueError where that is nothing."""
    paths = sorted(Path(folder).glob("shard-*.parquet"))
    if not paths:
        raise ValueError(f"data must hold at least one row; no shard was made in {str(folder)!r}.")
    errors = [pq.read_table(path, columns=["error"])["error"] for path in paths]
    rows = sum(map(len, errors))
    return DatasetExplanation(Path(folder), len(paths), rows, rows - sum(found.null_count for found in errors))


def answering_fields(config: PreTrainedConfig) -> dict:
    """Fields of a configuration that change answers or maps of the same weights."""
    every = {field.name for field in dataclasses.fields(type(config))}
    common = {field.name for field in dataclasses.fields(PreTrainedConfig)}
    names = every - common.difference(("problem_type", "id2label")) - set(NO_ANSWER)
    return {name: getattr(config, name) for name in sorted(names) if "dropout" not in name}


def weights_digest(model) -> str:
    """The first 16 hex digits of the SHA-256 of all weights and buffers that are saved."""
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


def processor_digest(processor) -> str:
    """The first 16 hex digits of the SHA-256 of what an image processor or tokenizer says of itself."""
    backend = getattr(processor, "backend_tokenizer", None)
    if backend is None:
        found = processor.to_dict()
    else:  # padding and truncation are what the tokenizer was last asked for
        last = ("padding", "truncation")
        found = {name: value for name, value in json.loads(backend.to_str()).items() if name not in last}
        found["model_max_length"] = processor.model_max_length
    said = json.dumps(found, sort_keys=True, default=str)
    return hashlib.sha256(said.encode()).hexdigest()[:16]


def _missing_shards(folder: Path, source: RowSource) -> list[int]:
    """Numbers of the shards that are not there, of rows that are read by number."""
    return [shard for shard in range(source.num_shards or 0) if not shard_path(folder, shard).exists()]


def _missing_rows(folder: Path, source: RowSource) -> int | None:
    """How many rows the missing shards will hold; None for a stream."""
    return sum(map(source.rows_in, _missing_shards(folder, source))) if source.by_number else None


@dataclass(frozen=True)
class _Run:
    """What stays the same from shard to shard, and what a worker of an engine gets."""

    model: Any
    processor: Any
    source: RowSource
    folder: Path
    options: dict
    is_image: bool
    block_maps: bool
    words: bool
    overlays: bool
    map_dtype: str
    batch_size: int

    def explain_one_shard(self, shard: int) -> int:
        """Make a shard on a worker, unless one that was lost had finished it; its number of rows."""
        if not shard_path(self.folder, shard).exists():
            for number, rows in self.source.shards(shard.__eq__):
                self.explain_shard(number, rows)
        return self.source.rows_in(shard)

    def explain_shard(
        self, shard: int, rows: Iterator[Row], advance: Callable[[int], Any] = lambda count: None
    ) -> None:
        """Images a batch at a time; texts all at once, to be sorted by length."""
        writer = ShardWriter(shard_path(self.folder, shard), self.is_image, self.map_dtype, self.block_maps, self.words)
        while window := list(islice(rows, self.batch_size if self.is_image else None)):
            answers = explain_rows(self.model, self.processor, window, self.options, self.batch_size, advance)
            writer.write([self.record_of(shard, answer) for answer in answers])
        writer.close()

    def record_of(self, shard: int, answer: Answer) -> dict:
        """One row's record."""
        record = {"row": answer.row.number, "id": answer.row.id, "error": answer.reason}
        if answer.error is not None:
            return record
        record |= {"target": answer.target, "label": self.model.config.id2label[answer.target]}
        record |= {"logits": answer.logits, "score": float(answer.scores[answer.target])}
        record |= {"explained": answer.explained, "map": answer.saliency}
        if answer.prepared.encoding is not None:
            record["truncated"] = bool(answer.prepared.encoding.overflowing)
        if self.block_maps:
            record["block_maps"] = answer.block_saliency
        if self.words:
            found = answer.words
            record |= {"words": [word.text for word in found.words], "special": found.special}
            record["word_scores"] = [word.score for word in found.words]
        if self.overlays:
            self.paint(shard, answer, f"{record['label']} ({record['score']:.3f})")
        return record

    def paint(self, shard: int, answer: Answer, title: str) -> None:
        """Write the row's picture, with its id as a heading."""
        path = self.folder / "overlays" / f"{shard:06d}" / f"{answer.row.number:09d}.png"
        pixels = seen_picture(answer.prepared, self.processor)
        with whole(path) as place:
            overlay(pixels, answer.saliency, title=f"{answer.row.id}\n{title}").save(place)


def _check(model, kind, target, target_column, words, overlays, map_dtype, batch_size, rows_per_shard) -> None:
    if target is not None and target_column is not None:
        raise ValueError(f"target={target} and target_column={target_column!r} exclude each other; give one.")
    if map_dtype not in STORED:
        raise ValueError(f"map_dtype must be one of {', '.join(map(repr, STORED))}, got {map_dtype!r}.")
    if words and kind != "text":
        raise ValueError(f"words=True needs texts, but the model takes {kind}s; leave it out.")
    if overlays and kind != "image":
        raise ValueError(f"overlays=True needs images, but the model takes {kind}s; use words=True.")
    for name, value in (("batch_size", batch_size), ("rows_per_shard", rows_per_shard)):
        if type(value) is not int or value < 1:
            raise ValueError(f"{name} must be an int of at least 1, got {value!r}.")
    if model.training:
        raise ValueError("model must be in eval mode; call model.eval() first.")


def _check_engine(engine: str | None, workers: int) -> None:
    if engine is not None and engine not in ENGINES:
        raise ValueError(f"engine must be None or one of {', '.join(map(repr, ENGINES))}, got {engine!r}.")
    if type(workers) is not int or workers < 1:
        raise ValueError(f"workers must be an int of at least 1, got {workers!r}.")
    if engine is None and workers > 1:
        raise ValueError(f"workers={workers} needs an engine; name one of {', '.join(map(repr, ENGINES))}.")
