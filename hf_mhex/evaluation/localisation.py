"""Localisation: Grid Pointing Game and pointing game.

Sources: grid pointing game, Boehle et al., "Convolutional Dynamic Alignment Networks" (CVPR 2021) and B-cos; pointing
game, Zhang et al., "Top-down Neural Attention by Excitation Backprop" (2016). In both higher is better.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from hf_mhex.evaluation.ordering import float64


def positive_share(maps: torch.Tensor, cells: torch.Tensor, grid: int) -> torch.Tensor:
    """Grid Pointing Game: share of a map's positive attribution that lies in the right cell of grid x grid, [B].

    Negative values count as 0: they are cut off, not made positive. A map without positive values points nowhere and
    has chance, 1 / grid^2 (see `points_nowhere` for how often that was so). Chance is 1/4 for 2 x 2, 1/9 for 3 x 3.

    Args:
        maps: raw maps [B, H, W], H and W multiples of grid. cells: number of the right cell, row by row, [B].

    Raises ValueError for sizes or cells that do not fit.
    """
    if grid < 1 or maps.shape[-1] % grid or maps.shape[-2] % grid:
        raise ValueError(f"maps of {list(maps.shape[-2:])} do not split into {grid} x {grid} cells.")
    if len(cells) != len(maps) or (len(cells) and not 0 <= int(cells.min()) <= int(cells.max()) < grid**2):
        raise ValueError(f"cells must be {len(maps)} numbers in [0, {grid**2 - 1}], got {cells.tolist()}.")
    height, width = maps.shape[-2] // grid, maps.shape[-1] // grid
    sums = float64(maps).clamp(min=0).view(len(maps), grid, height, grid, width).sum((2, 4)).flatten(1)
    total = sums.sum(1)
    right = sums.gather(1, cells.cpu()[:, None])[:, 0]
    return torch.where(total > 0, right / total.clamp(min=1e-300), 1 / grid**2)


def points_nowhere(maps: torch.Tensor) -> torch.BoolTensor:
    """Maps [B, H, W] without any positive value, [B]."""
    return maps.flatten(1).amax(1) <= 0


def pointing_game(maps: torch.Tensor, masks: torch.Tensor, tolerance: int = 0) -> torch.Tensor:
    """Share of a map's greatest values that lie in the mask, [B]: 1 or 0 where one pixel is the greatest.

    With ties it is the chance that a maximum drawn at random hits, so that a flat map scores the mask's area and not
    whatever lies at the top left. Maps and masks are [B, H, W]; an empty mask can only be missed (0).

    Args:
        tolerance: pixels (in a square around) by which the mask is widened; the original game uses 15 at ~ 500 px.
    """
    if maps.shape != masks.shape:
        raise ValueError(f"masks must be like maps, {list(maps.shape)}; got {list(masks.shape)}.")
    inside = masks.bool()
    if tolerance:
        widened = torch.nn.functional.max_pool2d(inside[:, None].float(), 2 * tolerance + 1, 1, tolerance)
        inside = widened[:, 0] > 0
    flat = maps.flatten(1)
    high = flat.amax(1, keepdim=True)
    greatest = flat >= high - 1e-6 * flat.abs().amax(1, keepdim=True)
    return float64((greatest & inside.flatten(1)).sum(1)) / float64(greatest.sum(1))


@dataclass(frozen=True)
class Mosaics:
    """Images [M, C, grid*H, grid*W] and, for each question, the mosaic [Q], its class [Q] and its cell [Q]."""

    images: torch.Tensor
    mosaic: torch.Tensor
    target: torch.Tensor
    cell: torch.Tensor
    grid: int


def confident_rows(probabilities: torch.Tensor, labels: torch.Tensor, least: float = 0.9) -> torch.Tensor:
    """Rows that are classified rightly with at least probability `least`, the surest first."""
    found, chosen = probabilities.max(-1)
    rows = ((chosen == labels) & (found >= least)).nonzero()[:, 0]
    return rows[found[rows].argsort(descending=True)]


def build_mosaics(
    images: torch.Tensor, labels: torch.Tensor, grid: int, count: int, seed: int = 0, asked: int | None = None
) -> Mosaics:
    """Mosaics of grid x grid images in which every asked class stands in one cell only.

    With at least grid^2 classes, each mosaic has as many different ones and asks for each of them, or for `asked` of
    them, in cells that go round: for the same number of questions that means more mosaics, and narrower intervals.
    With fewer classes (two, say) it asks for one class, in a cell that goes round, and the other cells hold other
    classes. No image stands twice in a mosaic. Choose `images` [N, C, H, W] among those that are classified with
    confidence (`confident_rows`).

    Raises ValueError where there are fewer than two classes or too few images, and for `asked` outside [1, grid^2].
    """
    generator = torch.Generator().manual_seed(seed)
    classes, cells = labels.unique(), grid**2
    asked = cells if asked is None else asked
    if not 1 <= asked <= cells:
        raise ValueError(f"asked must lie in [1, {cells}], got {asked}.")
    if len(classes) < 2 or len(labels) < cells:
        raise ValueError(f"{len(labels)} images of {len(classes)} classes are too few for {grid} x {grid} mosaics.")

    def draw(rows: torch.Tensor, number: int) -> list[int]:
        if len(rows) < number:
            raise ValueError(f"a mosaic needs {number} images that only {len(rows)} rows give; lower the confidence.")
        return rows[torch.randperm(len(rows), generator=generator)[:number]].tolist()

    mosaics, questions = [], []
    for number in range(count):
        if len(classes) >= cells:
            chosen = classes[torch.randperm(len(classes), generator=generator)[:cells]]
            rows = [draw((labels == label).nonzero()[:, 0], 1)[0] for label in chosen]
            for cell in sorted((number * asked + place) % cells for place in range(asked)):
                questions.append((number, int(chosen[cell]), cell))
        else:
            label, cell = classes[number % len(classes)], (number // len(classes)) % cells
            rows = draw((labels != label).nonzero()[:, 0], cells - 1)
            rows.insert(cell, draw((labels == label).nonzero()[:, 0], 1)[0])
            questions.append((number, int(label), cell))
        lines = [torch.cat([images[row] for row in rows[i : i + grid]], -1) for i in range(0, cells, grid)]
        mosaics.append(torch.cat(lines, -2))
    mosaic, target, cell = torch.tensor(questions).unbind(1)
    return Mosaics(torch.stack(mosaics), mosaic, target, cell, grid)
