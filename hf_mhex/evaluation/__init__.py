"""Measures of predictions and of maps, their controls and intervals.

`predictions` and `metrics` judge what a model answers; the functions here judge maps. Most take a *game* (what a
network says when features of one row are removed), some a batch of maps, some a method
`method(model, inputs, target) -> maps`. docs/evaluation.md says which direction is better and where libraries differ.

One more is a function of one of these three forms, named in `__all__` and asked in `benchmarks.explanations`.
"""

from hf_mhex.evaluation.controls import (
    blurred_copy,
    centred_gaussian,
    constant_map,
    edge_map,
    random_map,
)
from hf_mhex.evaluation.drop import area_weight, average_drop, effective_average_drop, soft_average_drop, text_drop
from hf_mhex.evaluation.faithfulness import (
    comprehensiveness,
    deletion_auc,
    f_fidelity,
    infidelity,
    insertion_auc,
    remove_and_debias,
    sensitivity_n,
    sufficiency,
)
from hf_mhex.evaluation.filters import FilterReport, filter_report
from hf_mhex.evaluation.form import entropy, gini, marked_area
from hf_mhex.evaluation.heads import SingleHeads, label_groups, single_heads
from hf_mhex.evaluation.imputation import impute
from hf_mhex.evaluation.intervals import Interval, bootstrap, paired_difference, share_interval, student_interval
from hf_mhex.evaluation.localisation import (
    Mosaics,
    build_mosaics,
    confident_rows,
    pointing_game,
    points_nowhere,
    positive_share,
)
from hf_mhex.evaluation.ordering import correlation, unit_range
from hf_mhex.evaluation.part_removal import PartRemoval, part_removal
from hf_mhex.evaluation.removal import ImageGame, RememberedGame, TextGame
from hf_mhex.evaluation.sanity import (
    completeness_error,
    parameter_randomisation,
    random_logit,
    shuffle_parameters,
    similarity,
)

__all__ = [
    "FilterReport",
    "ImageGame",
    "Interval",
    "Mosaics",
    "PartRemoval",
    "RememberedGame",
    "SingleHeads",
    "TextGame",
    "area_weight",
    "average_drop",
    "blurred_copy",
    "bootstrap",
    "build_mosaics",
    "centred_gaussian",
    "completeness_error",
    "comprehensiveness",
    "confident_rows",
    "constant_map",
    "correlation",
    "deletion_auc",
    "edge_map",
    "effective_average_drop",
    "entropy",
    "f_fidelity",
    "filter_report",
    "gini",
    "impute",
    "infidelity",
    "insertion_auc",
    "label_groups",
    "marked_area",
    "paired_difference",
    "parameter_randomisation",
    "part_removal",
    "pointing_game",
    "points_nowhere",
    "positive_share",
    "random_logit",
    "random_map",
    "remove_and_debias",
    "sensitivity_n",
    "share_interval",
    "shuffle_parameters",
    "similarity",
    "single_heads",
    "soft_average_drop",
    "student_interval",
    "sufficiency",
    "text_drop",
    "unit_range",
]
