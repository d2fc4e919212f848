"""What do the measures say of one method on texts? Groups of measures, each a dict of one value a row."""

from __future__ import annotations

import time
from dataclasses import replace

import torch

from hf_mhex import evaluation as ev
from hf_mhex.evaluation.drop import content_tokens
from hf_mhex.quality.parts import Sizes, Texts, logits_of_part, probabilities, text_scores

GROUPS = ("rows", "sanity")
BATCH = 8


class TextMeasures:
    """The measures over one part, for one network; arguments as in `ImageMeasures`."""

    def __init__(self, model, part: Texts, sizes: Sizes, scorers: dict | None = None, others=(), seed: int = 0):
        self.model, self.part, self.sizes, self.seed = model, part, sizes, seed
        self.scorers = {"same": model, **(scorers or {})}
        self.target = logits_of_part(model, part.take(torch.arange(min(sizes.rows, len(part))))).argmax(-1)

    def measure(self, group: str, call, slow: bool = False) -> dict:
        """Measures by name, each a list of values a row, and "seconds" (a row) where they apply."""
        if group == "sanity":
            return self.sanity(call, slow)
        count = min(len(self.target), self.sizes.slow if slow else self.sizes.rows)
        part = self.part.take(torch.arange(count))
        maps: list = [None] * count
        start = time.perf_counter()
        for rows, inputs in part.batches(BATCH):
            for row, found in zip(rows.tolist(), call(self.model, inputs, self.target[rows])):
                maps[row] = found[: len(part.ids[row])]
        seconds = (time.perf_counter() - start) / count
        found = [getattr(self, group)(*row) for row in zip(part.ids, maps, self.target[:count].tolist())]
        return {name: [row[name] for row in found] for name in found[0]} | {"seconds": seconds}

    def rows(self, ids, values, target: int) -> dict:
        """All that is measured on single texts."""
        return self.removal(ids, values, target) | self.drop(ids, values, target) | self.form(ids, values, target)

    def content(self, ids: torch.Tensor) -> torch.Tensor:
        """Positions of the content tokens of one text."""
        return content_tokens(ids, torch.ones_like(ids), self.part.special_ids).nonzero()[:, 0]

    def choice(self, ids, values, target: int) -> dict:
        """Comprehensiveness - sufficiency by [MASK] alone, by which settings are chosen."""
        args = (probabilities(text_scores(self.model)), ids, torch.ones_like(ids), target, "mask")
        game = ev.TextGame(*args, self.part.mask_id, self.part.pad_id, self.part.special_ids)
        values = values[self.content(ids)]
        return {"choice": ev.comprehensiveness(game, values) - ev.sufficiency(game, values)}

    def removal(self, ids, values, target: int) -> dict:
        """ERASER by [MASK] and by deletion, insertion and deletion, sensitivity-n and infidelity, of one text."""
        scores, special = text_scores(self.model), self.part.special_ids
        there, seed = torch.ones_like(ids), self.seed
        rest = ("mask", self.part.mask_id, self.part.pad_id, special)
        game = ev.TextGame(probabilities(scores), ids, there, target, *rest)
        values = values[self.content(ids)].double()
        found = {}
        for how in ("mask", "delete"):
            play = replace(game, how=how)
            found[f"comprehensiveness ({how})"] = ev.comprehensiveness(play, values, seed=seed)
            found[f"sufficiency ({how})"] = ev.sufficiency(play, values, seed=seed)
        if len(values) == 0:
            return found | dict.fromkeys(("insertion - deletion", "sensitivity-n", "infidelity"), 0.0)
        steps, size = min(10, self.sizes.steps), max(1, len(values) // 10)
        by_logit = ev.TextGame(scores, ids, there, target, *rest)
        insertion, deletion = ev.insertion_auc(game, values, steps, seed), ev.deletion_auc(game, values, steps, seed)
        return found | {
            "insertion - deletion": insertion - deletion,
            "sensitivity-n": ev.sensitivity_n(by_logit, values, size, self.sizes.samples, seed),
            "infidelity": ev.infidelity(by_logit, values, self.sizes.samples, seed),
        }

    def drop(self, ids, values, target: int) -> dict:
        """The paper's text drop, scored by each scorer."""
        found = {}
        for name, scorer in self.scorers.items():
            scores, there = probabilities(text_scores(scorer)), torch.ones_like(ids)[None]
            args = (self.part.mask_id, self.part.special_ids)
            found[f"text drop ({name})"] = float(ev.text_drop(scores, ids[None], there, values[None], target, *args))
        return found

    def form(self, ids, values, target: int) -> dict:
        """Sparseness, entropy and area over the content tokens."""
        values = values[self.content(ids)][None]
        if values.numel() == 0:
            return {"Gini": 0.0, "entropy": 0.0, "area": 0.0}
        area = ev.marked_area(ev.unit_range(values))
        return {"Gini": float(ev.gini(values)), "entropy": float(ev.entropy(values)), "area": float(area)}

    def sanity(self, call, slow: bool) -> dict:
        """Parameter randomisation and random logit, each text alone: padding would be alike in all maps."""
        few, some = (min(count, len(self.target)) for count in (self.sizes.sanity, self.sizes.slow))
        labels = logits_of_part(self.model, self.part.take([0])).shape[-1]

        def each(model, rows, target) -> list[torch.Tensor]:
            return [call(model, self.part.inputs([row]), one[None])[0] for row, one in zip(rows, target)]

        given = (each, self.model, range(few), self.target[:few], 1 if slow else 4, self.seed)
        randomised = ev.parameter_randomisation(*given)
        return {
            "random logit": ev.random_logit(each, self.model, range(some), self.target[:some], labels, self.seed),
            "randomised": randomised["last"],
            "complexity rise": randomised["complexity_rise"],
            "randomised by stage": [round(value, 4) for value in randomised["similarity"]],
        }
