"""The page in a real browser: pointer, keys, phone, dark mode, names, and without a server."""

import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from aevb.explore.explorer import Explorer
from aevb.explore.export import export
from aevb.explore.jobs import Worker
from aevb.explore.server import application

pytest.importorskip("playwright")
pytest.importorskip("uvicorn")
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium"),
]

Open = Callable[..., Any]


@pytest.fixture(scope="module", name="worker")
def fixture_worker() -> Iterator[Worker]:
    """The thread that computes."""
    worker = Worker()
    yield worker
    worker.close(wait=False)


@pytest.fixture(scope="module", name="address")
def fixture_address(explorer: Explorer, worker: Worker) -> Iterator[str]:
    """The explorer served from another thread."""
    import uvicorn

    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        settings = uvicorn.Config(application(explorer, worker, "token"), log_level="error")
        server = uvicorn.Server(settings)
        thread = threading.Thread(target=lambda: server.run(sockets=[listening]))
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/token/"
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module", name="exported")
def fixture_exported(explorer: Explorer, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An address of the explorer as files."""
    folder = tmp_path_factory.mktemp("export")
    export(explorer, folder, posteriors=1)
    return (folder / "index.html").as_uri()


@pytest.fixture(scope="module", name="browser")
def fixture_browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        yield browser
        browser.close()


@pytest.fixture(name="open_page")
def fixture_open_page(browser: Any, worker: Worker) -> Iterator[Open]:
    """Open an address; the test fails if the page reports an error or asks anybody else."""
    contexts, complaints = [], []

    def open_page(address: str, width: int = 1200, **options: Any) -> Any:
        contexts.append(
            browser.new_context(
                viewport={"width": width, "height": 900}, reduced_motion="reduce", **options
            )
        )
        page = contexts[-1].new_page()
        page.set_default_timeout(60_000)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda m: m.type == "error" and complaints.append(m.text))
        home = address.rsplit("/", 1)[0]
        page.on(
            "request",
            lambda r: r.url.startswith((home, "data:")) or complaints.append(f"asked {r.url}"),
        )
        page.goto(address)
        page.wait_for_selector("html.ready")
        return page

    yield open_page
    for context in contexts:
        context.close()
    worker.call(lambda: None).result(60)  # what was asked last holds switches while it computes
    assert [text for text in complaints if "ERR_INTERNET_DISCONNECTED" not in text] == []


def until(page: Any, condition: str) -> None:
    """Wait for what the page's own policy would not let Playwright wait for."""
    end = time.monotonic() + 30
    while not page.evaluate(condition):
        assert time.monotonic() < end, condition
        page.wait_for_timeout(20)


def at(page: Any, index: int) -> dict[str, float]:
    """Where a datapoint lies within the map."""
    x, y = page.evaluate(f"Aevb.page.map.point({index})")
    return {"x": x, "y": y}


def lonely(page: Any) -> int:
    """A datapoint that no other lies near on the screen."""
    found: int = page.evaluate(
        """() => { const map = Aevb.page.map, all = map.order.map((i) => map.point(i));
        const near = all.map(([x, y], i) => Math.min(...all.map(([a, b], j) =>
          i === j || x < 200 ? (x < 200 ? 0 : 1e9) : Math.hypot(a - x, b - y))));
        return near.indexOf(Math.max(...near)); }"""
    )
    return found


def painted(page: Any, selector: str) -> bool:
    """Whether a canvas shows anything."""
    found: bool = page.evaluate(
        """(selector) => { const c = document.querySelector(selector);
        const { data } = c.getContext("2d").getImageData(0, 0, c.width, c.height);
        return data.some((v) => v > 0); }""",
        selector,
    )
    return found


def test_a_click_opens_a_datapoint_and_its_trial(address: str, open_page: Open) -> None:
    page = open_page(address)
    assert painted(page, "#map")
    index = lonely(page)
    page.locator("#map").click(position=at(page, index))
    page.wait_for_selector("#posterior")
    assert f"Datapoint {index}" in page.inner_text("#datapoint-title")
    assert page.locator("#datapoint figure canvas").count() == 8  # data, mean and six draws
    page.click("#judge")
    page.wait_for_selector(".verdict ul")
    level = page.get_attribute(".verdict", "class").split()[-1]
    assert level in ("believe", "reweigh", "refuse", "unknown")
    assert {"ELBO", "importance sampling", "annealing"} <= set(
        page.locator("#datapoint th").evaluate_all("all => all.map((e) => e.firstChild.data)")
    )
    assert page.evaluate("Aevb.page.map.overlay.draws.length") == 200
    assert "draws of the chains" in page.get_attribute("#posterior", "aria-label")


def test_a_dragged_slider_decodes_another_picture(address: str, open_page: Open) -> None:
    page = open_page(address)
    page.wait_for_selector("#decoded[data-at]")
    before, shown = (
        page.get_attribute("#decoded", "data-at"),
        page.locator("#decoded").screenshot(),
    )
    box = page.locator("#latent-0").bounding_box()
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] / 2, middle)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] - 2, middle, steps=8)
    page.mouse.up()
    high = page.evaluate("Aevb.page.overview.latents[0].high")
    now = "Number(document.querySelector('#decoded').dataset.at.split(' ')[0])"
    until(page, f"Math.abs({now} - {high}) < {high} / 10")
    assert page.get_attribute("#decoded", "data-at") != before
    assert page.locator("#decoded").screenshot() != shown
    page.locator("#latent-1").focus()
    value = float(page.input_value("#latent-1"))
    page.keyboard.press("ArrowRight")
    assert float(page.input_value("#latent-1")) > value


def test_a_dragged_region_is_sampled_from(address: str, open_page: Open) -> None:
    page = open_page(address)
    page.click("#brush")
    box = page.locator("#map").bounding_box()
    page.mouse.move(box["x"] + 0.3 * box["width"], box["y"] + 0.3 * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + 0.7 * box["width"], box["y"] + 0.7 * box["height"], steps=5)
    page.mouse.up()
    page.check("input[value=posteriors]")
    page.wait_for_selector("#region-samples canvas")
    until(page, "document.querySelector('#region-note').textContent.includes('datapoints lie')")
    assert page.locator("#region-samples canvas").count() == 24
    left, right, *_ = page.evaluate("Aevb.page.map.region")
    assert left < right
    page.click("#again")


def test_all_datapoints_are_weighed_and_sorted(address: str, open_page: Open) -> None:
    page = open_page(address)
    page.select_option("#colour", "khat")  # which begins it
    page.wait_for_selector("#worst-list button")
    page.wait_for_selector("#weigh", state="hidden")
    gaps = [
        float(t.replace("−", "-")) for t in page.locator("#worst-list button").all_inner_texts()
    ]
    assert gaps == sorted(gaps, reverse=True)
    assert "importance sampling fails" in page.inner_text("#legend")
    page.locator("#worst-list button").first.click()
    page.wait_for_selector("#posterior")
    assert page.locator("#worst-list [aria-current=true]").count() == 1
    page.select_option("#order", "ess")
    page.select_option("#axis-x", "1")
    assert page.get_attribute("#map", "aria-label").endswith("coloured by k̂")


def test_the_map_is_operated_by_keys_alone(address: str, open_page: Open) -> None:
    page = open_page(address)
    for _ in range(12):  # reached by Tab
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "map":
            break
    assert page.evaluate("document.activeElement.id") == "map"
    page.keyboard.press("ArrowRight")
    first = page.evaluate("Aevb.page.map.focus")
    page.keyboard.press("ArrowLeft")
    second = page.evaluate("Aevb.page.map.focus")
    assert first != second
    assert at(page, second)["x"] < at(page, first)["x"]
    assert f"Datapoint {second}" in page.inner_text("#status")
    page.keyboard.press("Enter")
    page.wait_for_selector("#posterior")
    assert page.evaluate("Aevb.page.map.selected") == second
    width = "Aevb.page.map.view.x[1] - Aevb.page.map.view.x[0]"
    whole = page.evaluate(width)
    page.keyboard.press("+")
    assert page.evaluate(width) < whole
    page.keyboard.press("0")
    assert page.evaluate(width) == pytest.approx(whole)
    page.keyboard.press("r")
    before = page.evaluate("Aevb.page.map.region")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Shift+ArrowRight")
    after = page.evaluate("Aevb.page.map.region")
    assert after[2] > before[2]
    assert after[1] > before[1]
    page.keyboard.press("Enter")
    page.wait_for_selector("#region-samples canvas")
    page.keyboard.press("Escape")
    assert page.evaluate("Aevb.page.map.region") is None


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_all_of_it(address: str, open_page: Open, scheme: str) -> None:
    page = open_page(address, width=390, color_scheme=scheme, has_touch=True, is_mobile=True)
    index = lonely(page)
    page.evaluate("document.querySelector('#map').scrollIntoView()")
    box = page.locator("#map").bounding_box()
    place = at(page, index)
    page.touchscreen.tap(box["x"] + place["x"], box["y"] + place["y"])
    page.wait_for_selector("#posterior")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    small = page.evaluate(
        """[...document.querySelectorAll("button, select")].filter((e) => e.offsetParent &&
        e.getBoundingClientRect().height < 28).map((e) => e.id || e.textContent)"""
    )
    assert small == []
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    light = sum(map(int, background.strip("rgb()").split(","))) > 3 * 128
    assert light == (scheme == "light")


def contrast(page: Any, selector: str) -> float:
    """Of text against the first opaque ground behind it, as WCAG 2 defines it."""
    found: float = page.evaluate(
        """(selector) => { const parse = (c) => c.match(/[\\d.]+/g).map(Number);
        const light = (c) => { const [r, g, b] = parse(c).map((v) => { v /= 255;
          return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; });
          return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
        const e = document.querySelector(selector);
        const back = (at) => getComputedStyle(at).backgroundColor;
        let ground = e;
        while (parse(back(ground))[3] === 0) ground = ground.parentElement;
        const [a, b] = [light(getComputedStyle(e).color), light(back(ground))];
        return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05); }""",
        selector,
    )
    return found


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everything_has_a_name_and_can_be_read(address: str, open_page: Open, scheme: str) -> None:
    page = open_page(address, color_scheme=scheme)
    page.evaluate("Aevb.page.pick(3)")
    page.wait_for_selector("#judge")
    nameless = page.evaluate(
        """[...document.querySelectorAll("button, select, input, canvas, [role=img], progress")]
        .filter((e) => e.getAttribute("role") !== "presentation" && !e.closest("[hidden]") &&
          !(e.getAttribute("aria-label") || e.textContent.trim() || (e.labels && e.labels.length &&
            e.labels[0].textContent.trim()))).map((e) => e.outerHTML)"""
    )
    assert nameless == []
    tree = page.locator("body").aria_snapshot()
    for name in ("Zoom in", "Map of 40 datapoints", "Datapoint 3", "Select a region", "z[0]"):
        assert name in tree
    assert page.locator("main section[aria-labelledby]").count() == 5
    assert page.get_attribute("html", "lang") == "en"
    assert page.locator("#status").get_attribute("aria-live") == "polite"
    for selector in ("#about", "#judge", "#map-help", "#slider-note", ".verdict p", "select"):
        assert contrast(page, selector) >= 4.5, selector
    page.emulate_media(color_scheme="light" if scheme == "dark" else "dark")
    for selector in ("#about", "#judge", "select"):
        assert contrast(page, selector) >= 4.5, selector


def test_an_export_opens_without_a_server(exported: str, open_page: Open) -> None:
    page = open_page(exported)
    assert exported.startswith("file://")
    button = page.locator("#worst-list button").first
    button.click()
    page.wait_for_selector(".verdict ul")  # of the one posterior that is in it
    page.locator("#worst-list button").nth(3).click()
    until(page, "document.querySelector('.verdict').textContent.includes('in this export')")
    before = page.locator("#decoded").screenshot()
    page.locator("#latent-0").focus()
    for _ in range(3):
        page.keyboard.press("PageUp")
    page.wait_for_timeout(200)
    assert page.locator("#decoded").screenshot() != before
    page.locator("#map").focus()
    page.keyboard.press("r")
    page.keyboard.press("Enter")
    page.wait_for_selector("#region-samples canvas")
    page.check("#plane")
    page.check("#as-pictures")
    assert page.is_hidden("#region [role=radiogroup]")


def test_a_server_that_has_ended_is_said_to_have(address: str, open_page: Open) -> None:
    page = open_page(address)
    page.context.set_offline(True)
    page.evaluate(
        "Aevb.page.source.decode([0, 0]).catch((error) => { window.said = error.message; })"
    )
    until(page, "window.said")
    assert "still running" in page.evaluate("window.said")
