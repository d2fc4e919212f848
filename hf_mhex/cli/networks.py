"""Loading of what an analysis runs on: an MHEX model, or the plain twin that a recipe trained."""

from __future__ import annotations

from pathlib import Path


def load_network(source: str, revision: str | None = None):
    """The classifier in eval mode and its processor, of an MHEX model or of a run with model.kind=plain."""
    import transformers
    from huggingface_hub import snapshot_download

    from hf_mhex.environment import downloading
    from hf_mhex.hub.pulling import PICKLES
    from hf_mhex.loading import load, source_config

    classes = source_config(source, revision).get("architectures") or [""]
    if not classes[0].startswith("Plain"):
        return load(source, revision)
    from hf_mhex.training.plain import family_of_plain, load_plain

    if not Path(source).is_dir():
        with downloading(f"source={source!r}"):
            source = snapshot_download(source, revision=revision, ignore_patterns=PICKLES)
    network = load_plain(source)
    processor = family_of_plain(network.config).input.auto_processor
    return network, getattr(transformers, processor).from_pretrained(source)
