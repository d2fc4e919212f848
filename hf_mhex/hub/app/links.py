"""Links that open an explanation again: the model with its revision, the choices and the input, behind the address's #.

What stands behind # stays in the visitor's browser until the page asks for it, so no log of a server holds a text.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, urlencode

from hf_mhex.explaining.dataset import weights_digest

LARGEST = 65_536  # bytes of a file that a link carries itself
FILE, NAME, SAMPLE, SHA, TEXT = "file", "name", "sample", "sha256", "text"  # of the input
MODEL, REVISION, LABEL, CONTRAST, BLOCKS = "model", "revision", "label", "contrast", "blocks"
FIELDS = (MODEL, REVISION, LABEL, CONTRAST, BLOCKS, "rollout", "refine", FILE, NAME, SAMPLE, SHA, TEXT)


@dataclass(frozen=True)
class Pinned:
    """A model as links name it.

    Args:
        name: its Hub id, or the name of its folder.
        revision: the commit that was loaded; of a folder "weights-" and a digest of the weights.
    """

    name: str
    revision: str

    @property
    def short(self) -> str:
        """Name and the beginning of the revision, to be read."""
        return f"{self.name} at {self.revision[:16] if self.revision.startswith('weights-') else self.revision[:7]}"


def pinned(source: str, model) -> Pinned:
    """The model that a folder or Hub id gave, at the revision that was loaded."""
    commit = None if Path(source).exists() else getattr(model.config, "_commit_hash", None)
    name = Path(source).resolve().name if Path(source).exists() else source
    return Pinned(name, commit or f"weights-{weights_digest(model)}")


def write_link(model: Pinned, choices: dict, given: dict) -> str:
    """The link's part from # on.

    Args:
        choices: `label`, `contrast`, `blocks`, `rollout` and `refine` as far as they are not the page's own.
        given: what `text_given` or `file_given` says of the input.
    """
    return "#" + urlencode({MODEL: model.name, REVISION: model.revision} | choices | given)


def read_link(fragment: str) -> dict[str, str]:
    """The fields of a link from # on; {} where there is none, ValueError for what is no link of this page."""
    if not fragment.lstrip("#"):
        return {}
    found = dict(parse_qsl(fragment.lstrip("#"), keep_blank_values=True))
    if not {MODEL, REVISION} <= set(found) <= set(FIELDS):
        raise ValueError("The address is no link to an explanation; take it whole, from # on.")
    return found


def linked(link: dict[str, str]) -> Pinned:
    """The model that a link was made with."""
    return Pinned(link[MODEL], link[REVISION])


def file_given(path: str, samples: Sequence[str] = ()) -> dict:
    """A file as a link says it: a sample's number, the file itself where it is small, else its digest and name."""
    data = Path(path).read_bytes()
    for number, sample in enumerate(samples):
        if Path(sample).read_bytes() == data:
            return {SAMPLE: number}
    if len(data) <= LARGEST:
        return {NAME: Path(path).name, FILE: base64.urlsafe_b64encode(data).decode()}
    return {NAME: Path(path).name, SHA: hashlib.sha256(data).hexdigest()}


def file_of(link: dict[str, str], samples: Sequence[str] = ()) -> str | bytes | None:
    """The path of the sample, or the content of the file, that a link carries; None for a file that it only names.

    Raises ValueError for a link that was cut or changed.
    """
    try:
        if SAMPLE in link:
            return samples[range(len(samples)).index(int(link[SAMPLE]))]
        return base64.b64decode(link[FILE], altchars=b"-_", validate=True) if FILE in link else None
    except (ValueError, binascii.Error):
        raise ValueError("The link was cut or changed: the picture in it cannot be read.") from None
