"""What users and contributors rely on: public names in the docs, docstrings, imports without circles, light imports."""

import ast
import inspect
import os
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from typer.main import get_command

import hf_mhex
from hf_mhex.cli import app
from hf_mhex.environment import EXTRAS

ROOT = Path(__file__).parents[1]
DOCS = "\n".join(path.read_text() for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))])
FILES = {}  # module: file
for room, package in (("hf_mhex", "hf_mhex"), ("modeling", "hf_mhex.modeling"), ("training", "hf_mhex.training")):
    for file in sorted((ROOT / room).rglob("*.py")):
        parts = file.relative_to(ROOT / room).with_suffix("").parts
        FILES[".".join((package, *parts)).removesuffix(".__init__")] = file
FAMILY_NAME = re.compile(r"(MHEX|mhex_?)(" + "|".join(
    name for family in hf_mhex.FAMILIES.values() for name in (family.title, family.name)
) + ")")  # fmt: skip


def verbs(command, prefix="mhex"):
    """Every verb of the command, "mhex benchmark speed" for one of a group."""
    for name, child in command.commands.items():
        yield from verbs(child, f"{prefix} {name}") if hasattr(child, "commands") else [f"{prefix} {name}"]


@pytest.mark.parametrize("name", [*hf_mhex.__all__, *verbs(get_command(app))])
def test_every_public_name_stands_in_the_docs(name):
    assert re.search(rf"(?<![A-Za-z]){re.escape(name)}(?![A-Za-z])", DOCS)


@pytest.mark.parametrize("name", hf_mhex.__all__)
def test_public_docstrings(name):
    found = getattr(hf_mhex, name)
    if inspect.isclass(found) or inspect.isfunction(found):
        doc = found.__dict__.get("__doc__") if inspect.isclass(found) else found.__doc__
        assert doc and not doc.strip().splitlines()[0].endswith("?")


def imports_of(module, nested):
    """Our modules that a module imports: at its top, or with `nested` anywhere in it."""
    file = FILES[module]
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    tree = ast.parse(file.read_text())
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree) if nested else tree.body:
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in FILES)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(filter(None, (package if node.level else "", node.module)))
            for alias in node.names:
                target = f"{base}.{alias.name}" if f"{base}.{alias.name}" in FILES else base
                if target in FILES:
                    yield target


def test_no_circles():
    graph = {module: set(imports_of(module, nested=False)) - {module, "hf_mhex"} for module in FILES}
    assert len(list(TopologicalSorter(graph).static_order())) == len(FILES)  # raises CycleError, which names the circle


@pytest.mark.parametrize("module", FILES)
def test_arrows_point_one_way(module):
    """training -> hf_mhex -> modeling; the command line alone stands above all."""
    found = set(imports_of(module, nested=True))
    if module.startswith("hf_mhex.modeling"):
        assert all(name.startswith("hf_mhex.modeling") for name in found)
    elif not module.startswith(("hf_mhex.training", "hf_mhex.cli")):
        assert not any(name.startswith(("hf_mhex.training", "hf_mhex.cli")) for name in found)
    elif module.startswith("hf_mhex.training"):
        assert not any(name.startswith("hf_mhex.cli") for name in found)


@pytest.mark.parametrize("module", [name for name in FILES if not name.startswith("hf_mhex.modeling")])
def test_no_family_is_named_outside_its_files(module):
    if module not in ("hf_mhex", "hf_mhex.families") and ".studies" not in module:  # studies name what they measure
        assert not FAMILY_NAME.search(FILES[module].read_text())


@pytest.mark.parametrize("module", ["hf_mhex", "hf_mhex.cli", "hf_mhex.environment"])
def test_imports_are_light(module):
    code = f"import sys, {module}; print(sorted({{'torch', 'transformers', 'timm', 'matplotlib'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.slow
def test_a_base_install_converts_explains_shows_and_publishes(tmp_path):
    """Without any module of an extra."""
    blocked = sorted({module for modules in EXTRAS.values() for module in modules} - {"setuptools", "yaml"})
    code = f"""
import sys
sys.modules |= dict.fromkeys({blocked!r})
import hf_mhex
from PIL import Image
from hf_mhex.hub.card import write_card
from hf_mhex.processors import make_processor
from pathlib import Path
folder = Path({str(tmp_path)!r}, "model")
model = hf_mhex.convert("resnet10t", id2label={{0: "cat", 1: "dog"}})
model.save_pretrained(folder)
make_processor(model, image_size=64).save_pretrained(folder)
model, processor = hf_mhex.load(folder)
image = Image.new("RGB", (64, 64), "red")
found = hf_mhex.explain(model, processor, image)
assert found.picture.size[0] > 0 and found.saliency.shape == (64, 64)
write_card(folder, "user/model", "v1", [image])
try:
    hf_mhex.publish(folder, "user/model", tag="v1", dry_run=True)
except ConnectionError:  # after the folder was read and checked
    pass
try:
    hf_mhex.explain_dataset
except ModuleNotFoundError as error:
    assert "pip install 'hf-mhex[data]'" in str(error), error
else:
    raise AssertionError("explain_dataset without its extra")
"""
    offline = os.environ | {"HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=offline)
    assert done.returncode == 0, done.stderr[-2000:]
