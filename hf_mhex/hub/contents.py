"""Contents of a repository from a saved folder: what loads and describes the model; no secret, no local path."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from os import PathLike, fspath
from pathlib import Path

from huggingface_hub import get_token

from hf_mhex.families import Family, family_of
from hf_mhex.hub.card import as_object, card_of_folder, read_json, record_of_folder

WEIGHTS = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors")
MODEL_FILES = {
    "config.json", "model.safetensors.index.json", "preprocessor_config.json", "processor_config.json",
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.txt",
    "vocab.json", "merges.txt", "spm.model", "spiece.model", "sentencepiece.bpe.model",
}  # fmt: skip
DESCRIPTIONS = re.compile(r"README\.md|LICENSE(\.\w+)?|NOTICE(\.\w+)?|(.*_)?results\.json|metrics\.json")
PICTURES = re.compile(r"[\w.-]+\.(png|jpe?g|svg)")
LEFT_OUT = (
    (re.compile(r"training_args\.bin"), "a pickle of the training's arguments"),
    (re.compile(r"(optimizer|scheduler|scaler|rng_state.*)\.(pt|pth|bin)|trainer_state\.json"), "a training's state"),
    (
        re.compile(r".*\.(bin|pt|pth|pkl|pickle|ckpt|joblib|h5|msgpack|npy|npz)"),
        "weights or data that are no safetensors",
    ),
    (re.compile(r".*\.py"), "code that the model does not load"),
    (re.compile(r"\..*"), "hidden"),
)
LOCAL_KEYS = {"is_local", "local_files_only"}  # what transformers writes of this machine
PATH_KEYS = {"name_or_path", "_name_or_path", "tokenizer_file", "vocab_file", "special_tokens_map_file"}
TOKEN = re.compile(rb"\bhf_[A-Za-z]{30,}\b")
LOCAL_PATH = re.compile(
    rb"(?<![\w.:/\\-])(?:/(?:home|Users|root|tmp|private|mnt|var/folders)/|[A-Za-z]:\\\\?Users\\)[^\s\"'<>)\]]+"
)
RELATIVE_IMPORT = re.compile(r"^\s*from\s+\.(\w+)\s+import", re.MULTILINE)


@dataclass(frozen=True)
class Contents:
    """Paths of a repository with their source (a file or bytes), what is left out and why, and the release's tag.

    `family` is the model type, or "space".
    """

    family: str
    files: dict[str, Path | bytes]
    left_out: dict[str, str] = field(default_factory=dict)
    tag: str | None = None
    tag_given: bool = False
    secret: str | None = field(default=None, repr=False)

    def size(self, path: str) -> int:
        """Bytes of a file."""
        source = self.files[path]
        return len(source) if isinstance(source, bytes) else source.stat().st_size

    def difference(self, remote) -> tuple[list[str], list[str], list[str]]:
        """Paths to send, paths that `remote` (a ModelInfo with metadata, or None) has already, and those to remove."""
        held = {sibling.rfilename: sibling for sibling in (remote.siblings or ())} if remote else {}
        same = [path for path in self.files if path in held and self._is(path, held[path])]
        stale = [path for path in held if path not in self.files and (WEIGHTS.fullmatch(path) or _is_code(path))]
        return [path for path in self.files if path not in same], same, stale

    def _is(self, path: str, sibling) -> bool:
        if sibling.size is not None and sibling.size != self.size(path):
            return False
        if sibling.lfs:
            return sibling.lfs.sha256 == digest(self.files[path])
        return sibling.blob_id == digest(self.files[path], git=True)


def _is_code(path: str) -> bool:
    return path == "model.safetensors.index.json" or ("/" not in path and path.endswith(".py"))


def digest(source: Path | bytes, git: bool = False) -> str:
    """sha256 of a file or of bytes, or (`git`) the sha1 by which git names their blob."""
    size = len(source) if isinstance(source, bytes) else source.stat().st_size
    found = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False) if git else hashlib.sha256()
    if isinstance(source, bytes):
        found.update(source)
        return found.hexdigest()
    with source.open("rb") as file:
        while part := file.read(1 << 20):
            found.update(part)
    return found.hexdigest()


def model_contents(
    folder: str | PathLike, repo_id: str, tag: str | None = None, token: str | None = None, create_pr: bool = False
) -> Contents:
    """What of a folder goes to `repo_id`; nothing is written. Raises ValueError where it cannot be published.

    Args:
        create_pr: for a pull request, which gets no tag: a card made here loads "main".
    """
    if create_pr and tag is not None:
        raise ValueError(f"tag={tag!r} and create_pr=True exclude each other: tag the pull request's merge.")
    folder = Path(folder)
    config = as_object(read_json(folder, "config.json"))
    family = family_of(config.get("model_type"))
    secret = token or get_token()
    files: dict[str, Path | bytes] = {}
    left_out: dict[str, str] = {}
    wanted = code_files(folder, config)
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_dir() and not path.is_symlink():
            continue
        reason = _reason_against(folder, path, name, wanted)
        if reason:
            left_out[name] = reason
        elif name.endswith(".json") and name != "tokenizer.json":
            files[name] = _without_local(path)
        else:
            files[name] = path
    _check_complete(folder, family, files, left_out)
    tag_given, tag = tag is not None, None if create_pr else tag or model_tag(files)
    record = record_of_folder(folder)
    if record and "results.json" not in files:
        files["results.json"] = (json.dumps(record, indent=2) + "\n").encode()
    if "README.md" not in files:
        files["README.md"] = card_of_folder(folder, repo_id, tag or "main").encode()
    _check_pins(files["README.md"], tag)
    for name, source in files.items():
        _check_clean(name, source, folder, secret)
    return Contents(family.model_type, files, left_out, tag, tag_given, secret)


def model_tag(files: dict[str, Path | bytes]) -> str:
    """A name for the model's files alone: it stays when only the card, pictures or metrics change."""
    named = [name for name in sorted(files) if name in MODEL_FILES or WEIGHTS.fullmatch(name) or name.endswith(".py")]
    parts = "".join(f"{name} {digest(files[name])}\n" for name in named)
    return f"model-{hashlib.sha256(parts.encode()).hexdigest()[:12]}"


def code_files(folder: Path, config: dict) -> set[str]:
    """The files that loading runs: those that config.json and the processor name, and the closure of their imports.

    Raises ValueError for a name that is no flat file of the folder.
    """
    processor = folder / "preprocessor_config.json"
    own = as_object(read_json(folder, processor.name) if processor.is_file() else None)
    named = list((config.get("auto_map") or {}).values())
    named += [entry["impl"] for entry in (config.get("custom_pipelines") or {}).values()]
    if not named:
        raise ValueError(
            f"folder={fspath(folder)!r} carries no code (no auto_map in config.json); `import hf_mhex`, save again."
        )
    named += (own.get("auto_map") or {}).values()
    waiting, found = [str(reference).split("--")[-1].rpartition(".")[0] for reference in named], set()
    while waiting:
        module = waiting.pop()
        path = folder / f"{module}.py"
        if not module.isidentifier() or not path.is_file():
            raise ValueError(f"folder={fspath(folder)!r} lacks the code file {module + '.py'!r}; save the model again.")
        if path.name not in found:
            found.add(path.name)
            waiting += RELATIVE_IMPORT.findall(path.read_text(encoding="utf-8"))
    return found


def _reason_against(folder: Path, path: Path, name: str, code: set[str]) -> str | None:
    """Why a file stays behind, or None where it belongs in the repository."""
    if folder.resolve() not in path.resolve().parents:
        return "a link out of the folder"
    if "/" in name:
        return None if name.startswith("pictures/") and PICTURES.fullmatch(path.name) else "in a sub-folder"
    if name in MODEL_FILES or name in code or WEIGHTS.fullmatch(name) or DESCRIPTIONS.fullmatch(name):
        return None
    if PICTURES.fullmatch(name):
        return None
    return next((reason for pattern, reason in LEFT_OUT if pattern.fullmatch(name)), "no part of a model's repository")


def _check_complete(folder: Path, family: Family, files: dict, left_out: dict[str, str]) -> None:
    if not any(WEIGHTS.fullmatch(name) for name in files):
        if linked := next(filter(WEIGHTS.fullmatch, left_out), None):
            raise ValueError(
                f"folder={fspath(folder)!r}: {linked} is {left_out[linked]}, as in the Hub's cache, and was left out; "
                "`mhex pull ID --output FOLDER` makes a folder of files."
            )
        raise ValueError(f"folder={fspath(folder)!r} has no model.safetensors; save the model with save_pretrained.")
    if "model.safetensors.index.json" in files:
        index = as_object(read_json(folder, "model.safetensors.index.json"))
        shards = set(index.get("weight_map", {}).values())
        if not shards <= files.keys():
            raise ValueError(f"folder={fspath(folder)!r} lacks the weights {sorted(shards - files.keys())[0]!r}.")
    kind = family.input
    if kind.processor_file not in files:
        raise ValueError(
            f"folder={fspath(folder)!r} lacks {kind.processor_file}; save its {kind.processor} there with "
            "save_pretrained."
        )


def _check_pins(card: Path | bytes, tag: str | None) -> None:
    """Raise ValueError where a snippet of the card loads a revision that will not exist."""
    text = (card if isinstance(card, bytes) else card.read_bytes()).decode()
    for pin in re.findall(r"""revision\s*=\s*["']([^"']+)["']""", text):
        if pin != (tag or "main") and not re.fullmatch(r"[0-9a-f]{40}", pin):
            cure = (
                f"pass tag={pin!r}, or render the card for tag {tag!r}" if tag else "a pull request's card loads 'main'"
            )
            raise ValueError(f"README.md loads revision={pin!r}, which this publish does not make; {cure}.")


def _without_local(path: Path) -> Path | bytes:
    """A JSON file without what transformers wrote of this machine; the file itself where there is nothing of it."""
    given = read_json(path.parent, path.name)
    if not isinstance(given, dict):
        return path
    local = {key for key, value in given.items() if key in LOCAL_KEYS or (key in PATH_KEYS and _is_local(value))}
    if not local:
        return path
    kept = {key: value for key, value in given.items() if key not in local}
    return (json.dumps(kept, indent=2, ensure_ascii=False, sort_keys=True) + "\n").encode()


def _is_local(value) -> bool:
    """Whether a name is a path of this machine and not a Hub id ("name" or "user/name")."""
    return (
        not isinstance(value, str) or not re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", value) or Path(value).exists()
    )


def _check_clean(name: str, source: Path | bytes, folder: Path, secret: str | None) -> None:
    """Raise ValueError where a file holds a token or a path of this machine (of weights, only their header is read)."""
    if isinstance(source, bytes):
        text = source
    elif WEIGHTS.fullmatch(name):
        with source.open("rb") as file:
            text = file.read(min(int.from_bytes(file.read(8), "little"), 1 << 26))
    else:
        text = source.read_bytes()
    if TOKEN.search(text) or (secret and len(secret) > 7 and secret.encode() in text):
        raise ValueError(f"{name} holds a Hub token; take it out (and revoke it), then publish again.")
    own = [fspath(place).encode() for place in (folder.resolve(), Path.home(), Path.cwd()) if len(place.parts) > 2]
    found = LOCAL_PATH.search(text) or next(
        (re.search(rb"(?<![\w.:/-])" + re.escape(o), text) for o in own if o in text), None
    )
    if found:
        raise ValueError(f"{name} holds the local path {found[0].decode(errors='replace')!r}; take it out.")
