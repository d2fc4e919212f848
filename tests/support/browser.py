"""The app as `mhex app` serves it, opened in headless Chromium."""

import os
import shutil
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen


def free_port():
    """A port of this machine that nothing listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def answers(url):
    """Whether a page is served there by now."""
    try:
        urlopen(url, timeout=60).close()
    except OSError:
        return False
    return True


@contextmanager
def served(models, home):
    """The address of a running `mhex app` that shows `models`; everything it writes goes to the folder `home`."""
    port = free_port()
    variables = os.environ | {"HF_HOME": str(home), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    variables |= {"GRADIO_TEMP_DIR": str(home), "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    command = [sys.executable, "-m", "hf_mhex.cli", "app", *map(str, models), "--port", str(port)]
    with (home / "log").open("w") as log:
        process = subprocess.Popen(command, env=variables, cwd=home, stdout=log, stderr=log)
        url = f"http://127.0.0.1:{port}"
        while not answers(url):
            assert process.poll() is None, (home / "log").read_text()
            time.sleep(0.5)
        try:
            yield url
        finally:
            process.terminate()
            process.wait(timeout=30)


def chromium():
    """Debian's browser, or None."""
    return shutil.which("chromium")


@contextmanager
def browsing(beside=None):
    """A running browser: that of a page which is open already, or one of its own."""
    if beside:
        yield beside.context.browser
        return
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def opened(address, width=1280, height=1020, beside=None):
    """The app's page in a browser window of that size; `problems` lists the errors of its scripts.

    The window is a visitor's of its own, also where it opens in the browser of the page `beside`.
    """
    with browsing(beside) as browser:
        page = browser.new_context(viewport={"width": width, "height": height}).new_page()
        page.set_default_timeout(60_000)
        page.problems = []
        page.on("pageerror", lambda error: page.problems.append(str(error)))
        page.goto(address)
        page.get_by_role("heading", name="Why this label?").wait_for()
        yield page
        page.context.close()


PANEL = "[role=tabpanel] >> visible=true"  # of the tab that is open; another one may not be there
SAID = "selector => (/Explained: .*/.exec(document.querySelector(selector)?.innerText) || [''])[0]"


def said(page, selector):
    """The line about what is explained, without Gradio's own progress in the same place; "" before the first."""
    return page.evaluate(SAID, selector)


def changed(page, selector, before):
    """Wait until another line is there, and give it."""
    page.wait_for_function(f"([selector, before]) => ({SAID})(selector) != before", arg=[selector, before])
    return said(page, selector)


def pick(page, number):
    """Click on a picture of the shelf and wait for its explanation, which the page then shows."""
    before = said(page, "#image-sum")
    page.locator("#shelf button.thumbnail-item, #shelf .grid-container button").nth(number).click()
    changed(page, "#image-sum", before)
    page.locator("#image-blocks img").scroll_into_view_if_needed()  # a picture further down is loaded when it is seen
    page.locator("#image-blocks img").wait_for()


def upload(page, path):
    """Hand a file to the page as a visitor does, in the place of an image that is there."""
    if (there := page.get_by_label("Remove Image")).is_visible():
        there.click()
    with page.expect_file_chooser() as chooser:
        page.get_by_text("Drop, paste or choose an image").first.click()
    chooser.value.set_files(path)


def paste(page, path):
    """Press Ctrl+V on the page with a picture on the clipboard."""
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.evaluate(TO_CLIPBOARD, list(Path(path).read_bytes()))
    page.locator("body").press("Control+v")


TO_CLIPBOARD = """async (bytes) => {
  const picture = new Blob([new Uint8Array(bytes)], { type: "image/png" });
  await navigator.clipboard.write([new ClipboardItem({ "image/png": picture })]);
}"""


def choose(place, label, option):
    """Open a list of choices, on the page or in a part of it, and take one."""
    place.get_by_label(label).first.click()
    place.get_by_role("option", name=option, exact=True).click()
