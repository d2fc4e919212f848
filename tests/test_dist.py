"""What is handed out: the sdist's contents; and the wheel, installed in an empty environment, runs the README."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import torch

import hf_mhex
from networks import lively

ROOT = Path(__file__).parents[1]
ROOMS = ("hf_mhex", "modeling", "training", "model_cards")
PAGES = ("README.md", "LICENSE", "pyproject.toml", "MANIFEST.in", "PKG-INFO", "setup.cfg")


def built(kind: str, place: Path) -> Path:
    """The sdist or the wheel, made from a copy of the checkout by the backend alone: no network is asked."""
    source = place / "source"
    skipped = shutil.ignore_patterns(".*", "outputs", "build", "dist", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT, source, ignore=skipped)
    code = f"from setuptools import build_meta; build_meta.build_{kind}({str(place)!r})"
    subprocess.run([sys.executable, "-c", code], cwd=source, check=True, capture_output=True)
    return next(place.glob("*.whl" if kind == "wheel" else "*.tar.gz"))


def test_the_sdist_holds_the_package_and_nothing_else(tmp_path):
    with tarfile.open(built("sdist", tmp_path)) as archive:
        names = [member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()]
    listed = subprocess.run(["git", "ls-files", *ROOMS], cwd=ROOT, capture_output=True, text=True, check=True)
    tracked = [name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]
    outside = ("training/studies/", "training/examples/")
    wanted = {name for name in tracked if not name.startswith((*outside, "model_cards/mhex-"))}
    assert wanted <= set(names), wanted - set(names)
    known = (*(f"{room}/" for room in ROOMS), "hf_mhex.egg-info/", *PAGES)
    assert not [name for name in names if not name.startswith(known)]


@pytest.mark.slow
@pytest.mark.parametrize("extras", ["", "[demo]"])
def test_the_wheel_runs_the_readme_in_an_empty_environment(extras, tmp_path):
    wheel, place = built("wheel", tmp_path), tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
    python = place / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", f"{wheel}{extras}"], check=True, timeout=1200)
    folder = tmp_path / "elsewhere" / "outputs" / "demo" / "mhex-resnet-fashion-mnist"
    model = lively("resnet", torch.float32, num_labels=10)
    model.save_pretrained(folder)
    hf_mhex.image_processor_for(model.config, image_size=56).save_pretrained(folder)
    image = tmp_path / "elsewhere" / "image.png"
    hf_mhex.load_sample("fashion_mnist")["test"][0]["image"].save(image)
    snippet = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)[0]
    if not extras:  # without `datasets` there are no samples; a file is what a user has
        sample = 'hf_mhex.load_sample("fashion_mnist")["test"][0]["image"]'
        assert sample in snippet
        snippet = "from PIL import Image\n" + snippet.replace(sample, 'Image.open("image.png")')
    code = f"{snippet}\nprint(hf_mhex.__file__, abs(why.saliency.sum() - why.explained) < 1e-3)"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    run = [python, "-I", "-c", code]
    found = subprocess.run(run, cwd=tmp_path / "elsewhere", env=environment, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert found.stdout.startswith(str(place)) and found.stdout.endswith("True\n")
    verb = [place / "bin" / "mhex", "explain", str(folder), str(image), "--json"]
    shown = subprocess.run(verb, cwd=tmp_path / "elsewhere", env=environment, capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
