"""The page in a real browser, with the keyboard alone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from conftest import ADMIN_KEY, running
from head_kinds import SINGLE
from random_heads import random_span_head

from bitheads.engine.heads.head_file import write_head

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


def percent(share: float) -> str:
    return f"{100 * share:.1f}%"


def short(value: float) -> str:
    """Four digits, as JavaScript writes a number: with an exponent only below a millionth, and that
    without a leading zero."""
    if 0 < abs(value) < 1e-6:
        return f"{value:.4g}".replace("e-0", "e-")
    return np.format_float_positional(float(f"{value:.4g}") + 0.0, trim="-")


def rows_of(name: str, answer: dict[str, Any], text: str) -> list[list[str]]:
    """As the page is to show an answer."""
    if "spans" in answer:
        shown, end = "", 0
        for span in answer["spans"]:
            shown += f"{text[end : span['end']]} {span['label']} {percent(span['probability'])}"
            end = span["end"]
        return [[name, shown + text[end:]]] if answer["spans"] else [[name, "no spans", ""]]
    if "labels" in answer:
        likely = answer["probabilities"]
        rows = [[name, label, percent(likely[label])] for label in answer["labels"]]
        return rows or [[name, "no label", ""]]
    if "label" not in answer:
        return [[name, "", short(answer["value"])]]
    mean = f" (mean {short(answer['value'])})" if "value" in answer else ""
    return [[name, answer["label"] + mean, percent(answer["probability"])]]


def test_every_kind_is_shown_and_what_is_not_accepted_is_apart(
    browser: Any, kinds_bundle: Path
) -> None:
    num_refused = 0
    with running(kinds_bundle) as (client, _):
        for text in SINGLE[:6]:
            (answers,) = client.post("/v1/predict", json={"inputs": [text]}).json()["predictions"]
            accepted, refused = (
                [
                    row
                    for name in sorted(answers)
                    if answers[name].get("accepted", True) == wanted
                    for row in rows_of(name, answers[name], text)
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
            num_refused += others
            if not others:
                assert not browser.find_elements("css selector", "#others:not([hidden])")
                continue
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
        assert num_refused > 0
        assert browser.get_log("browser") == []


def test_the_description_asks_nobody_else(browser: Any, client: httpx.Client) -> None:
    browser.get(f"{client.base_url}/docs")
    wait_for(browser, ".opblock")
    paths = {block.text for block in browser.find_elements("css selector", ".opblock-summary-path")}
    assert {"/v1/predict", "/v1/features", "/health/live"} <= {
        path.replace("\u200b", "") for path in paths
    }
    asked = browser.execute_script("return performance.getEntries().map((one) => one.name)")
    asked = [url for url in asked if "://" in url]
    assert len(asked) >= 4
    assert all(url.startswith(str(client.base_url)) for url in asked)
    assert browser.get_log("browser") == []


MARKED = """
return [...document.querySelectorAll("td.spans")].map((cell) => {
  const marks = [...cell.querySelectorAll("mark")];
  const shown = marks.map((mark) => [mark.firstChild.textContent, mark.lastChild.textContent]);
  marks.forEach((mark) => mark.lastChild.remove());
  const unread = cell.querySelector("span.soft");
  return [cell.textContent, shown, unread ? unread.textContent : null];
})
"""


def test_spans_are_marked(browser: Any, kinds_bundle: Path, tmp_path: Path) -> None:
    """Whatever stands before them, markup is text, and what was not read is told apart."""
    texts = [
        "😀😀 Otto Hahn, 👩‍🔬 of Göttingen\U00020000\n  met Lise.",
        "<img src=x onerror=\"document.title='run'\"> <b>Otto</b> &amp; Lise",
        "Otto 😀 Hahn " * 40 + "ends",
        "Otto Hahn",
    ]
    with running(kinds_bundle) as (client, server):
        head = random_span_head(server.engine.spec, labels=("<i>PERSON</i>", "😀"))
        write_head(head, tmp_path / "names.safetensors")
        client.put(
            "/v1/tasks/names",
            content=(tmp_path / "names.safetensors").read_bytes(),
            headers={"authorization": f"Bearer {ADMIN_KEY}"},
        )
        for text in texts:
            body = json.dumps({"inputs": [text]})
            (answers,) = client.post("/v1/predict", content=body).json()["predictions"]
            wanted = []
            for name in sorted(answers):
                spans, at = answers[name].get("spans", []), answers[name].get("truncated_at")
                assert name != "names" or spans
                if spans:
                    marks = [
                        [
                            text[span["start"] : span["end"]],
                            f" {span['label']} {percent(span['probability'])}",
                        ]
                        for span in spans
                    ]
                    wanted.append([text, marks, None if at is None else text[at:]])
            browser.get(str(client.base_url))
            box = wait_for(browser, "#text")
            script = f"arguments[0].value = {json.dumps(text)}"
            browser.execute_script(script, box)
            wait_for(browser, "#ask").click()
            wait_for(browser, "#results:not([hidden]) #answers tr")
            assert browser.execute_script(MARKED) == wanted
            assert browser.title == "bitheads"
            assert (wanted[0][2] is not None) == (text.endswith("ends"))
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
