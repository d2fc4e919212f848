"""Run by path: takes the pictures of the app that the documentation shows, of the demo's own models.

python tests/hub/screenshot.py outputs/demo docs    (writes app.png and app-text.png)
"""

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from browser import changed, opened, pick, served

MODELS = ("mhex-resnet-fashion-mnist", "mhex-bert-product-reviews")


def main(demo, docs):
    """An image of the shelf and a sentence of the examples, explained."""
    models = [demo / name for name in MODELS]
    with tempfile.TemporaryDirectory() as home, served(models, Path(home)) as address, opened(address) as page:
        pick(page, 1)
        save(page, docs / "app.png")
        page.get_by_role("tab").nth(1).click()
        page.get_by_text("The camera is great, but the battery is poor.").first.click()
        changed(page, "#text-sum", "")
        page.frame_locator("#words iframe").locator("article").wait_for()
        save(page, docs / "app-text.png")


def save(page, path):
    """The top of the page as it stands once its own animations have ended."""
    page.mouse.move(0, 0)
    page.evaluate("window.scrollTo(0, 0)")  # a click may have scrolled
    page.wait_for_timeout(1500)
    page.screenshot(path=path)
    print(path)


main(Path(sys.argv[1]).resolve(), Path(sys.argv[2]))
