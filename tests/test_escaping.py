"""Names and texts of others come out as they are, and are obeyed by nothing: HTML, Markdown, terminals, YAML, pictures.

`SHOWN` says which case tries which function; a function that shows something and stands in none of the lists fails
`test_no_output_is_forgotten`.
"""

import ast
import json
import re
import sys
import warnings
from contextlib import contextmanager, suppress
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from markdown_it import MarkdownIt
from PIL import Image
from rich.console import Console

import hf_mhex
from hf_mhex.benchmarks.explanations import analyses, pictures
from hf_mhex.cli import main, terminal
from hf_mhex.cli.filters import page_of as page_of_filters
from hf_mhex.cli.heads import page_of as page_of_heads
from hf_mhex.cli.smx import page_of as page_of_zones
from hf_mhex.data.folders import files_of, read_image_folder
from hf_mhex.escaping import code_markdown, visible
from hf_mhex.evaluation import single_heads
from hf_mhex.evaluation.channels import channel_report
from hf_mhex.evaluation.filters import FilterReport
from hf_mhex.explaining.zones import Zones
from hf_mhex.hub.app.explaining import NO_CONTRAST, PREDICTED, explain_file, explain_sentence
from hf_mhex.hub.app.parts import parts_line
from hf_mhex.hub.card import card_facts, render_card
from hf_mhex.hub.space import space_contents
from hf_mhex.pictures.channels import write_channels
from hf_mhex.pictures.fields import field_sheet
from hf_mhex.pictures.filters import write_ablation
from hf_mhex.pictures.maps import overlay
from hf_mhex.pictures.signals import Signal, line_picture
from hf_mhex.training.progress import EpochLine
from hf_mhex.training.recipe import load_recipe
from hf_mhex.training.run import keep_recipe
from hub_models import save_image_model, save_signal_model, save_text_model
from networks import batch_for, lively

ROOT = Path(__file__).parents[1]
HOSTILE = '<script>alert(1)</script><b>x</b> " onload="e()" \' `c` ``d | *i* **j** __k__ [l](m) [red]# '
HOSTILE += "\\ \x1b[31m\x9b\x07 $5^$ &lt;"
NAMES = {number: f"{HOSTILE} {number}" for number in range(3)}
CONTROLS = set(map(chr, [*range(9), *range(11, 32), *range(127, 160)]))
OWN = ("script", "b", "em", "strong", "code", "a", "h1")  # elements that HOSTILE would make where it is obeyed
SHOWN: dict[str, tuple] = {}  # case -> what it shows, the functions that it tries


def shows(*functions):
    def keep(case):
        SHOWN[case.__name__] = (case, functions)
        return case

    return keep


class Page(HTMLParser):
    """The text of a page, that of its attributes and of the frames in it, and its elements."""

    def __init__(self, page):
        super().__init__()
        self.elements, self.text = [], ""
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.elements.append(tag)
        for name, value in attributes:
            assert not name.startswith("on"), (tag, name)
            if name == "srcdoc":
                self.elements += Page(value).elements
                self.text += Page(value).text
            elif name in ("title", "alt", "aria-label"):
                self.text += f" {value} "

    def handle_data(self, data):
        self.text += data


def plain(text):
    """On one line, as HTML and Markdown show it, control characters as pictures."""
    return " ".join(visible(text).split())


def check_html(page, *wanted, elements=("b", "code", "h1")):
    """`elements` are the page's own; those that only a name could bring are not there."""
    assert not CONTROLS & set(page)
    found = Page(page)
    assert "script" not in found.elements and not (set(OWN) - set(elements)) & set(found.elements)
    for name in wanted:
        assert plain(name) in plain(found.text), name


def check_markdown(text, *wanted):
    assert not CONTROLS & set(text)
    body = re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.DOTALL)
    page = MarkdownIt("commonmark", {"html": True}).enable("table").render(body)
    check_html(page, *wanted, elements=("em", "strong", "code", "h1", "a"))
    assert 'href="m"' not in page


def check_terminal(text, *wanted):
    assert not CONTROLS & set(text)
    for name in wanted:
        assert plain(name) in plain(text), name


def check_json(text, *wanted):
    held = []

    def walk(value):
        for one in value.items() if isinstance(value, dict) else value if isinstance(value, list) else ():
            walk(list(one)) if isinstance(one, tuple) else walk(one)
        held.append(value) if isinstance(value, str) else None

    walk(json.loads(text))
    assert not CONTROLS & set(text) and set(wanted) <= set(held)


def check_picture(draw):
    """A name and its visible form give one picture."""
    one, two = draw(HOSTILE), draw(visible(HOSTILE))
    assert one.size == two.size and one.tobytes() == two.tobytes()


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A model of each kind whose labels are hostile, in a folder whose name is."""
    home = tmp_path_factory.mktemp("models")
    save_image_model(home / "image", home / "pictures")
    save_text_model(home / "text")
    save_signal_model(home / "signal")
    for kind in ("image", "text", "signal"):
        path = home / kind / "config.json"
        config = json.loads(path.read_text()) | {"id2label": NAMES, "label2id": {n: k for k, n in NAMES.items()}}
        path.write_text(json.dumps(config))
    return home


@pytest.fixture
def image(models, tmp_path):
    """A picture with a hostile name."""
    path = tmp_path / f"{HOSTILE.replace('/', '')}.png"
    path.write_bytes((models / "pictures" / "0.png").read_bytes())
    return path


@contextmanager
def called():
    """The functions of the package that run in the block, as (file, line)."""
    seen, before = set(), sys.getprofile()

    def note(frame, event, _):
        if event == "call":
            seen.add((frame.f_code.co_filename, frame.f_code.co_firstlineno))

    sys.setprofile(note)
    try:
        yield seen
    finally:
        sys.setprofile(before)


def run(capsys, *words):
    """What a verb prints to stdout and stderr."""
    before, sys.argv = sys.argv, ["mhex", *map(str, words)]
    try:
        with suppress(SystemExit):
            main()
    finally:
        sys.argv = before
    found = capsys.readouterr()
    return found.out, found.err


@shows(
    "hf_mhex/explaining/explanation.py:Explanation._repr_html_", "hf_mhex/explaining/explanation.py:inline",
    "hf_mhex/pictures/words.py:article", "hf_mhex/pictures/words.py:words_html", "hf_mhex/pictures/words.py:html_page",
    "hf_mhex/pictures/words.py:words_picture", "hf_mhex/pictures/words.py:_draw_scale",
)  # fmt: skip
def a_text_explained(models, **unused):
    found = hf_mhex.explain(*hf_mhex.load(models / "text"), HOSTILE)
    check_html(found._repr_html_(), HOSTILE, found.label)
    check_html(found.page, HOSTILE, found.label)
    assert found.label in NAMES.values() and found._repr_png_()


@shows(
    "hf_mhex/explaining/explanation.py:Explanation._repr_html_", "hf_mhex/explaining/explanation.py:picture_tag",
    "hf_mhex/pictures/maps.py:_write",
)  # fmt: skip
def an_image_explained(models, image, **unused):
    network, processor = hf_mhex.load(models / "image")
    for options in ({}, {"upsample": False}):
        found = hf_mhex.explain(network, processor, image, **options)
        check_html(found._repr_html_(), found.label)


@shows(
    "hf_mhex/explaining/display.py:Display.page", "hf_mhex/explaining/display.py:Display.save",
    "hf_mhex/explaining/display.py:Display._body", "hf_mhex/explaining/display.py:Display.coloured",
    "hf_mhex/pictures/words.py:words_terminal", "hf_mhex/pictures/words.py:scale_terminal",
)  # fmt: skip
def show(models, image, place, **unused):
    for kind, value in (("text", HOSTILE), ("image", image)):
        found = hf_mhex.show(models / kind, value)
        check_html(found._repr_html_(), found.first.label)
        check_html(found.save(place / "why.html").read_text(), *NAMES.values())
        if kind == "text":
            console = Console(width=4000, force_terminal=False)
            with console.capture() as captured:
                console.print(found.coloured)
            check_terminal(captured.get(), HOSTILE, *NAMES.values())


@shows(
    "hf_mhex/hub/app/explaining.py:labels_beside", "hf_mhex/hub/app/explaining.py:frame",
    "hf_mhex/hub/app/explaining.py:sum_line", "hf_mhex/hub/app/parts.py:parts_line",
    "hf_mhex/hub/app/parts.py:parts_html",
)  # fmt: skip
def the_app_s_fragments(models, image, **unused):
    network, processor = hf_mhex.load(models / "image")
    answer, (_, line, _, buttons, beside, _) = explain_file(
        network, processor, str(image), PREDICTED, "mean", list(range(network.num_blocks))
    )
    check_markdown(line, answer.first.label)
    check_html(buttons)
    check_html(beside, *NAMES.values())
    check_html(parts_line(network, answer.parts, [0]), answer.first.label)
    network, processor = hf_mhex.load(models / "text")
    blocks = list(range(network.num_blocks))
    _, (_, line, *frames) = explain_sentence(network, processor, HOSTILE, NAMES[1], NO_CONTRAST, blocks)
    check_markdown(line, NAMES[1])
    for framed in frames:
        check_html(framed)
    check_html(frames[0], HOSTILE, NAMES[1])


@shows("hf_mhex/hub/app/page.py:link_html", "hf_mhex/hub/app/page.py:complaining.run")
def the_app_s_page(models, **unused):
    gr = pytest.importorskip("gradio", reason="the app needs gradio: pip install 'hf-mhex[app]'")
    from hf_mhex.hub.app import links, page

    check_html(
        page.link_html(links.Pinned(HOSTILE, "abc"), {"label": HOSTILE}, {"text": HOSTILE}), HOSTILE, elements="a"
    )

    def refuse():
        raise ValueError(f"not {HOSTILE}")

    with pytest.raises(gr.Error) as found:
        page.complaining(refuse)()
    check_html(found.value.message, HOSTILE)


@shows("hf_mhex/hub/app/page.py:opener.run")
def a_link_to_a_large_file(models, monkeypatch, **unused):
    gr = pytest.importorskip("gradio", reason="the app needs gradio: pip install 'hf-mhex[app]'")
    from hf_mhex.hub.app import links, page

    said = []
    monkeypatch.setattr(gr, "Warning", said.append)
    model = links.Pinned("a", "b")
    shown = page.Page(model, None, [], [], None, lambda link: None)
    page.opener(shown, 0)(links.write_link(model, {}, {links.NAME: HOSTILE, links.SHA: "0"}))
    check_html(said[0], HOSTILE)


@shows("hf_mhex/hub/card.py:render_card", "hf_mhex/hub/card.py:in_markdown")
def cards(models, **unused):
    facts = card_facts(models / "image") | {"architecture": HOSTILE}
    row = {name: {"estimate": 0.1, "low": 0.1, "high": 0.1} for name in ("map", "contrast", "random")}
    record = {
        "test_rows": 4,
        "prediction": {HOSTILE: 0.5},
        "explanation": [row | {"measure": HOSTILE, "better": HOSTILE, "rows": 1}],
        "recipe": {HOSTILE: HOSTILE},
        "command": HOSTILE,
        "commit": HOSTILE,
        "seed": 0,
        "environment": {HOSTILE: HOSTILE},
    }
    text = render_card(facts, {"license": HOSTILE}, record, "user/model", HOSTILE)
    check_markdown(text, HOSTILE, *NAMES.values())
    assert yaml.safe_load(text.split("---\n")[1])["license"] == HOSTILE
    snippet = re.search(r"```python\n(.*?)\n```", text, re.DOTALL)[1]
    assert HOSTILE in {node.value for node in ast.walk(ast.parse(snippet)) if isinstance(node, ast.Constant)}
    with pytest.raises(ValueError, match="Repo id must"):
        render_card(facts, {}, None, f"user/{HOSTILE}", "v1")


@shows("hf_mhex/hub/space.py:_card", "hf_mhex/hub/space.py:_starter")
def a_space(**unused):
    for name in ("1.0", "null", "no"):  # what YAML would read as something else
        files = space_contents([f"user/{name}@v1"], f"user/{name}")
        found = yaml.safe_load(files.files["README.md"].decode().split("---\n")[1])
        assert found["title"] == name and found["models"] == [f"user/{name}"] and found["sdk"] == "gradio"
    for wrong in (([f"user/a{HOSTILE}@v1"], "user/b"), (["user/a@v1"], f"user/{HOSTILE}")):
        with pytest.raises(ValueError):
            space_contents(*wrong)


@shows("hf_mhex/cli/terminal.py:echo", "hf_mhex/cli/terminal.py:print_table")
def the_terminal(capsys, monkeypatch, **unused):
    monkeypatch.setenv("COLUMNS", "4000")
    terminal.echo(HOSTILE)
    terminal.print_table([HOSTILE], [[HOSTILE]], HOSTILE)
    out = capsys.readouterr().out
    check_terminal(out, HOSTILE)
    assert plain(out).count(plain(HOSTILE)) == 4


@shows("hf_mhex/cli/explain.py:explain_one", "hf_mhex/cli/info.py:info")
def verbs(models, image, place, capsys, monkeypatch, **unused):
    monkeypatch.setenv("COLUMNS", "4000")
    monkeypatch.chdir(place)
    out, _ = run(capsys, "explain", models / "text", HOSTILE)
    check_terminal(out, HOSTILE)
    out, _ = run(capsys, "explain", models / "image", image)
    check_terminal(out, image.stem)
    out, _ = run(capsys, "info", models / "signal")
    check_terminal(out, *NAMES.values())
    out, _ = run(capsys, "info", models / "signal", "--json")
    check_json(out, *NAMES.values())


@shows("hf_mhex/cli/__init__.py:main", "hf_mhex/cli/__init__.py:warning_line")
def failures(models, place, capsys, monkeypatch, **unused):
    monkeypatch.setenv("COLUMNS", "4000")
    for options in ([], ["--debug"]):
        _, err = run(capsys, *options, "explain", models / "image", place / f"{HOSTILE}.png")
        check_terminal(err.replace("\r", "\n"), "&lt;.png")

    def warn(model):
        warnings.warn(HOSTILE, stacklevel=1)
        return {"blocks": []}

    monkeypatch.setattr("hf_mhex.loading.describe", warn)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = lambda *given: sys.stderr.write(warnings.formatwarning(*given[:4]))
        _, err = run(capsys, "info", models / "image")
    check_terminal(err.replace("\r", "\n"), HOSTILE)  # a bar comes from transformers
    assert "mhex: warning: " in err


@shows("hf_mhex/data/folders.py:read_image_folder")
def a_folder_of_files(place, **unused):
    (place / "a.png").write_bytes(b"")
    (place / f"{HOSTILE.replace('/', '')}.txt").touch()
    with pytest.warns(UserWarning) as found:
        read_image_folder(place, *files_of(place))
    check_terminal(str(found[0].message), HOSTILE.replace("/", ""))


@shows("hf_mhex/cli/filters.py:page_of")
def a_page_on_filters(**unused):
    one = dict.fromkeys(("channel", "contribution", "share", "pearson", "dice", "mse", "intensity", "frequency"), 0.5)
    one |= dict.fromkeys(("spread", "q_likeness", "q_class", "weight"), 0.5)
    record = {"filters": [one], "curves": {"a": [(0, 0.5, 0.5)]}, "block": 0, "name": HOSTILE, "rows": 1}
    text = page_of_filters(record | {"command": HOSTILE, "environment": {"machine": "x"}}, [], 1)
    check_markdown(text, f"for {HOSTILE}", f"by {HOSTILE}")


@shows("hf_mhex/cli/heads.py:page_of", "hf_mhex/cli/heads.py:lines_of")
def a_page_on_heads(**unused):
    model = lively("resnet", torch.float32)
    batch = batch_for("resnet", torch.float32, batch=4) | {"labels": torch.arange(4) % 4}
    record = single_heads(model, [batch], groups=2).record({n: f"{HOSTILE} {n}" for n in range(4)})
    text = page_of_heads(record | {"command": HOSTILE, "environment": {"machine": "x"}})
    assert any(piece["groups"] for piece in record["pieces"])
    check_markdown(text, HOSTILE, f"by {HOSTILE}")


@shows("hf_mhex/cli/smx.py:page_of")
def a_page_on_zones(**unused):
    zone = {"zone": HOSTILE, "start": 0.0, "stop": 1.0, "smx": 0.5}
    about = {"command": HOSTILE, "environment": {"machine": "x"}, "target": HOSTILE, "signals": 5, "package": "p 1"}
    text = page_of_zones(about | {"zones": [zone]})
    check_markdown(text, HOSTILE)


@shows(
    "hf_mhex/pictures/channels.py:write_channels", "hf_mhex/pictures/channels.py:channel_page",
    "hf_mhex/benchmarks/explanations/analyses.py:channels_section",
)  # fmt: skip
def channels(models, place, **unused):
    model, tokenizer = hf_mhex.load(models / "text")
    batch = dict(tokenizer([HOSTILE, "good"], padding=True, return_tensors="pt")) | {"labels": torch.tensor([0, 1])}
    record, paths = write_channels(channel_report(model, [batch], 2, 2), model, tokenizer, [batch], place)
    shown = [entry["label"] for entry in record]
    check_json((place / "channels.json").read_text(), *shown)
    check_html((place / "channels.html").read_text(), *(entry["label"] for entry in record if entry["channels"]))
    check_markdown(analyses.channels_section(record, paths, 2), *shown)


@shows("hf_mhex/benchmarks/explanations/pictures.py:page_of_words")
def a_page_of_methods(models, place, monkeypatch, **unused):
    model, tokenizer = hf_mhex.load(models / "text")
    encoding = tokenizer([HOSTILE], truncation=True, return_tensors="pt")

    class Part(SimpleNamespace):
        def __len__(self):
            return 1

    part = Part(ids=encoding["input_ids"].tolist(), inputs=lambda rows: dict(encoding))
    monkeypatch.setattr(pictures, "logits_of_part", lambda *given: torch.eye(3)[:1])
    monkeypatch.setattr(pictures, "maps_of", lambda *given: torch.ones(encoding["input_ids"].shape))
    method = SimpleNamespace(name="a", call=lambda: None)
    path = pictures.page_of_words(model, tokenizer, [HOSTILE], [(method, {})], part, place / "maps.html")
    check_html(path.read_text(), HOSTILE, NAMES[0])


@shows("hf_mhex/pictures/maps.py:_write", "hf_mhex/pictures/signals.py:line_picture")
def drawn_names(**unused):
    grey, axis = np.full((8, 8), 0.5), np.arange(20.0)
    check_picture(lambda name: overlay(grey, grey, title=name, note=name))

    def line(name):
        zones, signal = Zones([(name, 2.0, 9.0)], axis), Signal(np.ones((1, 20)), axis, name)
        return line_picture(signal, {name: np.linspace(-1, 1, 20)}, name, name, zones)

    check_picture(line)


@shows("hf_mhex/pictures/filters.py:write_ablation", "hf_mhex/pictures/fields.py:field_sheet")
def drawn_analyses(place, **unused):
    report = FilterReport(0, 0, 2, (), {"strongest first": ((0, 0.9, 1.0), (1, 0.5, 0.5))})
    check_picture(lambda name: Image.open(write_ablation(report, name, place / "a.png")).copy())
    batch = batch_for("resnet", torch.float32, batch=4) | {"labels": torch.arange(4) % 4}
    found = single_heads(lively("resnet", torch.float32), [batch], groups=2, remove=False)

    def fields(name):
        figure = field_sheet(found.pieces, dict.fromkeys(range(4), name), "a")
        figure.canvas.draw()
        return Image.fromarray(np.asarray(figure.canvas.buffer_rgba()))

    check_picture(fields)


@shows("training/progress.py:EpochLine.tell", "training/progress.py:EpochLine.on_train_begin")
def a_training_s_lines(capsys, **unused):
    line = EpochLine(HOSTILE)
    line.on_train_begin(None, SimpleNamespace(is_world_process_zero=True), None)
    check_terminal(capsys.readouterr().out, HOSTILE)
    line.on_log(None, None, None, {"loss": 0.5, f"eval_recall_{HOSTILE}": 0.5})
    line.tell(SimpleNamespace(num_train_epochs=1, max_steps=-1), SimpleNamespace(epoch=1, is_world_process_zero=True))
    check_terminal(capsys.readouterr().out, f"recall {HOSTILE.replace('_', ' ')}")


@shows("training/run.py:keep_recipe")
def a_recipe_that_is_kept(place, **unused):
    recipe = load_recipe("sample_product_reviews", [f"evaluation.note={json.dumps(HOSTILE)}"])
    keep_recipe(recipe, place, True)
    assert yaml.safe_load((place / "recipe.yaml").read_text())["evaluation"]["note"] == HOSTILE


@pytest.mark.parametrize("name", SHOWN)
def test_names_are_shown_and_not_obeyed(name, models, image, tmp_path, capsys, monkeypatch):
    case, functions = SHOWN[name]
    place = tmp_path / "place"
    place.mkdir()
    capsys.readouterr()
    with called() as seen:
        case(models=models, image=image, place=place, capsys=capsys, monkeypatch=monkeypatch)
    ran = {(str(Path(file).resolve()), line) for file, line in seen}
    missed = [function for function in functions if (str(ROOT / function.split(":")[0]), LINES[function]) not in ran]
    assert not missed


def test_code_in_markdown_holds_any_backticks():
    for text in ("a", "`", "``a`", "a``b", " a "):
        [token] = MarkdownIt("commonmark").parseInline(code_markdown(text))[0].children
        assert token.type == "code_inline" and token.content.strip() == text.strip()


# What shows something, in the package as it is installed, and what its names can be.

CALLS = {
    "print", "echo", "write_whole", "write_text", "savefig", "set_title", "set_xlabel", "set_ylabel", "suptitle",
    "annotate", "text", "warn", "markdown_table", "print_table", "from_template", "Error", "Warning", "Info",
    "Markdown", "HTML", "Label", "Tab", "add_row", "Group", "Text",
}  # fmt: skip
MARKUP = re.compile(r"</?[a-z][a-z0-9]*[ >]|(?<!\*)\*\*(?!\*)|\]\(|\|---|^---\n")
NO_NAMES = {  # what shows nothing of others, and why
    "methods, measures and networks of this package": (
        "hf_mhex/benchmarks/explanations/analyses.py:write_analyses",
        "hf_mhex/benchmarks/explanations/analyses.py:collaboration_section",
        "hf_mhex/benchmarks/explanations/index.py:",
        "hf_mhex/benchmarks/explanations/orders.py:",
        "hf_mhex/benchmarks/explanations/pictures.py:plot_measures",
        "hf_mhex/benchmarks/explanations/report.py:",
        "hf_mhex/benchmarks/paper.py:write_page",
        "hf_mhex/benchmarks/speed/",
        "hf_mhex/benchmarks/stability.py:write_page",
        "hf_mhex/data/samples/build.py:main",
        "hf_mhex/evaluation/metrics/__init__.py:measure",
        "training/demo.py:",
    ),
    "JSON, or what another function on these lists gave": (
        "hf_mhex/benchmarks/journal.py:Journal.__init__",
        "hf_mhex/explaining/shards.py:keep_settings",
        "hf_mhex/hub/card.py:write_card",
        "hf_mhex/pictures/fields.py:write_fields",
        "hf_mhex/writing.py:write_whole",
        "training/run.py:save",
        "training/stranger.py:main",
    ),
    "a layout, of what the fragments above give; labels are text there": (
        "hf_mhex/hub/app/page.py:",
        "hf_mhex/hub/app/page.py:build_app",
        "hf_mhex/hub/app/page.py:file_tab",
        "hf_mhex/hub/app/page.py:predicted",
        "hf_mhex/hub/app/page.py:removal",
        "hf_mhex/hub/app/page.py:text_tab",
        "hf_mhex/hub/app/parts.py:",
        "hf_mhex/pictures/words.py:",
        "hf_mhex/explaining/batch.py:Explainer.schema",
    ),
    "numbers, names as Python writes them, and fields of this package": (
        "hf_mhex/data/images.py:_open",
        "hf_mhex/data/rows.py:check",
        "hf_mhex/data/rows.py:take",
        "hf_mhex/explaining/batch.py:Explainer.__call__",
        "hf_mhex/explaining/explanation.py:read_one",
        "hf_mhex/loading.py:_warn_unpinned",
        "modeling/mhex.py:MHEXClassifierMixin.forward",
        "modeling/mhex_config.py:MHEXConfigMixin.__post_init__",
        "modeling/pipeline_mhex.py:TextSaliencyPipeline.preprocess",
    ),
}


def functions_of(path):
    """{name: (first line, whether it shows something)} of a file's functions; "" is what stands outside them."""
    found, own_terminal = {"": (0, False)}, path.is_relative_to(ROOT / "hf_mhex/cli") and path.stem != "terminal"

    def walk(node, name):
        for child in ast.iter_child_nodes(node):
            inner = name
            if isinstance(child, (ast.FunctionDef, ast.ClassDef)):
                inner = f"{name}.{child.name}".lstrip(".")
                lines = [child.lineno, *(one.lineno for one in child.decorator_list)]
                found[inner] = (min(lines), False)
            if isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant):
                continue  # a docstring
            if isinstance(child, ast.Raise) or ast.unparse(child).startswith("re."):
                continue  # what is raised comes out by `main`, or as Python shows it
            shown = isinstance(child, ast.Constant) and isinstance(child.value, str) and MARKUP.search(child.value)
            if isinstance(child, ast.Call):
                call = child.func
                word = call.id if isinstance(call, ast.Name) else getattr(call, "attr", None)
                shown = word in CALLS
                if own_terminal and isinstance(call, ast.Name) and word in ("echo", "print_table"):
                    shown = False  # of terminal.py
                given = ast.unparse(child.args[0]) if child.args else ""
                if word == "echo" and re.match(r"json\.dumps|\(output / 'summary\.json'\)", given):
                    shown = False
                if word == "write_whole" and re.search(r"json\.dumps|page_of\(|page\b", ast.unparse(child.args[1])):
                    shown = False
            if shown:
                found[name] = (found[name][0], True)
            walk(child, inner)

    walk(ast.parse(path.read_text()), "")
    return found


FILES = [*ROOT.glob("hf_mhex/**/*.py"), *ROOT.glob("training/*.py"), *ROOT.glob("modeling/*.py")]
FOUND = {
    f"{path.relative_to(ROOT).as_posix()}:{name}": entry for path in FILES for name, entry in functions_of(path).items()
}
LINES = {function: line for function, (line, _) in FOUND.items()}


def test_no_output_is_forgotten():
    """A new one belongs to a case of this file, or among NO_NAMES with its reason."""
    tried = {function for _, functions in SHOWN.values() for function in functions}
    excused = tuple(start for starts in NO_NAMES.values() for start in starts)
    showing = {function for function, (_, shown) in FOUND.items() if shown}
    forgotten = {
        function
        for function in showing - tried
        if function not in excused and not function.startswith(tuple(one for one in excused if one[-1] in ":/"))
    }
    assert not forgotten
    assert tried <= set(FOUND), tried - set(FOUND)
