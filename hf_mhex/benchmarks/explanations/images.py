"""The measures of one method on images, in groups, each a dict of one value a row."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch

from hf_mhex import evaluation as ev
from hf_mhex.baselines.networks import grid_of
from hf_mhex.benchmarks.explanations.parts import Images, Sizes, image_scores, logits_of_part, maps_of, probabilities
from hf_mhex.evaluation.localisation import Mosaics
from hf_mhex.evaluation.part_removal import part_numbers

GROUPS = ("grid 2x2", "grid 3x3", "rows", "another class")
CELLS = 7  # of sensitivity-n, infidelity and F-Fidelity, squares along a side: single pixels change nothing
FINER = 14
ANOTHER = "another class, insertion - deletion 7x7"
BATCH = 8


class ImageMeasures:
    """The measures over one part, for one network.

    Args:
        model: the explained network. part: the rows. sizes, seed: how many, and of what is drawn.
        scorers: networks that score the paper's measures, by name; "same" is the explained one.
        others: further networks that must be sure of an image before it stands in a mosaic, so that several networks
            are asked about the same mosaics.
    """

    def __init__(self, model, part: Images, sizes: Sizes, scorers: dict | None = None, others=(), seed: int = 0):
        self.model, self.part, self.sizes, self.seed = model, part, sizes, seed
        self.scorers = {"same": model, **(scorers or {})}
        self.networks = [model, *others]
        self.built: dict[int, Mosaics] = {}
        self.games: dict[tuple, Callable] = {}
        logits = logits_of_part(model, part.take(torch.arange(min(sizes.rows, len(part)))))
        self.target, self.another = logits.topk(min(2, logits.shape[-1]), -1).indices.T[[0, -1]]

    def groups(self, slow: bool) -> tuple[str, ...]:
        """The groups that a method goes through: a 3 x 3 mosaic costs nine images, too much for slow ones.

        Strips stand in no mosaic: what a signal means depends on the place.
        """
        left_out = ("grid 2x2", "grid 3x3") if not self.points else ("grid 3x3",) if slow else ()
        return tuple(group for group in GROUPS if group not in left_out)

    @property
    def points(self) -> bool:
        """Whether the Grid Pointing Game is played."""
        return self.part.pixels.shape[2] > 1

    def measure(self, group: str, call, slow: bool = False) -> dict:
        """Measures by name, each a list of values a row; "mosaic" and "seconds" (a row) where they apply.

        A group is one of GROUPS, or "choice", a part of "rows".
        """
        call = in_batches(call)
        if group.startswith("grid"):
            return self.grid(int(group[-1]), call, slow)
        count = min(len(self.target), self.sizes.slow if slow else self.sizes.rows)
        pixels, target = self.part.pixels[:count], self.target[:count]
        if group == "another class":
            target = self.another[:count]
            return {ANOTHER: self.without_squares(pixels, call(self.model, pixels, target), target)}
        start = time.process_time()
        maps = call(self.model, pixels, target)
        seconds = (time.process_time() - start) / count
        given = (pixels, maps, target)
        if group == "choice":
            return self.choice(*given)
        found = self.removal(*given) | self.drop(*given) | self.form(*given) | self.sanity(call, maps, slow)
        return found | {"seconds": seconds}

    def mosaics(self, grid: int) -> Mosaics:
        """Mosaics of images that every network classifies rightly with 0.9, or failing that with 0.5."""
        found = torch.stack([logits_of_part(model, self.part).softmax(-1) for model in self.networks])
        sure = found.amin(0)  # of the least sure network
        asked = self.sizes.questions if grid == 2 else max(1, self.sizes.questions // 2)
        several = len(self.part.labels.unique()) >= grid**2  # of a mosaic's classes, `grid` are asked for
        count = max(1, asked // grid) if several else asked
        for least in (0.9, 0.5):
            rows = ((found.argmax(-1) == self.part.labels).all(0) & (sure.amax(-1) >= least)).nonzero()[:, 0]
            try:
                return ev.build_mosaics(self.part.pixels[rows], self.part.labels[rows], grid, count, self.seed, grid)
            except ValueError:
                if least == 0.5:
                    raise
        raise AssertionError

    def grid(self, grid: int, call, slow: bool) -> dict:
        """Grid Pointing Game: the positive share in the right cell, one value a question."""
        if grid not in self.built:
            self.built[grid] = self.mosaics(grid)
        asked = self.built[grid]
        count = min(len(asked.target), self.sizes.slow) if slow else len(asked.target)
        maps = call(self.model, asked.images[asked.mosaic[:count]], asked.target[:count])
        shares = ev.positive_share(maps, asked.cell[:count], grid)
        found = {f"grid pointing {grid}x{grid}": shares.tolist(), "mosaic": asked.mosaic[:count].tolist()}
        return found | {"points nowhere": float(ev.points_nowhere(maps).double().mean())}

    def choice(self, pixels, maps, target) -> dict:
        """Insertion - deletion by 7 x 7 squares alone, one half of what settings are chosen by."""
        return {"choice": self.without_squares(pixels, maps, target)}

    def removal(self, pixels, maps, target) -> dict:
        """Insertion, deletion and ROAD by pixels and by squares, the other measures by removal by squares."""
        found = [self.removal_of_one(row, *given) for row, given in enumerate(zip(pixels, maps, target.tolist()))]
        return {name: [row[name] for row in found] for name in found[0]}

    def removal_of_one(self, row: int, image, values, target: int) -> dict:
        """The measures by removal of one image."""
        game = ev.ImageGame(probabilities(image_scores(self.model)), image, target, "zero", seed=self.seed)
        flat, steps = values.flatten(), self.sizes.steps
        insertion = ev.insertion_auc(replace(game, fill="blur"), flat, steps, self.seed)
        deletion = ev.deletion_auc(game, flat, steps, self.seed)
        road = ev.remove_and_debias(replace(game, fill="impute"), flat, seed=self.seed)
        terms = sums_of_squares(values)
        road_of_squares = ev.remove_and_debias(
            self.game_of_squares(row, image, target, "impute"), terms, seed=self.seed
        )
        fidelity = ev.f_fidelity(self.game_of_squares(row, image, target, "zero"), terms, seed=self.seed)
        by_logit = self.game_of_squares(row, image, target)
        size = max(1, len(terms) // 10)
        by_squares = {
            f"insertion - deletion {cells}x{cells}": self.gained(row, image, values, target, cells)
            for cells in (CELLS, FINER)
        }
        return by_squares | {
            "insertion": insertion,
            "deletion": deletion,
            "insertion - deletion": insertion - deletion,
            "ROAD morf": road["morf"],
            "ROAD lerf": road["lerf"],
            "ROAD combined": road["combined"],
            "ROAD combined 7x7": road_of_squares["combined"],
            "FFid+": fidelity["plus"],
            "FFid-": fidelity["minus"],
            "sensitivity-n": ev.sensitivity_n(by_logit, terms, size, self.sizes.samples, self.seed),
            "infidelity": ev.infidelity(by_logit, terms, self.sizes.samples, self.seed),
        }

    def without_squares(self, pixels, maps, target) -> list[float]:
        """Insertion - deletion of every row by 7 x 7 squares, [N]."""
        given = zip(pixels, maps, target.tolist())
        return [self.gained(row, image, values, label, CELLS) for row, (image, values, label) in enumerate(given)]

    def gained(self, row: int, image, values, target: int, cells: int) -> float:
        """Insertion - deletion of one image by squares."""
        terms, steps = sums_of_squares(values, cells), self.sizes.steps
        inserted, deleted = (self.game_of_squares(row, image, target, fill, cells) for fill in ("blur", "zero"))
        return ev.insertion_auc(inserted, terms, steps, self.seed) - ev.deletion_auc(deleted, terms, steps, self.seed)

    def game_of_squares(self, row: int, image, target: int, fill: str | None = None, cells: int = CELLS):
        """A game over squares: the probability's with a fill, else the logit's with 0.

        Methods are often asked about the same squares, so it remembers.
        """
        key = (row, target, fill, cells)
        if key not in self.games:
            scores = image_scores(self.model)
            scores, fill = (scores, "zero") if fill is None else (probabilities(scores), fill)
            game = ev.ImageGame(scores, image, target, fill, seed=self.seed)
            squares = square_numbers(image.shape[-2:], cells)
            self.games[key] = ev.RememberedGame(partial(keep_squares, game, squares))
        return self.games[key]

    def drop(self, pixels, maps, target) -> dict:
        """The paper's measures, scored by each scorer."""
        maps, found = ev.unit_range(maps), {}
        for name, scorer in self.scorers.items():
            scores = probabilities(image_scores(scorer))
            hard = ev.average_drop(scores, pixels, maps, target)
            found[f"AVG drop ({name})"] = hard.tolist()
            found[f"SAD ({name})"] = ev.soft_average_drop(scores, pixels, maps, target).tolist()
            found[f"EAD ({name})"] = (hard * ev.area_weight(ev.marked_area(maps))).tolist()
        return found

    def form(self, pixels, maps, target) -> dict:
        """Sparseness, entropy and area."""
        area = ev.marked_area(ev.unit_range(maps))
        return {"Gini": ev.gini(maps).tolist(), "entropy": ev.entropy(maps).tolist(), "area": area.tolist()}

    def sanity(self, call, maps, slow: bool) -> dict:
        """Random logit, of slow methods on as few rows as the parameter randomisation."""
        some = min(self.sizes.sanity if slow else self.sizes.slow, len(maps))
        given = (call, self.model, self.part.pixels[:some], self.target[:some])
        labels = logits_of_part(self.model, self.part.take([0])).shape[-1]
        few = min(self.sizes.sanity, some)
        return {
            "random logit": ev.random_logit(*given, labels, self.seed, own=maps[:some]),
            **randomisation(call, self.model, self.part.pixels[:few], self.target[:few], slow, self.seed, maps[:few]),
        }


def randomisation(call, model, inputs, target, slow: bool, seed: int, own) -> dict:
    """The parameter randomisation's columns of a row; slow methods see the network whole and fully shuffled alone."""
    found = ev.parameter_randomisation(call, model, inputs, target, 1 if slow else 4, seed, own=own)
    by_stage = [round(value, 4) for value in found["similarity"]]
    return {
        "randomised": found["last"],
        "complexity rise": found["complexity_rise"],
        "randomised by stage": by_stage,
    }


def in_batches(call):
    """The same method, given BATCH rows at a time."""

    def batched(model, inputs, target) -> torch.Tensor:
        return torch.cat([maps_of(call, model, x, t) for x, t in zip(inputs.split(BATCH), target.split(BATCH))])

    return batched


def square_numbers(sides: tuple[int, ...], cells: int = CELLS) -> torch.Tensor:
    """The number of the square that each pixel of [H, W] lies in, `cells` along a side (`grid_of`), [H * W]."""
    return part_numbers(sides, max(grid_of(sides, cells))).flatten()


def sums_of_squares(values: torch.Tensor, cells: int = CELLS) -> torch.Tensor:
    """What a map [H, W] gives to each square, in float64."""
    squares = square_numbers(values.shape, cells)
    return torch.zeros(int(squares.max()) + 1, dtype=torch.float64).index_add_(0, squares, values.flatten().double())


def keep_squares(game, squares: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
    """A game over squares: their pixels go and stay together."""
    return game(keep[:, squares])
