"""MHEX-Toy: the plain toy model with a gate and a head a layer."""

from typing import TYPE_CHECKING

from .configuration_mhex_toy import MHEXToyConfig
from .mhex import MHEXPreTrainedMixin
from .mhex_blocks import GatedBlock, Trace, add_gates
from .mhex_texts import MHEXTextBody, MHEXTextClassifier
from .plain_toy import ToyLayer, ToyModel, ToyPreTrainedModel

if TYPE_CHECKING:  # never run: loaders copy what a file names, and older ones look no deeper
    from .mhex_config import MHEXConfigMixin  # noqa: F401
    from .mhex_loss import deep_supervision_loss  # noqa: F401
    from .mhex_maps import Features  # noqa: F401
    from .mhex_words import Word  # noqa: F401
    from .pipeline_mhex import SaliencyPipeline  # noqa: F401


class MHEXToyLayer(GatedBlock, ToyLayer):
    """The plain layer with a gate: g * (x + f)."""

    channel_axis = -1

    def forward(self, x, mask, trace: Trace | None = None, **_):
        """x [B, T, C] to the next layer's input."""
        z = x + self.branch(x, mask)
        return self.gated(z, trace=Trace() if trace is None else trace) * z


class MHEXToyPreTrainedModel(MHEXPreTrainedMixin, ToyPreTrainedModel):
    """Loading, saving and the start of new weights."""

    config_class = MHEXToyConfig


class MHEXToyModel(MHEXTextBody, ToyModel):
    """The toy model's body with a gate in every layer. With every W1 at 0 it is `ToyModel`, exactly."""

    config_class = MHEXToyConfig
    has_segments = False
    can_roll_out = False

    def __init__(self, config: MHEXToyConfig):
        super().__init__(config)
        config.check_fields()
        add_gates(dict.fromkeys(self.layers, MHEXToyLayer), [config.hidden_size] * len(self.layers), config)
        self.post_init()

    @property
    def blocks(self):
        """The gated layers in order."""
        return list(self.layers)


class MHEXToyForSequenceClassification(MHEXTextClassifier, MHEXToyPreTrainedModel):
    """Text classification by the heads of MHEX-Toy, with `generate_saliency` over tokens."""

    body_class = MHEXToyModel
