"""Does MHEX-BERT pass the model and configuration tests that transformers runs on its own classes?"""

import unittest
from unittest.mock import patch

import pytest

from common_tests import KnownClasses, load
from hf_mhex import MHEXBertConfig, MHEXBertForSequenceClassification, MHEXBertModel
from networks import BERT, text_batch

common = load("test_modeling_common")
configuration_common = load("test_configuration_common")
pytestmark = pytest.mark.slow


class BertTester:
    """The network that the common tests look at, and what it is to hold."""

    is_training = True
    batch_size, seq_length = 4, 13
    vocab_size = BERT["vocab_size"]
    hidden_size = BERT["hidden_size"]
    num_attention_heads = BERT["num_attention_heads"]
    num_hidden_layers = 2

    def get_config(self):
        return MHEXBertConfig(**{**BERT, "num_hidden_layers": self.num_hidden_layers, "initializer_range": 0.2})

    def prepare_config_and_inputs_for_common(self):
        return self.get_config(), text_batch(self.batch_size, self.seq_length)


class BertTests(KnownClasses, common.ModelTesterMixin):
    registered = {
        "MODEL_MAPPING_NAMES": MHEXBertModel,
        "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES": MHEXBertForSequenceClassification,
    }
    test_can_init_all_missing_weights_before_2023 = True

    def setUp(self):
        super().setUp()
        self.model_tester = BertTester()

    def test_feed_forward_chunking(self):
        """Refused, where the common test sets it too, after the config was made: a gate pools over all tokens."""
        config = self.model_tester.get_config()
        config.chunk_size_feed_forward = 1
        for model_class in self.all_model_classes:
            with self.assertRaisesRegex(ValueError, "chunk_size_feed_forward must be 0"):
                model_class(config)


class TestMHEXBertModel(BertTests, unittest.TestCase):
    all_model_classes = (MHEXBertModel,)


class TestMHEXBertForSequenceClassification(BertTests, unittest.TestCase):
    all_model_classes = (MHEXBertForSequenceClassification,)


class TestMHEXBertConfig(unittest.TestCase):
    def test_config(self):
        """All but `chunk_size_feed_forward`, which MHEX-BERT refuses: its gates pool over the whole sequence."""
        tester = configuration_common.ConfigTester(self, config_class=MHEXBertConfig, hidden_size=36)
        values = configuration_common.config_common_kwargs
        with patch.dict(values):
            refused = values.pop("chunk_size_feed_forward")
            tester.run_common_tests()
        with self.assertRaisesRegex(ValueError, "chunk_size_feed_forward must be 0"):
            MHEXBertConfig(chunk_size_feed_forward=refused)
