"""Models saved today, opened by older releases of transformers through their own code alone.

`make test-older` also writes the table results/older_transformers.md.
"""

import functools
import json
import os
import platform
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest
import timm
import torch
import transformers
from PIL import Image
from safetensors.torch import save_file

import hf_mhex
from hub_models import environment, save_converted, save_signal_model
from networks import CONVERTED, NAMES, family_named
from stub_hub import Repository, stub_hub

pytestmark = pytest.mark.slow

PRESENT = transformers.__version__
RELEASES = ("4.57.3", "5.0.0", "5.2.0", "5.10.0", PRESENT)
STRANGER = Path(__file__).with_name("stranger_of_old.py")
SOURCES = ("folder", "hub")
TOLERANCE = 1e-5
NATIVE = {"bert": "bert", "resnet": "resnet"}  # family: a model type of transformers that its folder is renamed to


def save(name, folder, pictures):
    """A model of a family with its processor, items, and what it says of them (expected.safetensors)."""
    items, answer = save_converted(name, folder, pictures) if name in CONVERTED else save_signal_model(folder)
    model, processor = hf_mhex.load(folder)
    is_image = family_named(name).kind == "image"
    ready = [Image.open(item) for item in items] if is_image else items
    inputs = dict(processor(ready, return_tensors="pt", **({} if is_image else {"padding": True})))
    kept = {"logits": answer.logits, "maps": answer.saliency, "features": model.base_model(**inputs)[0].detach()}
    if model.base_model.can_roll_out:
        kept["rollout"] = model.generate_saliency(**inputs, rollout=True).saliency
    kept |= {f"in.{key}": value for key, value in inputs.items()}
    save_file({key: value.contiguous() for key, value in kept.items()}, folder / "expected.safetensors")
    (folder / "items.json").write_text(json.dumps(items))
    return model.config


def python_with(release, home):
    """The interpreter of a virtual environment with that transformers, and the rest of ours but hf_mhex."""
    venv.create(home, with_pip=False)
    [site] = home.glob("lib/python*/site-packages")
    ours = [entry for entry in sys.path if Path(entry).name == "site-packages"]
    (site / "ours.pth").write_text("\n".join(ours))  # their own .pth files, that of an editable hf_mhex, are not read
    python = home / "bin" / "python"
    if release != PRESENT:
        command = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", f"transformers=={release}"]
        subprocess.run(command, check=True, cwd=home)
    return python


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """By family, the folder and the configuration of a saved model."""
    home = tmp_path_factory.mktemp("saved")
    return {name: (home / name, save(name, home / name, home / f"pictures-{name}")) for name in NAMES}


@pytest.fixture(scope="module")
def found(saved, tmp_path_factory):
    """By release, asked for once: the versions, and by family and source what a stranger found."""
    with stub_hub() as server:
        jobs = []
        for name, (folder, _) in saved.items():
            files = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
            server.repositories[f"me/{name}"] = repository = Repository("model", private=False)
            repository.main = repository.commit(repository.main, files, "First release")
            shared = {"kind": family_named(name).kind, "folder": str(folder)}
            jobs.append({**shared, "source": str(folder), "revision": None})
            jobs.append({**shared, "source": f"me/{name}", "revision": repository.main})
        for name, native in NATIVE.items():
            folder = shutil.copytree(saved[name][0], tmp_path_factory.mktemp("native") / name)
            config = json.loads((folder / "config.json").read_text()) | {"model_type": native}
            (folder / "config.json").write_text(json.dumps(config))
            shared = {"kind": family_named(name).kind, "folder": str(folder)}
            jobs.append({**shared, "source": str(folder), "revision": None})

        @functools.cache
        def ask(release):
            home = tmp_path_factory.mktemp("old")
            (home / "jobs.json").write_text(json.dumps(jobs))
            command = [python_with(release, home / "venv"), "-I", STRANGER, home / "jobs.json"]
            done = subprocess.run(command, env=environment(home, server), cwd=home, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr[-4000:]
            answer = json.loads(done.stdout.splitlines()[-1])
            places = [(name, source) for name in saved for source in SOURCES] + [(name, "native") for name in NATIVE]
            return answer["versions"], dict(zip(places, answer["records"], strict=True))

        asked = {}
        yield lambda release: asked.setdefault(release, ask(release))
    if os.environ.get("OLDER_TABLE"):
        Path(os.environ["OLDER_TABLE"]).write_text(page(asked, saved))


def is_older(release, other):
    return tuple(map(int, release.split("."))) < tuple(map(int, other.split(".")))


def page(asked, saved):
    """The Markdown page of what the releases found."""
    lines = [
        "# Saved models on older releases of transformers",
        "",
        f"Made by `make test-older`: models written by hf-mhex {hf_mhex.__version__} on transformers {PRESENT} and "
        f"opened without hf-mhex, from a folder and from a Hub; torch {torch.__version__}, timm {timm.__version__}, "
        f"Python {platform.python_version()}, {platform.machine()}.",
        "",
        "A cell is the largest difference of logits, features, maps and rollouts (AutoModel), and of the pipeline to "
        "AutoModel, as a share of max(1, |value|). *Inputs* is the same of the logits, where the release's own "
        "processors read the items.",
        "",
        "| transformers | huggingface-hub | " + " | ".join(saved) + " | inputs |",
        "|" + " --- |" * (len(saved) + 3),
    ]
    for release in sorted(asked, key=lambda release: tuple(map(int, release.split(".")))):
        versions, records = asked[release]
        cells, inputs = [], []
        for name, (_, config) in saved.items():
            of_family = [records[name, source] for source in SOURCES]
            if is_older(release, config.oldest_transformers):
                cells.append(f"needs {config.oldest_transformers}")
                continue
            inputs += [record.pop("inputs", 0.0) for record in map(dict, of_family)]
            values = [v for record in of_family for quantity, v in record.items() if quantity != "inputs"]
            cells.append("failed" if any(type(v) is str for v in values) else f"{max(values):.0e}")
        row = [release, versions["huggingface-hub"], *cells, f"{max(inputs):.0e}"]
        lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("release", RELEASES)
def test_a_release_says_what_we_say(release, name, saved, found):
    """Logits, features, maps and rollouts by AutoModel, and the pipeline's answers; or which release it takes.

    Also where the folder names a model type that transformers has too.
    """
    versions, records = found(release)
    assert versions["transformers"] == release
    config = saved[name][1]
    for source in (*SOURCES, "native") if name in NATIVE else SOURCES:
        record = records[name, source]
        if is_older(release, config.oldest_transformers):
            assert record["error"].startswith("ImportError: ")
            assert f"needs transformers {config.oldest_transformers} or newer, got {release}" in record["error"]
            continue
        assert "error" not in record, record
        if is_older(release, "5.0.0"):
            del record["inputs"]  # image processors of 4.57 resize with PIL unless told otherwise
        assert max(record.values()) <= TOLERANCE, (source, record)


def test_the_oldest_release_of_a_family_is_among_those_tried(saved):
    """What a configuration names as the oldest release is no guess."""
    for _, config in saved.values():
        assert any(not is_older(release, config.oldest_transformers) for release in RELEASES[:-1])
