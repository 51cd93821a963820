"""The page in headless Chromium."""

import json
import os
import shutil
import time

import numpy as np
import pytest
import soundfile
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.keys import Keys

from fairseq_skd import report

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="chromium and chromedriver (Debian: chromium, chromium-driver) are not installed"
)
FLAGS = (
    *("--headless", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--mute-audio", "--autoplay-policy=no-user-gesture-required"),
)


SPIKES = [
    {"start": start, "end": end, "peak": start, "symbol": symbol, "posterior": 0.9, "other": other}
    for start, end, symbol, other in ((10, 25, "T", "same"), (40, 42, "E", "partly"), (70, 71, "N", "elsewhere"))
]


def write_page(runs, folder):
    """Write the page of the runs, but with three seconds of noise and few spikes per utterance.

    The model with random weights has a spike on nearly every frame.
    """
    shutil.copytree(runs, folder / "runs")
    (path,) = (folder / "runs").rglob("align.json")
    found = json.loads(path.read_text())
    noise = np.random.default_rng(0).normal(scale=0.1, size=48000)
    for example in found["examples"]:
        example.update(teacher=SPIKES, student=SPIKES[:2])
        soundfile.write(path.parent / example["audio"], noise, 16000)
    path.write_text(json.dumps(found))
    report.main([str(folder / "runs"), "--out", str(folder / "report.html")])


@pytest.fixture(scope="module")
def browser(runs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("browser")
    write_page(runs, folder)
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={folder / 'profile'}", *(["--no-sandbox"] if os.geteuid() == 0 else [])):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    try:
        driver.set_window_size(1200, 1000)
        driver.get((folder / "report.html").as_uri())
        yield driver
    finally:
        driver.quit()


@pytest.fixture(autouse=True)
def quiet_console(browser):
    """Stop all audio before each test; the console must stay empty after it."""
    browser.execute_script(
        "for (const a of document.querySelectorAll('audio')) { a.pause(); a.currentTime = 0; } window.scrollTo(0, 0)"
    )
    yield
    assert browser.get_log("browser") == []


def wait_for(browser, script, *arguments):
    """Wait up to 20 seconds until ``script`` returns a true value; returns it."""
    ends = time.monotonic() + 20
    while time.monotonic() < ends:
        if found := browser.execute_script(f"return {script}", *arguments):
            return found
        time.sleep(0.02)
    raise AssertionError(f"{script} did not come true")


def test_cells_of_the_tables(browser, runs):
    cells = [cell.text for cell in browser.find_elements("css selector", "td, th")]
    for layer in (4, 2):
        assert f"{json.loads((runs / f'skd/decode-{layer}/summary.json').read_text())['wer']:.2f}" in cells
    rate = json.loads((runs / "skd/align/align.json").read_text())["spike_disagreement"]
    assert f"{100 * rate['value']:.2f}" in cells


def test_a_click_on_a_spike_plays_from_there(browser):
    spike = browser.find_elements("css selector", ".player .spike")[1]
    begins = float(spike.get_attribute("data-from"))
    spike.find_element("css selector", ".hit").click()
    audio = browser.find_element("css selector", ".player audio")
    wait_for(browser, "!arguments[0].paused || arguments[0].ended", audio)
    wait_for(browser, "arguments[0].currentTime > arguments[1] + 0.05", audio, begins)
    assert browser.execute_script("return arguments[0].error", audio) is None


def test_the_cursor_follows(browser):
    audio = browser.find_element("css selector", ".player audio")
    browser.execute_script("arguments[0].currentTime = 0.25", audio)
    moved = "document.querySelector('.player .cursor').getAttribute('transform')"
    assert wait_for(browser, f"{moved} === 'translate(60 0)' && {moved}")  # 240 pixels per second


def test_a_spike_is_highlighted_while_it_plays(browser):
    spike = browser.find_elements("css selector", ".player .spike")[0]
    spike.find_element("css selector", ".hit").click()
    wait_for(browser, "arguments[0].classList.contains('now')", spike)
    wait_for(browser, "!arguments[0].classList.contains('now')", spike)


def test_the_keyboard_moves_and_plays(browser):
    lane = browser.find_elements("css selector", ".player .lane")[0]
    first, second, *_ = lane.find_elements("css selector", ".spike")
    browser.execute_script("arguments[0].focus()", first)
    first.send_keys(Keys.ARROW_RIGHT)
    assert browser.switch_to.active_element == second
    assert [spike.get_attribute("tabindex") for spike in (first, second)] == ["-1", "0"]
    second.send_keys(Keys.ENTER)
    begins = float(second.get_attribute("data-from"))
    wait_for(browser, "document.querySelector('.player audio').currentTime > arguments[0] + 0.02", begins)


def test_a_click_on_the_waveform_plays_from_there(browser):
    wave = browser.find_elements("css selector", ".player .timeline")[1]
    audio = browser.find_elements("css selector", ".player audio")[1]
    place = "const b = arguments[0].getBoundingClientRect(); const at = {clientX: b.left + 48, clientY: b.top + 5};"
    click = "arguments[0].dispatchEvent(new MouseEvent('click', {bubbles: true, ...at}))"
    browser.execute_script(place + click, wave)
    wait_for(browser, "arguments[0].currentTime >= 0.2 && !arguments[0].paused || arguments[0].ended", audio)


def test_only_one_player_plays_at_a_time(browser):
    first, second = browser.find_elements("css selector", ".player")[:2]
    first.find_elements("css selector", ".spike .hit")[0].click()
    wait_for(browser, "!document.querySelectorAll('audio')[0].paused")
    second.find_elements("css selector", ".spike .hit")[0].click()
    wait_for(browser, "!document.querySelectorAll('audio')[1].paused")
    assert browser.execute_script("return document.querySelectorAll('audio')[0].paused")


def test_nothing_is_fetched(browser):
    names = browser.execute_script("return performance.getEntriesByType('resource').map(entry => entry.name)")
    assert all(name.startswith("data:") for name in names)


def test_dark(browser):
    def ground(scheme):
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        return browser.execute_script("return getComputedStyle(document.body).backgroundColor")

    assert ground("dark") == "rgb(20, 23, 27)"
    assert ground("light") == "rgb(255, 255, 255)"


def test_no_table_or_figure_is_wider_than_a_phone(browser):
    """Wider content scrolls inside its own box."""
    browser.set_window_size(500, 900)
    assert browser.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
    browser.set_window_size(1200, 1000)
