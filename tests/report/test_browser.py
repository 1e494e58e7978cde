"""The report in headless Chromium, light and dark, wide and narrow: no error, no request."""

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
def test_the_page_loads_without_errors_or_requests(browser: Any, demo: Path, scheme: str, width: int) -> None:
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    messages: list[str] = []
    requests: list[str] = []
    page.on("console", lambda message: messages.append(message.text))
    page.on("pageerror", lambda error: messages.append(str(error)))
    page.on("dialog", lambda dialog: messages.append(dialog.message))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(demo.as_uri())
    assert messages == []
    assert [url for url in requests if not url.startswith("data:")] == [demo.as_uri()]
    assert (
        page.evaluate("document.documentElement.scrollWidth") <= width
    )  # wide sections have their own scroll bars
    assert page.evaluate("[...document.images].every(image => image.naturalWidth > 0)")
    headings = "[...document.querySelectorAll('.heat-maps tbody th')]"
    assert page.evaluate(f"{headings}.every(heading => heading.scrollWidth <= heading.clientWidth)")
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 27)"
    assert dark == (scheme == "dark")

    entries = (
        "[...document.querySelectorAll('[data-weight]')].map(entry => entry.textContent + entry.className)"
    )
    last = page.evaluate(entries)
    slider = page.locator("#alpha-epoch")
    slider.fill("1")
    assert page.locator("output").inner_text() == "1 of 3"
    assert page.evaluate(entries) != last
    assert page.locator("td.kept").count() == 16
    slider.fill("3")
    assert [text.split() for text in page.evaluate(entries)] == [text.split() for text in last]
    page.close()
