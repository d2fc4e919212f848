"""The measures of one method on texts, in groups, each a dict of one value a row."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial

import torch
from torch.nn.utils.rnn import pad_sequence

from hf_mhex import evaluation as ev
from hf_mhex.benchmarks.explanations.images import randomisation
from hf_mhex.benchmarks.explanations.parts import Sizes, Texts, logits_of_part, maps_of, probabilities, text_scores
from hf_mhex.evaluation.drop import content_tokens

GROUPS = ("rows",)
BATCH = 16
STEPS = 5  # of insertion and deletion: texts are short, and their games share masks with the shares of ERASER


class TextMeasures:
    """The measures over one part, for one network; arguments as in `ImageMeasures`."""

    points = False  # there is no Grid Pointing Game of texts

    def __init__(self, model, part: Texts, sizes: Sizes, scorers: dict | None = None, others=(), seed: int = 0):
        self.model, self.part, self.sizes, self.seed = model, part, sizes, seed
        self.scorers = {"same": model, **(scorers or {})}
        self.target = logits_of_part(model, part.take(torch.arange(min(sizes.rows, len(part))))).argmax(-1)
        self.games: dict[int, dict] = {}

    def groups(self, slow: bool) -> tuple[str, ...]:
        """The groups that a method goes through."""
        return GROUPS

    def measure(self, group: str, call, slow: bool = False) -> dict:
        """Measures by name, each a list of values a row, and "seconds" (a row) where they apply.

        A group is one of GROUPS, or "choice", a part of "rows".
        """
        count = min(len(self.target), self.sizes.slow if slow else self.sizes.rows)
        part = self.part.take(torch.arange(count))
        start = time.process_time()
        maps = self.maps(call, self.model, range(count), self.target[:count])
        seconds = (time.process_time() - start) / count
        if group == "choice":
            return {"choice": [self.choice(row, values) for row, values in enumerate(maps)]}
        found = [self.removal(row, values) | self.form(part.ids[row], values) for row, values in enumerate(maps)]
        together = {name: [row[name] for row in found] for name in found[0]}
        return together | self.drop(part, maps) | self.sanity(call, maps, slow) | {"seconds": seconds}

    def maps(self, call, model, rows, target) -> list[torch.Tensor]:
        """One map [T] a row. Each text goes alone: in a batch, padding would be alike in all maps of a text."""
        return [maps_of(call, model, self.part.inputs([row]), one[None])[0] for row, one in zip(rows, target)]

    def games_of(self, row: int) -> dict:
        """The games over one text's tokens, which remember what they were asked: "mask", "delete" and "logit"."""
        if row not in self.games:
            ids, special = self.part.ids[row], self.part.special_ids
            rest = ("mask", self.part.mask_id, self.part.pad_id, special)
            given = (ids, torch.ones_like(ids), int(self.target[row]), *rest)
            game = ev.TextGame(probabilities(text_scores(self.model)), *given)
            kinds = {"mask": game, "delete": replace(game, how="delete")}
            kinds["logit"] = ev.TextGame(text_scores(self.model), *given)
            self.games[row] = {kind: ev.RememberedGame(found) for kind, found in kinds.items()}
        return self.games[row]

    def content(self, ids: torch.Tensor) -> torch.Tensor:
        """Positions of the content tokens of one text."""
        return content_tokens(ids, torch.ones_like(ids), self.part.special_ids).nonzero()[:, 0]

    def choice(self, row: int, values) -> float:
        """Comprehensiveness - sufficiency by [MASK] of one text, by which settings are chosen."""
        game, values = self.games_of(row)["mask"], values[self.content(self.part.ids[row])]
        return ev.comprehensiveness(game, values) - ev.sufficiency(game, values)

    def removal(self, row: int, values) -> dict:
        """ERASER by [MASK] and by deletion, insertion and deletion, sensitivity-n and infidelity, of one text."""
        games, seed, samples = self.games_of(row), self.seed, self.sizes.samples
        values = values[self.content(self.part.ids[row])].double()
        found = {}
        for how in ("mask", "delete"):
            found[f"comprehensiveness ({how})"] = ev.comprehensiveness(games[how], values, seed=seed)
            found[f"sufficiency ({how})"] = ev.sufficiency(games[how], values, seed=seed)
        if len(values) == 0:
            return found | dict.fromkeys(("insertion - deletion", "sensitivity-n", "infidelity", "FFid+", "FFid-"), 0.0)
        insertion = ev.insertion_auc(games["mask"], values, STEPS, seed)
        deletion = ev.deletion_auc(games["mask"], values, STEPS, seed)
        fidelity = ev.f_fidelity(games["mask"], values, seed=seed)
        size = max(1, len(values) // 10)
        return found | {
            "insertion - deletion": insertion - deletion,
            "sensitivity-n": ev.sensitivity_n(games["logit"], values, size, samples, seed),
            "infidelity": ev.infidelity(games["logit"], values, samples, seed),
            "FFid+": fidelity["plus"],
            "FFid-": fidelity["minus"],
        }

    def drop(self, part: Texts, maps: list) -> dict:
        """The paper's text drop, scored by each scorer."""
        found = {}
        for name, scorer in self.scorers.items():
            drops = torch.zeros(len(part), dtype=torch.float64)
            for rows, inputs in part.batches(BATCH):
                given = (inputs["input_ids"], inputs["attention_mask"])
                padded = pad_sequence([maps[row] for row in rows.tolist()], batch_first=True)
                rest = (self.target[rows], part.mask_id, part.special_ids)
                drops[rows] = ev.text_drop(probabilities(text_scores(scorer)), *given, padded, *rest)
            found[f"text drop ({name})"] = drops.tolist()
        return found

    def form(self, ids, values) -> dict:
        """Sparseness, entropy and area over the content tokens."""
        values = values[self.content(ids)][None]
        if values.numel() == 0:
            return {"Gini": 0.0, "entropy": 0.0, "area": 0.0}
        area = ev.marked_area(ev.unit_range(values))
        return {"Gini": float(ev.gini(values)), "entropy": float(ev.entropy(values)), "area": float(area)}

    def sanity(self, call, maps: list, slow: bool) -> dict:
        """Random logit, of slow methods on as few rows as the parameter randomisation."""
        some = min(self.sizes.sanity if slow else self.sizes.slow, len(maps))
        few = min(self.sizes.sanity, some)
        labels = logits_of_part(self.model, self.part.take([0])).shape[-1]
        each = partial(self.maps, call)
        given = (each, self.model, range(some), self.target[:some], labels, self.seed)
        return {
            "random logit": ev.random_logit(*given, own=maps[:some]),
            **randomisation(each, self.model, range(few), self.target[:few], slow, self.seed, maps[:few]),
        }
