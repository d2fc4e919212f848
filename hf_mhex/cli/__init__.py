"""The `mhex` command: its verbs and how they fail. Each verb imports what it needs when it runs."""

from __future__ import annotations

import logging
import os
import sys
import traceback
import warnings
from opcode import opmap
from typing import Annotated

import typer

from hf_mhex.cli.app import app as serve
from hf_mhex.cli.benchmark import benchmark
from hf_mhex.cli.card import card
from hf_mhex.cli.channels import collaboration
from hf_mhex.cli.convert import convert
from hf_mhex.cli.demo import demo
from hf_mhex.cli.env import env
from hf_mhex.cli.evaluate import evaluate
from hf_mhex.cli.explain import explain
from hf_mhex.cli.export import export
from hf_mhex.cli.filters import filters
from hf_mhex.cli.heads import heads
from hf_mhex.cli.info import info
from hf_mhex.cli.pull import pull
from hf_mhex.cli.push import push
from hf_mhex.cli.smx import smx_command
from hf_mhex.cli.terminal import echo
from hf_mhex.cli.train import train
from hf_mhex.escaping import visible

app = typer.Typer(
    name="mhex",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
VERBS = (
    demo, convert, info, explain, train, evaluate, card, push, pull, export, collaboration, heads, filters, env,
)  # fmt: skip
for verb in VERBS:
    app.command()(verb)
app.command("app")(serve)
app.command("smx")(smx_command)
app.add_typer(benchmark, name="benchmark")


@app.callback()
def options(debug: Annotated[bool, typer.Option("--debug", help="Show an error's traceback.")] = False) -> None:
    """MHEX models for transformers: image, text and signal classifiers that explain themselves.

    Exit codes: 0 done, 1 failed (one line on stderr says why), 2 wrong usage, 3 a bug in mhex, 130 ended by Ctrl-C.
    What a verb writes is there as a whole or not at all.
    """


def main() -> None:
    """Run `mhex`; `--debug` may stand before or after the verb."""
    if "TRANSFORMERS_VERBOSITY" not in os.environ:
        os.environ["TRANSFORMERS_VERBOSITY"] = "error"  # of the processes that a verb starts
        logging.getLogger("transformers").setLevel(logging.ERROR)
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")  # five lines for a Hub that cannot be reached
    if not sys.stderr.isatty():
        for bars in ("HF_HUB_DISABLE_PROGRESS_BARS", "HF_DATASETS_DISABLE_PROGRESS_BARS"):
            os.environ.setdefault(bars, "1")
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    before, warnings.formatwarning = warnings.formatwarning, warning_line
    try:
        app(arguments)
    except SystemExit as end:
        if end.code == 130:
            echo("mhex: ended by Ctrl-C.", err=True)
        raise
    except Exception as error:
        line, code = failure(error)
        if len(arguments) < len(sys.argv) - 1:
            echo(traceback.format_exc(), err=True)
        echo(f"mhex: {line}", err=True)
        sys.exit(code)
    finally:
        warnings.formatwarning = before


def warning_line(message: Warning | str, category, filename, lineno, line=None) -> str:
    """What a warning says, on one line; where it was made says nothing to who runs a verb."""
    return f"mhex: warning: {visible(str(message))}\n"


def failure(error: Exception) -> tuple[str, int]:
    """The line that says what went wrong, and the exit code: 1 for what the caller can mend, 3 for a bug."""
    from hf_mhex.environment import missing_extra

    said = (str(error).strip().splitlines() or [type(error).__name__])[0]
    if isinstance(error, ModuleNotFoundError) and (line := missing_extra(error)):
        return line, 1
    memory = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    if type(error).__name__ == "SafetensorError":
        return f"weights cannot be read ({said}): the file is truncated, or a Git-LFS pointer; fetch it again.", 1
    on_purpose = isinstance(error, (TypeError, RuntimeError)) and raised(error)
    if isinstance(error, (ValueError, OSError)) or memory or on_purpose:
        return said, 1
    where = "please report it where hf-mhex comes from, with what --debug and `mhex env` print"
    return f"a bug in mhex, {type(error).__name__}: {said}; {where}.", 3


def raised(error: Exception) -> bool:
    """Whether a `raise` statement made the error; a mistake in the code shows at another instruction."""
    step = error.__traceback__
    while step is not None and step.tb_next is not None:
        step = step.tb_next
    return step is not None and step.tb_frame.f_code.co_code[step.tb_lasti] == opmap["RAISE_VARARGS"]
