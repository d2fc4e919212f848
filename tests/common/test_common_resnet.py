"""Does MHEX-ResNet pass the model and configuration tests that transformers runs on its own classes?"""

import unittest
from unittest.mock import patch

import pytest
import torch

from common_tests import KnownClasses, load
from hf_mhex import MHEXResNetConfig, MHEXResNetForImageClassification, MHEXResNetModel
from networks import RESNET, image_batch

common = load("test_modeling_common")
configuration_common = load("test_configuration_common")
pytestmark = pytest.mark.slow


class ResNetTester:
    """The network that the common tests look at, and what it is to hold."""

    is_training = True
    batch_size, image_size = 3, (41, 33)

    def get_config(self):
        kwargs = {**RESNET["architecture_kwargs"], "zero_init_last": False}
        return MHEXResNetConfig(architecture=RESNET["architecture"], architecture_kwargs=kwargs)

    def prepare_config_and_inputs_for_common(self):
        return self.get_config(), image_batch(self.batch_size, self.image_size)


class ResNetTests(KnownClasses, common.ModelTesterMixin):
    registered = {
        "MODEL_MAPPING_NAMES": MHEXResNetModel,
        "MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES": MHEXResNetForImageClassification,
    }
    test_can_init_all_missing_weights_before_2023 = True
    has_attentions = False
    test_resize_embeddings = False

    def setUp(self):
        super().setUp()
        self.model_tester = ResNetTester()

    @unittest.skip("An image has no embedding table")
    def test_model_get_set_embeddings(self):
        pass

    def test_hidden_states_output(self):
        """The common test expects [tokens, channels]; here it is the stem's and each stage's feature map."""
        config, inputs = self.model_tester.prepare_config_and_inputs_for_common()
        channels = config.architecture_kwargs["channels"]
        sizes = [(11, 9), (11, 9), (6, 5), (3, 3), (2, 2)]
        expected = [(3, width, *size) for width, size in zip([64, *channels], sizes)]
        for model_class in self.all_model_classes:
            config.output_hidden_states = False
            model = model_class(config).eval()
            self.assertIsNone(model(**inputs).hidden_states)
            by_argument = model(**inputs, output_hidden_states=True).hidden_states
            config.output_hidden_states = True
            by_config = model_class(config).eval()(**inputs).hidden_states
            for found in (by_argument, by_config):
                self.assertEqual([tuple(state.shape) for state in found], expected)

    def test_can_init_all_missing_weights(self):
        """timm draws a new trunk's weights; seeded as the common test seeds each module, they must be the same."""
        draw = torch.nn.init.kaiming_normal_

        def seeded(*args, **kwargs):
            common.set_seed(42)
            return draw(*args, **kwargs)

        with patch("torch.nn.init.kaiming_normal_", seeded):
            super().test_can_init_all_missing_weights()


class TestMHEXResNetModel(ResNetTests, unittest.TestCase):
    all_model_classes = (MHEXResNetModel,)


class TestMHEXResNetForImageClassification(ResNetTests, unittest.TestCase):
    all_model_classes = (MHEXResNetForImageClassification,)


class TestMHEXResNetConfig(unittest.TestCase):
    def test_config(self):
        configuration_common.ConfigTester(
            self, config_class=MHEXResNetConfig, has_text_modality=False, common_properties=["num_channels"]
        ).run_common_tests()
