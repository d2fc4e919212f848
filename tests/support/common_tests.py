"""Access to transformers' common tests: they come to know our classes and see weights that say something."""

import importlib.util
import os
import sys
import warnings
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from transformers import initialization as init
from transformers.models.auto import modeling_auto

from hf_mhex.modeling import mhex_blocks

PACKAGE = "transformers_common_tests"


def load(name: str):
    """The module `name` of the unpacked tests; skips the calling test module where TRANSFORMERS_TESTS names none."""
    folder = os.environ.get("TRANSFORMERS_TESTS")
    if not folder:
        pytest.skip("TRANSFORMERS_TESTS is not set: run `make test-common`", allow_module_level=True)
    if PACKAGE not in sys.modules:
        found = Path(folder).resolve()
        spec = importlib.util.spec_from_file_location(
            PACKAGE, found / "__init__.py", submodule_search_locations=[str(found)]
        )
        sys.modules[PACKAGE] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[PACKAGE])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pytest.PytestUnknownMarkWarning)
        return import_module(f"{PACKAGE}.{name}")


class KnownClasses:
    """Mixin of a test class: `registered` (mapping name -> class) stand in the tables of transformers' own classes.

    The common tests look up there which class is a body and which a classifier, and so has labels and a loss.
    Except in the tests named in `genuine_start`, gates start at random instead of at W1 = 0, where all logits are 0
    and no comparison of outputs could fail.
    """

    registered = {}
    genuine_start = ("test_can_init_all_missing_weights", "test_init_weights_can_init_buffers")

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        with ExitStack() as stack:
            for mapping, model in cls.registered.items():
                names = getattr(modeling_auto, mapping)
                stack.enter_context(patch.dict(names, {model.config_class.model_type: model.__name__}))
            cls.addClassCleanup(stack.pop_all().close)

    def test_can_load_ignoring_mismatched_shapes(self):
        """As it stands the test seeks one `nn.Linear` at the top: it is shown one of the size of each head."""
        named_children = torch.nn.Module.named_children

        def with_each_head(model):
            for name, child in named_children(model):
                if name != "heads":
                    yield name, child
                    continue
                for index, head in enumerate(child):
                    yield f"heads.{index}", torch.nn.Linear(head.in_features, head.out_features, device="meta")

        each_head = patch.object(self.all_model_classes[0], "named_children", with_each_head)
        with each_head, patch.object(mhex_blocks, "HEAD_STD", 0.5):  # new weights must have a mean below 0.1
            super().test_can_load_ignoring_mismatched_shapes()

    def setUp(self):
        super().setUp()
        if self._testMethodName in self.genuine_start:
            return
        start = self.all_model_classes[0]._init_weights

        @torch.no_grad()
        def start_lively(model, module):
            start(model, module)
            if isinstance(module, mhex_blocks.AttentionGate):
                init.normal_(module.weight)

        for model_class in self.registered.values():  # a classifier's body initialises itself
            patcher = patch.object(model_class, "_init_weights", start_lively)
            patcher.start()
            self.addCleanup(patcher.stop)
