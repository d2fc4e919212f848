"""The study of signals: folds and classes that cannot be, and data as R keeps them."""

import gzip
import zlib

import numpy as np
import pytest

from hf_mhex.training.studies.signals import folds_of, read_mayonnaise


def test_folds_that_cannot_be_are_refused():
    assert len(folds_of(np.array([0, 1] * 5), 5, 0)) == 5
    with pytest.raises(ValueError, match="folds=5 need 5 rows of each class, and one has 2"):
        folds_of(np.array([0] * 5 + [1] * 2), 5, 0)
    with pytest.raises(ValueError, match="one class only"):
        folds_of(np.zeros(10, dtype=int), 5, 0)


def test_mayonnaise_is_read_from_a_package_of_r(tmp_path):
    rdata = pytest.importorskip("rdata", reason="R's files need the extra signals: make test-extras")

    def written(value):
        rdata.write_rds(tmp_path / "one.rds", value, compression="gzip")
        return gzip.decompress((tmp_path / "one.rds").read_bytes())

    nir = np.arange(12.0).reshape(4, 3)
    train = np.array([True, True, False, False])
    plain = written({"NIR": nir, "oil.type": np.array([4, 2, 4, 6], dtype=np.int32), "train": train})
    part = len(plain).to_bytes(4, "big") + zlib.compress(plain)
    place = np.array([5, len(part)], dtype=np.int32)
    (tmp_path / "Rdata.rdb").write_bytes(b"other" + part + b"more")
    (tmp_path / "Rdata.rdx").write_bytes(gzip.compress(written({"variables": {"mayonnaise": place}})))
    signals, labels, axis, inside = read_mayonnaise(tmp_path)
    np.testing.assert_array_equal(signals, nir)
    assert (labels.tolist(), axis, inside.tolist()) == ([1, 0, 1, 2], [1100, 1800, 2500], train.tolist())
    with pytest.raises(FileNotFoundError, match="--mayonnaise .*nowhere holds no Rdata.rdx"):
        read_mayonnaise(tmp_path / "nowhere")
