"""A converted checkpoint of every family, published and loaded by strangers in a process without hf_mhex."""

import pytest
from huggingface_hub import ModelCard

from hub_models import Publisher, check_pulled, pull, save_converted
from networks import CONVERTED, family_named
from stub_hub import TOKEN, stub_hub


@pytest.mark.slow
@pytest.mark.parametrize("name", CONVERTED)
def test_a_converted_model_is_published_and_loaded(name, tmp_path):
    """By its Auto classes and pipelines; the labels are the default two, and the card is made by `publish`."""
    kind = family_named(name).input
    folder = tmp_path / name
    items, answer = save_converted(name, folder, tmp_path / "pictures")
    with stub_hub() as server:
        publisher = Publisher(tmp_path, server, TOKEN)
        said = publisher(folder, f"me/{name}")
        publisher.close()
        assert "found" in said, said
        found = said["found"]
        assert found["task"] == kind.saliency_task and kind.processor_file in found["sent"]
        card = ModelCard(server.files(f"me/{name}")["README.md"].decode())
        job = {"task": kind.task, "repo_id": f"me/{name}", "revision": found["commit"], "items": items}
        check_pulled(pull(job, tmp_path / "home", server), answer)
    assert card.data.pipeline_tag == kind.task and kind.saliency_task in card.data.tags
    assert "LABEL_0, LABEL_1" in card.text and f'revision="{found["tag"]}"' in card.text
