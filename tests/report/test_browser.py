"""The demo's report in headless Chromium: no error, no request, in light and dark, wide and narrow."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install playwright")
    if CHROMIUM is None:
        pytest.skip("no Chromium on PATH: apt-get install chromium")
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.mark.parametrize(("scheme", "width"), [("light", 1200), ("dark", 390)])
def test_the_page_opens_without_an_error_or_a_request(
    browser: Any, demo: Path, scheme: str, width: int
) -> None:
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("dialog", lambda dialog: said.append(dialog.message))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(demo.as_uri())
    assert said == []
    assert [url for url in asked if not url.startswith("data:")] == [demo.as_uri()]
    assert page.evaluate("document.documentElement.scrollWidth") <= width  # wide parts scroll in themselves
    assert page.evaluate("[...document.images].every(image => image.naturalWidth > 0)")
    edges = "[...document.querySelectorAll('.heat tbody th')]"
    assert page.evaluate(f"{edges}.every(edge => edge.scrollWidth <= edge.clientWidth)")
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 27)"
    assert dark == (scheme == "dark")

    cells = "[...document.querySelectorAll('[data-share]')].map(cell => cell.textContent + cell.className)"
    last = page.evaluate(cells)
    slider = page.locator("#alpha-epoch")
    slider.fill("1")
    assert page.locator("output").inner_text() == "1 of 3"
    assert page.evaluate(cells) != last
    assert page.locator("td.kept").count() == 16
    slider.fill("3")
    assert [text.split() for text in page.evaluate(cells)] == [text.split() for text in last]
    page.close()
