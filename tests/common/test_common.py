"""The model and configuration tests that transformers runs on its own classes, on every family's."""

import unittest
from unittest.mock import patch

import pytest
import torch
from parameterized import parameterized

from common_tests import KnownClasses, load
from hf_mhex.families import Family
from networks import FIELDS, NAMES, batch_for, family_named

common = load("test_modeling_common")
configuration_common = load("test_configuration_common")
pytestmark = pytest.mark.slow


TABLES = {  # where transformers lists its classifiers
    "text": "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES",
    "image": "MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES",
    "signal": "MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING_NAMES",
}


class SmallNetwork:
    """The network that the common tests look at, and what it is to hold."""

    is_training = True
    batch_size, seq_length = 4, 13
    vocab_size, hidden_size, num_attention_heads, num_hidden_layers = 120, 32, 4, 2  # of every text network

    def __init__(self, family: Family):
        self.family = family

    def get_config(self):
        fields = dict(FIELDS[self.family.name])
        if self.family.kind == "text":
            fields["n_layers" if "n_layers" in fields else "num_hidden_layers"] = self.num_hidden_layers
            fields["initializer_range"] = 0.2
        elif self.family.name == "resnet":
            fields["architecture_kwargs"] = {**fields["architecture_kwargs"], "zero_init_last": False}
        return self.family.config(**fields)

    def prepare_config_and_inputs_for_common(self):
        return self.get_config(), batch_for(self.family.name, batch=self.batch_size)


class FamilyTests(KnownClasses):
    """The common tests of a body or a classifier of a family."""

    family: Family
    test_can_init_all_missing_weights_before_2023 = True

    def setUp(self):
        super().setUp()
        self.model_tester = SmallNetwork(self.family)

    def test_training_gradient_checkpointing_use_reentrant_true(self):
        """Refused: reentrant checkpoints lose the gradients of gates and heads."""
        for model_class in self.all_model_classes:
            model = model_class(self.model_tester.get_config())
            with self.assertRaisesRegex(ValueError, "use_reentrant=True would lose the gradients"):
                model.activation_checkpointing_enable({"use_reentrant": True})


class TextTests(FamilyTests, common.ModelTesterMixin):
    def test_feed_forward_chunking(self):
        """Refused where a plain layer would cut the tokens into chunks, over all of which a gate pools."""
        config = self.model_tester.get_config()
        config.chunk_size_feed_forward = 1
        try:
            config.check_fields()
        except ValueError as error:
            self.assertRegex(str(error), "chunk_size_feed_forward must be 0")
        else:
            super().test_feed_forward_chunking()

    def test_inputs_embeds_matches_input_ids(self):
        """With positions given: RoBERTa counts them past padding by ids, and through it by embeddings."""
        positions = torch.arange(self.model_tester.seq_length)[None]
        super().test_inputs_embeds_matches_input_ids(position_ids=positions)

    @parameterized.expand(["linear", "dynamic", "yarn"])
    def test_model_rope_scaling_from_config(self, scaling):
        """The limit is lifted, since the common test reads texts of 1.5 times the positions; MHEX refuses those."""
        with patch.object(self.family.body, "max_tokens", 1 << 20):
            getattr(super(), self._testMethodName)()


class ImageTests(FamilyTests, common.ModelTesterMixin):
    has_attentions = False
    test_resize_embeddings = False

    @unittest.skip("An image has no embedding table")
    def test_model_get_set_embeddings(self):
        pass

    def test_hidden_states_output(self):
        """The common test expects [tokens, channels]; here it is the stem's and each stage's feature map."""
        config, inputs = self.model_tester.prepare_config_and_inputs_for_common()
        for model_class in self.all_model_classes:
            config.output_hidden_states = False
            model = model_class(config).eval()
            self.assertIsNone(model(**inputs).hidden_states)
            by_argument = model(**inputs, output_hidden_states=True).hidden_states
            self.assertEqual(len(by_argument), 1 + len(model.base_model.stages()))
            config.output_hidden_states = True
            for one, two in zip(by_argument, model(**inputs).hidden_states, strict=True):
                torch.testing.assert_close(one, two)

    @unittest.skip("timm draws a new trunk; layers that a file lacks start as transformers starts any layer")
    def test_can_init_all_missing_weights(self):
        pass


class ConfigTests:
    """The common tests of a family's configuration."""

    family: Family

    def test_config(self):
        """All, but a field of `config_common_kwargs` that the family refuses and names (gates pool over all tokens)."""
        values, text = configuration_common.config_common_kwargs, self.family.kind == "text"
        fields = {"initializer_range": 0.3} if text else {"num_channels": 1}
        properties = None if text else ["num_channels"]
        with patch.dict(values):
            try:
                self.family.config(chunk_size_feed_forward=values["chunk_size_feed_forward"])
            except ValueError as error:
                self.assertRegex(str(error), "chunk_size_feed_forward must be 0")
                del values["chunk_size_feed_forward"]
            configuration_common.ConfigTester(
                self, self.family.config, has_text_modality=text, common_properties=properties, **fields
            ).run_common_tests()


def add_tests(family: Family) -> None:
    """Define the test classes of a family in this module."""
    registered = {"MODEL_MAPPING_NAMES": family.body, TABLES[family.kind]: family.classifier}
    tests = TextTests if family.kind == "text" else ImageTests
    made = {model: (tests, {"registered": registered, "all_model_classes": (model,)}) for model in registered.values()}
    for tested, (base, fields) in (made | {family.config: (ConfigTests, {})}).items():
        name = f"Test{tested.__name__}"
        globals()[name] = type(name, (base, unittest.TestCase), {"family": family, "__module__": __name__, **fields})


for name in NAMES:
    add_tests(family_named(name))
