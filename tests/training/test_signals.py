"""The study of signals: folds and classes that cannot be."""

import numpy as np
import pytest

from hf_mhex.training.studies.signals import folds_of


def test_folds_that_cannot_be_are_refused():
    assert len(folds_of(np.array([0, 1] * 5), 5, 0)) == 5
    with pytest.raises(ValueError, match="folds=5 need 5 rows of each class, and one has 2"):
        folds_of(np.array([0] * 5 + [1] * 2), 5, 0)
    with pytest.raises(ValueError, match="one class only"):
        folds_of(np.zeros(10, dtype=int), 5, 0)
