"""A family that is defined outside the library: three files and one entry, and everything works as for the others."""

import shutil
import sys
from importlib import import_module
from pathlib import Path

import huggingface_hub
import pytest
import torch
from transformers import AutoTokenizer, Trainer, TrainingArguments, pipeline

from hf_mhex import FAMILIES, Family, convert, explain, load, publish, register_family
from hf_mhex.families import family_of, unregister_family
from hub_models import SENTENCES, check_pulled, pull
from minilm import MINILM
from stub_hub import TOKEN, stub_hub

TESTS = Path(__file__).parents[1]
PACKAGE = "toy_package"
SHAPE = {"hidden_size": 16, "num_hidden_layers": 2, "max_position_embeddings": 40}


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """The registered toy family, in a package that holds a copy of the shared remote code too."""
    home = tmp_path_factory.mktemp("toy")
    shutil.copytree(TESTS.parent / "modeling", home / PACKAGE, ignore=shutil.ignore_patterns("__pycache__"))
    for path in (TESTS / "toy").glob("*.py"):
        shutil.copy(path, home / PACKAGE)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(home)
        family = register_family(Family("toy", "Toy", "text", "transformers", ("toy",), package=PACKAGE))
        yield family
        unregister_family(family)
        for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
            del sys.modules[name]


@pytest.fixture(scope="module")
def converted(toy, tmp_path_factory):
    """A plain toy model, its conversion with the report, and its tokenizer."""
    folder = tmp_path_factory.mktemp("plain")
    source = import_module(f"{PACKAGE}.plain_toy")
    tokenizer = AutoTokenizer.from_pretrained(MINILM, model_max_length=40)
    torch.manual_seed(0)
    plain = source.ToyModel(source.ToyConfig(vocab_size=len(tokenizer), **SHAPE)).eval()
    plain.save_pretrained(folder)
    return plain, *convert(folder, id2label={0: "good", 1: "bad"}, output_loading_info=True), tokenizer


@pytest.fixture(scope="module")
def trained(converted, tmp_path_factory):
    """The converted model after some steps of transformers' Trainer, its tokenizer, and the folder of both."""
    _, model, _, tokenizer = converted
    folder = tmp_path_factory.mktemp("trained")
    rows = [dict(tokenizer(text), labels=label) for text, label in zip(SENTENCES, (0, 1, 0, 1, 1))]
    arguments = TrainingArguments(
        folder / "run",
        max_steps=20,
        learning_rate=0.02,
        per_device_train_batch_size=5,
        logging_steps=1,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
        use_cpu=True,
    )
    trainer = Trainer(model, arguments, train_dataset=rows, processing_class=tokenizer)
    trainer.train()
    losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    assert losses[-1] < 0.5 * losses[0]
    trainer.save_model(folder / "model")
    return model.eval(), tokenizer, folder / "model"


def test_a_plain_model_is_converted_without_loss(toy, converted):
    plain, model, report, tokenizer = converted
    batch = tokenizer(SENTENCES, padding=True, return_tensors="pt", return_token_type_ids=False)
    assert type(model) is toy.classifier and family_of(model) is toy
    assert not report.unused and all(".gate." in key or key.startswith("heads.") for key in report.new)
    assert torch.equal(model.base_model(**batch).last_hidden_state, plain(**batch).last_hidden_state)


def test_it_is_explained_exactly_and_shown_in_a_pipeline(trained):
    model, tokenizer, folder = trained
    found = explain(model, tokenizer, SENTENCES[1], contrast=None)
    again = explain(*load(folder), SENTENCES[1], contrast=None)
    [answer] = pipeline("text-saliency", model=model, tokenizer=tokenizer, device="cpu")(SENTENCES[1])
    assert found.label == again.label == answer["label"] == "bad"
    assert found.logit > 0.5 and found.picture is not None
    for explained in (found.explained, found.saliency.sum(), again.logit, answer["explained"]):
        assert explained == pytest.approx(found.logit, abs=1e-5)
    words = sum(word.score for word in found.parts) + found.record["special"]
    assert words == pytest.approx(found.logit, abs=1e-5)


@pytest.mark.slow
def test_it_is_published_and_loaded_by_a_stranger(trained, tmp_path, monkeypatch):
    """From the saved folder and from the Hub, each in a process that cannot import hf_mhex."""
    model, tokenizer, folder = trained
    batch = tokenizer(SENTENCES, padding=True, return_tensors="pt", return_token_type_ids=False)
    answer = model.generate_saliency(**batch)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
    with stub_hub() as server:
        publication = publish(folder, "me/toy", token=TOKEN, endpoint=server.url)
        assert {"plain_toy.py", "modeling_mhex_toy.py", "pipeline_mhex.py", "README.md"} <= publication.sent.keys()
        for repo_id, revision in ((str(folder), None), ("me/toy", publication.commit)):
            job = {"task": "text-classification", "repo_id": repo_id, "revision": revision, "items": SENTENCES}
            check_pulled(pull(job, tmp_path / str(revision), server), answer)


@pytest.mark.parametrize(
    ("entry", "cure"),
    [
        ({"name": "bert"}, "'mhex_bert' is registered already; give the family another name"),
        ({"sources": ("bert",)}, r"\['bert'\] belong to family 'bert' already"),
        ({"sources": ()}, "must name what it is made from"),
        ({"kind": "sound"}, "kind='sound' .* must be one of image, text"),
        ({"library": "keras"}, "library='keras' .* must be 'transformers', 'timm' or 'own'"),
        ({}, "has no configuration_mhex_mine.py; add it to hf_mhex.modeling"),
        ({"package": "nowhere_at_all"}, "has no configuration_mhex_mine.py; add it to nowhere_at_all"),
    ],
    ids=["name", "sources", "no_sources", "kind", "library", "files", "package"],
)
def test_an_entry_that_cannot_be(entry, cure):
    before = dict(FAMILIES)
    fields = {"name": "mine", "title": "Mine", "kind": "text", "library": "transformers", "sources": ("mine",)}
    with pytest.raises(ValueError, match=cure):
        register_family(Family(**{**fields, **entry}))
    assert before == FAMILIES
