"""Feature extractor of MHEX-Signal: checks signals and standardises them as they were in training."""

import torch
from transformers import BatchFeature, FeatureExtractionMixin

WAYS = ("point", "channel")


class MHEXSignalFeatureExtractor(FeatureExtractionMixin):
    """Signals to `input_values` [B, C, L], (x - mean) / std.

    `MHEXSignalFeatureExtractor().fit(train)` takes mean and std from training rows; both are saved with the rest.

    Args:
        num_channels: C.
        mean, std: lists of C rows, each of one number or of L; None leaves values as they are.
        sampling_rate: points a second, for the stock audio pipeline; None where the axis is no time.

    Raises ValueError for a mean and std that cannot be.
    """

    _auto_class = "AutoFeatureExtractor"
    model_input_names = ["input_values"]
    padding_value, padding_side = 0.0, "right"  # for the stock pipelines, whose batches are of one length

    def __init__(self, num_channels: int = 1, mean=None, std=None, sampling_rate: int | None = None, **kwargs):
        super().__init__(**kwargs)
        self.num_channels, self.mean, self.std, self.sampling_rate = num_channels, mean, std, sampling_rate
        if (mean is None) != (std is None):
            raise ValueError("mean and std must be given together.")
        for name, rows in (("mean", mean), ("std", std)):
            if rows is not None:
                found = torch.tensor(rows, dtype=torch.float64)
                if found.ndim != 2 or len(found) != num_channels or not found.isfinite().all():
                    raise ValueError(f"{name} must be {num_channels} rows of finite numbers, one a channel.")
                if name == "std" and found.min() <= 0:
                    raise ValueError(f"std must be above 0, got {found.min().item()}.")

    def fit(self, signals, by: str = "point"):
        """Take mean and std from training signals, by "point" of a channel or over a whole "channel"; returns itself.

        A point that never changes keeps its scale (std 1). Raises ValueError for signals that cannot be read.
        """
        if by not in WAYS:
            raise ValueError(f"by must be one of {', '.join(map(repr, WAYS))}, got {by!r}.")
        self.mean = self.std = None
        read = [self._read(signal) for signal in signals]
        lengths = sorted({value.shape[1] for value in read})
        if len(lengths) != 1:
            raise ValueError(f"signals to fit must be at least one, of one length, got lengths {lengths}.")
        values = torch.stack(read)
        axes = (0,) if by == "point" else (0, 2)
        std, mean = (found.reshape(self.num_channels, -1) for found in torch.std_mean(values, axes, correction=0))
        self.mean, self.std = mean.tolist(), std.where(std > 1e-12 * values.abs().max(), 1.0).tolist()
        return self

    def __call__(self, signals, return_tensors: str | None = None, sampling_rate: int | None = None, **_):
        """`input_values` [B, C, L] of one signal ([L] or [C, L]), a list of them, or an array [B, C, L].

        Raises ValueError or TypeError for what is no signal of the model, NaN and lengths that differ among them.
        """
        if sampling_rate != self.sampling_rate and None not in (sampling_rate, self.sampling_rate):
            raise ValueError(f"sampling_rate must be {self.sampling_rate}, got {sampling_rate}; resample the signals.")
        values = self._tensor(signals) if hasattr(signals, "__array__") else [self._tensor(one) for one in signals]
        if isinstance(values, torch.Tensor) and values.ndim < (2 if self.num_channels == 1 else 3):
            values = [values]
        elif isinstance(values, list) and values and values[0].ndim == 0:
            values = [torch.stack(values)]
        read = [self._standardised(self._read(signal)) for signal in values]
        lengths = sorted({value.shape[1] for value in read})
        if len(lengths) != 1:
            raise ValueError(f"signals of a batch must be of one length, got {lengths}.")
        return BatchFeature({"input_values": torch.stack(read)}, tensor_type=return_tensors)

    def restore(self, values) -> torch.Tensor:
        """Standardised values [C, L] as they were, in float64."""
        values = torch.as_tensor(values, dtype=torch.float64)
        if self.mean is None:
            return values
        return values * torch.tensor(self.std, dtype=torch.float64) + torch.tensor(self.mean, dtype=torch.float64)

    @staticmethod
    def _tensor(signal) -> torch.Tensor:
        """A signal as a tensor; TypeError for what is no number."""
        try:
            return torch.as_tensor(signal)
        except (TypeError, ValueError, RuntimeError) as error:
            raise TypeError(f"a signal must be numbers [L] or [C, L]: {error}") from error

    def _read(self, signal) -> torch.Tensor:
        """One signal as [C, L] float64."""
        given = self._tensor(signal)
        values = given[None] if given.ndim == 1 else given
        if values.ndim != 2 or len(values) != self.num_channels or not values.numel():
            raise ValueError(
                f"a signal must be [L] or [{self.num_channels}, L] for num_channels={self.num_channels}, "
                f"got shape {list(given.shape)}."
            )
        bad = (~values.double().isfinite().all(0)).nonzero().flatten().tolist()
        if bad:
            cure = "fill them or leave the signal out"
            raise ValueError(f"a signal has {len(bad)} points that are NaN or infinite, the first is {bad[0]}; {cure}.")
        return values.double()

    def _standardised(self, values: torch.Tensor) -> torch.Tensor:
        if self.mean is None:
            return values.float()
        mean, std = (torch.tensor(rows, dtype=torch.float64) for rows in (self.mean, self.std))
        if mean.shape[1] not in (1, values.shape[1]):
            raise ValueError(f"a signal must have the {mean.shape[1]} points of training, got {values.shape[1]}.")
        return ((values - mean) / std).float()
