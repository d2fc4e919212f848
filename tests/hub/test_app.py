"""Does the app do in a browser what it promises? Headless Chromium; and what it shows is escaped."""

import html
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.request import urlopen

import pytest

from hub_models import save_image_model, save_text_model

pytest.importorskip("gradio", reason="the app needs gradio: pip install 'hf-mhex[app]'")
DEMO = os.environ.get("MHEX_DEMO")  # a folder of `mhex demo`, whose models the screenshot shows


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    if DEMO:
        return [str(Path(DEMO) / name) for name in ("mhex-resnet-fashion-mnist", "mhex-bert-product-reviews")]
    folder = tmp_path_factory.mktemp("models")
    save_image_model(folder / "images", folder / "pictures")
    save_text_model(folder / "texts")
    return [str(folder / "images"), str(folder / "texts")]


def test_text_stays_text(models):
    from hf_mhex.app.explaining import CONTRASTS, PREDICTED, explain_sentence
    from hf_mhex.loading import load

    model, tokenizer = load(models[1])
    blocks = list(range(model.num_blocks))
    text = "<script>alert('x')</script> \" onload=alert(1) good"
    scores, line, words, by_block = explain_sentence(model, tokenizer, text, PREDICTED, blocks, CONTRASTS[0])
    assert set(scores) == set(model.config.id2label.values()) and "Explained" in line
    for framed in (words, by_block):
        assert framed.startswith("<iframe sandbox srcdoc=") and framed.count("<") == 2  # nothing but the frame itself
        page = html.unescape(framed.partition('srcdoc="')[2].partition('" style')[0])
        assert "<script" not in page and "&lt;" in page and "default-src 'none'" in page


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"path": None}, "Pick or upload"),
        ({"path": "broken"}, "no image that can be read"),
        ({"blocks": []}, "one block"),
    ],
)
def test_what_is_missing_is_said(models, tmp_path, change, message):
    from hf_mhex.app.explaining import CONTRASTS, PREDICTED, explain_picture
    from hf_mhex.loading import load

    model, processor = load(models[0])
    (tmp_path / "broken.png").write_bytes(b"no picture")
    given = {"path": "x", "target": PREDICTED, "blocks": [0, 1], "contrast": CONTRASTS[0]} | change
    if given["path"]:
        given["path"] = str(tmp_path / "broken.png")
        if "blocks" in change:
            from PIL import Image

            Image.new("RGB", (40, 40)).save(given["path"])
    with pytest.raises(ValueError, match=message):
        explain_picture(model, processor, **given)


@pytest.fixture(scope="module")
def address(models, tmp_path_factory):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    home = tmp_path_factory.mktemp("home")
    variables = os.environ | {"HF_HOME": str(home), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    variables |= {"GRADIO_TEMP_DIR": str(home), "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    command = [sys.executable, "-m", "mhex_cli", "app", *models, "--port", str(port)]
    with (home / "log").open("w") as log:
        process = subprocess.Popen(command, env=variables, cwd=home, stdout=log, stderr=log)
        url = f"http://127.0.0.1:{port}"
        for _ in range(240):
            try:
                urlopen(url, timeout=5).close()
                break
            except OSError:
                assert process.poll() is None, (home / "log").read_text()
                time.sleep(0.5)
        yield url
        process.terminate()
        process.wait(timeout=30)


@pytest.fixture(scope="module")
def page(address):
    api = pytest.importorskip("playwright.sync_api", reason="the browser is driven by playwright")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("the browser is Debian's chromium: apt-get install chromium")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        opened = browser.new_page(viewport={"width": 1280, "height": 1180})
        opened.set_default_timeout(60_000)
        opened.problems = []
        opened.on("pageerror", lambda error: opened.problems.append(str(error)))
        opened.goto(address)
        opened.get_by_role("heading", name="Why this label?").wait_for()
        yield opened
        browser.close()


@pytest.mark.slow
def test_it_explains_an_image(page, tmp_path):
    from PIL import Image

    from hf_mhex import load_sample

    path = tmp_path / "coat.png"
    load_sample("fashion_mnist")["test"][4]["image"].resize((56, 56), Image.Resampling.BICUBIC).save(path)
    page.locator("#image-file input[type=file]").set_input_files(str(path))
    page.locator("#image-file a[href*='coat']").wait_for()  # sent, and the server's own by now
    page.get_by_role("button", name="Explain the image").click()
    page.locator("#overlay img").wait_for()
    page.locator("#blocks img").wait_for()
    line = page.locator("#image-sum").inner_text()
    total, explained = (
        float(part) for part in (line.split("sums to ")[1].split(";")[0], line.split("logit is ")[1][:-1])
    )
    assert total == pytest.approx(explained, abs=2e-4)
    if DEMO:
        page.wait_for_timeout(500)
        page.screenshot(path=str(Path(DEMO) / "app.png"))


@pytest.mark.slow
def test_a_picture_can_be_picked_and_choices_count(page):
    """One of the shelf, then another contrast: each time the page explains something else."""
    before = page.locator("#image-sum").inner_text()
    page.locator("#shelf button.thumbnail-item, #shelf .grid-container button").first.click()
    page.locator("#image-file a[href*='sample-0']").wait_for()  # sent, and the server's own by now
    page.get_by_role("button", name="Explain the image").click()
    page.wait_for_function("text => document.querySelector('#image-sum').innerText != text", arg=before)
    before = page.locator("#image-sum").inner_text()
    page.get_by_label("Compared with").first.click()
    page.get_by_role("option", name="runner_up").click()
    page.get_by_role("button", name="Explain the image").click()
    page.wait_for_function("text => document.querySelector('#image-sum').innerText != text", arg=before)


@pytest.mark.slow
def test_it_says_that_a_file_is_broken(page, tmp_path):
    path = tmp_path / "broken.png"
    path.write_bytes(b"no picture at all")
    page.locator("#image-file").get_by_role("button", name="Remove").or_(
        page.locator("#image-file button[aria-label='Clear']")
    ).first.click()
    page.locator("#image-file input[type=file]").set_input_files(str(path))
    page.locator("#image-file a[href*='broken']").wait_for()  # sent, and the server's own by now
    page.get_by_role("button", name="Explain the image").click()
    page.get_by_text("This file is no image that can be read.").wait_for()


@pytest.mark.slow
def test_it_explains_a_text(page):
    page.get_by_role("tab").nth(1).click()
    page.locator("#text textarea").fill("The camera is great, but <script>document.title = 'hit'</script> it broke.")
    page.get_by_role("button", name="Explain the text").click()
    words = page.frame_locator("#words iframe").locator("article")
    words.wait_for()
    assert "<script>document.title = 'hit'</script>" in words.inner_text()
    assert page.frame_locator("#words iframe").locator("script").count() == 0 and "hit" not in page.title()
    assert page.frame_locator("#block-words iframe").locator("article").count() >= 3
    assert page.locator("#text-sum").inner_text().startswith("Explained:")
    assert page.problems == []
