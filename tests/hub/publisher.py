"""Run by path: publishes what it reads from stdin, one JSON object a line, and answers with one line each.

A line holds keyword arguments of `hf_mhex.publish` (with "space": of `publish_space`), or "command", the words of a
`mhex` command, or "plainly", a folder whose model and processor go to "repo_id" by their own `push_to_hub`. The answer
has "found", or "error" with its class and text; of a command "code", "out" and "err". Waits are cut short.
"""

import contextlib
import dataclasses
import io
import json
import sys
import time
import warnings

import hf_mhex
from hf_mhex.cli import main
from hf_mhex.hub.publishing import publish_space

sleep = time.sleep
time.sleep = lambda seconds: sleep(min(seconds, 0.01))
warnings.simplefilter("ignore")


def run(words):
    """What a `mhex` command prints, and its exit code."""
    sys.argv = ["mhex", *words]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main() or 0
        except SystemExit as stop:
            code = stop.code or 0
    return {"code": code, "out": out.getvalue(), "err": err.getvalue()}


def push_plainly(folder, repo_id):
    """As any model of transformers is pushed."""
    for part in hf_mhex.load(folder):
        part.push_to_hub(repo_id)
    return {}


def publish(**arguments):
    call = publish_space if arguments.pop("space", False) else hf_mhex.publish
    found = call(**arguments)
    return {"found": dataclasses.asdict(found), "snippet": found.snippet}


for line in sys.stdin:
    given = json.loads(line)
    try:
        if "command" in given:
            answer = run(given["command"])
        elif "plainly" in given:
            answer = push_plainly(given["plainly"], given["repo_id"])
        else:
            answer = publish(**given)
    except Exception as error:
        answer = {"error": type(error).__name__, "text": str(error), "kinds": [k.__name__ for k in type(error).__mro__]}
    print(json.dumps(answer), flush=True)
