"""Summary of transformers' common tests: pytest's JUnit report as a Markdown page.

Run as `python summary.py REPORT PAGE`; exits with 1 unless tests ran and none failed.
"""

import ast
import platform
import re
import sys
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import timm
import torch
import transformers

ADAPTED_IN = (Path(__file__).parent, Path(__file__).parents[1] / "support")


def read(report: Path) -> dict[str, dict[str, tuple[str, str]]]:
    """Class -> test -> ("passed" | "skipped" | "failed", reason) from a JUnit report."""
    results: dict[str, dict[str, tuple[str, str]]] = {}
    for case in ElementTree.parse(report).getroot().iter("testcase"):
        name = case.get("classname").rpartition(".")[2].removeprefix("Test")
        outcome = "passed", ""
        for kind, word in (("skipped", "skipped"), ("failure", "failed"), ("error", "failed")):
            found = case.find(kind)
            if found is not None:
                outcome = word, plain_reason(found.get("message") or "no reason given", name)
        results.setdefault(name, {})[case.get("name")] = outcome
    return results


def plain_reason(message: str, name: str) -> str:
    """The message's first line, the same for every class: "it" stands for the class `name`."""
    line = re.sub(r"<class '[\w.]*\.(\w+)'>", r"\1", message.splitlines()[0])
    return re.sub(rf"\b{name}( class)?\b", "it", line).replace("|", "\\|").rstrip(".")


def adapted_tests() -> list[list[str]]:
    """Common tests that our test classes define anew: [name, why], by their docstring or the reason of their skip."""
    found = []
    for path in sorted(path for folder in ADAPTED_IN for path in folder.glob("*common*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                calls = [call for call in node.decorator_list if isinstance(call, ast.Call)]
                skips = (f"Skipped. {call.args[0].value}." for call in calls)
                why = " ".join((ast.get_docstring(node) or "".join(skips)).split())
                if why:
                    found.append([f"`{node.name}` ({path.name})", why])
    return found


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    """A Markdown table."""
    return ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows)] + [""]


def page(results: dict[str, dict[str, tuple[str, str]]]) -> str:
    """The Markdown page."""
    models = [name for name in results if not name.endswith("Config")]
    tests = sorted({test for name in models for test in results[name]})
    device = "with an accelerator" if torch.accelerator.is_available() else "on a CPU"
    lines = [
        "# transformers' own common tests on the MHEX classes",
        "",
        f"Made by `make test-common`: transformers {transformers.__version__}, torch {torch.__version__}, "
        f"timm {timm.__version__}, Python {'.'.join(platform.python_version_tuple()[:2])}, {device}.",
        "",
        "`ModelTesterMixin` and `ConfigTester` from transformers' source distribution run on small networks whose "
        "gates are random, because with W1 = 0 every logit is 0 and any two outputs agree. A test that finds nothing "
        "to look at passes at once: one for classifiers on a body, one for a method that a class does not have "
        "(`get_image_features` and its like). The source distribution leaves the tests of export and of generation "
        "out, so they did not run; the values that `ConfigTester` sets are ours.",
        "",
    ]
    counts = {name: Counter(word for word, _ in found.values()) for name, found in results.items()}
    words = ["passed", "skipped", "failed"]
    lines += table(["class", *words], [[name, *(str(count[word]) for word in words)] for name, count in counts.items()])

    everywhere, ran, reasons = [], [], []
    for test in tests:
        outcomes = [results[name].get(test, ("not there", "")) for name in models]
        if {word for word, _ in outcomes} == {"skipped"}:
            everywhere.append([f"`{test}`", "; ".join(dict.fromkeys(reason for _, reason in outcomes))])
            continue
        cells = []
        for word, reason in outcomes:
            if reason and reason not in reasons:
                reasons.append(reason)
            cells.append(f"{word} ({reasons.index(reason) + 1})" if reason else word)
        ran.append([f"`{test}`", *cells])
    lines += ["## Tests that ran", "", "A number in brackets names the reason below the table.", ""]
    lines += table(["test", *models], ran)
    lines += [*(f"{number}. {reason}" for number, reason in enumerate(reasons, 1)), ""]
    lines += ["## Tests that every class skips, by their own conditions", ""] + table(["test", "reason"], everywhere)
    lines += ["## Tests fitted to what MHEX is", ""] + table(["test", "why"], adapted_tests())
    return "\n".join(lines).rstrip() + "\n"


def main(report: str, target: str) -> int:
    """Write the page; 0 if tests ran and none failed, else 1."""
    results = read(Path(report))
    Path(target).parent.mkdir(parents=True, exist_ok=True)
    Path(target).write_text(page(results), encoding="utf-8")
    total = Counter(word for found in results.values() for word, _ in found.values())
    print(f"{target}: " + ", ".join(f"{total[word]} {word}" for word in ("passed", "skipped", "failed")))
    return 0 if total["passed"] and not total["failed"] else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
