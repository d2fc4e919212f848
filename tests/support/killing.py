"""Callables that kill the process that they run in, once: what a lost worker of an engine is tried with."""

import os
import signal
from pathlib import Path

from hf_mhex import Explainer, MHEXBertForSequenceClassification, MHEXResNetForImageClassification


def kill_once(marker):
    """End this process without a word, unless the file is there."""
    try:
        Path(marker).touch(exist_ok=False)
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


class KilledExplainer(Explainer):
    """Ends its process at the batch with the row number `at`."""

    def __init__(self, source, marker, at, **options):
        super().__init__(source, **options)
        self.marker, self.at = marker, at

    def __call__(self, batch):
        if self.at in list(batch["number"]):
            kill_once(self.marker)
        return super().__call__(batch)


class KilledResNet(MHEXResNetForImageClassification):
    """Ends its process at the first map."""

    def generate_saliency(self, **inputs):
        kill_once(self.marker)
        return super().generate_saliency(**inputs)


class KilledBert(MHEXBertForSequenceClassification):
    """Ends its process at the first map."""

    def generate_saliency(self, **inputs):
        kill_once(self.marker)
        return super().generate_saliency(**inputs)
