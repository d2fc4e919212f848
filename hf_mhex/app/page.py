"""How is the page laid out? One tab a model: the input and its choices on the left, the explanation on the right."""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import gradio as gr

from hf_mhex.app.explaining import CONTRASTS, NO_CONTRAST, PREDICTED, explain_picture, explain_sentence
from hf_mhex.loading import load
from hf_mhex.samples import load_sample

SENTENCES = [
    "The camera is great, but the battery is poor.",
    "It broke after two days.",
    "Easy to set up, and the sound is wonderful.",
]
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
        for name in models:
            source, _, revision = (name, "", "") if Path(name).exists() else name.partition("@")
            model, processor = load(source, revision or None)
            with gr.Tab(Path(source).name):
                if model.main_input_name == "pixel_values":
                    image_tab(model, processor)
                else:
                    text_tab(model, processor)
    return app


def choices(model) -> list[gr.components.Component]:
    """The class, the blocks and the contrast to explain with."""
    labels = [model.config.id2label[index] for index in range(model.config.num_labels)]
    blocks = list(range(model.num_blocks))
    return [
        gr.Dropdown([PREDICTED, *labels], value=PREDICTED, label="Label to explain"),
        gr.CheckboxGroup([(str(block), block) for block in blocks], value=blocks, label="Blocks"),
        gr.Dropdown(CONTRASTS, value=NO_CONTRAST, label="Compared with"),
    ]


def shown(explain: Callable) -> Callable:
    """`explain` with its complaints as messages on the page."""

    def run(*arguments):
        try:
            return explain(*arguments)
        except ValueError as error:
            raise gr.Error(str(error), print_exception=False) from error

    return run


def image_tab(model, processor) -> None:
    """Pick or upload an image; overlay and the blocks' maps."""
    with gr.Row():
        with gr.Column():
            given = gr.File(label="Image", file_types=None, type="filepath", elem_id="image-file")
            samples = sample_pictures()
            shelf = gr.Gallery(
                samples, label="Or pick one", columns=4, height=150, allow_preview=False, elem_id="shelf"
            )
            shelf.select(picked(samples), None, given)
            options = choices(model)
            button = gr.Button("Explain the image", variant="primary")
        with gr.Column():
            found = [
                gr.Label(label="Prediction", num_top_classes=3),
                gr.Markdown(elem_id="image-sum"),
                gr.Image(show_label=False, elem_id="overlay", interactive=False),
                gr.Image(show_label=False, elem_id="blocks", interactive=False),
            ]
    explain = shown(lambda *arguments: explain_picture(model, processor, *arguments))
    button.click(explain, [given, *options], found, api_name="explain_image")


def picked(paths: list[str]) -> Callable:
    """What a click on the shelf puts into the input."""

    def pick(event: gr.SelectData) -> str:
        return paths[event.index]

    return pick


def text_tab(model, tokenizer) -> None:
    """Type a text; its coloured words, all blocks together and one by one."""
    with gr.Row():
        with gr.Column():
            given = gr.Textbox(label="Text", lines=4, elem_id="text")
            gr.Examples([[sentence] for sentence in SENTENCES], inputs=[given], label="Or pick one")
            options = choices(model)
            button = gr.Button("Explain the text", variant="primary")
        with gr.Column():
            found = [
                gr.Label(label="Prediction", num_top_classes=3),
                gr.Markdown(elem_id="text-sum"),
                gr.HTML(label="Words", elem_id="words"),
                gr.HTML(label="Block by block", elem_id="block-words"),
            ]
    explain = shown(lambda *arguments: explain_sentence(model, tokenizer, *arguments))
    button.click(explain, [given, *options], found, api_name="explain_text")


def sample_pictures(count: int = 4) -> list[str]:
    """Files with the first pictures of the embedded sample."""
    folder = Path(tempfile.mkdtemp(prefix="mhex-samples-"))
    gr.set_static_paths([folder])  # or Gradio would not serve them where its own folder for files is another
    rows = load_sample("fashion_mnist")["test"].select(range(count))
    paths = [folder / f"sample-{number}.png" for number in range(count)]
    for path, row in zip(paths, rows):
        row["image"].save(path)
    return [str(path) for path in paths]
