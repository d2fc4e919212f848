"""Which models an analysis can handle."""

from __future__ import annotations


def check_single_labels(model) -> None:
    """Raise ValueError unless a model tells single labels apart: two at least, and one to a row."""
    config = model.config
    if config.problem_type in ("regression", "multi_label_classification") or config.num_labels < 2:
        raise ValueError(
            "model must tell single labels apart, at least two of them; this one has "
            f"problem_type={config.problem_type!r} and num_labels={config.num_labels}."
        )
