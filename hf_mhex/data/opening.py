"""Opening of data: the one way to the rows of any source, for training, evaluating and explaining alike."""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

from datasets import Dataset, DatasetDict, Image, IterableDataset, List, load_dataset, load_from_disk
from datasets.exceptions import DatasetGenerationError, DatasetNotFoundError

from hf_mhex.data.arrays import ArrayRows, is_idx_folder, read_idx_folder, read_medmnist
from hf_mhex.data.folders import files_of, read_image_folder, splits_of_tables
from hf_mhex.data.samples import load_sample
from hf_mhex.data.settings import DataSettings
from hf_mhex.data.signals import check_places, gather_signals, holds_signals, read_signals
from hf_mhex.data.tables import check_quotes, encoding_of, separator_of
from hf_mhex.environment import missing_download
from hf_mhex.families import Kind

READERS = {".csv": "csv", ".tsv": "csv", ".parquet": "parquet", ".json": "json", ".jsonl": "json", ".txt": "text"}
LABELS = ("label", "labels", "class", "target", "fine_label")
METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")  # beside images, as `datasets` reads it

OpenRows: TypeAlias = Dataset | IterableDataset | ArrayRows


def open_splits(settings: DataSettings, streaming: bool = False, kind: str | None = None) -> dict[str, OpenRows]:
    """The splits of a source, by name.

    A source is "sample:NAME"; a file: table (.csv, .tsv), .parquet, .json, .jsonl, .txt (a text a line), or a .npz of
    MedMNIST or of signals; a folder: of images, of IDX files, of data files, or one that `save_to_disk` wrote; or a
    data set's Hub id. Files of a folder are told to splits by "train", "test" and the like in their names or folders,
    and are all one split where no name has any. A table with a column a point, named by its place, has signals. Tables
    may be separated by comma, semicolon or tab; texts are UTF-8 or cp1252. A row of a folder of images has its path,
    relative to the folder, as `id`.

    Args:
        streaming: read the rows of files and of the Hub as they are needed, without a prepared copy on disk.
        kind: of input that the rows are read for, "image", "text" or "signal"; None where it is not known. A column a
            point makes a signal of "signal" and None alone, and never of `settings.input_columns` and `label_columns`.

    Raises ValueError, in a line, for a source that cannot be read.
    """
    source = settings.source
    if (source is None) == (settings.files is None):
        raise ValueError("one of data.source and data.files must say where the rows are.")
    if source is None:
        paths = {split: Path(path).expanduser() for split, path in (settings.files or {}).items()}
        return _load_files(paths, settings, streaming, kind)
    if source.startswith("sample:"):
        return load_sample(source.removeprefix("sample:"))
    path = Path(source).expanduser()
    if path.suffix == ".npz":
        return read_signals(path) if path.is_file() and holds_signals(path) else read_medmnist(path)
    if path.is_file():
        return _load_files({"train": path}, settings, streaming, kind)
    if path.is_dir():
        return _open_folder(path, settings, streaming, kind)
    if path.suffix.lower() in READERS or source.startswith((".", "/", "~")):
        raise ValueError(f"source={source!r} is no file or folder.")
    try:
        return load_dataset(source, settings.config_name, revision=settings.revision, streaming=streaming)
    except (DatasetNotFoundError, ConnectionError) as error:
        reason = missing_download(error) or error
        raise ValueError(f"source={source!r} is no file, and no data set that can be reached: {reason}") from error


def _open_folder(path: Path, settings: DataSettings, streaming: bool, kind: str | None) -> dict[str, OpenRows]:
    """The splits in a folder."""
    if (path / "dataset_dict.json").is_file() or (path / "dataset_info.json").is_file():
        if streaming:
            raise ValueError(f"streaming=True does not apply to {str(path)!r}, which is read as it is needed.")
        found = load_from_disk(str(path))
        return found if isinstance(found, DatasetDict) else {"train": found}
    if is_idx_folder(path):
        return read_idx_folder(path)
    images, others = files_of(path)
    if images and not any(other.name in METADATA or other.suffix == ".parquet" for other in others):
        return read_image_folder(path, images, others)
    readers = {READERS.get(other.suffix.lower(), "") for other in others}
    if not images and settings.config_name is None and len(readers) == 1 and "" not in readers:
        reader, splits = readers.pop(), splits_of_tables(path, others)
        options = {} if reader == "parquet" else _same_options([path / other for other in others], settings, kind)
        files = {split: [str(path / other) for other in found] for split, found in splits.items()}
        found = _load(reader, str(path), streaming, data_files=files, **options)
        return _gathered(found, str(path), settings, kind)
    found = _load(str(path), str(path), streaming, name=settings.config_name)
    found = _gathered(found, str(path), settings, kind)
    return {split: _with_paths(rows, path) for split, rows in found.items()} if images and not streaming else found


def _load_files(
    paths: dict[str, Path], settings: DataSettings, streaming: bool, kind: str | None
) -> dict[str, OpenRows]:
    """One file a split, all of one kind."""
    kinds = {path.suffix.lower() for path in paths.values()}
    missing = [path for path in paths.values() if not path.is_file()]
    if missing:
        raise ValueError(f"data file {str(missing[0])!r} is not there.")
    if len(kinds) != 1 or not kinds <= set(READERS):
        raise ValueError(f"data files must be of one kind among {', '.join(READERS)} (or .npz); got {sorted(kinds)}.")
    reader = READERS[kinds.pop()]
    if settings.column_names and reader != "csv":
        raise ValueError("data.column_names are for .csv and .tsv files, whose columns may have no names.")
    options = {} if reader == "parquet" else _same_options(list(paths.values()), settings, kind)
    files = {split: str(path) for split, path in paths.items()}
    what = ", ".join(files.values())
    return _gathered(_load(reader, what, streaming, data_files=files, **options), what, settings, kind)


def _same_options(paths: list[Path], settings: DataSettings, kind: str | None) -> dict:
    """How files of text are read, all of them alike."""
    found = {path: _options_of(path, settings, kind) for path in paths}
    first, options = next(iter(found.items()))
    for path, others in found.items():
        if others != options:
            raise ValueError(f"{path} must be separated and encoded as {first} is ({options}); got {others}.")
    return options


def _options_of(path: Path, settings: DataSettings, kind: str | None) -> dict:
    encoding = encoding_of(path)
    if READERS[path.suffix.lower()] != "csv":
        return {"encoding": encoding}
    options: dict = {"sep": separator_of(path, encoding), "encoding": encoding}
    check_quotes(path, encoding, options["sep"])
    if kind in (None, "signal") and not settings.column_names:
        check_places(path, encoding, options["sep"])
    options |= {"keep_default_na": False, "na_values": [""]}
    return options | ({"column_names": settings.column_names} if settings.column_names else {})


def _load(reader: str, what: str, streaming: bool, **options) -> dict[str, OpenRows]:
    """Files through `datasets`; what it raises becomes one line."""
    try:
        return load_dataset(reader, streaming=streaming, **options)
    except DatasetGenerationError as error:
        lines = str(error.__cause__ or error).strip().splitlines() or [type(error.__cause__).__name__]
        raise ValueError(f"{what} cannot be read: {lines[0]}") from error
    except (FileNotFoundError, DatasetNotFoundError) as error:
        raise ValueError(f"source={what!r} holds no data that can be read: {error}") from error


def _gathered(found, what: str, settings: DataSettings, kind: str | None) -> dict[str, OpenRows]:
    """Splits in which a column a point has become a signal, where signals may be wanted; of a stream as they are."""
    if kind not in (None, "signal") or any(isinstance(rows, IterableDataset) for rows in found.values()):
        return found
    named = (*(settings.input_columns or ()), *(settings.label_columns or ()))
    return {split: gather_signals(rows, what, named) for split, rows in found.items()}


def _with_paths(rows: Dataset, folder: Path) -> Dataset:
    """Files of images: their paths relative to the folder as `id`, unless the metadata have one."""
    column = next((name for name, feature in rows.features.items() if isinstance(feature, Image)), None)
    if column is None or "id" in rows.column_names:
        return rows
    root, found = folder.resolve(), []
    for item in rows.cast_column(column, Image(decode=False))[column]:
        path = Path(item["path"]).resolve() if item and item["bytes"] is None and item["path"] else None
        if path is None or not path.is_relative_to(root):
            return rows  # images within data files, whose paths name no file
        found.append(path.relative_to(root).as_posix())
    return rows.add_column("id", found)


def find_input(rows, kind: Kind, argument: str) -> str:
    """The column of images, texts or signals, by its type where one alone has it, else by its usual name.

    rows: a data set of `datasets`, or the names of its columns.

    Raises ValueError, naming the argument that tells it, where there is none or several.
    """
    features = getattr(rows, "features", None) or {}
    names = list(features or getattr(rows, "column_names", rows))
    typed = [name for name, feature in features.items() if holds(feature, kind) and name.lower() not in (*LABELS, "id")]
    usual = [name for name in names if name.lower() in kind.columns and (not typed or name in typed)]
    found = typed if len(typed) == 1 else usual
    if len(found) != 1:
        raise ValueError(
            f"{argument} must name the column of {kind.name}s, one of {', '.join(names)}; it cannot be told."
        )
    return found[0]


def holds(feature, kind: Kind) -> bool:
    """Whether a column of `datasets` is of images, of texts, or of lists of numbers."""
    if kind.name == "image":
        return isinstance(feature, Image)
    if kind.name == "signal":
        while isinstance(feature, List) and isinstance(feature.feature, List):
            feature = feature.feature
        return isinstance(feature, List) and "float" in str(getattr(feature.feature, "dtype", ""))
    return "string" in str(getattr(feature, "dtype", ""))
