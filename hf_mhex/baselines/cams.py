"""Maps that weigh a layer's channels: CAM on a network that ends so, and the family of Grad-CAM by grad-cam."""

from __future__ import annotations

from contextlib import redirect_stderr
from io import StringIO

import torch
import torch.nn.functional as F

from hf_mhex.baselines import Method, library
from hf_mhex.baselines.networks import PixelsToLogits, as_maps, private_copy, reads_strips, target_layer, trunk_of


def grad_cam_family(name: str):
    """A method of pytorch_grad_cam by its class's name; its maps are cut at 0 and scaled to [0, 1] by the library."""

    def method(model, inputs, target, stage: int = -1) -> torch.Tensor:
        network = PixelsToLogits(private_copy(model))
        return cam_of_layer(name, network, target_layer(network, stage), inputs, target)

    return method


def cam_of_layer(name: str, network, layer, inputs: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """A map of pytorch_grad_cam, by its class's name, at a module of a private copy, [B, H, W] in [0, 1]."""
    classes, targets = library("pytorch_grad_cam"), library("pytorch_grad_cam.utils.model_targets")
    transform = as_maps(network, inputs)
    with torch.enable_grad(), getattr(classes, name)(network, [layer], reshape_transform=transform) as cam:
        cam.batch_size = 64  # Score-CAM's, in one pass
        wanted = [targets.ClassifierOutputTarget(int(label)) for label in target]
        with redirect_stderr(StringIO()):  # Score-CAM's progress bars
            found = cam(input_tensor=inputs.clone(), targets=wanted)
    return torch.from_numpy(found).float().to(inputs.device)


def ends_in_cam(model) -> bool:
    """Whether this is a plain timm network that ends in pooling and one linear layer, as CAM asks."""
    return not reads_strips(model) and isinstance(getattr(trunk_of(model), "fc", None), torch.nn.Linear)


def plain_cam(model, inputs, target) -> torch.Tensor:
    """CAM (Zhou et al. 2016) on a plain timm network: the classifier's row times the final features, [B, H, W].

    It adds up to the logit without its bias; bilinear to input size. Raises ValueError for a network that does not end
    in pooling and one linear layer.
    """
    if not ends_in_cam(model):
        raise ValueError("model must end in pooling and one linear layer `fc` for CAM.")
    trunk = trunk_of(model)
    with torch.no_grad():
        features = trunk.forward_features(inputs)
        maps = torch.einsum("bc,bchw->bhw", trunk.fc.weight[target], features) / features[0, 0].numel()
    return F.interpolate(maps[:, None], inputs.shape[-2:], mode="bilinear")[:, 0]


def last_block_cam(model, inputs, target) -> torch.Tensor:
    """The paper's CAM of an MHEX network's last block alone, [B, H, W]: what CAM would be there."""
    return model.paper_saliency(pixel_values=inputs, target=target, blocks=[-1], normalize=None).saliency


STAGES = ({"stage": -1}, {"stage": -2}, {"stage": -3})
METHODS = [
    Method("Grad-CAM", grad_cam_family("GradCAM"), "grad-cam", STAGES),
    Method("Grad-CAM++", grad_cam_family("GradCAMPlusPlus"), "grad-cam", STAGES),
    Method("LayerCAM", grad_cam_family("LayerCAM"), "grad-cam", STAGES),
    Method("Eigen-CAM", grad_cam_family("EigenCAM"), "grad-cam", STAGES),
    Method("Score-CAM", grad_cam_family("ScoreCAM"), "grad-cam", slow=True),
]
PLAIN_CAM = Method("CAM", plain_cam, fits=ends_in_cam)
LAST_BLOCK_CAM = Method("CAM of the last block", last_block_cam)
