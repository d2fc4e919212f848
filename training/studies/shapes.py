"""A set of images whose truth is known: which of six shapes lies on a textured ground, and where.

    python -m hf_mhex.training.studies.shapes shapes.npz
    make benchmark RECIPE=medmnist/bloodmnist NAME=shapes SET="source=shapes.npz learning_rate=3e-3
        'label_names=[disc, square, triangle, cross, ring, bars]'
        'model.config={rectified: true, binary_share: 0.5, instance_share: 0.05}'"

Made in MedMNIST's form, so that recipes read it; a mask of the shape goes beside every image. What else lies there,
lines and spots of any colour, tells nothing of the class.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from hf_mhex.writing import whole

NAMES = ("disc", "square", "triangle", "cross", "ring", "bars")
SIDE, COUNTS = 28, {"train": 1600, "val": 400, "test": 400}


def draw_shape(name: str, y: np.ndarray, x: np.ndarray, radius: float) -> np.ndarray:
    """Where a shape of that radius lies, for coordinates around its centre [H, W], as bools."""
    far = np.hypot(y, x)
    inside = (np.abs(y) <= radius) & (np.abs(x) <= radius)
    if name == "disc":
        return far <= radius
    if name == "square":
        return inside & ((np.abs(y) > radius - 2) | (np.abs(x) > radius - 2))
    if name == "triangle":
        return inside & (np.abs(x) <= (y + radius) / 2)
    if name == "cross":
        return inside & ((np.abs(y) <= 1) | (np.abs(x) <= 1))
    if name == "ring":
        return (far <= radius) & (far > radius - 2)
    return inside & (np.floor(y + radius) % 3 == 0)


def draw_image(label: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """An image uint8 [28, 28, 3] with a shape, and where it is, bools [28, 28]."""
    y, x = np.mgrid[:SIDE, :SIDE].astype(float)
    waves = generator.uniform(-1, 1, (3, 2, 3))
    ground = np.stack([np.sin(0.5 * (a[0] * y + b[0] * x) + 3 * a[1]) + b[2] for a, b in waves], -1)
    image = 110 + 30 * ground + generator.normal(0, 12, (SIDE, SIDE, 3))
    for _ in range(2):  # a line and a spot
        start, angle = generator.uniform(2, SIDE - 2, 2), generator.uniform(0, np.pi)
        away = np.abs((y - start[0]) * np.cos(angle) - (x - start[1]) * np.sin(angle))
        image[away < 0.7] = generator.uniform(0, 255, 3)
        spot = generator.uniform(2, SIDE - 2, 2)
        image[np.hypot(y - spot[0], x - spot[1]) < 1.5] = generator.uniform(0, 255, 3)
    radius = generator.uniform(4, 6)
    centre = generator.uniform(radius + 1, SIDE - radius - 1, 2)
    where = draw_shape(NAMES[label], y - centre[0], x - centre[1], radius)
    image[where] = generator.choice([20, 235], 3) + generator.normal(0, 8, (int(where.sum()), 3))
    return image.clip(0, 255).astype(np.uint8), where


def write_shapes(path: Path, seed: int = 0) -> Path:
    """Write the three splits with their labels and masks to an npz file, and return its path."""
    generator = np.random.default_rng(seed)
    arrays: dict = {}
    for split, count in COUNTS.items():
        labels = np.arange(count) % len(NAMES)
        images, masks = zip(*(draw_image(label, generator) for label in labels.tolist()))
        arrays[f"{split}_images"], arrays[f"{split}_labels"] = np.stack(images), labels[:, None].astype(np.uint8)
        arrays[f"{split}_masks"] = np.stack(masks)
    with whole(path) as place:
        np.savez_compressed(place, **arrays)
    return path


if __name__ == "__main__":
    print(write_shapes(Path(sys.argv[1])))
