"""A plain text model of a few lines, as a library would have it: what the toy family is made from."""

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput


class ToyConfig(PreTrainedConfig):
    """Sizes of a toy model."""

    model_type = "toy"

    vocab_size: int = 120
    hidden_size: int = 16
    num_hidden_layers: int = 2
    max_position_embeddings: int = 40


class ToyLayer(nn.Module):
    """A residual layer, z = x + f(x), whose branch reads a token and the mean of all tokens."""

    def __init__(self, width: int):
        super().__init__()
        self.own, self.mean, self.out = nn.Linear(width, width), nn.Linear(width, width), nn.Linear(width, width)

    def branch(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """f(x) [B, T, C] of x [B, T, C], with padding (mask [B, T, 1] of 0) left out of the mean."""
        mean = (mask * x).sum(1, keepdim=True) / mask.sum(1, keepdim=True)
        return self.out(torch.tanh(self.own(x) + self.mean(mean)))

    def forward(self, x: torch.Tensor, mask: torch.Tensor, **_) -> torch.Tensor:
        """The next layer's input."""
        return x + self.branch(x, mask)


class ToyPreTrainedModel(PreTrainedModel):
    """Loading, saving and the start of new weights."""

    config_class = ToyConfig
    base_model_prefix = "toy"


class ToyModel(ToyPreTrainedModel):
    """Embeddings of tokens and positions, and residual layers."""

    def __init__(self, config: ToyConfig):
        super().__init__(config)
        self.embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.positions = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.layers = nn.ModuleList(ToyLayer(config.hidden_size) for _ in range(config.num_hidden_layers))
        self.post_init()

    def forward(self, input_ids=None, attention_mask=None, position_ids=None, inputs_embeds=None, **kwargs):
        """Features [B, T, C] of tokens [B, T]; the layers get `kwargs`."""
        x = self.embeddings(input_ids) if inputs_embeds is None else inputs_embeds
        position_ids = torch.arange(x.shape[1], device=x.device) if position_ids is None else position_ids
        mask = x.new_ones(x.shape[:2]) if attention_mask is None else attention_mask.to(x.dtype)
        x = x + self.positions(position_ids)
        for layer in self.layers:
            x = layer(x, mask[..., None], **kwargs)
        return BaseModelOutput(last_hidden_state=x)
