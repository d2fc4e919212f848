"""The measures of one method on images, in groups, each a dict of one value a row."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch

from hf_mhex import evaluation as ev
from hf_mhex.benchmarks.explanations.parts import Images, Sizes, image_scores, logits_of_part, maps_of, probabilities
from hf_mhex.evaluation.localisation import Mosaics
from hf_mhex.evaluation.part_removal import part_numbers

GROUPS = ("grid 2x2", "grid 3x3", "rows")
CELLS = 7  # sensitivity-n and infidelity remove squares, 7 x 7 of them: single pixels change nothing
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
        self.games: dict[int, Callable] = {}
        self.target = logits_of_part(model, part.take(torch.arange(min(sizes.rows, len(part))))).argmax(-1)

    def groups(self, slow: bool) -> tuple[str, ...]:
        """The groups that a method goes through: a 3 x 3 mosaic costs nine images, too much for slow ones."""
        return tuple(group for group in GROUPS if not (slow and group == "grid 3x3"))

    def measure(self, group: str, call, slow: bool = False) -> dict:
        """Measures by name, each a list of values a row; "mosaic" and "seconds" (a row) where they apply.

        A group is one of GROUPS, or "choice", a part of "rows".
        """
        call = in_batches(call)
        if group.startswith("grid"):
            return self.grid(int(group[-1]), call, slow)
        count = min(len(self.target), self.sizes.slow if slow else self.sizes.rows)
        pixels, target = self.part.pixels[:count], self.target[:count]
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
        """Insertion - deletion alone, one half of what settings are chosen by."""
        found = []
        for image, values, label in zip(pixels, maps.flatten(1), target.tolist()):
            game = ev.ImageGame(probabilities(image_scores(self.model)), image, label)
            gained = ev.insertion_auc(replace(game, fill="blur"), values, self.sizes.steps, self.seed)
            found.append(gained - ev.deletion_auc(game, values, self.sizes.steps, self.seed))
        return {"choice": found}

    def removal(self, pixels, maps, target) -> dict:
        """Insertion, deletion, ROAD, and over squares sensitivity-n and infidelity."""
        found = [self.removal_of_one(row, *given) for row, given in enumerate(zip(pixels, maps, target.tolist()))]
        return {name: [row[name] for row in found] for name in found[0]}

    def removal_of_one(self, row: int, image, values, target: int) -> dict:
        """The measures by removal of one image."""
        game = ev.ImageGame(probabilities(image_scores(self.model)), image, target, "zero", seed=self.seed)
        flat, steps = values.flatten(), self.sizes.steps
        insertion = ev.insertion_auc(replace(game, fill="blur"), flat, steps, self.seed)
        deletion = ev.deletion_auc(game, flat, steps, self.seed)
        road = ev.remove_and_debias(replace(game, fill="impute"), flat, seed=self.seed)
        squares = square_numbers(*image.shape[-2:])
        terms = torch.zeros(int(squares.max()) + 1, dtype=torch.float64).index_add_(0, squares, flat.double())
        by_logit = self.game_of_squares(row, image, squares, target)
        size = max(1, len(terms) // 10)
        return {
            "insertion": insertion,
            "deletion": deletion,
            "insertion - deletion": insertion - deletion,
            "ROAD morf": road["morf"],
            "ROAD lerf": road["lerf"],
            "ROAD combined": road["combined"],
            "sensitivity-n": ev.sensitivity_n(by_logit, terms, size, self.sizes.samples, self.seed),
            "infidelity": ev.infidelity(by_logit, terms, self.sizes.samples, self.seed),
        }

    def game_of_squares(self, row: int, image, squares: torch.Tensor, target: int):
        """The logit's game over squares; every method is asked about the same random subsets, so it remembers."""
        if row not in self.games:
            game = ev.ImageGame(image_scores(self.model), image, target, "zero")
            self.games[row] = ev.RememberedGame(partial(keep_squares, game, squares))
        return self.games[row]

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


def square_numbers(height: int, width: int) -> torch.Tensor:
    """The number of the square that each pixel lies in, [H * W]."""
    return part_numbers((height, width), CELLS).flatten()


def keep_squares(game, squares: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
    """A game over squares: their pixels go and stay together."""
    return game(keep[:, squares])
