"""Is the contrast that pictures start from the one that fits how the labels were learnt?"""

import pytest

from hf_mhex import MHEXBertConfig, MHEXResNetConfig
from hf_mhex.explaining.explanation import fitting_contrast
from hf_mhex.pictures.cards import saliency_picture
from hub_models import save_image_model


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"num_labels": 3}, "softmax"),
        ({"num_labels": 3, "problem_type": "single_label_classification"}, "softmax"),
        ({"num_labels": 3, "binary_share": 0.5}, None),
        ({"num_labels": 3, "problem_type": "multi_label_classification"}, None),
        ({"num_labels": 1, "problem_type": "regression"}, None),
        ({"num_labels": 1}, None),
    ],
)
@pytest.mark.parametrize("family", [MHEXBertConfig, MHEXResNetConfig])
def test_a_lead_is_shown_where_the_loss_leaves_the_zero_open(family, fields, expected):
    assert fitting_contrast(family(**fields)) == expected


def test_a_card_s_picture_starts_from_it_and_can_be_told_otherwise(tmp_path):
    save_image_model(tmp_path / "model", tmp_path / "pictures")  # learnt by cross-entropy
    item = next((tmp_path / "pictures").rglob("*.png"))
    own = saliency_picture(tmp_path / "model", [item])
    assert own.tobytes() == saliency_picture(tmp_path / "model", [item], contrast="softmax").tobytes()
    assert own.tobytes() != saliency_picture(tmp_path / "model", [item], contrast=None).tobytes()
