"""Layout of the page: one tab a model, the input and its choices on the left, the explanation on the right."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from html import escape
from pathlib import Path

import gradio as gr
import numpy as np
from gradio.processing_utils import save_bytes_to_cache
from gradio_client.utils import strip_invalid_filename_characters

from hf_mhex.data.samples import load_sample
from hf_mhex.escaping import escaped
from hf_mhex.explaining.explanation import lead_contrast
from hf_mhex.families import KINDS, family_of
from hf_mhex.hub.app import links
from hf_mhex.hub.app.explaining import (
    CONTRASTS,
    NO_CONTRAST,
    PREDICTED,
    explain_file,
    explain_sentence,
    read_file,
    ways_back,
)
from hf_mhex.hub.app.parts import Parts, parts_line
from hf_mhex.loading import load

SENTENCES = [
    "The camera is great, but the battery is poor.",
    "It broke after two days.",
    "Easy to set up, and the sound is wonderful.",
]
BUTTONS: list = ["download", "fullscreen"]
LABELS = 5  # of the prediction, the best ones
STYLE = """<style>
#image img { width: 100%; height: 100%; object-fit: contain; }
#shelf .grid-container { grid-template-columns: repeat(6, minmax(0, 1fr)); }
#shelf .thumbnail-lg, #shelf .thumbnail-item { aspect-ratio: 1; min-width: 0; height: auto; }
.mhex-grid { display: grid; position: relative; width: 100%; max-width: 24rem; }
.mhex-grid img { position: absolute; width: 100%; height: 100%; filter: grayscale(1) contrast(0.75) brightness(1.2); }
.mhex-grid button { position: relative; border: 1px solid #8888; min-width: 0; }
.mhex-parts { line-height: 2.2; overflow-wrap: anywhere; }
p.mhex-parts { white-space: pre-wrap; }
p.mhex-parts button { padding: 0.1em 0.25em; border-radius: 0.2em; border: 1px solid #8888; min-height: 1.6rem; }
.mhex-parts button[aria-pressed=true] { background: repeating-linear-gradient(45deg, #777, #777 4px, #bbb 4px, #bbb 8px)
  !important; color: #777; text-decoration: line-through; }
.mhex-without th { text-align: start; font-weight: normal; padding-inline-end: 1rem; }
.mhex-without td { font-variant-numeric: tabular-nums; text-align: end; }
.mhex-labels { display: flex; flex-wrap: wrap; gap: 1rem; }
.mhex-labels figure { flex: 1 1 16rem; max-width: 24rem; margin: 0; }
@media (max-width: 640px) {
  .mhex-blocks .image-container { overflow-x: auto; }
  .mhex-blocks img { width: auto; max-width: none; height: 14rem; object-fit: contain; }
}
:focus-visible { outline: 2px solid var(--color-accent, orange); outline-offset: 2px; }
</style>"""  # small pictures are shown large, the shelf on one line, and a narrow page scrolls its strip alone
PASTE = """document.addEventListener("paste", (event) => {
  const file = [...event.clipboardData.files].find((one) => one.type.startsWith("image/"));
  const field = [...document.querySelectorAll(".mhex-image")].find((one) => one.offsetParent !== null);
  const chooser = field && field.querySelector("input[type=file]");
  if (!file || !chooser) return;
  const carried = new DataTransfer();
  carried.items.add(file);
  chooser.files = carried.files;
  chooser.dispatchEvent(new Event("change", { bubbles: true }));
});"""  # a picture pasted anywhere goes where a chosen file goes
PRESS = """element.addEventListener("click", (event) => {
  const part = event.target.closest("button[data-part]");
  if (!part) return;
  part.setAttribute("aria-pressed", part.getAttribute("aria-pressed") !== "true");
  const pressed = [...element.querySelectorAll("button[aria-pressed=true]")];
  trigger("removal", { gone: pressed.map((one) => Number(one.dataset.part)) });
});"""  # the parts that are pressed, all of them, whenever that changes
ADDRESS = "() => window.location.hash"
NOTE = (
    "Red speaks for the label, blue against it. A map adds up to the logit that it explains, or to the logit's lead: "
    "it splits it over positions of features, which have seen their surroundings. No diagnosis, no advice."
)


def build_app(models: Sequence[str], device=None) -> gr.Blocks:
    """The app for saved folders or Hub ids ("user/name" or "user/name@revision"), in the order of their tabs.

    The code that runs is this package's, never a repository's.

    Args:
        device: where the models run, as torch names it; the processor if None.

    Raises ValueError for no models and for a kind that the app does not show, and what `hf_mhex.load` raises.
    """
    if not models:
        raise ValueError("models must name at least one saved model or Hub id.")
    with gr.Blocks(title="Models that explain themselves", analytics_enabled=False) as app:
        gr.Markdown(f"# Why this label?\n{NOTE}")
        gr.HTML(STYLE, visible="hidden", js_on_load=PASTE)
        address = gr.Textbox(visible=False)  # the link that the page was opened with, from # on
        shown = []
        with gr.Tabs() as tabs:
            for number, name in enumerate(models):
                source, _, revision = (name, "", "") if Path(name).exists() else name.partition("@")
                model, processor = load(source, revision or None)
                model.to(device or model.device)
                kind = family_of(model).input.name
                if kind not in TABS:
                    raise ValueError(f"models: {name!r} reads {kind}s; the app shows {' and '.join(TABS)} models.")
                shown.append(links.pinned(source, model))
                with gr.Tab(Path(source).name, id=number):
                    page = TABS[kind](model, processor, shown[-1])
                opened = [tabs, page.given, *page.options, *page.found]
                app.load(opener(page, number), address, opened, js=ADDRESS, api_name=False)
        app.load(stranger(shown), address, None, js=ADDRESS, api_name=False)
    return app


@dataclass(frozen=True, eq=False)
class Page:
    """What a model's tab shows, and what fills it.

    Args:
        model: as links name it. defaults: values of the choices, before anybody chose.
        given, options, found: the components of the input, the choices and the answer.
        explain: from the values of input and choices to those of the answer.
        given_of: from a link to the value of the input; None where the link only names it.
    """

    model: links.Pinned
    given: gr.components.Component
    options: list[gr.components.Component]
    found: list[gr.components.Component]
    explain: Callable
    given_of: Callable


def opener(page: Page, number: int) -> Callable:
    """What fills a model's tab when the page is opened by a link to one of its explanations."""

    def run(fragment: str):
        link = links.read_link(fragment)
        if not link or links.linked(link) != page.model:
            return gr.skip()
        chosen = [link_value(option, link) for option in page.options]
        value = page.given_of(link)
        if value is None:
            name = escaped(link.get(links.NAME, "a file"))  # messages are shown as HTML
            gr.Warning(f"The link is to {name}, which is too large for one: upload it again.")
            return [gr.Tabs(selected=number), None, *chosen, *[gr.skip() for _ in page.found]]
        return [gr.Tabs(selected=number), value, *chosen, *page.explain(value, *chosen)]

    return complaining(run)


def stranger(shown: list[links.Pinned]) -> Callable:
    """What says that a link is to a model, or to a revision of one, which the page does not show."""

    def run(fragment: str) -> None:
        link = links.read_link(fragment)
        if not link or (asked := links.linked(link)) in shown:
            return
        same = [model.short for model in shown if model.name == asked.name]
        here = f"and this page shows {', '.join(same)}" if same else "which this page does not show"
        raise ValueError(f"The link was made with {asked.short}, {here}.")

    return complaining(run)


def link_value(option, link: dict[str, str]):
    """The value of a choice in a link, or the choice's own; ValueError for one that it does not have."""
    name = option.elem_classes[0]
    if name not in link:
        return option.value
    found = link[name]
    values = [value for _, value in option.choices] if hasattr(option, "choices") else []
    if isinstance(option, gr.Checkbox):
        return found == "True"
    if isinstance(option, gr.CheckboxGroup):
        return [value for value in values if str(value) in found.split(".")]
    if found not in values:
        raise ValueError(f"The link asks for {name} {found!r}, which this model does not have.")
    return found


def link_choices(options: list, chosen: Sequence) -> dict:
    """The choices as a link says them, as far as they are not the page's own."""
    found = {option.elem_classes[0]: (option.value, value) for option, value in zip(options, chosen)}
    changed = {name: value for name, (own, value) in found.items() if value != own}
    return {name: ".".join(map(str, sorted(v))) if isinstance(v, list) else v for name, v in changed.items()}


def choices(model, processor) -> list[gr.components.Component]:
    """The class, what it is compared with, the blocks to explain with, and the ways back to the input."""
    labels = [model.config.id2label[index] for index in range(model.config.num_labels)]
    blocks = list(range(model.num_blocks))
    contrasts = CONTRASTS if len(labels) > 1 else CONTRASTS[:1]
    found: list[gr.components.Component]
    with gr.Row():
        found = [
            gr.Dropdown(
                [PREDICTED, *labels], value=PREDICTED, label="Label to explain", min_width=120,
                elem_classes=links.LABEL,
            ),
            gr.Dropdown(
                contrasts, value=lead_contrast(model.config) or NO_CONTRAST, label="Compared with", min_width=120,
                elem_classes=links.CONTRAST,
            ),
            gr.CheckboxGroup(
                [(str(block), block) for block in blocks], value=blocks, label="Blocks", min_width=280,
                elem_classes=links.BLOCKS,
            ),
        ]  # fmt: skip
    for way, said in ways_back(model, processor).items():
        taken = way == "rollout" and family_of(model).kind == "text"
        found.append(gr.Checkbox(taken, label=said, elem_classes=way))
    return found


def complaining(explain: Callable) -> Callable:
    """`explain` with its complaints as messages on the page, and the signature by which Gradio gives it events."""

    @wraps(explain)
    def run(*arguments):
        try:
            return explain(*arguments)
        except ValueError as error:
            raise gr.Error(escaped(str(error)), print_exception=False) from error

    return run


def chosen(event: gr.SelectData) -> str:
    """The label that was clicked."""
    return event.value


def file_tab(model, processor, name: links.Pinned) -> Page:
    """Pick or upload an image or a signal, or paste an image; what the map says beside it, labels and blocks below."""
    kind = family_of(model).kind
    samples = SAMPLES[kind](model)
    with gr.Row(equal_height=False):
        with gr.Column(scale=5, min_width=280):
            given = image_input() if kind == "image" else gr.File(label="Signal (.csv, .npy)", elem_id="signal")
            shelf = gr.Gallery(
                samples, show_label=False, columns=len(samples), height=100, allow_preview=False, elem_id="shelf",
                buttons=[],
            ) if kind == "image" else gr.Radio(
                [(f"sample {number}", path) for number, path in enumerate(samples)], label="Or pick one",
                visible=bool(samples), elem_id="signals",
            )  # fmt: skip
            options = choices(model, processor)
            button = gr.Button(f"Explain the {kind}", variant="primary")
        with gr.Column(scale=7, min_width=280), gr.Row(equal_height=False):
            with gr.Column(scale=4, min_width=280):
                painted = gr.Image(label="Why", elem_id=f"{kind}-map", interactive=False, buttons=BUTTONS)
            with gr.Column(scale=3, min_width=200):
                prediction = predicted()
                line, link = gr.Markdown(elem_id=f"{kind}-sum"), gr.HTML(elem_id=f"{kind}-link")
    parts, buttons, without = removal(model)
    with gr.Accordion("Labels side by side"):
        labels = gr.HTML(elem_classes="mhex-beside")
    strip = gr.Image(
        show_label=False, elem_id=f"{kind}-blocks", elem_classes="mhex-blocks", interactive=False, buttons=BUTTONS
    )

    def explain(path, *chosen):
        answer, shown = explain_file(model, processor, path, *chosen)
        return answer.parts, "", *shown, link_html(name, link_choices(options, chosen), links.file_given(path, samples))

    def explain_given(payload, *chosen):
        return explain(path_of(payload), *chosen)

    def check(payload) -> None:
        read_file(model, path_of(payload))

    def given_of(found):
        value = links.file_of(found, samples)
        if not isinstance(value, bytes):
            return value
        name = strip_invalid_filename_characters(found.get(links.NAME, "")).lstrip(".")
        return save_bytes_to_cache(value, name or "linked", given.GRADIO_CACHE)

    asked, found = [given, *options], [parts, without, prediction, line, painted, buttons, labels, strip, link]
    page = Page(name, given, options, found, explain, given_of)
    event = {"fn": complaining(explain_given), "inputs": asked, "outputs": found, "preprocess": False}
    button.click(**event, api_name=f"explain_{kind}")
    shelf.select(picked(samples), None, given).success(**event, api_name=False)
    given.upload(complaining(check), given, None, preprocess=False).success(**event, api_name=False)
    prediction.select(chosen, None, options[0]).success(**event, api_name=False)
    return page


def image_input() -> gr.Image:
    """Where an image is dropped, pasted or chosen."""
    return gr.Image(
        label="Image", type="filepath", image_mode=None, height=220, sources=["upload", "clipboard"],
        placeholder="Drop, paste or choose an image", elem_id="image", elem_classes="mhex-image", buttons=BUTTONS,
    )  # fmt: skip


def path_of(payload: dict | None) -> str | None:
    """The file that was given, whatever is in it: Gradio would open an image, and not say what is wrong with it."""
    return payload["path"] if payload else None


def removal(model) -> tuple[gr.State, gr.HTML, gr.HTML]:
    """Parts that can be pressed, with what the map foretells and the model answers without them."""
    parts = gr.State()
    with gr.Accordion("Foretold and real: press parts to take them away"), gr.Row(equal_height=False):
        with gr.Column(scale=5, min_width=280):
            buttons = gr.HTML(elem_classes="mhex-picker", js_on_load=PRESS)
        with gr.Column(scale=7, min_width=280):
            said = gr.HTML(elem_classes="mhex-without")

    def run(parts: Parts | None, event: gr.EventData) -> str:
        return "" if parts is None else parts_line(model, parts, event.gone)

    buttons.removal(complaining(run), parts, said, api_name=False, trigger_mode="always_last")
    return parts, buttons, said


def link_html(model: links.Pinned, choices: dict, given: dict) -> str:
    """The link to an explanation, with the model's revision beside it."""
    address = escape(links.write_link(model, choices, given))
    return f'<a href="{address}" target="_blank">Link to this explanation</a>, by {escaped(model.short)}'


def predicted() -> gr.Label:
    """The best labels with their scores; a click explains one of them."""
    return gr.Label(label="Prediction: click a label to explain it", num_top_classes=LABELS, elem_id="prediction")


def picked(paths: list[str]) -> Callable:
    """What a click on the shelf puts into the input."""

    def pick(event: gr.SelectData) -> str:
        return paths[event.index]

    return pick


def text_tab(model, tokenizer, name: links.Pinned) -> Page:
    """Type a text; its coloured words beside it, other labels' and those of each block below."""
    with gr.Row(equal_height=False):
        with gr.Column(scale=5, min_width=280):
            given = gr.Textbox(label="Text", lines=4, elem_id="text")
            examples = gr.Examples([[sentence] for sentence in SENTENCES], inputs=[given], label="Or pick one")
            options = choices(model, tokenizer)
            button = gr.Button("Explain the text", variant="primary")
        with gr.Column(scale=7, min_width=280):
            prediction = predicted()
            line, link = gr.Markdown(elem_id="text-sum"), gr.HTML(elem_id="text-link")
            words = gr.HTML(label="Words", elem_id="words")
    parts, buttons, without = removal(model)
    with gr.Accordion("Labels, one below the other"):
        labels = gr.HTML(elem_id="label-words")
    with gr.Accordion("Block by block", open=False):
        by_block = gr.HTML(elem_id="block-words")

    def explain(text, *chosen):
        answer, shown = explain_sentence(model, tokenizer, text, *chosen)
        return answer.parts, "", *shown, link_html(name, link_choices(options, chosen), {links.TEXT: text})

    asked, found = [given, *options], [parts, without, prediction, line, words, buttons, labels, by_block, link]
    page, explain = Page(name, given, options, found, explain, lambda link: link.get(links.TEXT)), complaining(explain)
    gr.on([button.click, given.submit], explain, asked, found, api_name="explain_text")
    examples.load_input_event.success(explain, asked, found, api_name=False)
    prediction.select(chosen, None, options[0]).success(explain, asked, found, api_name=False)
    return page


def sample_pictures(model, count: int = 6) -> list[str]:
    """Files with the first pictures of the embedded sample."""
    rows = load_sample(KINDS["image"].sample)["test"].select(range(count))
    folder = sample_folder()
    paths = [folder / f"sample-{number}.png" for number in range(count)]
    for path, row in zip(paths, rows):
        row["image"].save(path)
    return [str(path) for path in paths]


def sample_signals(model, count: int = 6) -> list[str]:
    """Files with the first signals of the embedded sample; none for a model of another length."""
    rows = load_sample(KINDS["signal"].sample)["test"].select(range(count))
    if len(rows[0]["signal"]) != len(model.config.axis or ()):
        return []
    folder = sample_folder()
    paths = [folder / f"sample-{number}.npy" for number in range(count)]
    for path, row in zip(paths, rows):
        np.save(path, np.array(row["signal"]))
    return [str(path) for path in paths]


def sample_folder() -> Path:
    """A new folder that the page may serve files of."""
    folder = Path(tempfile.mkdtemp(prefix="mhex-samples-"))
    gr.set_static_paths([folder])  # or Gradio would not serve them where its own folder for files is another
    return folder


SAMPLES = {"image": sample_pictures, "signal": sample_signals}
TABS = {"image": file_tab, "text": text_tab, "signal": file_tab}  # by kind of input
