"""Pulling of a published model: its repository at one commit, in the cache or in a folder, without pickles."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import snapshot_download

from hf_mhex.environment import downloading
from hf_mhex.families import FAMILIES
from hf_mhex.loading import source_config
from hf_mhex.writing import whole

PICKLES = ["*.bin", "*.pt", "*.pth", "*.pkl", "*.pickle", "*.ckpt", "*.joblib", "*.h5", "*.msgpack"]


@dataclass(frozen=True)
class Pulled:
    """The repository, the commit that was fetched, the folder where its files are, and their sizes in bytes."""

    repo_id: str
    commit: str
    folder: str
    files: dict[str, int]

    @property
    def snippet(self) -> str:
        """The line that loads it, pinned to the commit."""
        return f'model, processor = hf_mhex.load("{self.repo_id}", revision="{self.commit}")'


def pull(repo_id: str, revision: str | None = None, output: Path | None = None) -> Pulled:
    """Fetch an MHEX model at the commit that `revision` names now; without a network, from the cache.

    The configuration comes first: the weights of a model that is no MHEX are not fetched. Pickles never are. An
    interrupted download goes on where it was.

    Args:
        repo_id: "user/name".
        revision: branch, tag or commit; the main branch if None.
        output: a new folder for a copy of the files; None leaves them in the cache of huggingface_hub alone.

    Raises ValueError for an output that is taken and for a model of no family, OSError for a repository or revision
    that is not there, ConnectionError where the Hub cannot be asked.
    """
    if output is not None and output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ValueError(f"output={str(output)!r} exists and is not empty; name a new folder.")
    if Path(repo_id).is_dir():
        raise ValueError(f"repo_id={repo_id!r} is a folder of this machine, which need not be pulled.")
    with downloading(f"repo_id={repo_id!r}"):
        found = source_config(repo_id, revision).get("model_type")
    if found not in FAMILIES:
        raise ValueError(
            f"repo_id={repo_id!r} is a {found!r} model; `mhex convert {repo_id} FOLDER` makes an MHEX of it."
        )
    with downloading(f"repo_id={repo_id!r}"):
        snapshot = Path(snapshot_download(repo_id, revision=revision, ignore_patterns=PICKLES))
    folder = snapshot
    if output is not None:
        folder = output
        with whole(output) as place:
            shutil.copytree(snapshot, place, ignore=shutil.ignore_patterns(*PICKLES))  # the cache holds links
    files = {p.relative_to(folder).as_posix(): p.stat().st_size for p in sorted(folder.rglob("*")) if p.is_file()}
    return Pulled(repo_id, snapshot.name, str(folder), files)
