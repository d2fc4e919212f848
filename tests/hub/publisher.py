"""Run by path: publishes what it reads from stdin, one JSON object a line, and answers with one line each.

A line holds keyword arguments of `hf_mhex.publish` (with "space": of `publish_space`); the answer has "found", or
"error" with its class and text. Waiting between tries is cut short.
"""

import dataclasses
import json
import sys
import time
import warnings

import hf_mhex
from hf_mhex.publishing import publish_space

sleep = time.sleep
time.sleep = lambda seconds: sleep(min(seconds, 0.01))
warnings.simplefilter("ignore")
for line in sys.stdin:
    arguments = json.loads(line)
    call = publish_space if arguments.pop("space", False) else hf_mhex.publish
    try:
        found = call(**arguments)
        answer = {"found": dataclasses.asdict(found), "snippet": found.snippet}
    except Exception as error:
        answer = {"error": type(error).__name__, "text": str(error), "kinds": [k.__name__ for k in type(error).__mro__]}
    print(json.dumps(answer), flush=True)
