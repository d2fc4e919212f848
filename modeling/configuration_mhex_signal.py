"""Configuration of MHEX-Signal."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from transformers import PretrainedConfig

from .mhex_config import MHEXConfigMixin, check_axis

if TYPE_CHECKING:  # never run: loaders copy what a file names, and older ones look no deeper
    from .mhex_maps import Features  # noqa: F401
    from .mhex_words import Word  # noqa: F401
    from .pipeline_mhex import SaliencyPipeline  # noqa: F401


@dataclass(kw_only=True, init=False)  # releases before 5.4 make configurations without dataclasses
class MHEXSignalConfig(MHEXConfigMixin, PretrainedConfig):
    """Fields of a residual network over one-dimensional signals: spectra, ECG, vibration.

    Args:
        num_channels: channels of a signal, 1 for a spectrum, 12 for a common ECG.
        widths: channels of the features, one number a stage.
        depths: residual blocks, one number a stage.
        strides: stride of a stage's first block, one number a stage.
        kernel_size: points that a convolution of a block reads, odd.
        stem_kernel_size, stem_stride: of the first convolution.
        position_waves: waves (sine and cosine) that scale the stem's features by where a point stands. Convolutions
            see no place, and in a spectrum the place is what tells; 0 for signals that may be shifted (ECG, vibration).
        axis: the points' places in order (rising or falling), such as wavenumbers; None where nobody knows.
        axis_name, axis_unit: "wavenumber" and "1/cm", for pictures.

    Raises TypeError or ValueError naming the field.
    """

    model_type = "mhex_signal"
    saliency_task = "signal-saliency"
    oldest_transformers = "4.57.0"

    num_channels: int = 1
    widths: list[int] | tuple[int, ...] = (16, 32, 64)
    depths: list[int] | tuple[int, ...] = (1, 1, 1)
    strides: list[int] | tuple[int, ...] = (1, 2, 2)
    kernel_size: int = 7
    stem_kernel_size: int = 7
    stem_stride: int = 1
    position_waves: int = 0
    axis: list[float] | tuple[float, ...] | None = None
    axis_name: str | None = None
    axis_unit: str | None = None

    @property
    def hidden_size(self) -> int:
        """Channels of the last features."""
        return self.widths[-1]

    def check_fields(self) -> None:
        """Raise TypeError or ValueError for a field that cannot be."""
        super().check_fields()
        for name in ("num_channels", "kernel_size", "stem_kernel_size", "stem_stride"):
            value = getattr(self, name)
            if type(value) is not int or value < 1 or ("kernel" in name and value % 2 == 0):
                odd = "odd " if "kernel" in name else ""
                raise ValueError(f"{name} must be an {odd}int of at least 1, got {value!r}.")
        stages = [getattr(self, name) for name in ("widths", "depths", "strides")]
        numbers = [number for values in stages for number in values]
        if not numbers or len({len(values) for values in stages}) > 1 or any(type(n) is not int for n in numbers):
            raise ValueError(f"widths, depths and strides must have one int a stage each, got {stages}.")
        if min(numbers) < 1:
            raise ValueError(f"widths, depths and strides must be at least 1, got {stages}.")
        if type(self.position_waves) is not int or self.position_waves < 0:
            raise ValueError(f"position_waves must be an int of at least 0, got {self.position_waves!r}.")
        if self.axis is not None:  # an array or a range, which JSON does not take
            self.axis = self.axis.tolist() if hasattr(self.axis, "tolist") else list(self.axis)
        check_axis(self.axis)
