"""The saliency pipelines give the same answers however they are asked, and their answers add up."""

import math
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from datasets import Dataset, Image
from PIL import Image as Picture
from transformers import AutoTokenizer, pipeline
from transformers.pipelines.pt_utils import KeyDataset

from hf_mhex import (
    ImageSaliencyPipeline,
    MHEXBertConfig,
    MHEXBertForSequenceClassification,
    TextSaliencyPipeline,
    image_processor_for,
)
from hf_mhex.data.images import read_image, to_pixel_values
from hf_mhex.explaining.words import explain_words
from hf_mhex.modeling.mhex import EXACT_OPTIONS
from hf_mhex.modeling.pipeline_mhex import AGAINST, FOR, SALIENCY_OPTIONS, paint_map
from minilm import MINILM
from networks import enliven, lively_resnet

TEXTS = [
    "great phone, unbelievably poor battery",
    "no",
    "I like it, mostly. <script>alert(1)</script>",
    ".",
    "don't [SEP] stop",
    "日本語と中文 and ﷺ cafe\u0301",
] * 3
LONG = "The camera was unbelievably great, but the battery died within days. " * 9


@pytest.fixture(scope="module")
def texts():
    tokenizer = AutoTokenizer.from_pretrained(MINILM, model_max_length=48)
    sizes = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48}
    torch.manual_seed(0)
    config = MHEXBertConfig(vocab_size=len(tokenizer), id2label={0: "bad", 1: "good", 2: "unclear"}, **sizes)
    batch = tokenizer(TEXTS[:6], padding=True, return_tensors="pt")
    model = enliven(MHEXBertForSequenceClassification(config).double(), batch).float()
    model.config.problem_type = "single_label_classification"
    return pipeline("text-saliency", model=model, tokenizer=tokenizer, device="cpu")


@pytest.fixture(scope="module")
def images():
    model = lively_resnet(torch.float32, id2label=dict(enumerate("abcd")), problem_type="single_label_classification")
    processor = image_processor_for(model.config, image_size=40, crop_pct=1.0)
    return pipeline("image-saliency", model=model, image_processor=processor, device="cpu")


@pytest.fixture(scope="module")
def pictures():
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randint(0, 256, (18, 12, 9, 3), generator=generator, dtype=torch.uint8).numpy()
    return [Picture.fromarray(values).resize((50, 44)) for values in pixels]


def alike(found, expected):
    """Whether two answers are the same: names and places exactly, numbers to 1e-5, pictures to one level of 255."""
    if isinstance(expected, dict):
        return found.keys() == expected.keys() and all(alike(found[key], value) for key, value in expected.items())
    if isinstance(expected, list):
        return len(found) == len(expected) and all(map(alike, found, expected))
    if isinstance(expected, float):
        return found == pytest.approx(expected, abs=1e-5)
    if isinstance(expected, np.ndarray):
        return found.shape == expected.shape and np.abs(found - expected).max() <= 1e-5
    if isinstance(expected, Picture.Image):
        return np.abs(np.asarray(found, dtype=int) - np.asarray(expected, dtype=int)).max() <= 1
    return found == expected


def slow(options):
    """Options that the fast tests leave out."""
    return pytest.param(options, marks=pytest.mark.slow)


def every_way(pipe, items, rows, **options):
    """The answers to the items one by one, and as list, tuple, generator, iterator and two kinds of column, in batches.

    `rows` is a data set with the items in its only column.
    """
    [name] = rows.column_names
    yield [pipe(item, **options) for item in items]
    for batch_size in (1, 4, 16):
        ways = {"batch_size": batch_size, **options}
        yield pipe(items, **ways)
        yield pipe(tuple(items), **ways)
        yield list(pipe((item for item in items), **ways))
        yield list(pipe(iter(items), **ways))
        yield list(pipe(rows[name], **ways))
        yield list(pipe(KeyDataset(rows, name), **ways))


@pytest.mark.parametrize(
    "options",
    [
        slow({}),
        {"top_k": 2, "contrast": "softmax"},
        slow({"target": "unclear", "blocks": [0, -1]}),
        {"refine": 2, "contrast": "softmax"},
    ],
)
@pytest.mark.parametrize("long", [{}, {"long_text": "windows", "overlap": 5, "max_length": 16}])
def test_texts_have_one_answer_however_they_come(texts, options, long):
    items = TEXTS + [LONG] * ("long_text" in long)
    rows = Dataset.from_dict({"text": items})
    expected, *others = every_way(texts, items, rows, **options, **long)
    assert len(expected) == len(items) and len(expected[0]) == options.get("top_k", 1)
    assert all(alike(found, expected) for found in others)


@pytest.mark.parametrize(
    "options",
    [
        slow({}),
        {"top_k": 3, "contrast": "softmax", "normalize": "percentile"},
        slow({"target": 2, "blocks": [0, -1]}),
    ],
)
def test_images_have_one_answer_however_they_come(images, pictures, options):
    rows = Dataset.from_dict({"image": pictures}).cast_column("image", Image())
    expected, *others = every_way(images, pictures, rows, **options)
    assert len(expected) == len(pictures) and len(expected[0]) == options.get("top_k", 1)
    assert all(alike(found, expected) for found in others)


@pytest.mark.parametrize("family", ["texts", "images"])
def test_the_stock_tasks_have_one_answer_too(family, texts, images, pictures):
    """And it is the saliency pipeline's: the same labels with the same scores, for more rows than there are blocks."""
    if family == "texts":
        own, items, task, given = texts, TEXTS, "text-classification", {"tokenizer": texts.tokenizer}
        rows = Dataset.from_dict({"text": items})
    else:
        own, items, task, given = images, pictures, "image-classification", {"image_processor": images.image_processor}
        rows = Dataset.from_dict({"image": items}).cast_column("image", Image())
    stock = pipeline(task, model=own.model, device="cpu", **given)
    expected = [[{"label": a["label"], "score": a["score"]} for a in answers] for answers in own(items, top_k=None)]
    for batch_size in (1, 4, 16):
        ways = {"batch_size": batch_size, "top_k": own.model.config.num_labels}
        assert alike(stock(items, **ways), expected)
        assert alike(list(stock((item for item in items), **ways)), expected)
        assert alike(list(stock(KeyDataset(rows, rows.column_names[0]), **ways)), expected)


def test_a_stream_is_read_as_it_is_asked_for(texts):
    read = []

    def endless():
        while True:
            read.append(len(read))
            yield TEXTS[0]

    stream = texts(endless(), batch_size=2)
    assert next(iter(stream))[0]["label"] in ("bad", "good", "unclear")
    assert len(read) < 10


@pytest.mark.parametrize("contrast", [None, "mean", "runner_up", "softmax", 1])
@pytest.mark.parametrize(
    "long",
    [
        {"long_text": "windows", "overlap": 7},
        {"long_text": "windows", "overlap": 0, "max_length": 11, "rollout": True},
        {"long_text": "windows", "overlap": 3, "max_length": 11, "refine": 2},
        {},
    ],
)
def test_words_and_special_tokens_sum_to_explained(texts, contrast, long):
    with nullcontext() if long else pytest.warns(UserWarning, match="cut off"):
        found = texts([*TEXTS, LONG], top_k=None, contrast=contrast, **long)
    size = max(abs(answer["logit"]) for answers in found for answer in answers)
    assert size > 0.5
    for answers in found:
        for answer in answers:
            total = math.fsum(word["score"] for word in answer["words"]) + answer["special"]
            assert total == pytest.approx(answer["explained"], abs=1e-5)
            if contrast is None:
                assert answer["explained"] == pytest.approx(answer["logit"], abs=1e-5)


def test_windows_name_every_word_once(texts):
    whole = texts.tokenizer(LONG, add_special_tokens=False).encodings[0]
    places = sorted({whole.word_to_chars(word) for word in whole.word_ids})
    for overlap, max_length in ((0, 12), (5, 16), (9, 12), (32, None)):
        [answer] = texts(LONG, long_text="windows", overlap=overlap, max_length=max_length)
        assert [(word["start"], word["end"]) for word in answer["words"]] == places
        assert all(word["text"] == LONG[word["start"] : word["end"]] for word in answer["words"])
        assert answer["windows"] > 1 and not answer["truncated"]


def test_short_windows_share_half_of_their_tokens_where_no_overlap_is_named(texts):
    for max_length, overlap in ((20, 9), (3, 0), (35, 32)):
        windows = {"long_text": "windows", "max_length": max_length}
        assert alike(texts(TEXTS[0] * 3, **windows), texts(TEXTS[0] * 3, **windows, overlap=overlap))


def test_a_window_counts_by_its_tokens(texts):
    [short] = texts(TEXTS[0])
    [windowed] = texts(TEXTS[0], long_text="windows")
    assert alike(windowed, short) and short["windows"] == 1
    content, overlap = 10, 4
    ids = texts.tokenizer(LONG, add_special_tokens=False)["input_ids"]
    starts = [s for s in range(0, len(ids), content - overlap) if s == 0 or s + overlap < len(ids)]
    logits = torch.stack(
        [texts.model(torch.tensor([[101, *ids[start : start + content], 102]])).logits[0].detach() for start in starts]
    )
    weights = torch.tensor([float(len(ids[start : start + content])) for start in starts])
    expected = (weights[:, None] * logits).sum(0) / weights.sum()
    found = texts(LONG, long_text="windows", overlap=overlap, max_length=content + 2, target="all")
    assert {answer["target"]: pytest.approx(answer["logit"], abs=1e-5) for answer in found} == dict(
        enumerate(expected.tolist())
    )


def test_pairs_are_explained_as_the_stock_pipeline_takes_them(texts):
    pair = {"text": "great phone", "text_pair": "unbelievably poor battery"}
    encoding = texts.tokenizer(pair["text"], pair["text_pair"], return_tensors="pt")
    expected = texts.model.generate_saliency(**encoding)
    answers = texts(pair)
    [answer] = answers
    assert answer["explained"] == pytest.approx(expected.explained.item(), abs=1e-5)
    assert answer["logit"] == pytest.approx(expected.logits.max().item(), abs=1e-5)
    total = math.fsum(word["score"] for word in answer["words"]) + answer["special"]
    assert total == pytest.approx(answer["explained"], abs=1e-5)
    assert [(word["text"], word["segment"]) for word in answer["words"]] == [
        ("great", 0), ("phone", 0), ("unbelievably", 1), ("poor", 1), ("battery", 1)
    ]  # fmt: skip
    for word in answer["words"]:
        text = pair["text_pair"] if word["segment"] else pair["text"]
        assert text[word["start"] : word["end"]] == word["text"]
    own = sum(v for v, segment in zip(expected.saliency[0].tolist(), encoding.sequence_ids(0)) if segment == 1)
    second = math.fsum(word["score"] for word in answer["words"] if word["segment"])
    assert second == pytest.approx(own, abs=1e-5)
    items = [pair, TEXTS[0], {"text": TEXTS[0]}, tuple(pair.values())]
    found = texts(items, batch_size=4)
    assert alike(found, [answers, texts(TEXTS[0]), texts(TEXTS[0]), answers])
    stock = pipeline("text-classification", model=texts.model, tokenizer=texts.tokenizer, device="cpu")
    assert stock(pair)["score"] == pytest.approx(answer["score"], abs=1e-5)
    with pytest.warns(UserWarning, match="cut off and gets no saliency"):
        assert texts(pair | {"text_pair": LONG})[0]["truncated"]
    with pytest.raises(ValueError, match="'windows' reads single texts, and this pair is too long"):
        texts(pair | {"text_pair": LONG}, long_text="windows")


def test_truncation_warns_and_says_so(texts):
    with pytest.warns(UserWarning, match="cut off and gets no saliency; long_text='windows' reads all of it"):
        [answer] = texts(LONG)
    assert answer["truncated"] and answer["windows"] == 1
    assert answer["words"][-1]["end"] < len(LONG)


def test_text_answers_are_the_model_s(texts):
    encoding = texts.tokenizer(TEXTS[:1], return_tensors="pt")
    for options in ({}, {"contrast": "mean"}, {"decay": 1.0, "blocks": [0, 2]}):
        [answer] = texts(TEXTS[0], **options)
        expected = texts.model.generate_saliency(**encoding, **options)
        logits = expected.logits[0]
        assert answer["target"] == logits.argmax().item()
        assert answer["label"] == texts.model.config.id2label[answer["target"]]
        assert answer["score"] == pytest.approx(logits.softmax(-1).max().item(), abs=1e-6)
        assert answer["explained"] == pytest.approx(expected.explained.item(), abs=1e-5)
        assert answer["special"] == pytest.approx((expected.saliency[0, 0] + expected.saliency[0, -1]).item(), abs=1e-5)
    for normalize in ("minmax", "percentile"):
        [answer] = texts(TEXTS[1], normalize=normalize)
        expected = texts.model.generate_saliency(
            **texts.tokenizer(TEXTS[1:2], return_tensors="pt"), normalize=normalize
        )
        assert [word["score"] for word in answer["words"]] == pytest.approx([expected.saliency[0, 1].item()], abs=1e-5)


def test_image_answers_are_the_model_s(images, pictures):
    inputs = images.image_processor(pictures[:1], return_tensors="pt")
    options = {"contrast": "mean", "normalize": "minmax", "decay": 0.9}
    for given in ({}, options, {"blocks": [-1, 0], "contrast": "runner_up"}):
        for top_k in (1, 4):
            answers = images(pictures[0], top_k=top_k, **given)
            expected = images.model.generate_saliency(**inputs, **given, target="all")
            ranked = expected.logits[0].argsort(descending=True)[:top_k].tolist()
            assert [answer["target"] for answer in answers] == ranked
            for answer, label in zip(answers, ranked):
                assert np.abs(answer["saliency"] - expected.saliency[0, label].numpy()).max() <= 1e-5
                for found, block in zip(answer["block_saliency"], expected.block_saliency, strict=True):
                    assert np.abs(found - block[0, label].numpy()).max() <= 1e-5
                assert answer["overlay"].size == (40, 40) and answer["overlay"].mode == "RGB"
                assert answer["explained"] == pytest.approx(expected.explained[0, label].item(), rel=1e-5, abs=1e-5)
    [answer] = images(pictures[0], upsample=False)
    assert "saliency" not in answer and "overlay" not in answer and len(answer["block_saliency"]) == 5


@pytest.mark.parametrize("options", [{}, {"target": "c", "contrast": "mean", "normalize": "minmax"}])
def test_a_refined_map_is_the_model_s(images, pictures, options):
    [answer] = images(pictures[0], refine=True, **options)
    inputs = images.image_processor(pictures[0], return_tensors="pt")
    given = options | {"target": answer["target"]}
    expected = images.model.generate_saliency(**inputs, refine=True, **given)
    assert np.allclose(answer["saliency"], expected.saliency[0], atol=1e-5)
    assert answer["explained"] == pytest.approx(expected.explained[0].item(), abs=1e-5)
    assert answer["overlay"].size == (40, 40)
    with pytest.raises(ValueError, match="refine=True refines one map"):
        images(pictures[0], refine=True, top_k=2)


def test_pipelines_take_every_option_of_the_models():
    assert set(SALIENCY_OPTIONS) == set(EXACT_OPTIONS)


def test_a_refined_map_of_a_text_is_the_model_s(texts):
    inputs = texts.tokenizer(TEXTS[0], return_tensors="pt")
    options = {"refine": 2, "mask_token_id": texts.tokenizer.mask_token_id}
    for given in ({}, {"top_k": None}, {"target": "unclear"}):
        assert texts(TEXTS[0], refine=2, mask_token_id=None, **given) == texts(TEXTS[0], refine=2, **given)
        for answer in texts(TEXTS[0], refine=2, **given):
            expected = texts.model.generate_saliency(**inputs, **options, target=answer["target"])
            words = explain_words(TEXTS[0], inputs, expected.saliency)[0].words
            assert [word["score"] for word in answer["words"]] == pytest.approx([w.score for w in words], abs=1e-5)
            assert answer["explained"] == pytest.approx(expected.explained.item(), abs=1e-5)


def test_paths_arrays_and_gray_pictures(images, pictures, tmp_path):
    pictures[0].save(tmp_path / "a.png")
    [from_path], [from_array] = images([str(tmp_path / "a.png"), np.asarray(pictures[0])])
    [from_picture] = images(pictures[0])
    assert alike(from_path, from_picture)
    assert from_array["label"] == from_picture["label"]
    gray = lively_resnet(torch.float32, num_channels=1)
    pipe = ImageSaliencyPipeline(gray, image_processor=image_processor_for(gray.config, 40, 1.0), device="cpu")
    assert pipe(pictures[0])[0]["overlay"].size == (40, 40)


def as_read(pipe, value):
    """The pixel values that the package's own reader makes for the pipeline's model."""
    return to_pixel_values(read_image(value, pipe.model.config.num_channels), pipe.image_processor)


RAMP = np.linspace(0, 65535, 44 * 50).reshape(44, 50)
PICTURES = {
    "16 bits": lambda: Picture.fromarray(RAMP.astype(np.uint16)),
    "32 bits": lambda: Picture.fromarray(RAMP.astype(np.int32)),
    "floats": lambda: Picture.fromarray((RAMP / 65535).astype(np.float32)),
    "16-bit array": lambda: RAMP.astype(np.uint16),
    "float tensor": lambda: torch.from_numpy(RAMP / 65535)[None],
    "see-through": lambda: Picture.new("RGBA", (50, 44), (200, 0, 0, 60)),
    "CMYK": lambda: Picture.new("CMYK", (50, 44), (0, 90, 200, 0)),
}


@pytest.mark.parametrize("kind", PICTURES)
def test_pictures_of_any_kind_are_read_as_everywhere(images, kind):
    expected = as_read(images, PICTURES[kind]())
    assert torch.equal(images.preprocess(PICTURES[kind]())["pixel_values"][0], expected)
    gray = lively_resnet(torch.float32, num_channels=1)
    pipe = ImageSaliencyPipeline(gray, image_processor=image_processor_for(gray.config, 40, 1.0), device="cpu")
    assert torch.equal(pipe.preprocess(PICTURES[kind]())["pixel_values"][0], as_read(pipe, PICTURES[kind]()))


@pytest.mark.parametrize("deep", [False, True])
def test_a_photograph_is_seen_upright(images, tmp_path, deep):
    exif = Picture.Exif()
    exif[0x0112] = 6  # the camera was turned
    pixels = RAMP.astype(np.uint16) if deep else np.rint(RAMP / 257).astype(np.uint8)
    Picture.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    expected = as_read(images, np.rot90(pixels, -1))
    assert (images.preprocess(Picture.open(tmp_path / "a.png"))["pixel_values"][0] - expected).abs().max() <= 1e-6
    if not deep:
        assert (images.preprocess(str(tmp_path / "a.png"))["pixel_values"][0] - expected).abs().max() <= 1e-6


def test_a_picture_whose_exif_is_broken(images, pictures, tmp_path):
    """As it stands; a path, which transformers opens, is refused with the way out."""
    path = tmp_path / "a.png"
    pictures[0].save(path, exif=b"Exif\0\0no TIFF at all")
    with pytest.raises(ValueError, match=r"a.png' has EXIF that cannot be read .* image = PIL.Image.open"):
        images(str(path))
    assert alike(images(Picture.open(path)), images(pictures[0]))


@pytest.mark.parametrize("channels", [2, 4, 5])
def test_a_model_of_other_bands_reads_pictures_of_as_many(channels, tmp_path):
    model = lively_resnet(torch.float32, num_channels=channels)
    pipe = ImageSaliencyPipeline(model, image_processor=image_processor_for(model.config, 40, 1.0), device="cpu")
    pixels = np.random.default_rng(0).integers(0, 256, (44, 50, channels), dtype=np.uint8)
    [answer] = pipe(pixels)
    expected = model.generate_saliency(pixel_values=as_read(pipe, pixels)[None], target=answer["target"])
    assert np.abs(answer["saliency"] - expected.saliency[0].numpy()).max() <= 1e-5
    assert answer["overlay"].size == (40, 40)
    if mode := {2: "LA", 4: "CMYK"}.get(channels):
        picture = Picture.fromarray(pixels) if mode == "LA" else Picture.frombytes("CMYK", (50, 44), pixels.tobytes())
        assert picture.mode == mode and alike(pipe(picture), [answer])
    Picture.fromarray(pixels[..., :1].repeat(3, -1)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=f"a.png' is read as 3 bands, but the model reads {channels}; open it first"):
        pipe(str(tmp_path / "a.png"))
    with pytest.raises(ValueError, match=f"the image has 3 bands, but the model reads {channels}"):
        pipe(Picture.new("RGB", (8, 8)))


@pytest.mark.parametrize("kind", ["16 bits", "32 bits", "floats"])
def test_a_deep_file_is_refused_naming_the_way_out(images, kind, tmp_path):
    path = tmp_path / "deep.tiff"
    PICTURES[kind]().save(path)
    with pytest.raises(ValueError, match=r"deep.tiff' may hold more than 8 bits, .* image = PIL.Image.open"):
        images(str(path))
    [answer] = images(Picture.open(path))
    assert alike(answer, images(PICTURES[kind]())[0])


def test_the_overlay_is_red_for_and_blue_against():
    saliency = torch.zeros(2, 3)
    saliency[0, 0], saliency[1, 2] = 2.0, -2.0
    painted = np.asarray(paint_map(torch.zeros(3, 2, 3), saliency, alpha=1.0))
    assert painted[0, 0].tolist() == [round(255 * part) for part in FOR]
    assert painted[1, 2].tolist() == [round(255 * part) for part in AGAINST]
    assert painted[0, 1].tolist() == [64, 64, 64]  # the grey of a black pixel
    assert np.asarray(paint_map(torch.zeros(3, 2, 3), torch.ones(2, 3))).tolist() == [[[64] * 3] * 3] * 2


def test_a_half_precision_model_answers_in_float32(images, pictures):
    model = lively_resnet(torch.bfloat16)
    [answer] = ImageSaliencyPipeline(model, image_processor=images.image_processor, device="cpu")(pictures[0])
    assert answer["saliency"].dtype == np.float32
    assert answer["saliency"].sum() == pytest.approx(answer["explained"], rel=1e-3)


def test_several_labels_and_numbers_are_scored_as_the_stock_pipelines_do(texts):
    texts.model.config.problem_type = "multi_label_classification"
    [answer] = texts(TEXTS[0])
    assert answer["score"] == pytest.approx(1 / (1 + math.exp(-answer["logit"])), abs=1e-6)
    texts.model.config.problem_type = "regression"
    [answer] = texts(TEXTS[0])
    assert answer["score"] == answer["logit"]
    texts.model.config.problem_type = "single_label_classification"


def test_no_items_no_answers(texts, images):
    assert texts([]) == [] and images(()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top_k": 0}, "top_k must be None"),
        ({"top_k": 2, "target": 1}, "exclude each other"),
        ({"target": 7}, "target must be None, 'all', a label"),
        ({"target": "excellent"}, "target must be None, 'all', a label"),
        ({"contrast": "excellent"}, "contrast must be None, 'mean', 'runner_up', 'softmax', a label"),
        ({"blocks": [9]}, r"blocks must lie in \[-3, 2\]"),
        ({"upsample": False}, "upsample must be True for texts"),
        ({"long_text": "skip"}, "long_text must be 'truncate' or 'windows'"),
        ({"overlap": 46}, r"overlap must lie in \[0, 45\]"),
        ({"max_length": 49}, "max_length must leave room for a token and be at most 48"),
        ({"max_length": 2}, "max_length must leave room for a token and be at most 48"),
    ],
)
def test_wrong_arguments_are_named(texts, options, message):
    with pytest.raises(ValueError, match=message):
        texts(TEXTS[0], **options)


def test_a_label_is_named_for_target_and_contrast(texts, images, pictures):
    for pipe, item in ((texts, TEXTS[0]), (images, pictures[0])):
        names = pipe.model.config.id2label
        [named], [numbered] = pipe(item, target=names[0], contrast=names[1]), pipe(item, target=0, contrast=1)
        assert named["explained"] == numbered["explained"] and named["label"] == names[0]
        with pytest.raises(ValueError, match="contrast=1 is the target 1 itself"):
            pipe(item, target=names[1], contrast=names[1])


def test_wrong_items_and_models_are_named(texts, images, pictures):
    with pytest.raises(TypeError, match="'colour' is no argument of TextSaliencyPipeline"):
        texts("a", colour="red")
    with pytest.raises(TypeError, match="must be a dict of 'text' and 'text_pair', got 'words'"):
        texts({"words": "a"})
    with pytest.raises(TypeError, match="must hold a text or a pair of texts, got list"):
        texts([["a", "b", "c"]])
    for nothing in ("", " \n", {"text": "", "text_pair": " "}):
        for options in ({}, {"long_text": "windows"}):
            with pytest.raises(ValueError, match="the row holds an empty text"):
                texts(nothing, **options)
    with pytest.raises(TypeError, match="image must be one image, got a dict"):
        list(images(Dataset.from_dict({"image": pictures[:1]})))
    with pytest.raises(ValueError, match="model must be an MHEX classifier of input_ids, got MHEXResNetFor"):
        TextSaliencyPipeline(images.model, tokenizer=texts.tokenizer, device="cpu")
    with pytest.raises(ValueError, match="the image holds values that are not finite"):
        images(np.full((40, 40, 3), np.nan, dtype=np.float32))
