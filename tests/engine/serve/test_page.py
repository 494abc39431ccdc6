"""The page in a real browser, with the keyboard alone."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import running
from head_kinds import SINGLE

CHROMIUM = shutil.which("chromium")
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None or DRIVER is None,
    reason="no browser; type: apt-get install chromium chromium-driver",
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    driver.implicitly_wait(20)
    yield driver
    driver.quit()


def shown(browser: Any, table: str) -> list[list[str]]:
    rows = browser.find_elements("css selector", f"#{table} tr")
    return [
        [cell.text for cell in row.find_elements("css selector", "th, td:not(.wide)")]
        for row in rows
    ]


def wait_for(browser: Any, selector: str) -> Any:
    return browser.find_element("css selector", selector)


def test_a_text_is_asked_with_the_keyboard(browser: Any, client: httpx.Client) -> None:
    from selenium.webdriver.common.keys import Keys

    browser.get(str(client.base_url))
    box = browser.switch_to.active_element
    assert box.get_attribute("id") == "text"
    text = "What a lovely film."
    box.clear()
    box.send_keys(text, Keys.CONTROL + Keys.ENTER)
    wait_for(browser, "#results:not([hidden]) #answers tr")
    (answers,) = client.post("/v1/predict", json={"inputs": [text]}).json()["predictions"]
    assert shown(browser, "answers") == [
        [task, answers[task]["label"], f"{100 * answers[task]['probability']:.1f}%"]
        for task in sorted(answers)
    ]
    stages = shown(browser, "stages")
    assert [name for name, _ in stages] == ["tokenize", "queue", "encode", "pack", "heads"]
    assert all(number.endswith(" ms") for _, number in stages)
    features = client.post("/v1/features", json={"inputs": [text]}).json()
    tokens = features["features"][0]["num_tokens"]
    assert shown(browser, "bytes")[0] == ["these codes", str(tokens * features["code_bytes"])]
    assert len(browser.find_elements("css selector", "#stages .track span")) == 5


def rows_of(name: str, answer: dict[str, Any]) -> list[list[str]]:
    """As the page is to show an answer."""

    def percent(share: float) -> str:
        return f"{100 * share:.1f}%"

    if "labels" in answer:
        likely = answer["probabilities"]
        rows = [[name, label, percent(likely[label])] for label in answer["labels"]]
        return rows or [[name, "no label", ""]]
    if "label" not in answer:
        return [[name, "", f"{answer['value']:.4g}"]]
    mean = f" (mean {answer['value']:.4g})" if "value" in answer else ""
    return [[name, answer["label"] + mean, percent(answer["probability"])]]


def test_every_kind_is_shown_and_what_is_not_accepted_is_apart(
    browser: Any, kinds_bundle: Path
) -> None:
    with running(kinds_bundle) as (client, _):
        for text in SINGLE[:6]:
            (answers,) = client.post("/v1/predict", json={"inputs": [text]}).json()["predictions"]
            accepted, refused = (
                [
                    row
                    for name in sorted(answers)
                    if answers[name].get("accepted", True) == wanted
                    for row in rows_of(name, answers[name])
                ]
                for wanted in (True, False)
            )
            browser.get(str(client.base_url))
            box = wait_for(browser, "#text")
            browser.execute_script("arguments[0].value = arguments[1]", box, text)
            wait_for(browser, "#ask").click()
            wait_for(browser, "#results:not([hidden]) #answers tr")
            assert shown(browser, "answers") == accepted
            count = sum(answer.get("accepted", True) for answer in answers.values())
            line = f"{count} of {len(answers)} heads accept this text."
            assert wait_for(browser, "#accepted:not([hidden])").text == line
            others = len(answers) - count
            assert refused
            assert shown(browser, "refused")[0] == ["", "", ""]  # closed
            summary = wait_for(browser, "#others:not([hidden]) summary")
            assert summary.text == f"What the other {others} would say"
            summary.click()
            assert shown(browser, "refused") == refused
            widths = browser.execute_script(
                "return [...document.querySelectorAll('#results tbody .track > span')]"
                ".map((bar) => bar.style.width)"
            )
            assert all(0 <= float(width.removesuffix("%")) <= 100 for width in widths)
        assert browser.get_log("browser") == []


def test_heads_that_cannot_refuse_have_no_line(browser: Any, client: httpx.Client) -> None:
    browser.get(str(client.base_url))
    wait_for(browser, "#ask").click()
    wait_for(browser, "#results:not([hidden]) #answers tr")
    assert not browser.find_element("id", "accepted").is_displayed()
    assert not browser.find_element("id", "others").is_displayed()


def test_a_pair_by_tab_and_button(browser: Any, client: httpx.Client) -> None:
    from selenium.webdriver.common.keys import Keys

    browser.get(str(client.base_url))
    browser.switch_to.active_element.send_keys(Keys.TAB)
    pair = browser.switch_to.active_element
    assert pair.get_attribute("id") == "pair"
    pair.send_keys("Nobody is smoking.", Keys.TAB)
    button = browser.switch_to.active_element
    assert button.get_attribute("id") == "ask"
    button.send_keys(Keys.ENTER)
    wait_for(browser, "#results:not([hidden]) #answers tr")
    assert [row[0] for row in shown(browser, "answers")] == ["same"]


def test_nothing_is_fetched_from_elsewhere(browser: Any, client: httpx.Client) -> None:
    browser.get(str(client.base_url))
    assert wait_for(browser, "#about").text
    found = browser.execute_script(
        "return performance.getEntriesByType('resource').map((entry) => entry.name)"
    )
    assert found
    assert all(name.startswith(str(client.base_url)) for name in found)
    assert browser.get_log("browser") == []


def test_markup_is_shown_not_run(browser: Any, client: httpx.Client) -> None:
    browser.get(str(client.base_url))
    box = wait_for(browser, "#text")
    box.clear()
    box.send_keys("<img src=x onerror=\"document.title='run'\">")
    wait_for(browser, "#ask").click()
    wait_for(browser, "#results:not([hidden]) #answers tr")
    assert browser.title == "bitheads"


def test_errors_are_shown_and_a_key_asked_for(browser: Any, head_bundle: Path) -> None:
    key = "an-api-key-of-the-tests"
    with running(head_bundle, api_keys=(key,)) as (client, _):
        browser.get(str(client.base_url))
        field = wait_for(browser, "#key-row:not([hidden]) #key")
        assert "No valid key" in wait_for(browser, "#error").text
        field.send_keys(key)
        wait_for(browser, "#ask").click()
        wait_for(browser, "#results:not([hidden]) #answers tr")
        assert wait_for(browser, "#error").text == ""
