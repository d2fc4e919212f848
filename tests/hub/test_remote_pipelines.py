"""Code that travels with a model touches no file, socket or process: read in its text, seen in a run."""

import ast
import sys
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoTokenizer
from transformers.dynamic_module_utils import get_imports, get_relative_import_files

from hf_mhex import FAMILIES, ImageSaliencyPipeline, TextSaliencyPipeline, image_processor_for
from hub_models import MINILM, SENTENCES, save_image_model, save_text_model

MODELING = Path(__file__).parents[2] / "modeling"
FILES = sorted(path for path in MODELING.glob("*.py") if path.name != "__init__.py")
WITH_TIMM = {family.model_type for family in FAMILIES.values() if family.library == "timm"}
HARMLESS = {
    "collections", "contextlib", "copy", "dataclasses", "difflib", "functools", "itertools", "math", "struct", "types",
    "typing",
    "unicodedata", "warnings",
}  # fmt: skip
CALLS = {
    "open", "exec", "eval", "compile", "__import__", "input", "breakpoint",
    "import_module",
    "load", "save", "save_pretrained", "from_pretrained", "push_to_hub", "hf_hub_download", "load_state_dict_from_url",
    "urlopen", "urlretrieve", "system", "popen", "read_text", "write_text",
    "read_bytes", "write_bytes", "unlink", "mkdir",
}  # fmt: skip
WATCHED = ("open", "socket.", "subprocess.", "os.", "shutil.", "urllib.", "tempfile.", "pickle.", "ctypes.")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_imports_are_declared_and_calls_are_harmless(path):
    """What transformers demands to be installed, and by the syntax tree every import, in functions and guards too."""
    of_images = path.stem == "mhex_images" or path.stem.removeprefix("modeling_") in WITH_TIMM
    allowed = {"torch", "transformers"} | ({"timm"} if of_images else set())
    assert set(get_imports(path)) <= allowed | HARMLESS
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            assert {alias.name.split(".")[0] for alias in node.names} <= allowed | HARMLESS
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 1 or node.module.split(".")[0] in allowed | HARMLESS, ast.unparse(node)
            assert not {"hub", "file_utils"} & set(node.module.split(".")), ast.unparse(node)
        elif isinstance(node, ast.Call):
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            assert name not in CALLS, f"{path.name}:{node.lineno} calls {name}"


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_the_pipeline_is_among_what_a_model_carries(family):
    config = family.config
    carried = {Path(file).name for file in get_relative_import_files(sys.modules[config.__module__].__file__)}
    assert {"pipeline_mhex.py", "mhex_maps.py", "mhex_words.py", "mhex_config.py"} <= carried
    classifier = config(architectures=["MHEXForClassification"]).to_dict()["custom_pipelines"]
    assert list(classifier) == [config.saliency_task] == [family.input.saliency_task]
    assert "custom_pipelines" not in config(architectures=["MHEXModel"]).to_dict()
    assert not hasattr(config(custom_pipelines=classifier), "custom_pipelines")  # installed: its own are registered


def watched(call):
    """The events of the watched kinds that Python reports while `call` runs."""
    events = []
    watching = [True]

    def hook(event, arguments):
        if watching[0] and event.startswith(WATCHED):
            events.append((event, arguments))

    sys.addaudithook(hook)
    try:
        call()
    finally:
        watching[0] = False
    return events


@pytest.mark.parametrize("refine", [False, 2])
def test_a_text_is_explained_without_touching_anything(tmp_path, refine):
    save_text_model(tmp_path)
    from hf_mhex import load

    pipe = TextSaliencyPipeline(load(tmp_path)[0], tokenizer=AutoTokenizer.from_pretrained(MINILM), device="cpu")
    ways = {"batch_size": 2, "top_k": 2, "long_text": "windows", "overlap": 2, "max_length": 8, "refine": refine}
    pipe(SENTENCES, **ways)
    assert watched(lambda: pipe(SENTENCES, **ways)) == []


def test_an_image_is_explained_without_touching_anything(tmp_path):
    from PIL import Image

    save_image_model(tmp_path / "model", tmp_path / "pictures")
    from hf_mhex import load

    model = load(tmp_path / "model")[0]
    pipe = ImageSaliencyPipeline(model, image_processor=image_processor_for(model.config, 40), device="cpu")
    pictures = [Image.fromarray(np.full((44, 50, 3), shade, dtype=np.uint8)) for shade in (10, 90, 200)]
    pipe(pictures, batch_size=2, top_k=2)
    assert watched(lambda: pipe(pictures, batch_size=2, top_k=2)) == []
    assert [event for event, _ in watched(lambda: pipe(str(tmp_path / "pictures" / "0.png")))]  # the watch sees a path
