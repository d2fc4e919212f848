"""Pictures show the map that they were given: its signs, its range, its place."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from hf_mhex.modeling.pipeline_mhex import AGAINST, FOR
from hf_mhex.pictures.maps import block_strip, overlay, side_by_side

GREY = np.full((40, 40), 0.5)


def pixels(picture):
    return np.asarray(picture).astype(int)


def warmth(picture):
    """Red minus blue, [H, W]: positive where red, negative where blue, 0 where neutral."""
    return pixels(picture)[..., 0] - pixels(picture)[..., 2]


def boxes(draw):
    """Where a drawing shows the image: the boxes of the pixels that change when the image does, in reading order."""
    black, white = (pixels(draw(np.full((40, 40), value))) for value in (0.0, 1.0))
    changed = (black != white).any(-1)
    found = []
    for top, bottom in runs(changed.any(1)):
        found += [(top, bottom, left, right) for left, right in runs(changed[top:bottom].any(0))]
    return found


def runs(flags):
    """[start, stop) of each stretch of True."""
    steps = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(int)))
    return list(zip(steps[::2], steps[1::2]))


def panel(saliency, image=GREY, **options):
    """The painted image alone, cut out of `overlay`."""
    top, bottom, left, right = boxes(lambda picture: overlay(picture, np.zeros((1, 1)), **options))[0]
    return overlay(image, saliency, **options).crop((left, top, right, bottom))


def quadrants(picture):
    """The colour in the middle of each quarter, [2, 2, 3]."""
    height, width = picture.height, picture.width
    return pixels(picture)[height // 4 :: height // 2, width // 4 :: width // 2]


def test_both_signs_diverge_around_zero():
    (strong, against), (nothing, weak) = quadrants(panel([[2.0, -2.0], [0.0, 1.0]]))
    assert strong[0] > strong[2] + 60
    assert against[2] > against[0] + 60
    assert len(set(nothing)) == 1  # no hue where the map says nothing
    clear = int(nothing[0])
    assert (weak[1] - clear) / (strong[1] - clear) == pytest.approx(0.5, abs=0.02)


def test_zero_stays_clear_when_one_sign_outweighs_the_other():
    quarter = quadrants(panel([[10.0, -0.1], [0.0, 5.0]]))
    assert len(set(quarter[1, 0])) == 1
    assert abs(int(quarter[0, 1, 0]) - int(quarter[0, 1, 2])) < 5  # a hundredth of the size is nearly clear


@pytest.mark.parametrize("sign", [1, -1])
def test_one_sign_runs_from_clear_to_its_own_hue(sign):
    saliency = sign * np.array([[5.0, 6.0], [7.0, 9.0]])
    values = sign * warmth(panel(saliency))
    least, second, third, greatest = values[112, 112], values[112, 336], values[336, 112], values[336, 336]
    assert least == 0 < second < third < greatest
    assert second / greatest == pytest.approx(0.25, abs=0.02)
    assert (sign * warmth(overlay(GREY, saliency)) >= 0).all()  # the scale shows no other hue either


@pytest.mark.parametrize("level", [0.0, 3.0, -3.0, 1e-30])
def test_a_flat_map_paints_nothing(level):
    noise = 1e-9 * level * np.random.default_rng(0).random((8, 8))
    picture = overlay(GREY, level + noise)
    assert (warmth(picture) == 0).all()
    assert len(np.unique(pixels(panel(level + noise)))) == 1


def test_the_scale_states_the_maps_own_numbers():
    saliency = np.random.default_rng(0).normal(size=(8, 8))
    assert pixels(panel(saliency)).tolist() == pixels(panel(10 * saliency)).tolist()
    assert overlay(GREY, saliency) != overlay(GREY, 10 * saliency)  # so what differs is the numbers
    for one, other in (([0, 1], [0, 2]), ([-1, 0], [-2, 0]), ([1, 1], [2, 2])):  # upper end, lower end, flat
        assert overlay(GREY, [one]) != overlay(GREY, [other])


@pytest.mark.parametrize("shape", [(4, 2), (3, 5), (448, 300), (1000, 900)])
def test_a_map_of_any_size_lies_where_it_belongs(shape):
    image = np.full((30, 60), 0.5)
    saliency = np.zeros(shape)
    row, column = shape[0] // 2, shape[1] // 2
    saliency[row:, column:] = 1.0
    top, bottom, left, right = boxes(lambda level: overlay(np.full((30, 60), level[0, 0]), np.zeros((1, 1))))[0]
    assert (bottom - top, right - left) == (224, 448)
    red = warmth(overlay(image, saliency).crop((left, top, right, bottom))) > 20
    height, width = red.shape
    rows, columns = np.flatnonzero(red.any(1)), np.flatnonzero(red.any(0))
    assert abs(rows[0] - height * row / shape[0]) <= 1 and rows[-1] == height - 1
    assert abs(columns[0] - width * column / shape[1]) <= 1 and columns[-1] == width - 1


def test_cells_of_a_coarse_map_stay_cells():
    saliency = np.arange(9.0).reshape(3, 3)
    assert len(np.unique(pixels(panel(saliency)).reshape(-1, 3), axis=0)) == 9


def test_every_kind_of_image_gives_the_same_picture():
    saliency = np.random.default_rng(1).normal(size=(5, 5))
    grey = np.random.default_rng(0).integers(0, 256, (20, 30), dtype=np.uint8)
    colour = np.repeat(grey[..., None], 3, axis=-1)
    kinds = [
        Image.fromarray(grey),
        Image.fromarray(colour),
        Image.fromarray(colour).convert("RGBA"),
        grey,
        grey[..., None],
        colour,
        colour / 255,
        torch.from_numpy(colour),
        torch.from_numpy(grey / 255),
    ]
    pictures = {overlay(kind, saliency).tobytes() for kind in kinds}
    assert len(pictures) == 1


def test_every_kind_of_map_gives_the_same_picture():
    saliency = [[0.5, -1.0], [2.0, 0.25]]
    kinds = [saliency, np.float32(saliency), np.flip(np.flip(saliency)), torch.tensor(saliency).bfloat16()]
    kinds.append(torch.tensor(saliency, requires_grad=True))
    assert len({overlay(GREY, kind).tobytes() for kind in kinds}) == 1


@pytest.mark.parametrize("kind", [np.uint16, np.int32, np.float32])
def test_a_deep_image_is_shown_over_its_own_range(kind):
    deep = Image.fromarray(np.linspace(1000, 3000, 64 * 64).reshape(64, 64).astype(kind))
    shown = pixels(panel(np.zeros((1, 1)), deep))
    assert len(np.unique(shown)) > 100
    assert shown.max() == 255


def test_inputs_are_left_alone():
    image, saliency = np.full((9, 9, 3), 0.25), np.random.default_rng(0).normal(size=(4, 4))
    copies = image.copy(), saliency.copy()
    overlay(image, saliency)
    block_strip(image, [saliency])
    assert (image == copies[0]).all() and (saliency == copies[1]).all()


def test_a_long_title_gets_more_lines_and_is_no_formula():
    short, long = (overlay(GREY, GREY, title="word " * count) for count in (1, 40))
    assert (short.width, short.height) < (long.width, long.height) == (short.width, long.height)
    assert overlay(GREY, GREY, title=r"$\frac{$").height == short.height
    assert short != overlay(GREY, GREY, title="other")


@pytest.mark.parametrize("size", [64, 301])
def test_size_is_the_longer_side(size):
    [(top, bottom, left, right)] = boxes(lambda image: overlay(image[:, :30], np.zeros((1, 1)), size=size))
    assert bottom - top == size
    assert right - left == round(0.75 * size)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((GREY, [[0.0, np.nan]]), "saliency must be finite, got nan"),
        ((GREY, [[0.0, -np.inf]]), "saliency must be finite, got -inf"),
        ((GREY, np.zeros((1, 4, 4))), r"saliency must be one map \[h, w\], got shape \[1, 4, 4\]"),
        ((GREY, np.zeros((0, 4))), "saliency must be one map"),
        ((torch.zeros(3, 8, 8), GREY), r"image must be .* got \[3, 8, 8\]; .*permute"),
        ((np.zeros((8, 8, 4)), GREY), "image must be"),
        ((GREY - 1, GREY), r"floats in \[0, 1\], got float64 from -0.5 to -0.5"),
        ((np.full((4, 4), np.nan), GREY), r"floats in \[0, 1\], got float64 from nan"),
        ((np.zeros((4, 4), dtype=np.int64), GREY), "image must be uint8"),
    ],
)
def test_overlay_refuses_by_name(arguments, message):
    with pytest.raises(ValueError, match=message):
        overlay(*arguments)


@pytest.mark.parametrize("options", [{"alpha": 0}, {"alpha": 1.5}, {"size": 8}, {"size": 10**5}])
def test_options_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match=f"{next(iter(options))} must"):
        overlay(GREY, GREY, **options)


def test_a_strip_shows_the_image_and_every_block():
    maps = [np.random.default_rng(block).normal(size=(side, side)) for block, side in enumerate([14, 7, 7, 4])]
    for columns, lines in ((5, 1), (3, 2), (1, 5)):
        found = boxes(lambda image, columns=columns: block_strip(image, maps, columns=columns))
        assert len(found) == 5
        assert len({top for top, *_ in found}) == lines


def test_the_strip_begins_with_the_image_in_its_own_colours():
    image = np.zeros((40, 40, 3))
    image[..., 1] = 1.0
    first, second = boxes(lambda level: block_strip(level, [np.zeros((1, 1))]))
    strip = pixels(block_strip(image, [np.zeros((1, 1))]))
    assert strip[first[0] + 50, first[2] + 50].tolist() == [0, 255, 0]
    assert len(set(strip[second[0] + 50, second[2] + 50])) == 1


@pytest.mark.parametrize("low", [-0.00604, -0.00929, -5.82e-05, -1234.5])
def test_numbers_of_a_scale_do_not_run_into_each_other(low, monkeypatch):
    figures = []

    class Kept(Figure):
        def __init__(self, *arguments, **named):
            super().__init__(*arguments, **named)
            figures.append(self)

    monkeypatch.setattr("matplotlib.figure.Figure", Kept)
    zeros = 0
    for share in np.linspace(0.05, 0.95, 19):  # where 0 stands on the scale
        values = np.linspace(low, low * (share - 1) / share, 64).reshape(8, 8)
        overlay(GREY, values, size=240)
        boxes = sorted(text.get_window_extent().extents.tolist() for text in figures[-1].texts)
        zeros += len(boxes) == 3
        assert all(left[2] < right[0] for left, right in pairwise(boxes))
    assert 0 < zeros < 19


def test_each_block_has_its_own_scale():
    saliency = np.random.default_rng(0).normal(size=(7, 7))
    strip = block_strip(GREY, [saliency, 100 * saliency])
    _, *panels = boxes(lambda image: block_strip(image, [saliency, saliency]))
    one, hundred = (np.asarray(strip)[top:bottom, left:right] for top, bottom, left, right in panels)
    assert (one == hundred).all()


def test_the_strip_tells_each_blocks_sum():
    narrow, wide = np.array([[1.0, 0.0]]), np.array([[1.0, 1.0, 0.0, 0.0]])  # painted alike, but 1 and 2 in sum
    assert overlay(GREY, narrow) == overlay(GREY, wide)
    assert block_strip(GREY, [narrow]) != block_strip(GREY, [wide])


def test_labels_and_title_are_written():
    maps = [GREY, -GREY]
    assert block_strip(GREY, maps) == block_strip(GREY, maps, labels=["block 0", "block 1"])
    assert block_strip(GREY, maps) != block_strip(GREY, maps, labels=["block 2", "block 5"])
    assert block_strip(GREY, maps, title="a title").height > block_strip(GREY, maps).height


def test_labels_side_by_side_share_one_scale():
    saliency = np.random.default_rng(0).normal(size=(7, 7))

    def shown(image, factor):
        return side_by_side(image, [saliency, factor * saliency], labels=["a", "b"], notes=["", ""], size=160)

    first, *panels = boxes(lambda image: shown(image, 1))
    one, other = (warmth(shown(GREY, 0.5))[top:bottom, left:right] for top, bottom, left, right in panels)
    strong = np.abs(one) > 100
    assert np.allclose(other[strong], one[strong] / 2, atol=3)
    assert (warmth(shown(GREY, 1))[first[0] : first[1], first[2] : first[3]] == 0).all()
    with pytest.raises(ValueError, match="must be as many, at least 1; got 1, 2 and 1"):
        side_by_side(GREY, [saliency], labels=["a", "b"], notes=[""])


def test_for_and_against_differ_for_every_kind_of_colour_blindness():
    """Simulated as Machado et al. (2009) do at full severity, in linear RGB."""
    protan = [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    deutan = [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    tritan = [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    linear = [np.asarray(colour) ** 2.2 for colour in (FOR, AGAINST, (1, 1, 1))]
    for matrix in (protan, deutan, tritan):
        red, blue, white = (np.clip(np.asarray(matrix) @ colour, 0, 1) ** (1 / 2.2) for colour in linear)
        assert np.linalg.norm(red - blue) > 0.45 and min(np.linalg.norm(white - c) for c in (red, blue)) > 0.6


def test_a_note_stands_below_and_control_characters_are_shown():
    plain, noted = overlay(GREY, -GREY), overlay(GREY, -GREY, note="a note")
    assert noted.height > plain.height and (pixels(noted)[plain.height :] < 128).any()
    assert overlay(GREY, GREY, title="a\x1b[31m") == overlay(GREY, GREY, title="a\u241b[31m")


def test_strip_refuses_by_name():
    with pytest.raises(ValueError, match=r"block_saliency\[1\] must be finite"):
        block_strip(GREY, [GREY, GREY * np.nan])
    with pytest.raises(ValueError, match=r"block_saliency\[0\] must be one map"):
        block_strip(GREY, [np.zeros((2, 4, 4))])
    with pytest.raises(ValueError, match="block_saliency and labels must be as many"):
        block_strip(GREY, [GREY], labels=["a", "b"])
    with pytest.raises(ValueError, match="block_saliency and labels must be as many, at least 1"):
        block_strip(GREY, [])
    with pytest.raises(ValueError, match="columns must be at least 1"):
        block_strip(GREY, [GREY], columns=0)


@pytest.mark.slow
def test_pictures_need_no_pyplot_and_leave_the_settings_alone():
    code = """
import sys, matplotlib
before = matplotlib.rcParams.copy()  # reading its backend would load pyplot
from hf_mhex.pictures.maps import block_strip, overlay, side_by_side
overlay([[0.5]], [[1.0, -1.0]], title="t"), block_strip([[0.5]], [[[1.0]]])
assert "matplotlib.pyplot" not in sys.modules
changed = [key for key in before if key != "backend" and before[key] != matplotlib.rcParams[key]]
assert not changed, changed
print("done")
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "done\n"


def test_threads_draw_what_one_draws():
    maps = [np.random.default_rng(seed).normal(size=(6, 6)) for seed in range(6)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda saliency: overlay(GREY, saliency, title="title"), maps))
    assert together == [overlay(GREY, saliency, title="title") for saliency in maps]


def test_the_strongest_value_has_the_pipelines_colour():
    painted = panel([[1.0, -1.0]], np.zeros((40, 40)), alpha=1)
    for corner, colour in ((painted.getpixel((5, 5)), FOR), (painted.getpixel((440, 5)), AGAINST)):
        assert corner == tuple(round(255 * part) for part in colour)
