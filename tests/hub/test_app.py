"""The app in a browser (headless Chromium), and what it shows, escaped."""

import html
import re
import sys
from inspect import signature
from typing import get_type_hints

import numpy as np
import pytest
import torch
from PIL import Image

from browser import PANEL, changed, choose, chromium, opened, paste, pick, said, served, upload
from hf_mhex import load, load_sample
from hf_mhex.hub.app import build_app
from hf_mhex.hub.app.explaining import (
    NO_CONTRAST,
    PREDICTED,
    explain_file,
    explain_input,
    explain_sentence,
    labels_beside,
    read_file,
    ways_back,
)
from hf_mhex.hub.app.parts import parts_line, take_away
from hub_models import save_image_model, save_signal_model, save_text_model


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    save_image_model(folder / "images", folder / "pictures")
    save_text_model(folder / "texts")
    save_signal_model(folder / "signals")
    return [str(folder / name) for name in ("images", "texts", "signals")]


def test_text_stays_text(models):
    model, tokenizer = load(models[1])
    blocks = list(range(model.num_blocks))
    text = "<script>alert('x')</script> \" onload=alert(1) good"
    _, (scores, line, words, buttons, *frames) = explain_sentence(
        model, tokenizer, text, PREDICTED, NO_CONTRAST, blocks
    )
    assert set(scores) == set(model.config.id2label.values()) and "Explained" in line and len(frames) == 2
    assert "<script" not in buttons and "&lt;" in buttons and "onload=" not in re.sub(">[^<]*<", "><", buttons)
    for framed in (words, *frames):
        assert framed.startswith("<iframe sandbox srcdoc=") and framed.count("<") == 2  # nothing but the frame itself
        page = html.unescape(framed.partition('srcdoc="')[2].partition('" style')[0])
        assert "<script" not in page and "&lt;" in page and "default-src 'none'" in page


def test_words_carried_back_keep_their_sum(models):
    model, tokenizer = load(models[1])
    given = (model, tokenizer, "a good film, a bad day", PREDICTED, NO_CONTRAST, [0, 1])
    (_, plain), (_, carried) = explain_sentence(*given), explain_sentence(*given, True)
    assert carried[0] == pytest.approx(plain[0], abs=1e-5)  # attention is computed in another order
    assert carried[1] == plain[1] and carried[2] != plain[2]


@pytest.mark.parametrize(
    ("contrast", "words"),
    [
        (NO_CONTRAST, "the explained logit is"),
        ("softmax", "the logit's lead over the others, weighed by their scores, is"),
        ("mean", "the logit's lead over the mean of the others is"),
        ("runner_up", "the logit's lead over the runner-up is"),
    ],
)
def test_what_the_map_adds_up_to_is_said_in_words(models, contrast, words):
    model, tokenizer = load(models[1])
    _, (_, line, *_) = explain_sentence(model, tokenizer, "a good film", PREDICTED, contrast, [0, 1, 2])
    assert words in line
    check_sum(line)


def test_an_image_is_read_upright(models, tmp_path):
    picture = load_sample("fashion_mnist")["test"][4]["image"]
    exif = Image.Exif()
    exif[0x0112] = 6  # taken with the camera turned
    picture.save(tmp_path / "upright.png")
    picture.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    given = load(models[0])
    upright, turned = (
        explain_file(*given, str(tmp_path / f"{name}.png"), PREDICTED, NO_CONTRAST, [0, 1, 2, 3, 4])[1]
        for name in ("upright", "turned")
    )
    assert upright[:2] == turned[:2] and upright[2] == turned[2]


def test_a_missing_extra_is_one_line(models, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.delitem(sys.modules, "hf_mhex.hub.app.page", raising=False)
    with pytest.raises(RuntimeError, match=r"^gradio is not installed; pip install 'hf-mhex\[app\]'\.$"):
        build_app(models)


def test_what_complains_still_gets_events():
    """Gradio hands an event to the argument that is annotated so."""
    gr = pytest.importorskip("gradio", reason="the app needs gradio: pip install 'hf-mhex[app]'")
    from hf_mhex.hub.app.page import complaining

    def press(parts, event: gr.EventData):
        raise ValueError(f"{parts} at {event}")

    run = complaining(press)
    assert get_type_hints(run) == {"event": gr.EventData}
    assert list(signature(run).parameters) == ["parts", "event"]
    with pytest.raises(gr.Error, match="1 at 2"):
        run(1, 2)


def test_labels_stand_beside_each_other_on_one_scale(models):
    """Each map adds up to what stands below it, and the scale is as long as the widest map."""
    model, processor = load(models[0])
    picture = load_sample("fashion_mnist")["test"][1]["image"]
    display = explain_input(model, processor, picture, "b", "mean", [0, 1, 2, 3, 4]).display
    assert display.first.label == "b" and len(display.explanations) == 3
    assert {found.label for found in display.explanations} == {"a", "b", "c"}
    for found in display.explanations:
        alone = model.generate_saliency(
            **processor(picture.convert("RGB"), return_tensors="pt"), target=found.target, contrast="mean"
        )
        assert found.saliency.sum(dtype="float64") == pytest.approx(float(alone.explained), abs=1e-4)
    page = labels_beside(display)
    assert page.count("<figure>") == 3 and all(found.sentence in page for found in display.explanations)


def test_names_of_labels_are_no_markup(models):
    """Neither of HTML nor of Markdown, wherever the page says them."""
    model, tokenizer = load(models[1])
    model.config.id2label[1] = "*<b>x</b>*"
    answer, (_, line, *frames) = explain_sentence(model, tokenizer, "a good film", "*<b>x</b>*", NO_CONTRAST, [0, 1, 2])
    assert r"\*\<b\>x\</b\>\*" in line and not any("<b>x" in html.unescape(framed) for framed in frames)
    assert "<b>x" not in parts_line(model, answer.parts, [0])
    model, processor = load(models[0])
    model.config.id2label[1] = "*<b>x</b>*"
    picture = load_sample("fashion_mnist")["test"][1]["image"]
    answer = explain_input(model, processor, picture, PREDICTED, NO_CONTRAST, [0, 1])
    assert "<b>x" not in labels_beside(answer.display)


def test_what_needs_a_mask_token_is_not_offered_without_one(models):
    model, tokenizer = load(models[True])
    assert set(ways_back(model, tokenizer)) == {"rollout", "refine"}
    tokenizer.mask_token = None
    assert set(ways_back(model, tokenizer)) == {"rollout"}


@pytest.mark.parametrize("contrast", [NO_CONTRAST, "mean", "runner_up", "softmax"])
@pytest.mark.parametrize("kind", ["image", "refined image", "text", "refined text"])
def test_what_is_foretold_and_what_is_answered(models, kind, contrast):
    """Both derived again: the map's sum over the parts, and what is explained of the input without them."""
    text = "text" in kind
    model, processor = load(models[text])
    value = "A good phone, but unbelievably poor!" if text else load_sample("fashion_mnist")["test"][1]["image"]
    taken = {"refine": "refined" in kind, "rollout": kind == "text"}
    ways = [taken[way] for way in ways_back(model, processor)]
    answer = explain_input(model, processor, value, PREDICTED, contrast, list(range(model.num_blocks)), *ways)
    gone = [1, 5, 6] if text else [10, 24, 25, 48]
    found = take_away(model, answer.parts, gone)
    inputs = dict(processor(value if text else value.convert("RGB"), return_tensors="pt"))
    saliency, target = torch.from_numpy(answer.first.saliency).double(), answer.first.target
    if text:
        ids, words = inputs["input_ids"][0].tolist(), answer.first.seen.words
        spans = processor(value, return_offsets_mapping=True)["offset_mapping"]
        lost = [(words[part].start, words[part].end) for part in gone]
        places = torch.tensor([any(a <= start < end <= b for a, b in lost) for start, end in spans])
        inputs["input_ids"] = torch.tensor([[processor.mask_token_id if p else i for i, p in zip(ids, places)]])
    else:
        places = torch.zeros(40, 40, dtype=torch.bool)
        for row in range(40):
            for column in range(40):
                places[row, column] = (row * 7 // 40) * 7 + column * 7 // 40 in gone
        inputs["pixel_values"] = inputs["pixel_values"].masked_fill(places, 0)
    coarse = explain_input(model, processor, value, PREDICTED, contrast, list(range(model.num_blocks)))
    assert np.array_equal(answer.first.saliency, coarse.first.saliency) == (not any(ways))
    whole, left = torch.from_numpy(answer.first.logits).double(), model(**inputs).logits[0].detach().double()
    others = [label for label in range(3) if label != target]
    shares = {
        NO_CONTRAST: torch.zeros(2),
        "mean": torch.full((2,), 0.5),
        "runner_up": torch.eye(2)[int(whole[others].argmax())],
        "softmax": whole[others].softmax(0),
    }[contrast].double()
    before, after = (values[target] - shares @ values[others] for values in (whole, left))
    assert float(found.said[0]) == pytest.approx(float(saliency[places].sum()), abs=1e-5)
    assert float(found.real[0]) == pytest.approx(float(before - after), abs=1e-5)
    assert found.explained == pytest.approx(answer.first.explained, abs=1e-4)
    line = parts_line(model, answer.parts, gone)
    assert f"{float(found.said[0]):+.4f}" in line and f"{float(found.real[0]):+.4f}" in line
    assert f"{float(left.softmax(0)[target]):.3f}" in line


def test_a_signal_is_read_as_it_was_measured(models, tmp_path):
    """From a table with its axis; another axis is refused. Its intervals make the sum."""
    model, extractor = load(models[2])
    values = np.array(load_sample("coffee")["test"][9]["signal"])
    table = np.column_stack([model.config.axis, values])
    np.savetxt(tmp_path / "one.csv", table, delimiter=",", fmt="%.17g")
    answer, (_, line, *_) = explain_file(model, extractor, str(tmp_path / "one.csv"), PREDICTED, "mean", [0, 1, 2, 3])
    check_sum(line)
    expected = model.generate_saliency(**extractor(values, return_tensors="pt"), contrast="mean")
    assert answer.first.explained == pytest.approx(float(expected.explained), abs=1e-5)
    assert len(answer.parts.scores) == 16 and answer.parts_html.count("<button") == 16
    assert float(take_away(model, answer.parts, range(16)).said) == pytest.approx(answer.first.explained, abs=1e-4)
    np.savetxt(tmp_path / "moved.csv", table + [[5, 0]], delimiter=",")
    with pytest.raises(ValueError, match="stand at 5 to 1845, the model's 1841 at 0 to 1840"):
        read_file(model, str(tmp_path / "moved.csv"))
    (tmp_path / "commas.csv").write_text("place;value\n" + "1650;0,12\n" * 9)
    with pytest.raises(ValueError, match="^This file, column 2: '0,12' has a decimal comma"):
        read_file(model, str(tmp_path / "commas.csv"))


def test_all_parts_make_the_sum_and_wrong_ones_are_refused(models):
    model, tokenizer = load(models[1])
    answer = explain_input(model, tokenizer, "A good phone.", PREDICTED, "mean", [0, 1, 2])
    whole = take_away(model, answer.parts, range(4))
    assert float(whole.said[0]) + answer.first.seen.special == pytest.approx(answer.first.explained, abs=1e-5)
    for gone in ([], [4], [-1]):
        with pytest.raises(ValueError, match="parts must be numbers from 0 to 3"):
            take_away(model, answer.parts, gone)
    partly = explain_input(model, tokenizer, "A good phone.", PREDICTED, "mean", [0, 1])
    assert partly.parts is None and "all blocks" in partly.parts_html


@pytest.mark.parametrize(
    ("content", "blocks", "message"),
    [
        (None, [0], "Pick, paste or upload"),
        (b"no picture", [0], "^This file is no image that can be read"),
        ("whole", [], "one block"),
    ],
)
def test_what_is_missing_is_said(models, tmp_path, content, blocks, message):
    path = tmp_path / "given.png"
    if content == "whole":
        Image.new("RGB", (40, 40)).save(path)
    elif content:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        explain_file(*load(models[0]), str(path) if content else None, PREDICTED, NO_CONTRAST, blocks)


def test_half_an_image_is_no_image(models, tmp_path):
    model, _ = load(models[0])
    load_sample("fashion_mnist")["test"][0]["image"].resize((200, 200)).save(tmp_path / "whole.png")
    assert read_file(model, str(tmp_path / "whole.png")).size == (200, 200)
    (tmp_path / "half.png").write_bytes((tmp_path / "whole.png").read_bytes()[:900])
    with pytest.raises(ValueError, match="no image that can be read"):
        read_file(model, str(tmp_path / "half.png"))


@pytest.fixture(scope="module")
def address(models, tmp_path_factory):
    pytest.importorskip("gradio", reason="the app needs gradio: pip install 'hf-mhex[app]'")
    pytest.importorskip("playwright.sync_api", reason="playwright drives the browser: make test-app")
    if chromium() is None:
        pytest.skip("the browser is Debian's chromium: apt-get install chromium")
    with served(models, tmp_path_factory.mktemp("home")) as address:
        yield address


@pytest.fixture(scope="module")
def page(address):
    with opened(address) as page:
        yield page


def check_sum(line):
    """What the page says that the map sums to is what it says that it explains."""
    total, explained = line.split("sums to ")[1].split(";")[0], line.strip()[:-1].rsplit(" ", 1)[1]
    assert float(total) == pytest.approx(float(explained), abs=2e-4)


@pytest.mark.slow
def test_it_explains_an_image_that_is_uploaded(page, tmp_path):
    path = tmp_path / "coat.png"
    load_sample("fashion_mnist")["test"][4]["image"].resize((56, 56), Image.Resampling.BICUBIC).save(path)
    before = said(page, "#image-sum")
    upload(page, path)
    check_sum(changed(page, "#image-sum", before))
    for place in ("#image", "#image-map", "#image-blocks"):
        page.locator(f"{place} img").wait_for()


@pytest.mark.slow
def test_it_explains_an_image_that_is_pasted(page, tmp_path):
    """By Ctrl+V anywhere, over an image that is there already."""
    load_sample("fashion_mnist")["test"][7]["image"].save(tmp_path / "given.png")
    pick(page, 1)
    before = said(page, "#image-sum")
    paste(page, tmp_path / "given.png")
    check_sum(changed(page, "#image-sum", before))


@pytest.mark.slow
def test_a_click_on_a_label_explains_it(page):
    """The labels stand in the order of their scores, each with its own; the second one's explanation is a new one."""
    pick(page, 2)
    rows = page.locator("#prediction button")
    names, shares = rows.locator("dt").all_inner_texts(), rows.locator("dd").all_inner_texts()
    found = [int(share.rstrip("%")) for share in shares]
    assert sorted(names) == ["a", "b", "c"] and found == sorted(found, reverse=True) and sum(found) in (99, 100, 101)
    before = said(page, "#image-sum")
    rows.nth(1).click()
    line = changed(page, "#image-sum", before)
    check_sum(line)
    assert (
        line.startswith(f"Explained: {names[1]}.")
        and page.get_by_label("Label to explain").first.input_value() == names[1]
    )
    titles = page.locator(".mhex-beside figcaption b").all_inner_texts()
    assert [title.split(" ")[0] for title in titles] == [names[1], names[0], names[2]]
    choose(page, "Label to explain", PREDICTED)


@pytest.mark.slow
def test_a_picture_can_be_picked_and_choices_count(page):
    """One of the shelf, then another label, contrast and fewer blocks: each time the page explains something else."""
    pick(page, 0)
    for label, option in (("Compared with", "nothing"), ("Label to explain", "b"), ("Blocks", None)):
        before = said(page, "#image-sum")
        if option:
            choose(page, label, option)
        else:
            page.get_by_label("1", exact=True).first.uncheck()
        page.get_by_role("button", name="Explain the image").click()
        check_sum(changed(page, "#image-sum", before))


def foretold_and_real(place):
    """The three numbers that the page shows of the parts that are away."""
    return [float(cell) for cell in place.locator("td").all_inner_texts()]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["image", "text"])
def test_parts_are_pressed_and_the_model_answers_without_them(address, page, models, kind):
    """By mouse and by keyboard; the numbers are those of the same parts taken away here."""
    model, processor = load(models[kind == "text"])
    text = "It is a good phone."
    with opened(address, beside=page) as page:
        if kind == "image":
            pick(page, 1)
        else:
            page.get_by_role("tab").nth(1).click()
            page.locator("#text textarea").fill(text)
            page.get_by_role("button", name="Explain the text").click()
            changed(page, "#text-sum", "")
        panel = page.locator(PANEL)
        parts, without = panel.locator(".mhex-picker button"), panel.locator(".mhex-without")
        assert parts.count() == (49 if kind == "image" else 6)
        parts.nth(3).click()
        without.get_by_text("Without 1 of").wait_for()
        parts.nth(4).focus()
        page.keyboard.press("Space")
        without.get_by_text("Without 2 of").wait_for()
        shown = foretold_and_real(without)
        assert parts.nth(4).get_attribute("aria-pressed") == "true"
        parts.nth(3).click()
        without.get_by_text("Without 1 of").wait_for()
        assert foretold_and_real(without) != shown
        parts.nth(4).click()
        without.get_by_text("Nothing is taken away").wait_for()
        assert page.problems == []
    value = text if kind == "text" else load_sample("fashion_mnist")["test"][1]["image"]
    answer = explain_input(model, processor, value, PREDICTED, "mean", list(range(model.num_blocks)), kind == "text")
    found = take_away(model, answer.parts, [3, 4])
    assert shown == pytest.approx([float(found.said), float(found.real), float(found.even)], abs=2e-4)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sample", "upload", "text"])
def test_a_link_opens_the_same_explanation(address, page, tmp_path, kind):
    """Of the shelf, of a file that the link carries, and of a text: with its label, contrast and blocks."""
    given, numbers = ("text", [0, 1, 2]) if kind == "text" else ("image", [0, 1, 2, 3, 4])
    first = page
    with opened(address, beside=first) as page:
        if kind == "sample":
            pick(page, 3)
        elif kind == "upload":
            load_sample("fashion_mnist")["test"][8]["image"].save(tmp_path / "given.png")
            upload(page, tmp_path / "given.png")
            changed(page, "#image-sum", "")
        else:
            page.get_by_role("tab").nth(1).click()
            page.locator("#text textarea").fill("A <b>good</b> phone & a 'poor' battery.\nSecond line.")
        panel = page.locator(PANEL)
        before = said(page, f"#{given}-sum")
        label = "unclear" if kind == "text" else "b"
        choose(panel, "Label to explain", label)
        choose(panel, "Compared with", "the runner-up")
        panel.get_by_label("1", exact=True).uncheck()
        panel.locator("button.primary").click()
        line = changed(page, f"#{given}-sum", before)
        link = page.locator(f"#{given}-link a").get_attribute("href")
        value = page.locator("#text textarea").input_value() if kind == "text" else None  # another tab is not there
        titles = page.locator(".mhex-beside figcaption").all_inner_texts()
    with opened(address + "/" + link, beside=first) as page:
        assert changed(page, f"#{given}-sum", "") == line and line.startswith(f"Explained: {label}.")
        panel = page.locator(PANEL)
        assert panel.is_visible() and panel.get_by_label("Label to explain").input_value() == label
        assert panel.get_by_label("Compared with").input_value() == "the runner-up"
        assert [panel.get_by_label(str(n), exact=True).is_checked() for n in numbers] == [n != 1 for n in numbers]
        assert value is None or page.locator("#text textarea").input_value() == value
        assert page.locator(".mhex-beside figcaption").all_inner_texts() == titles
        assert page.locator(f"#{given}-link a").get_attribute("href") == link and page.problems == []


@pytest.mark.slow
def test_a_link_that_does_not_fit_says_so(address, page):
    """To another revision of a model, to a model that is not there, to a label that it lacks, and cut."""
    with opened(address, beside=page) as beside:
        pick(beside, 0)
        link = address + "/" + beside.locator("#image-link a").get_attribute("href")
    revision = link.partition("revision=")[2].partition("&")[0]
    for wrong, message in (
        (
            link.replace(revision, "weights-0123456789abcdef"),
            "made with images at weights-01234567, and this page shows images at weights-",
        ),
        (
            link.replace("model=images", "model=me%2Fothers"),
            f"made with me/others at {revision[:16]}, which this page does not show",
        ),
        (link + "&label=none", "asks for label 'none'"),
        (link.replace("sample=0", "file=AAAA%21"), "cut or changed"),
        (address + "/#top", "no link to an explanation"),
    ):
        with opened(wrong, beside=page) as beside:
            beside.get_by_text(message).first.wait_for()
            assert said(beside, "#image-sum") == ""


def focused(page, selector, presses=100):
    """Press Tab until the focus is on what `selector` names; after the last place comes the first one."""
    for _ in range(presses):
        page.keyboard.press("Tab")
        if page.evaluate("selector => document.activeElement.matches(selector)", selector):
            return
    raise AssertionError(f"Tab does not reach {selector}")


@pytest.mark.slow
def test_the_keyboard_alone_is_enough(address, page):
    """Tab, Enter, Space and arrows pick a picture, another label, fewer blocks and a text; the focus can be seen."""
    with opened(address, beside=page) as page:
        focused(page, "#shelf button")
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        page.keyboard.press("Enter")
        check_sum(first := changed(page, "#image-sum", ""))
        focused(page, "#prediction button")
        focused(page, "#prediction button")
        page.keyboard.press("Enter")
        check_sum(second := changed(page, "#image-sum", first))
        focused(page, "input[type=checkbox]")
        page.keyboard.press("Space")
        focused(page, "button.primary")
        page.keyboard.press("Enter")
        check_sum(changed(page, "#image-sum", second))
        focused(page, "[role=tab][aria-selected=false]")
        page.keyboard.press("Enter")
        focused(page, "#text textarea")
        page.keyboard.type("It is a good phone.")
        focused(page, "button.primary")
        page.keyboard.press("Enter")
        check_sum(changed(page, "#text-sum", ""))
        assert outline != "none" and page.problems == []


@pytest.mark.slow
def test_a_phone_shows_all_of_it(address, page):
    """At 390 px nothing sticks out of the page, and what is asked and answered can be touched and read."""
    with opened(address, width=390, height=844, beside=page) as page:
        pick(page, 1)
        check_narrow(
            page, "#image", "#shelf", "#image-map", "#prediction", "#image-sum", ".mhex-beside", "#image-blocks"
        )
        page.locator(".mhex-beside img").first.wait_for()
        page.get_by_role("tab").nth(1).click()
        page.locator("#text textarea").fill("It is a good phone.")
        page.get_by_role("button", name="Explain the text").click()
        check_sum(changed(page, "#text-sum", ""))
        check_narrow(page, "#text", "#prediction >> visible=true", "#text-sum", "#words")
        assert page.problems == []


def check_narrow(page, *places):
    """The page is no wider than its window, and neither is what stands in those places."""
    width = page.viewport_size["width"]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for place in places:
        box = page.locator(place).first.bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= width and box["width"] > width / 2, place


@pytest.mark.slow
def test_it_says_that_a_file_is_broken(page, tmp_path):
    path = tmp_path / "broken.png"
    path.write_bytes(b"no picture at all")
    before = said(page, "#image-sum")
    upload(page, path)
    page.get_by_text("This file is no image that can be read; it is broken or of another kind.").wait_for()
    assert said(page, "#image-sum") == before
    pick(page, 2)  # and the page goes on


@pytest.mark.slow
def test_it_explains_a_signal(address, page, tmp_path):
    """One that is uploaded, one of the sample, one of its intervals taken away, and the link to it."""
    np.savetxt(tmp_path / "one.csv", np.array(load_sample("coffee")["test"][9]["signal"])[None], delimiter=";")
    first = page
    with opened(address, beside=first) as page:
        page.get_by_role("tab").nth(2).click()
        panel = page.locator(PANEL)
        panel.locator("input[type=file]").set_input_files(tmp_path / "one.csv")
        check_sum(uploaded := changed(page, "#signal-sum", ""))
        panel.get_by_label("sample 2").check()
        check_sum(line := changed(page, "#signal-sum", uploaded))
        for place in ("#signal-map img", "#signal-blocks img", ".mhex-beside img >> visible=true"):
            page.locator(place).wait_for()
        panel.locator(".mhex-picker button").nth(7).click()
        panel.locator(".mhex-without").get_by_text("Without 1 of 16 intervals").wait_for()
        link = page.locator("#signal-link a").get_attribute("href")
        assert page.problems == []
    with opened(f"{address}/{link}", beside=first) as page:
        assert changed(page, "#signal-sum", "") == line and page.problems == []


@pytest.mark.slow
def test_it_explains_a_text(page):
    page.get_by_role("tab").nth(1).click()
    page.locator("#text textarea").fill("The camera is great, but <script>document.title = 'hit'</script> it broke.")
    page.get_by_role("button", name="Explain the text").click()
    words = page.frame_locator("#words iframe").locator("article")
    words.wait_for()
    assert "<script>document.title = 'hit'</script>" in words.inner_text()
    assert page.frame_locator("#words iframe").locator("script").count() == 0 and "hit" not in page.title()
    page.get_by_role("button", name="Block by block").click()
    page.frame_locator("#block-words iframe").locator("article").nth(2).wait_for()
    assert said(page, "#text-sum").startswith("Explained:")
    assert page.problems == []
