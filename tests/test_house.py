"""What is tracked and what is built: no large files, no paths of one machine, nothing unpickled, a whole wheel."""

import ast
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

import hf_mhex

ROOT = Path(__file__).parents[1]
LISTED = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
FILES = subprocess.run(LISTED, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
FILES = [name for name in FILES if (ROOT / name).is_file()]
OUTSIDE_THE_WHEEL = ("training/studies/", "training/examples/")


def test_nothing_large_and_nothing_of_one_machine():
    assert all((ROOT / name).stat().st_size < 1_500_000 for name in FILES)
    for name in FILES:
        if not name.endswith((".png", ".parquet", ".safetensors")):
            assert not re.search(r"(^|[^A-Za-z0-9_.])/(work|root|home|farm)/", (ROOT / name).read_text()), name


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith(".py") and not name.startswith("tests/")])
def test_nothing_is_unpickled(name):
    text = (ROOT / name).read_text()
    for node in ast.walk(ast.parse(text)):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        assert "pickle" not in [*names, getattr(node, "module", None)]
    assert "torch.load(" not in text or "weights_only=True" in text


@pytest.mark.parametrize("name", [name for name in FILES if name.startswith("tests/") and name.endswith(".py")])
def test_every_skip_says_why(name):
    for node in ast.walk(ast.parse((ROOT / name).read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            match node.func.attr:
                case "skip":
                    assert node.args, f"line {node.lineno}"
                case "skipif" | "importorskip" | "xfail":
                    assert any(keyword.arg == "reason" for keyword in node.keywords), f"line {node.lineno}"


def test_one_version():
    """It stands in modeling/mhex_config.py alone."""
    assert "version" not in yaml.safe_load((ROOT / "CITATION.cff").read_text())
    project = (ROOT / "pyproject.toml").read_text()
    assert 'dynamic = ["version"]' in project and not re.search(r'(?m)^version = "', project)


@pytest.mark.slow
def test_a_wheel_holds_everything(tmp_path):
    """Built from the checkout and unpacked elsewhere, it imports, finds its samples and runs the command."""
    build = [sys.executable, "-m", "pip", "wheel", "--verbose", "--no-deps", "--no-build-isolation", "--wheel-dir"]
    shutil.copytree(ROOT, tmp_path / "source", ignore=shutil.ignore_patterns(".*", "outputs", "build", "*.egg-info"))
    command = [*build, str(tmp_path), str(tmp_path / "source")]
    built = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert "absent from" not in built.stdout  # what setuptools says of a folder of data that it was not told of
    path = next(tmp_path.glob("*.whl"))
    assert path.name.startswith(f"hf_mhex-{hf_mhex.__version__}-")
    with zipfile.ZipFile(path) as wheel:
        held = set(wheel.namelist())
        wheel.extractall(tmp_path / "site")
    wanted = {name for name in FILES if name.startswith(("hf_mhex/", "modeling/", "training/"))}
    wanted = {"hf_mhex/" + name.removeprefix("hf_mhex/") for name in wanted if not name.startswith(OUTSIDE_THE_WHEEL)}
    assert wanted <= held, wanted - held
    foreign = ("results/", "tests/", *(f"hf_mhex/{folder}" for folder in OUTSIDE_THE_WHEEL))
    assert not any(name.startswith(foreign) for name in held)
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
    recipes = [name for name in FILES if name.startswith("training/recipes/") and "/_" not in name]
    assert found.stdout.startswith(f"591 {len(recipes)}\n")
    assert "--on-bad-row" in found.stdout
