"""What is MHEX compared with? The network that it starts from, with that network's own classifier and no gates.

These two exist for comparison by the same recipe: they take the same labels and the same loss.
"""

import timm
import torch.nn.functional as F
from torch import nn
from transformers import BertForSequenceClassification, PreTrainedModel
from transformers.modeling_outputs import ImageClassifierOutput, SequenceClassifierOutput

from hf_mhex.modeling.configuration_mhex_resnet import MHEXResNetConfig
from hf_mhex.modeling.mhex_loss import deep_supervision_loss


def plain_loss(logits, labels, config, num_items_in_batch):
    """The task loss of logits [B, K], as every head of MHEX has it; None without labels."""
    if labels is None:
        return None
    return deep_supervision_loss(logits, logits[:, None][:, :0], labels, config, num_items_in_batch)[0]


class PlainBert(BertForSequenceClassification):
    """BERT with pooler and classifier, whose loss knows the accumulated batch's size and label smoothing."""

    accepts_loss_kwargs = True

    def forward(self, input_ids=None, labels=None, num_items_in_batch=None, **kwargs):
        answer = super().forward(input_ids, **kwargs)
        loss = plain_loss(answer.logits, labels, self.config, num_items_in_batch)
        rest = {"hidden_states": answer.hidden_states, "attentions": answer.attentions}
        return SequenceClassifierOutput(loss=loss, logits=answer.logits, **rest)


class PlainResNet(PreTrainedModel):
    """timm's ResNet with pooling and `fc`, under the configuration of its MHEX twin."""

    config_class = MHEXResNetConfig
    base_model_prefix = "network"
    main_input_name = "pixel_values"
    accepts_loss_kwargs = True
    supports_gradient_checkpointing = True

    def __init__(self, config: MHEXResNetConfig):
        super().__init__(config)
        self.network = timm.create_model(
            config.architecture,
            in_chans=config.num_channels,
            num_classes=config.num_labels,
            **(config.architecture_kwargs or {}),
        )
        for module in self.network.modules():  # timm has initialised them
            module._is_hf_initialized = True
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Nothing: timm initialises its network when it is made."""

    def _set_gradient_checkpointing(self, enable=True, gradient_checkpointing_func=None):
        self.network.set_grad_checkpointing(enable)

    def forward(self, pixel_values=None, labels=None, num_items_in_batch=None, **kwargs):
        if labels is None or labels.ndim < 3:
            logits = self.network(pixel_values)
        else:  # a mosaic: each part by the positions of its own, as MHEX reads it
            cells = F.adaptive_avg_pool2d(self.network.forward_features(pixel_values), labels.shape[1:3])
            logits, labels = self.network.fc(cells.flatten(2).mT.flatten(0, 1)), labels.flatten(0, 2)
        loss = plain_loss(logits, labels, self.config, num_items_in_batch)
        return ImageClassifierOutput(loss=loss, logits=logits)
