"""The family over signals: what it reads, its feature extractor, its pipeline and explanation, and what is refused."""

import numpy as np
import pytest
import torch
import transformers

import hf_mhex
from hf_mhex import MHEXSignalConfig, MHEXSignalFeatureExtractor
from networks import lively, signal_batch

AXIS = np.linspace(4000, 600, 61).tolist()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A saved model on an axis, with an extractor that was fitted to 20 signals; the folder and the signals."""
    folder = tmp_path_factory.mktemp("signal")
    signals = np.random.default_rng(0).normal(3, 2, (20, 61)).astype(np.float32)
    model = lively("signal", torch.float32, axis=AXIS, axis_name="wavenumber", axis_unit="1/cm")
    model.save_pretrained(folder)
    MHEXSignalFeatureExtractor().fit(signals).save_pretrained(folder)
    return folder, signals


def test_a_row_of_one_channel_needs_no_axis_for_it():
    model, values = lively("signal"), signal_batch(dtype=torch.float64)["input_values"]
    one, two = (model.generate_saliency(input_values=given) for given in (values, values[:, 0]))
    assert torch.equal(one.saliency, two.saliency) and one.saliency.shape == (3, 61)


def test_signals_are_standardised_as_in_training(saved):
    folder, signals = saved
    _, extractor = hf_mhex.load(folder)
    assert type(extractor) is MHEXSignalFeatureExtractor
    found = extractor(signals, return_tensors="pt")["input_values"].double()
    expected = (signals - signals.mean(0)) / signals.std(0)
    assert np.abs(found[:, 0].numpy() - expected).max() < 1e-5
    assert np.abs(extractor.restore(found[3])[0].numpy() - signals[3]).max() < 1e-5
    by_channel = MHEXSignalFeatureExtractor(num_channels=2).fit(np.stack([signals, 5 * signals], 1), by="channel")
    assert np.allclose(by_channel.mean, [[signals.mean()], [5 * signals.mean()]], rtol=1e-5)
    flat = signals.copy()
    flat[:, 7] = 2.0
    assert MHEXSignalFeatureExtractor().fit(flat).std[0][7] == 1.0


def test_an_explanation_adds_up_and_has_a_picture(saved):
    folder, signals = saved
    model, extractor = hf_mhex.load(folder)
    found = hf_mhex.explain(model, extractor, signals[0], contrast=None)
    assert found.saliency.shape == (61,) and found.saliency.sum() == pytest.approx(found.logit, abs=1e-4)
    assert found.seen.label == "wavenumber (1/cm)" and found.seen.axis.tolist() == AXIS
    assert np.abs(found.seen.values[0] - signals[0]).max() < 1e-4
    assert found.picture.size[0] > 300 and found.block_picture.size[1] > found.picture.size[1]
    assert "data:image/png" in found._repr_html_()


def test_one_signal_is_explained_not_the_first_of_several(saved):
    folder, signals = saved
    model, extractor = hf_mhex.load(folder)
    with pytest.raises(ValueError, match=r"a signal must be \[L\] or \[C, L\], got 2 of them, \[2, 61\]"):
        hf_mhex.explain(model, extractor, np.stack(signals[:2]))
    with pytest.raises(TypeError, match="a signal must be an array of numbers, got a str"):
        hf_mhex.explain(model, extractor, "signals.npz")


def test_pipelines(saved):
    folder, signals = saved
    model, extractor = hf_mhex.load(folder)
    pipe = transformers.pipeline("signal-saliency", model=model, feature_extractor=extractor)
    answers = pipe(signals[0], top_k=None)
    stock = transformers.pipeline("audio-classification", model=model, feature_extractor=extractor)(signals[0])
    assert [one["label"] for one in answers] == [one["label"] for one in stock]
    for one, other in zip(answers, stock):
        assert one["score"] == pytest.approx(other["score"], abs=1e-5)
        assert one["saliency"].sum() == pytest.approx(one["logit"], abs=1e-4) and one["overlay"].size == (640, 200)
    assert len(pipe(list(signals[:3]))) == 3
    [refined] = pipe(signals[0], refine=True)
    assert refined["saliency"].sum() == pytest.approx(refined["logit"], abs=1e-4)
    assert not np.allclose(refined["saliency"], answers[0]["saliency"], atol=1e-3)
    with pytest.raises(TypeError, match="signal must be an array"):
        pipe({"signal": signals[0]})
    with pytest.raises(TypeError, match="signal must be an array of numbers, got float"):
        pipe(signals[0].tolist())
    with pytest.raises(ValueError, match=r"signal must be \[L\] or \[C, L\], got 2 of them; pass a list"):
        pipe(np.stack(signals[:2]))


def test_a_line_is_red_where_it_speaks_for_the_label():
    from hf_mhex.modeling.pipeline_mhex import paint_signal

    picture = np.asarray(paint_signal(torch.zeros(100), torch.cat([torch.ones(50), -torch.ones(50)])).convert("RGB"))
    left, right = picture[:, 100].astype(int), picture[:, 500].astype(int)
    assert (left[:, 0] > left[:, 2]).all() and (right[:, 2] > right[:, 0]).all()


@pytest.mark.parametrize("axis", [np.linspace(4000, 400, 9), range(9), torch.arange(9)])
def test_an_axis_of_any_kind_is_saved(axis, tmp_path):
    config = MHEXSignalConfig(axis=axis)
    config.save_pretrained(tmp_path)
    assert list(MHEXSignalConfig.from_pretrained(tmp_path).axis) == [float(place) for place in axis]


@pytest.mark.parametrize(
    "fields, words",
    [
        ({"axis": [1.0, 2.0, 2.0]}, "axis must rise or fall throughout, but goes from 2.0 to 2.0"),
        ({"axis": [1.0, 3.0, 2.0, 4.0]}, "goes from 3.0 to 2.0 at point 1; sort"),
        ({"axis": [1.0, float("nan")]}, "at least two finite numbers"),
        ({"axis": [1.0]}, "at least two finite numbers"),
        ({"kernel_size": 4}, "kernel_size must be an odd int"),
        ({"widths": [8], "depths": [1, 1], "strides": [1]}, "one int a stage each"),
        ({"widths": [8], "depths": [0], "strides": [1]}, "must be at least 1"),
    ],
)
def test_configurations_that_cannot_be_are_refused(fields, words):
    with pytest.raises(ValueError, match=words):
        MHEXSignalConfig(**fields)


@pytest.mark.parametrize(
    "change, error, words",
    [
        (lambda values: None, ValueError, "must be given"),
        (lambda values: values.numpy(), TypeError, "must be a tensor"),
        (lambda values: values.long(), TypeError, "must be floats"),
        (lambda values: values[:0], ValueError, "at least one signal"),
        (lambda values: values.repeat(1, 2, 1), ValueError, r"\[batch, 1, length\] for num_channels=1"),
        (lambda values: values[..., :60], ValueError, "must have the 61 points of the model's axis, got 60"),
        (lambda values: values.index_fill(2, torch.tensor([3]), float("nan")), ValueError, "must be finite, got NaN"),
    ],
)
def test_signals_that_cannot_be_are_refused(saved, change, error, words):
    model, _ = hf_mhex.load(saved[0])
    with pytest.raises(error, match=words):
        model.generate_saliency(input_values=change(signal_batch()["input_values"]))


@pytest.mark.parametrize("signals, found", [([], r"\[\]"), ([[1, 2], [1, 2, 3]], r"\[2, 3\]")])
def test_an_extractor_is_fitted_to_signals_of_one_length(signals, found):
    with pytest.raises(ValueError, match=f"at least one, of one length, got lengths {found}"):
        MHEXSignalFeatureExtractor().fit(signals)


def test_an_extractor_refuses_what_is_no_signal(saved):
    _, extractor = hf_mhex.load(saved[0])
    hole = saved[1][0].copy()
    hole[[5, 9]] = np.nan
    for signal, error, words in (
        (hole, ValueError, "2 points that are NaN or infinite, the first is 5"),
        (["a", "b"], TypeError, "must be numbers"),
        (np.zeros(50), ValueError, "61 points of training, got 50"),
        (np.zeros((2, 3, 61)), ValueError, "for num_channels=1"),
    ):
        with pytest.raises(error, match=words):
            extractor(signal)
    with pytest.raises(ValueError, match="of one length"):
        MHEXSignalFeatureExtractor()([np.zeros(5), np.zeros(6)])
    with pytest.raises(ValueError, match="by must be one of"):
        MHEXSignalFeatureExtractor().fit([np.zeros(5)], by="row")
    with pytest.raises(ValueError, match="std must be above 0"):
        MHEXSignalFeatureExtractor(mean=[[0.0]], std=[[0.0]])
