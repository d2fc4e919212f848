"""Is the house in order? Which way imports point, what is tracked, and that nothing is unpickled."""

import ast
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TRACKED = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
SOURCES = [name for name in TRACKED if name.endswith(".py")]


def imports_of(name):
    """Every absolute module that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse((ROOT / name).read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module


@pytest.mark.parametrize("name", [name for name in SOURCES if not name.startswith("tests/")])
def test_arrows_point_one_way(name):
    """training -> hf_mhex -> modeling; only the command line stands above all."""
    found = set(imports_of(name))
    if name.startswith("modeling/"):
        assert not any(module.split(".")[0] in ("hf_mhex", "training") for module in found)
    elif name.startswith("hf_mhex/") and not name.startswith("hf_mhex/cli/"):
        assert not any(module.startswith(("hf_mhex.training", "hf_mhex.cli")) for module in found)
    elif name.startswith("training/"):
        assert not any(module.startswith("hf_mhex.cli") for module in found)
    assert not any(module.split(".")[0] in ("modeling", "training") for module in found)


def test_nothing_large_and_nothing_of_one_machine():
    assert all((ROOT / name).stat().st_size < 1_500_000 for name in TRACKED)
    for name in TRACKED:
        if not name.endswith((".png", ".parquet", ".safetensors")):
            assert not re.search(r"(^|[^A-Za-z0-9_.])/(work|root|home|farm)/", (ROOT / name).read_text()), name


@pytest.mark.parametrize("name", [name for name in SOURCES if not name.startswith("tests/")])
def test_nothing_is_unpickled(name):
    assert "pickle" not in set(imports_of(name))
    text = (ROOT / name).read_text()
    assert "torch.load" not in text.replace("weights_only=True", "") or "weights_only=True" in text


def test_a_wheel_holds_everything(tmp_path):
    """Built from the checkout and unpacked elsewhere, it imports, finds its samples and runs the command."""
    build = [sys.executable, "-m", "pip", "wheel", "--verbose", "--no-deps", "--no-build-isolation", "--wheel-dir"]
    shutil.copytree(ROOT, tmp_path / "source", ignore=shutil.ignore_patterns(".*", "outputs", "build", "*.egg-info"))
    command = [*build, str(tmp_path), str(tmp_path / "source")]
    built = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert "absent from" not in built.stdout  # what setuptools says of a folder of data that it was not told of
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        held = set(wheel.namelist())
        wheel.extractall(tmp_path / "site")
    for name in TRACKED:
        if name.startswith(("hf_mhex/", "modeling/", "training/")) and not name.startswith("training/studies/"):
            assert "hf_mhex/" + name.removeprefix("hf_mhex/") in held, name
    assert not any(name.startswith(("results/", "hf_mhex/training/studies/")) for name in held)
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r});"
        "import hf_mhex, hf_mhex.training.demo, hf_mhex.cli;"
        "modules = (hf_mhex, hf_mhex.training.demo, hf_mhex.cli);"
        f"assert all(module.__file__.startswith({str(tmp_path / 'site')!r}) for module in modules);"
        "from hf_mhex.training.recipe import load_recipe, recipe_names; list(map(load_recipe, recipe_names()));"
        "print(len(hf_mhex.load_sample('product_reviews')['test']), len(recipe_names()));"
        "sys.argv = ['mhex', 'train', '--help']; hf_mhex.cli.main()"
    )
    environment = os.environ | {"HF_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-c", code]
    found = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    recipes = [name for name in TRACKED if name.startswith("training/recipes/") and "/_" not in name]
    assert found.stdout.startswith(f"591 {len(recipes)}\n")
    assert "--on-bad-row" in found.stdout
