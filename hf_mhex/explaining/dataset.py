"""How are a million images or texts explained? In shards, by any number of processes, to be taken up where it ended."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from accelerate import PartialState
from tqdm.auto import tqdm

from hf_mhex.data.source import Row, RowSource
from hf_mhex.explaining import batches
from hf_mhex.explaining.shards import STORED, ShardWriter, keep_settings, shard_path
from hf_mhex.modeling.mhex_maps import check_blocks, check_options, check_rollout
from hf_mhex.modeling.pipeline_mhex import scores_of
from hf_mhex.pictures.maps import overlay
from hf_mhex.processors import restore_image

OPTIONS = {
    "mode": "contribution",
    "sign": "signed",
    "contrast": None,
    "decay": None,
    "sharpness": 0.0,
    "rollout": False,
}


@dataclass(frozen=True)
class DatasetExplanation:
    """What stands in `folder` when all processes are done: its shards, their rows, and how many of these are `bad`."""

    folder: Path
    shards: int
    rows: int
    bad: int


def processes() -> PartialState:
    """This process among those that torchrun or `accelerate launch` started; they wait a week for the slowest."""
    return PartialState(cpu=not torch.accelerator.is_available(), timeout=timedelta(days=7))


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
    progress: bool = True,
    **options,
) -> DatasetExplanation:
    """Explain every row of a data set, with Parquet shards in a folder as the result.

    The columns: `row` (its number), `id`, `error` (why a row could not be explained; the rest is then null), `target`,
    `label`, `logits`, `score`, `explained`, `map` ([H, W] or [T], times `map_scale`: see `restore_map`), and where
    asked for `block_maps` with `block_scales`, `words`, `word_scores` and `special` (the share of special tokens).
    A shard holds `rows_per_shard` consecutive rows, is there in full or not at all, and is not made twice: the same
    call takes up a run that was ended. Under torchrun or `accelerate launch` every process makes its own shards; the
    rows are the same whatever their number. Memory depends on `batch_size` and, of texts, on `rows_per_shard`.

    Args:
        model: an MHEX classifier in eval mode, on its device.
        processor: its image processor or fast tokenizer.
        data: a `datasets` source, streaming or not, or an iterable of dicts. Every process reads all of a stream.
        output: the folder.
        column, id_column: of the images or texts and of the ids; found by type and name if None.
        target: the class to explain, or None for the predicted one. target_column: of a class index a row, instead.
        blocks: as in `generate_saliency`. block_maps: whether to keep their own maps too.
        words: whether to add the tokens of texts up to words.
        overlays: whether to paint images, to `overlays/<shard>/<row>.png`.
        map_dtype: "float16" or "int8".
        options: `mode`, `sign`, `contrast`, `decay`, `sharpness` and `rollout` of `generate_saliency`.

    Raises ValueError or TypeError for an argument that cannot be, for a folder begun with other settings, and for data
    without a row. Row by row, only ValueError and TypeError of the model are recorded; all else ends the run.
    """
    is_image = model.main_input_name == "pixel_values"
    _check(model, is_image, target, target_column, words, overlays, map_dtype, batch_size, rows_per_shard)
    chosen = check_blocks(blocks, model.num_blocks)
    options = _checked_options(model, options)
    source = RowSource(data, model.main_input_name, rows_per_shard, column, id_column, target_column)
    folder, state = Path(output), processes()
    run = _Run(
        model, processor, folder, target, target_column, {**options, "blocks": blocks}, block_maps, words, overlays,
        map_dtype, batch_size,
    )  # fmt: skip
    settings = {"weights": weights_digest(model), "rows": len(source) if source.by_number else None}
    settings |= {"rows_per_shard": rows_per_shard, "column": source.column, "id_column": source.id_column}
    settings |= {"target": target, "target_column": target_column, "blocks": chosen, "block_maps": block_maps}
    settings |= {"words": words, "overlays": overlays, "map_dtype": map_dtype, **options}
    keep_settings(folder, settings)
    wanted, total = _own_shards(folder, source, state)
    with tqdm(total=total, unit="row", disable=not (progress and state.is_main_process)) as bar:
        for shard, rows in source.shards(wanted):
            run.explain_shard(shard, rows, bar)
    state.wait_for_everyone()
    return count_rows(folder)


def count_rows(folder: str | PathLike) -> DatasetExplanation:
    """Count what stands in a folder of explanations; ValueError where that is nothing."""
    paths = sorted(Path(folder).glob("shard-*.parquet"))
    if not paths:
        raise ValueError(f"data must hold at least one row; no shard was made in {str(folder)!r}.")
    errors = [pq.read_table(path, columns=["error"])["error"] for path in paths]
    rows = sum(map(len, errors))
    return DatasetExplanation(Path(folder), len(paths), rows, rows - sum(found.null_count for found in errors))


def weights_digest(model) -> str:
    """The first 16 hex digits of the SHA-256 of all weights and buffers that are saved."""
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


def _own_shards(folder: Path, source: RowSource, state: PartialState):
    """Which shards this process makes, and their number of rows (None for a stream): a fair share of what is missing.

    All processes look before any begins, so that they divide the same list.
    """
    if not source.by_number:
        mine = state.process_index
        return lambda shard: shard % state.num_processes == mine and not shard_path(folder, shard).exists(), None
    missing = [shard for shard in range(source.num_shards) if not shard_path(folder, shard).exists()]
    state.wait_for_everyone()
    own = set(missing[state.process_index :: state.num_processes])
    last = len(source) - source.rows_per_shard * (source.num_shards - 1)
    full = source.rows_per_shard * len(own)
    return own.__contains__, full - (source.rows_per_shard - last if source.num_shards - 1 in own else 0)


@dataclass(frozen=True)
class _Run:
    """What stays the same from shard to shard."""

    model: Any
    processor: Any
    folder: Path
    target: int | None
    target_column: str | None
    options: dict
    block_maps: bool
    words: bool
    overlays: bool
    map_dtype: str
    batch_size: int

    @property
    def is_image(self) -> bool:
        return self.model.main_input_name == "pixel_values"

    def explain_shard(self, shard: int, rows: Iterator[Row], bar: tqdm) -> None:
        """Images a batch at a time; texts all at once, to be sorted by length."""
        writer = ShardWriter(shard_path(self.folder, shard), self.is_image, self.map_dtype, self.block_maps, self.words)
        while window := list(islice(rows, self.batch_size if self.is_image else None)):
            writer.write(self.explain_window(shard, window, bar))
        writer.close()

    def explain_window(self, shard: int, rows: list[Row], bar: tqdm) -> list[dict]:
        """The records of some rows, in their order."""
        records: dict[int, dict] = {}
        good = []
        prepare = batches.prepare_images if self.is_image else batches.prepare_texts
        for item in prepare(rows, self.processor, self.model.config):
            if isinstance(item, tuple):
                records[item[0].number] = _bad(*item)
            else:
                good.append(item)
        bar.update(len(records))
        divide = batches.image_batches if self.is_image else batches.text_batches
        for batch in divide(good, self.batch_size):
            for item, record in zip(batch, self.explain_batch(shard, batch)):
                records[item.row.number] = record
            bar.update(len(batch))
        return [records[row.number] for row in rows]

    def explain_batch(self, shard: int, batch: Sequence[batches.Prepared]) -> list[dict]:
        """The records of a batch; where its inputs are refused, of each row by itself, so that one spoils no other."""
        try:
            target = self.target if self.target_column is None else batches.collate_targets(batch)
            collate = batches.collate_images if self.is_image else batches.collate_texts
            inputs = {name: value.to(self.model.device) for name, value in collate(batch, self.processor).items()}
            answer = self.model.generate_saliency(**inputs, **self.options, target=target)
        except (ValueError, TypeError) as error:
            if len(batch) == 1:
                return [_bad(batch[0].row, error)]
            return [record for item in batch for record in self.explain_batch(shard, [item])]
        scores = scores_of(answer.logits, self.model.config)
        found = {name: answer[name].cpu() for name in ("saliency", "explained", "logits", "target")}
        found |= {"scores": scores.cpu(), "block_saliency": [maps.cpu() for maps in answer.block_saliency]}
        return [self.record_of(shard, index, item, found) for index, item in enumerate(batch)]

    def record_of(self, shard: int, index: int, item: batches.Prepared, found: dict) -> dict:
        """One row's record."""
        logits, target = found["logits"][index], int(found["target"][index])
        if not logits.isfinite().all():
            return _bad(item.row, ValueError("the model's logits are not finite."))
        length = slice(None) if self.is_image else slice(len(item.inputs["input_ids"]))
        saliency = found["saliency"][index][length].float().numpy()
        record = {"row": item.row.number, "id": item.row.id, "target": target, "map": saliency, **item.record}
        record |= {"label": self.model.config.id2label[target], "logits": logits.float().numpy()}
        record |= {"score": float(found["scores"][index, target]), "explained": float(found["explained"][index])}
        if self.block_maps:
            record["block_maps"] = [maps[index][length].float().numpy() for maps in found["block_saliency"]]
        if self.words:
            record |= batches.words_record(item, saliency.tolist())
        if self.overlays:
            self.paint(shard, item, record)
        return record

    def paint(self, shard: int, item: batches.Prepared, record: dict) -> None:
        """Write the row's picture."""
        path = self.folder / "overlays" / f"{shard:06d}" / f"{item.row.number:09d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        title = f"{record['label']} ({record['score']:.3f})"
        overlay(restore_image(item.inputs, self.processor), np.asarray(record["map"]), title=title).save(path)


def _bad(row: Row, error: Exception) -> dict:
    lines = str(error).strip().splitlines()
    return {"row": row.number, "id": row.id, "error": f"{type(error).__name__}: {lines[0] if lines else ''}"}


def _checked_options(model, options: dict) -> dict:
    unknown = sorted(set(options) - set(OPTIONS))
    if unknown:
        raise TypeError(f"{unknown[0]!r} is no option of explain_dataset; of generate_saliency it takes {[*OPTIONS]}.")
    options = OPTIONS | options
    given = options.copy()
    check_rollout(given.pop("rollout"), (1, 1) if model.main_input_name == "pixel_values" else None)
    check_options(*given.values(), None, model.config.num_labels)
    return options


def _check(model, is_image, target, target_column, words, overlays, map_dtype, batch_size, rows_per_shard) -> None:
    labels = model.config.num_labels
    if target is not None and (type(target) is not int or not 0 <= target < labels):
        raise ValueError(f"target must be None or a class index in [0, {labels - 1}], got {target!r}.")
    if target is not None and target_column is not None:
        raise ValueError(f"target={target} and target_column={target_column!r} exclude each other; give one.")
    if map_dtype not in STORED:
        raise ValueError(f"map_dtype must be one of {', '.join(map(repr, STORED))}, got {map_dtype!r}.")
    if words and is_image:
        raise ValueError("words=True needs texts, but the model takes images; leave it out.")
    if overlays and not is_image:
        raise ValueError("overlays=True needs images, but the model takes texts; use words=True.")
    for name, value in (("batch_size", batch_size), ("rows_per_shard", rows_per_shard)):
        if type(value) is not int or value < 1:
            raise ValueError(f"{name} must be an int of at least 1, got {value!r}.")
    if model.training:
        raise ValueError("model must be in eval mode; call model.eval() first.")
