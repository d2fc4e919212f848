"""Versions, source commits and extras, as results and bug reports name them."""

import importlib.util
import re
import shutil
import subprocess
from pathlib import Path

import pytest

import hf_mhex.environment
from hf_mhex.environment import (
    EXTRAS,
    bug_report,
    environment,
    made_at,
    missing_extra,
    named_extra,
    ran_on,
    source_commit,
)


def git(folder, *arguments):
    who = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", "-C", folder, *who, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_versions_and_machine_without_its_name():
    found = environment()
    assert list(found) == ["python", "hf-mhex", "torch", "transformers", "timm", "machine"]
    assert re.fullmatch(r"\w+, \d+ cores", found["machine"])


def test_a_bug_report_names_what_is_there():
    found = bug_report()
    assert found["extras"].startswith("data, train") and {"platform", "device", "datasets"} <= set(found)


def test_every_extra_of_the_package_is_known():
    tomllib = pytest.importorskip("tomllib", reason="Python reads TOML from 3.11 on")
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    assert list(EXTRAS) == list(project["optional-dependencies"])


def test_a_missing_module_names_its_extra():
    line = r"gradio is not installed; pip install 'hf-mhex\[app\]'"
    with pytest.raises(ModuleNotFoundError, match=line) as caught, named_extra():
        raise ModuleNotFoundError("No module named 'gradio'", name="gradio.blocks")
    assert caught.value.name == "gradio.blocks"
    assert missing_extra(ModuleNotFoundError(name="unheard_of")) is None


def test_a_table_names_every_version_that_it_rests_on():
    rows = [{"environment": {"torch": torch, "machine": "x86_64, 2 cores"}} for torch in ("2.14.1", "2.14.0", "2.14.1")]
    assert ran_on(rows) == "torch 2.14.0 and 2.14.1, x86_64, 2 cores"


def test_a_table_names_every_commit_that_is_known():
    assert made_at([{"commit": "b" * 40}, {"commit": None}, {}, {"commit": "a" * 40}]) == (
        ", at source commits aaaaaaa, bbbbbbb"
    )
    assert made_at([{"commit": "c" * 40 + "-dirty"}]) == ", at source commits ccccccc-dirty"
    assert made_at([{"commit": None}]) == ""


def test_the_checkout_s_commit():
    assert source_commit().removesuffix("-dirty") == git(Path(hf_mhex.environment.__file__).parent, "rev-parse", "HEAD")


def test_the_commit_is_said_only_where_the_source_is_tracked(tmp_path):
    """A copy of the module in a checkout of somebody else's, then tracked there, then changed."""
    git(tmp_path, "init", "--quiet")
    (tmp_path / "theirs.txt").write_text("1")
    git(tmp_path, "add", "theirs.txt")
    git(tmp_path, "commit", "--quiet", "-m", "theirs")
    path = Path(shutil.copy(hf_mhex.environment.__file__, tmp_path / "copy.py"))
    spec = importlib.util.spec_from_file_location("copy_of_environment", path)
    copy = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(copy)
    assert copy.source_commit() is None
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "rows.jsonl").write_text("{}")
    git(tmp_path, "add", "copy.py", "results")
    git(tmp_path, "commit", "--quiet", "-m", "ours")
    assert copy.source_commit() == git(tmp_path, "rev-parse", "HEAD")
    (tmp_path / "results" / "rows.jsonl").write_text("{}\n{}")  # a study's own rows change nothing of what it runs
    assert copy.source_commit() == git(tmp_path, "rev-parse", "HEAD")
    (tmp_path / "theirs.txt").write_text("2")
    assert copy.source_commit() == git(tmp_path, "rev-parse", "HEAD") + "-dirty"
