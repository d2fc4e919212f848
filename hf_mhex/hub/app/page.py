"""Layout of the page: one tab a model, the input and its choices on the left, the explanation on the right."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import gradio as gr

from hf_mhex.data.samples import load_sample
from hf_mhex.explaining.explanation import lead_contrast
from hf_mhex.families import KINDS, family_of
from hf_mhex.hub.app.explaining import CONTRASTS, NO_CONTRAST, PREDICTED, explain_picture, explain_sentence, readable
from hf_mhex.loading import load

SENTENCES = [
    "The camera is great, but the battery is poor.",
    "It broke after two days.",
    "Easy to set up, and the sound is wonderful.",
]
BUTTONS = ["download", "fullscreen"]
STYLE = """<style>
#image img { width: 100%; height: 100%; object-fit: contain; }
#shelf .grid-container { grid-template-columns: repeat(6, minmax(0, 1fr)); }
#shelf .thumbnail-lg, #shelf .thumbnail-item { aspect-ratio: 1; min-width: 0; height: auto; }
</style>"""  # small pictures are shown large, and the shelf on one line
NOTE = (
    "Red speaks for the label, blue against it. A map adds up to the logit that it explains: it splits the logit over "
    "positions of features, which have seen their surroundings. No diagnosis, no advice."
)


def build_app(models: Sequence[str]) -> gr.Blocks:
    """The app for saved folders or Hub ids ("user/name" or "user/name@revision"), in the order of their tabs.

    The code that runs is this package's, never a repository's. Raises what `hf_mhex.load` raises.
    """
    if not models:
        raise ValueError("models must name at least one saved model or Hub id.")
    with gr.Blocks(title="Models that explain themselves", analytics_enabled=False) as app:
        gr.Markdown(f"# Why this label?\n{NOTE}")
        gr.HTML(STYLE, visible="hidden")
        for name in models:
            source, _, revision = (name, "", "") if Path(name).exists() else name.partition("@")
            model, processor = load(source, revision or None)
            kind = family_of(model).input.name
            if kind not in TABS:
                raise ValueError(f"models: {name!r} reads {kind}s; the app shows {' and '.join(TABS)} models.")
            with gr.Tab(Path(source).name):
                TABS[kind](model, processor)
    return app


def choices(model) -> list[gr.components.Component]:
    """The class, what it is compared with, the blocks to explain with, and, where the body can do it, the rollout."""
    labels = [model.config.id2label[index] for index in range(model.config.num_labels)]
    blocks = list(range(model.num_blocks))
    contrasts = CONTRASTS if len(labels) > 1 else CONTRASTS[:1]
    with gr.Row():
        found = [
            gr.Dropdown([PREDICTED, *labels], value=PREDICTED, label="Label to explain", min_width=120),
            gr.Dropdown(
                contrasts, value=lead_contrast(model.config) or NO_CONTRAST, label="Compared with", min_width=120
            ),
            gr.CheckboxGroup([(str(block), block) for block in blocks], value=blocks, label="Blocks", min_width=320),
        ]
    if model.base_model.can_roll_out:
        is_text = family_of(model).input.name == "text"
        found.append(gr.Checkbox(is_text, label="Carry maps back to the input, through the attention (rollout)"))
    return found


def shown(explain: Callable) -> Callable:
    """`explain` with its complaints as messages on the page."""

    def run(*arguments):
        try:
            return explain(*arguments)
        except ValueError as error:
            raise gr.Error(str(error), print_exception=False) from error

    return run


def image_tab(model, processor) -> None:
    """Pick or upload an image; prediction and overlay beside it, the blocks' maps below, all at once."""
    with gr.Row(equal_height=False):
        with gr.Column(scale=5, min_width=320):
            given = gr.Image(
                label="Image", type="filepath", image_mode=None, interactive=False, height=190,
                elem_id="image", buttons=BUTTONS,
            )  # fmt: skip
            samples = sample_pictures()
            shelf = gr.Gallery(
                samples, show_label=False, columns=len(samples), height=100, allow_preview=False, elem_id="shelf",
                buttons=[],
            )  # fmt: skip
            upload = gr.UploadButton("Upload an image", size="sm", elem_id="upload")
            options = choices(model)
            button = gr.Button("Explain the image", variant="primary")
        with gr.Column(scale=7, min_width=320), gr.Row(equal_height=False):
            with gr.Column(scale=4, min_width=280):
                painted = gr.Image(label="Why", elem_id="overlay", interactive=False, buttons=BUTTONS)
            with gr.Column(scale=3, min_width=200):
                prediction = gr.Label(label="Prediction", num_top_classes=4)
                line = gr.Markdown(elem_id="image-sum")
    strip = gr.Image(label="Block by block", elem_id="blocks", interactive=False, buttons=BUTTONS)
    explain = shown(lambda *arguments: explain_picture(model, processor, *arguments))
    asked, found = [given, *options], [prediction, line, painted, strip]
    button.click(explain, asked, found, api_name="explain_image")
    shelf.select(picked(samples), None, given).success(explain, asked, found, api_name=False)
    upload.upload(shown(readable), upload, given).success(explain, asked, found, api_name=False)


def picked(paths: list[str]) -> Callable:
    """What a click on the shelf puts into the input."""

    def pick(event: gr.SelectData) -> str:
        return paths[event.index]

    return pick


def text_tab(model, tokenizer) -> None:
    """Type a text; its coloured words beside it, those of each block below."""
    with gr.Row(equal_height=False):
        with gr.Column(scale=5, min_width=320):
            given = gr.Textbox(label="Text", lines=4, elem_id="text")
            examples = gr.Examples([[sentence] for sentence in SENTENCES], inputs=[given], label="Or pick one")
            options = choices(model)
            button = gr.Button("Explain the text", variant="primary")
        with gr.Column(scale=7, min_width=320):
            prediction = gr.Label(label="Prediction", num_top_classes=3)
            line = gr.Markdown(elem_id="text-sum")
            words = gr.HTML(label="Words", elem_id="words")
    with gr.Accordion("Block by block"):
        by_block = gr.HTML(elem_id="block-words")
    explain = shown(lambda *arguments: explain_sentence(model, tokenizer, *arguments))
    asked, found = [given, *options], [prediction, line, words, by_block]
    gr.on([button.click, given.submit], explain, asked, found, api_name="explain_text")
    examples.load_input_event.success(explain, asked, found, api_name=False)


def sample_pictures(count: int = 6) -> list[str]:
    """Files with the first pictures of the embedded sample."""
    folder = Path(tempfile.mkdtemp(prefix="mhex-samples-"))
    gr.set_static_paths([folder])  # or Gradio would not serve them where its own folder for files is another
    kind = KINDS["image"]
    rows = load_sample(kind.sample)["test"].select(range(count))
    paths = [folder / f"sample-{number}.png" for number in range(count)]
    for path, row in zip(paths, rows):
        row[kind.column].save(path)
    return [str(path) for path in paths]


TABS = {"image": image_tab, "text": text_tab}  # by kind of input
