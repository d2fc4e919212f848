"""Arguments and options that several verbs share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    import torch

Model = Annotated[str, typer.Argument(help="A saved model's folder or Hub id.")]
Data = Annotated[
    str,
    typer.Argument(help="A .npz, .csv, .parquet, .json, folder (images or IDX), Hub id, sample:NAME, or a recipe."),
]
Overrides = Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Settings of a recipe.")]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit of a Hub repository.")]
Split = Annotated[str | None, typer.Option(help="Split of the data; test, or the only one.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps ...; if left out, the accelerator or cpu.")]
Target = Annotated[str | None, typer.Option(help="Label to explain, by name or number; the predicted one.")]
Contrast = Annotated[str | None, typer.Option(help="mean, runner_up, softmax, a label, or none: the logit.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print as JSON, progress to stderr.")]


def find_device(name: str | None) -> torch.device:
    """The device of that name, or the best one for None; ValueError for one that is not there."""
    import torch

    if name is None:
        found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        return found or torch.device("cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device {name!r} is not there: {str(error).splitlines()[0]}") from error
    return device


def trains_on_cpu(name: str | None) -> bool:
    """Whether a training on the device of that name keeps to the processor: else Trainer takes the first accelerator.

    ValueError for a device that is not there, and for an accelerator that Trainer would not take.
    """
    device, first = find_device(name), find_device(None)
    if device.type == "cpu":
        return True
    if device.type != first.type or device.index:
        raise ValueError(
            f"--device {name!r}: Trainer takes the first {first.type}; hide the others from it, as by "
            "CUDA_VISIBLE_DEVICES, and leave --device out."
        )
    return False


def label_options(config, target: str | None, contrast: str | None) -> dict:
    """`target` and `contrast` of the maps, with labels as their indices; ValueError for an unknown label."""
    from hf_mhex.explaining.explanation import label_index

    contrast = None if contrast == "none" else contrast
    options: dict = {"contrast": contrast}
    if target is not None:
        options["target"] = label_index(config, target, "--target")
    if contrast not in (None, "mean", "runner_up", "softmax"):
        options["contrast"] = label_index(config, contrast, "--contrast")
    return options
