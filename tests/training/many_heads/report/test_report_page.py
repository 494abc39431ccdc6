"""The report: what is in it, what nobody can put into it, and how a browser shows it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bitheads.training.many_heads.cells import Result
from bitheads.training.many_heads.report.page import make_page
from bitheads.training.many_heads.report.task_report import TaskReport

CHROMIUM = shutil.which("chromium")
DRIVER = shutil.which("chromedriver")
HOSTILE = '</style></svg><script>document.title = "owned"</script><img src=x onerror=alert(1)>'
LABELS = [f"a {HOSTILE}", "$x_1$ & \N{SNOWMAN}", "plain"]
RANDOM = np.random.default_rng(0)


def task(name: str, kind: str, size: int = 200) -> TaskReport:
    """One whose head is right about two times in three."""
    is_right = RANDOM.random(size) < 0.67
    arrays: dict[str, Any] = {}
    labels = LABELS
    if kind == "multi_label":
        truth = RANDOM.random((size, 3)) < 0.4
        arrays["answers"] = truth ^ ~is_right[:, None]
        arrays["probabilities"] = RANDOM.random((size, 3)).astype(np.float32)
    elif kind == "token_label":
        truth = np.array([(row, 0, 4, row % 3) for row in range(size)])
        answers = truth.copy()
        answers[~is_right, 2] = 5
        arrays |= {"answers": answers, "probabilities": RANDOM.random(size).astype(np.float32)}
    elif kind == "regression":
        truth, labels = RANDOM.random(size).astype(np.float32), []
        arrays["answers"] = truth + RANDOM.normal(0, 0.3, size).astype(np.float32)
    else:
        truth = RANDOM.integers(0, 3, size)
        best = np.where(is_right, truth, (truth + 1) % 3)
        probabilities = RANDOM.dirichlet([1, 1, 1], size).astype(np.float32)
        arrays |= {"best": best, "probabilities": probabilities}
        arrays["answers"] = best.astype(np.float32) if kind == "ordinal" else best
    arrays["truth"] = truth
    mistake = {"text": [HOSTILE, "two"], "row": 0, "answer": LABELS[0], "truth": LABELS[1]}
    values = {
        "kind": kind,
        "form": "pair",
        "labels": labels,
        "metrics": {"test_accuracy": 0.67, "dev_accuracy": 0.7, f"test_span_f1/{HOSTILE}": 1.0},
        "judged": "test",
        "num_judged": size,
        "num_learned": 400,
        "rows": {"train": 400, "test": size},
        "mistakes": [{**mistake, "sure": 0.99}],
        "nbytes": 1_200_000,
    }
    curve = tuple(Result({"size": n, "head": 0.5 + n / 2000, "linear": 0.6}) for n in (16, 64, 256))
    other = arrays["truth"] if kind != "regression" else arrays["truth"] + 0
    return TaskReport(
        name, Result(values, arrays), {"linear": Result({}, {"answers": other})}, curve, 12.34
    )


KINDS = ("single_label", "multi_label", "ordinal", "regression", "token_label")


@pytest.fixture(scope="module")
def page() -> str:
    tasks = [task(f"of-{kind}", kind) for kind in KINDS]
    failed = TaskReport("broken", failures={"reading": f"{HOSTILE}: cannot be read"})
    about = {"bundle": HOSTILE}
    return make_page(f"Heads of {HOSTILE}", about, [f"Note {HOSTILE}"], [*tasks, failed])


class _Elements(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        for name, value in attributes:
            assert not name.startswith("on"), (tag, name)
            if name == "id":
                self.ids.append(value or "")
            if name in ("href", "src", "xlink:href"):
                self.links.append(value or "")


def test_it_needs_nothing_else(page: str) -> None:
    found = _Elements()
    found.feed(page)
    assert not {"script", "img", "link", "iframe", "object"} & set(found.names)
    assert len(found.ids) == len(set(found.ids))
    assert all(link.startswith(("#", "data:image/png")) for link in found.links)
    anchors = {link[1:] for link in found.links if link.startswith("#")}
    used = set(re.findall(r"url\(#([^)]*)\)", page))
    assert anchors | used <= set(found.ids)
    # Confusion, reliability and precision of four kinds, one scatter, five curves, the overview.
    assert found.names.count("figure") == 4 * 3 + 1 + 5 + 1


def test_the_same_results_make_the_same_page() -> None:
    one = task("one", "single_label")
    assert make_page("Heads", {}, [], [one]) == make_page("Heads", {}, [], [one])


def test_a_number_in_each_column(page: str) -> None:
    (row,) = re.findall(r"<tr>(?:(?!</tr>).)*of-single_label(?:(?!</tr>).)*</tr>", page)
    text = re.sub(r"<[^>]*>", "|", row)
    for shown in ("accuracy", "100.0", "400", "200 texts", "12.3", "1.20", "3 labels, pairs"):
        assert shown in text, shown
    assert "the head is worse, and not by chance" in row


def test_tasks_without_a_head_and_without_tasks() -> None:
    failed = TaskReport("broken", failures={"head": "the loss is nan"})
    shown = make_page("Heads", {}, [], [failed])
    assert "failed, see below" in shown
    assert "head failed: the loss is nan" in shown


def test_many_labels() -> None:
    """Beyond what a plot can name."""
    some = task("many", "single_label", 500)
    assert some.head is not None
    labels = [f"label {i}" for i in range(150)]
    truth = RANDOM.integers(0, 150, 500)
    probabilities = RANDOM.dirichlet(np.ones(150), 500).astype(np.float32)
    best = np.where(RANDOM.random(500) < 0.5, truth, 3)
    arrays = {"answers": best, "best": best, "truth": truth, "probabilities": probabilities}
    head = Result({**some.head.values, "labels": labels}, arrays)
    shown = make_page("Heads", {}, [], [TaskReport("many", head)])
    assert "Most often confused: label" in shown
    assert "the 6 most frequent of 150 labels" in shown


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("no browser; type: apt-get install chromium chromium-driver")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


SHADES = """
const colour = (element, name) => getComputedStyle(element)[name].match(/[0-9.]+/g).map(Number);
const light = rgb => (rgb[0] + rgb[1] + rgb[2]) / 765;
const texts = [...document.querySelectorAll('svg text')];
return {
  page: light(colour(document.body, 'backgroundColor')),
  texts: texts.map(text => light(colour(text, 'fill'))),
  sizes: texts.map(text => text.getBoundingClientRect().height),
  figures: [...document.querySelectorAll('figure svg')].map(svg => {
    const box = svg.getBoundingClientRect();
    return [box.width, box.height];
  }),
  wide: document.documentElement.scrollWidth,
  inner: innerWidth,
  title: document.title,
};
"""


@pytest.mark.parametrize("shade", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_in_a_browser(browser: Any, page: str, tmp_path: Path, shade: str, width: int) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    path = tmp_path / "report.html"
    path.write_text(page, encoding="utf-8")
    metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    media = {"features": [{"name": "prefers-color-scheme", "value": shade}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    browser.get(path.as_uri())
    wait = WebDriverWait(browser, 120)  # a slow machine may be at half of the page when `get` ends
    wait.until(lambda _: browser.execute_script("return document.readyState") == "complete")
    found = browser.execute_script(SHADES)
    assert browser.get_log("browser") == []
    requests = [
        entry["message"]
        for entry in browser.get_log("performance")
        if '"Network.requestWillBeSent"' in entry["message"]
        and path.as_uri() not in entry["message"]
    ]
    assert all('"url":"data:' in request for request in requests), requests
    assert found["title"].endswith(HOSTILE)  # as it was, not as a script would have made it
    assert (found["page"] < 0.3) == (shade == "dark")
    assert all((light > 0.6) == (shade == "dark") for light in found["texts"])
    assert found["wide"] <= found["inner"]  # tables are scrolled, not the page
    assert len(found["figures"]) == 19
    assert all(wide > 150 and high > 100 for wide, high in found["figures"])
    assert min(found["sizes"]) >= 7  # pixels
