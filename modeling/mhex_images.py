"""Body and classifier of image models whose trunk timm builds."""

from difflib import get_close_matches
from typing import TYPE_CHECKING

import timm
import torch
from torch import nn
from transformers import PreTrainedModel

from .mhex import MHEXClassifierMixin, MHEXPreTrainedMixin, MHEXStagedBody
from .mhex_blocks import Trace, add_gates
from .mhex_maps import check_names

if TYPE_CHECKING:  # never run: loaders copy what a file names, and older ones look no deeper
    from .mhex_loss import deep_supervision_loss  # noqa: F401

OUTPUT_OPTIONS = ("output_attentions",)


class MHEXImagePreTrainedModel(MHEXPreTrainedMixin, PreTrainedModel):
    """Loading, saving and the start of new weights."""

    main_input_name = "pixel_values"
    input_modalities = ("image",)
    supports_gradient_checkpointing = True

    def _init_weights(self, module):
        if hasattr(module, "init_non_persistent_buffers"):
            module.init_non_persistent_buffers()
        else:
            super()._init_weights(module)

    def get_input_embeddings(self):
        """None: an image has no embedding table."""
        return


class MHEXImageBody(MHEXStagedBody):
    """Mixin of a timm network without its classifier, with a gate in every block.

    A subclass names timm's class (`trunk_class`) and its blocks' gated classes (`gated`), and says what `stages` there
    are. Freshly made it starts as timm does. Raises ValueError for an architecture that does not fit.
    """

    _auto_class = "AutoModel"
    trunk_class: type
    trunk_options: dict = {}
    gated: dict[type, type] = {}
    takes_mask = False

    def __init__(self, config):
        super().__init__(config)  # type: ignore[call-arg]  # a mixin: transformers' class comes next
        config.check_fields()
        self.trunk = self.create_trunk(config)
        if not any(parameter.is_meta for parameter in self.trunk.parameters()):
            for module in self.trunk.modules():  # timm has initialised them; post_init would do it again
                module._is_hf_initialized = True
        blocks = self.blocks
        unknown = sorted({type(block).__name__ for block in blocks if type(block) not in self.gated})
        if unknown or not blocks:
            raise ValueError(
                f"architecture={config.architecture!r} has {', '.join(unknown) or 'no'} blocks; {type(self).__name__} "
                f"takes {', '.join(kind.__name__ for kind in self.gated)}."
            )
        widths = [self.width(block) for block in blocks]
        add_gates({block: self.gated[type(block)] for block in blocks}, widths, config)
        self.post_init()

    @classmethod
    def create_trunk(cls, config) -> nn.Module:
        """timm's network for `config.architecture`. Nothing is downloaded; ValueError where it cannot be made."""
        name = config.architecture
        if not timm.is_model(name):
            close = get_close_matches(name, timm.list_models(), n=3)
            raise ValueError(f"architecture={name!r} is not registered in timm {timm.__version__}; close are {close}.")
        arguments = dict(config.architecture_kwargs or {}, in_chans=config.num_channels, num_classes=0)
        try:
            trunk = timm.create_model(name, pretrained=False, **arguments, **cls.trunk_options)
        except (TypeError, AssertionError, AttributeError, RuntimeError, ZeroDivisionError) as error:
            raise ValueError(
                f"architecture={name!r} cannot be made with architecture_kwargs={config.architecture_kwargs}: {error}"
            ) from error
        if type(trunk) is not cls.trunk_class:
            raise ValueError(
                f"architecture={name!r} is timm's {type(trunk).__name__}; {cls.__name__} takes its "
                f"{cls.trunk_class.__name__}."
            )
        trunk.head = nn.Identity()  # a classifier's norm and dropout, where timm leaves them
        return trunk

    def width(self, block: nn.Module) -> int:
        """Channels of a block's features."""
        raise NotImplementedError("a subclass says how wide its blocks are")

    def stem(self, x: torch.Tensor) -> torch.Tensor:
        """Pixels [B, num_channels, H, W] to the first block's input."""
        raise NotImplementedError("a subclass says what its stem is")

    def check_size(self, height: int, width: int) -> None:
        """ValueError for images of a size that timm's patch embedding does not take."""
        embed = getattr(self.trunk, "patch_embed", None)
        if embed is None or embed.img_size is None:
            return
        size = embed.img_size
        if embed.strict_img_size and (height, width) != tuple(size):
            raise ValueError(
                f"pixel_values must be {size[0]} x {size[1]} pixels, got {height} x {width}; use the model's image "
                "processor, or make the model with dynamic_img_size=True (ViT) or strict_img_size=False (Swin) in "
                "architecture_kwargs."
            )
        rows, columns = embed.patch_size
        if not (embed.strict_img_size or embed.dynamic_img_pad) and (height % rows or width % columns):
            raise ValueError(
                f"pixel_values must have sides that {rows} and {columns} divide, the patch's, got {height} x {width}."
            )

    def trace(self, x: torch.Tensor, pixels: torch.Tensor, explain, rollout: bool, attention_mask=None) -> Trace:
        """The trace of a pass whose first block reads x."""
        return Trace(explain)

    def forward(
        self,
        pixel_values: torch.FloatTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        output_hidden_states: bool | None = None,
        explain=None,
        rollout: bool = False,
        return_dict: bool | None = None,
        **options,
    ):
        """Features of pixel_values [B, num_channels, H, W], laid out as timm's.

        Args:
            attention_mask: 0 at patches that are taken away [B, N], for bodies of tokens.
            output_hidden_states: also return the stem's and each stage's output.
            explain: called as `explain(block, Features)` while each block passes; its answers come as `explanations`.
            rollout: give `shares` too; in eval mode.

        Raises ValueError or TypeError for pixels that do not fit the model.
        """
        check_names(options, OUTPUT_OPTIONS, f"{type(self).__name__}.forward")
        pixel_values = check_pixels(pixel_values, self.config)
        self.check_rollout(rollout)
        if attention_mask is not None and not self.takes_mask:
            raise ValueError(f"attention_mask takes tokens out of attention, which {type(self).__name__} cannot.")
        self.check_size(*pixel_values.shape[-2:])
        pixels = pixel_values.to(next(self.trunk.parameters()).dtype)
        x = self.stem(pixels)
        return self.walk(x, self.trace(x, pixels, explain, rollout, attention_mask), output_hidden_states, return_dict)


class MHEXImageClassifier(MHEXClassifierMixin):
    """Mixin of an image classifier."""

    _auto_class = "AutoModelForImageClassification"
    input_names: tuple[str, ...] = ("pixel_values",)
    main_input_name = "pixel_values"

    def forward(
        self,
        pixel_values: torch.FloatTensor | None = None,
        labels: torch.Tensor | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        **options,
    ):
        """Logits [B, K] of pixel_values [B, num_channels, H, W] and, with `labels` ([B] ints or [B, K] floats), the
        deep-supervision loss.

        Args:
            num_items_in_batch: what the loss's sum is divided by (Trainer's count over accumulated batches).
            options: `output_hidden_states`, `return_dict`, and `explain`, called as `explain(block, Features)` while
                each block passes.

        Raises ValueError or TypeError for pixels or labels that do not fit the model.
        """
        return super().forward(labels, num_items_in_batch, pixel_values=pixel_values, **options)

    def _read_inputs(self, inputs: dict) -> tuple[int, tuple[int, int]]:
        pixel_values = check_pixels(inputs.get("pixel_values"), self.config)
        if not torch.compiler.is_compiling() and not pixel_values.isfinite().all():
            raise ValueError("pixel_values must be finite, got NaN or infinity.")
        return pixel_values.shape[0], tuple(pixel_values.shape[-2:])


def check_pixels(pixel_values, config) -> torch.Tensor:
    """The pixel_values; ValueError or TypeError unless they are floats [B >= 1, num_channels, H >= 1, W >= 1]."""
    if pixel_values is None:
        raise ValueError("pixel_values must be given.")
    if not isinstance(pixel_values, torch.Tensor):
        kind = type(pixel_values).__name__
        raise TypeError(f"pixel_values must be a tensor, got {kind}; use the image processor with return_tensors='pt'.")
    if pixel_values.ndim != 4 or pixel_values.shape[1] != config.num_channels:
        raise ValueError(
            f"pixel_values must be [batch, {config.num_channels}, height, width] for num_channels="
            f"{config.num_channels}, got shape {list(pixel_values.shape)}; use the model's image processor."
        )
    if not pixel_values.is_floating_point():
        raise TypeError(f"pixel_values must be floats, got {pixel_values.dtype}; use the model's image processor.")
    if 0 in pixel_values.shape:
        raise ValueError(f"pixel_values must hold at least one image, got shape {list(pixel_values.shape)}.")
    return pixel_values
