"""Run the fast tests with the lowest or the newest releases of what the package needs, and keep a row of it.

    python tests/support/versions.py lowest|latest [--python 3.10] [--output results]

uv makes an environment of its own in outputs/versions, with the extras `demo` and `test`: "lowest" takes the lower
bound of every direct requirement (`--resolution lowest-direct`), "latest" the newest release. A run writes its row to
versions.jsonl, in place of the last one of its name, and makes versions.md from all of them.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

ROOT = Path(__file__).parents[2]
EXTRAS = ("demo", "test")
RESOLUTIONS = {"lowest": "lowest-direct", "latest": "highest"}
SHOWN = ("torch", "torchvision", "transformers", "timm", "accelerate", "datasets", "huggingface-hub", "numpy")


def declared() -> dict:
    """What pyproject.toml says; reading it needs Python 3.11."""
    import tomllib

    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def requirements(pyproject: dict) -> dict[str, str]:
    """The lower bound of every direct requirement of the package and the extras that are tested, by name."""
    project, found = pyproject["project"], {}
    pending, seen = [*project["dependencies"], *(f"hf-mhex[{extra}]" for extra in EXTRAS)], set()
    while pending:
        line = pending.pop()
        own = re.fullmatch(r"hf-mhex\[(\w+)\]", line)
        if own:
            if own[1] not in seen:
                seen.add(own[1])
                pending += project["optional-dependencies"][own[1]]
            continue
        name, bound = re.match(r"([A-Za-z0-9_.-]+)\s*(?:>=|==)\s*([\w.]+)", line).groups()
        found[re.sub(r"[-_.]+", "-", name).lower()] = bound
    return found


def installed(python: Path) -> dict[str, str]:
    """The version of every package of an environment."""
    code = "import importlib.metadata as m, json; print(json.dumps({d.name: d.version for d in m.distributions()}))"
    found = json.loads(subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout)
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in found.items()}


def run(name: str, python: str) -> dict:
    """Make the environment, run the tests in it, and return the row."""
    place = ROOT / "outputs" / "versions" / name
    shutil.rmtree(place, ignore_errors=True)
    uv = [sys.executable, "-m", "uv"]
    subprocess.run([*uv, "venv", "--quiet", "--python", python, place], check=True)
    own = place / "bin" / "python"
    wanted = f"{ROOT}[{','.join(EXTRAS)}]"
    resolution = ["--resolution", RESOLUTIONS[name]]
    subprocess.run([*uv, "pip", "install", "--quiet", "--python", own, *resolution, "--editable", wanted], check=True)
    subprocess.run([*uv, "pip", "install", "--quiet", "--python", own, "pip"], check=True)  # a test builds the wheel
    report = place / "report.xml"
    settings = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    command = [own, "-m", "pytest", "-n", "2", "--dist", "loadfile", "-p", "no:cacheprovider", f"--junit-xml={report}"]
    command += ["--ignore=tests/test_versions.py", "--verbose", "--tb=short"]  # that reads the row to be made
    subprocess.run(command, cwd=ROOT, env=os.environ | settings, check=False)
    return row_of(name, own, report)


def row_of(name: str, own: Path, report: Path) -> dict:
    """The row of a run, from its interpreter and its report."""
    tests = ElementTree.parse(report).getroot().find("testsuite")
    suite = tests.attrib
    counts = {key: int(suite[key]) for key in ("tests", "failures", "errors", "skipped")}
    bad = [
        case for case in tests.iter("testcase") if case.find("failure") is not None or case.find("error") is not None
    ]
    version = subprocess.run([own, "-c", "import platform; print(platform.python_version())"], capture_output=True)
    versions = installed(own)
    bounds = requirements(declared())
    return {
        "name": name,
        "python": version.stdout.decode().strip(),
        "passed": counts["tests"] - counts["failures"] - counts["errors"] - counts["skipped"],
        "failed": counts["failures"] + counts["errors"],
        "skipped": counts["skipped"],
        "failures": [f"{case.attrib['classname']}.{case.attrib['name']}" for case in bad],
        "bounds": dict(sorted(bounds.items())),
        "versions": {package: versions[package] for package in sorted(bounds)},
        "machine": f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores",
        "commit": subprocess.run(["git", "-C", ROOT, "rev-parse", "HEAD"], capture_output=True).stdout.decode().strip(),
    }


def page(rows: list[dict]) -> str:
    """The table of all rows."""
    lines = [
        "# Versions tried",
        "",
        "`make test-lowest` and `make test-latest` run the fast tests in an environment of their own and write this",
        "page. The lowest releases are the bounds in pyproject.toml; a test holds the two together.",
        "",
        f"| | python | {' | '.join(SHOWN)} | passed | failed | skipped |",
        f"|---|---|{'---|' * len(SHOWN)}---:|---:|---:|",
    ]
    for row in rows:
        cells = [row["name"], row["python"], *(row["versions"][package] for package in SHOWN)]
        cells += [f"{row[key]:,}" for key in ("passed", "failed", "skipped")]
        lines.append(f"| {' | '.join(cells)} |")
    for row in rows:
        lines += ["", f"Failed with the {row['name']}: {', '.join(row['failures'])}."] if row["failures"] else []
    made = [f"{row['name']} at commit {row['commit'][:7]} ({row['machine']})" for row in rows]
    return "\n".join([*lines, "", f"Made: {'; '.join(made)}. Every version stands in versions.jsonl.", ""])


def main() -> None:
    """Run one of the two, keep its row, and make the page."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("name", choices=RESOLUTIONS)
    parser.add_argument("--python", default="3.10")
    parser.add_argument("--output", type=Path, default=ROOT / "results")
    given = parser.parse_args()
    path = given.output / "versions.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []
    path.touch()  # pages link to both
    (given.output / "versions.md").touch()
    row = run(given.name, given.python)
    rows = sorted(
        [old for old in rows if old["name"] != row["name"]] + [row], key=lambda one: one["name"], reverse=True
    )
    path.write_text("".join(json.dumps(one) + "\n" for one in rows), encoding="utf-8")
    (given.output / "versions.md").write_text(page(rows), encoding="utf-8")
    print({key: row[key] for key in ("name", "python", "passed", "failed", "skipped")})
    sys.exit(row["failed"] > 0)


if __name__ == "__main__":
    main()
