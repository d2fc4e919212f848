"""SMX (Spectral Model eXplainer, arXiv 2605.02684) by its own package, with an MHEX model as the predictor.

The package perturbs a zone of each bag's rows to the column medians of all rows, once for every predicate, bag and
repetition. What it asks for are rows as they are or with one zone at the medians, so Z + 1 batched passes answer all.
"""

from __future__ import annotations

import io
from contextlib import redirect_stdout
from dataclasses import dataclass, field

import numpy as np
import torch

from hf_mhex.baselines import library
from hf_mhex.explaining.zones import Zones
from hf_mhex.modeling.pipeline_mhex import scores_of


class TablePredictor:
    """scikit-learn's face of a model whose answers are known for rows that it was shown; others pass through the model.

    Args:
        model: an MHEX or plain classifier of input_values [B, 1, L], in eval mode.

    `passes` counts the batched calls of the model.
    """

    def __init__(self, model):
        self.model, self.passes = model, 0
        self.classes_ = np.arange(model.config.num_labels)
        self._known: dict[bytes, np.ndarray] = {}

    @torch.no_grad()
    def learn(self, values: np.ndarray) -> np.ndarray:
        """The probabilities [N, K] of rows [N, L], from one batched call."""
        self.passes += 1
        given = torch.from_numpy(values).float()[:, None].to(self.model.device)
        scores = scores_of(self.model(input_values=given).logits, self.model.config).double().cpu().numpy()
        self._known |= {row.tobytes(): score for row, score in zip(values, scores)}
        return scores

    def predict_proba(self, table) -> np.ndarray:
        """The probabilities [N, K] of the rows of a DataFrame."""
        values = np.ascontiguousarray(table.to_numpy(dtype=np.float64))
        unknown = [row for row in values if row.tobytes() not in self._known]
        if unknown:
            self.learn(np.stack(unknown))
        return np.stack([self._known[row.tobytes()] for row in values])

    def predict(self, table) -> np.ndarray:
        """The label with the highest probability, [N]."""
        return self.predict_proba(table).argmax(-1)


@dataclass(frozen=True, eq=False)
class SMXAnswer:
    """What SMX found.

    Args:
        relevance: local reaching centrality by zone, the highest first; 0 for a zone in no predicate.
        predicates: the package's table, a row a predicate, thresholds in the signals' own scale where it knows them.
        thresholds: by zone the threshold of its first predicate as a spectrum over the zone's points.
        target: the class whose probability the predicates go with. passes: batched calls of the model.
        package: the implementation that ran, with its version.
    """

    relevance: dict[str, float]
    predicates: list[dict] = field(repr=False)
    thresholds: dict[str, np.ndarray] = field(repr=False)
    target: int
    passes: int
    package: str


def explain_zones(
    model, data, zones: Zones, processor=None, target: int | None = None, quantiles=(0.2, 0.4, 0.6, 0.8), **options
) -> SMXAnswer:
    """The zones of signals by SMX; see `hf_mhex.baselines.smx`."""
    import pandas as pd

    engine = library("smx")
    natural = np.asarray(data, dtype=np.float64)
    if natural.ndim == 3 and natural.shape[1] == 1:
        natural = natural[:, 0]
    if natural.ndim != 2 or natural.shape[1] != len(zones.axis):
        raise ValueError(f"data must be signals [N, {len(zones.axis)}] of one channel, got {list(np.shape(data))}.")
    if len(natural) < 5:
        raise ValueError(f"data must hold at least 5 signals, of which SMX draws bags; got {len(natural)}, add rows.")
    if not np.isfinite(natural).all():
        raise ValueError("data must be finite, got NaN or infinity; leave such signals out or fill them.")
    given = natural if processor is None else processor(natural, return_tensors="np")["input_values"][:, 0]
    names = [repr(float(place)) for place in zones.axis]
    table = pd.DataFrame(np.asarray(given, dtype=np.float64), columns=names)
    predictor = TablePredictor(model)
    if target is not None and target not in predictor.classes_:
        raise ValueError(f"target must be a class below {len(predictor.classes_)}, got {target!r}.")
    scores = predictor.learn(np.ascontiguousarray(table.to_numpy()))
    labels = scores.argmax(-1)
    if target is None and len(np.unique(labels)) < 2:
        raise ValueError(
            f"data must hold signals of two predicted classes, which SMX compares; all {len(labels)} are of class "
            f"{labels[0]}. Add rows, or name a `target` whose probability varies."
        )
    target = int(np.bincount(labels).argmax()) if target is None else target
    medians = table.median(axis=0).to_numpy()
    for inside in zones.members:
        predictor.learn(np.where(inside, medians, table.to_numpy()))
    cuts = [
        (zone.name, float(zones.axis[inside].min()), float(zones.axis[inside].max()))
        for zone, inside in zip(zones, zones.members)
    ]
    found = engine.SMX(cuts, list(quantiles), estimator=predictor, **options)
    with redirect_stdout(io.StringIO()):  # it prints every bag and graph
        found.fit(table, scores[:, target], pd.DataFrame(natural, columns=names))
    centrality = found.lrc_summed_unique_.set_index("Zone")["Local_Reaching_Centrality"].to_dict()
    relevance = {name: float(centrality.get(name, 0.0)) for name in zones.names}
    rebuild = engine.graph.interpretation.reconstruct_threshold_to_spectrum
    firsts = found.lrc_summed_.drop_duplicates("Zone").dropna(subset=["Zone", "Threshold"])
    natural_scores = found.lrc_natural_.set_index("Node")["Threshold_Natural"]
    thresholds = {
        row["Zone"]: rebuild(float(natural_scores[row["Node"]]), row["Zone"], found.pca_info_natural_).to_numpy()
        for _, row in firsts.iterrows()
    }
    return SMXAnswer(
        dict(sorted(relevance.items(), key=lambda item: -item[1])),
        found.lrc_natural_.to_dict("records"),
        thresholds,
        target,
        predictor.passes,
        f"spectral-model-explainer {package_version()}",
    )


def package_version() -> str:
    """The version of the package that computes it."""
    from importlib.metadata import version

    return version("spectral-model-explainer")
