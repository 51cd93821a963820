"""The page of ``--format web`` in headless Chromium, from Python's own file server."""

import functools
import http.server
import json
import os
import shutil
import threading
import time
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import soundfile
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.keys import Keys

import fairseq_skd
from fairseq_skd.exporting import web
from fairseq_skd.exporting.decode import text_of

ROOT = Path(__file__).resolve().parents[2]
GOLDENS = ROOT / "tests" / "goldens"
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
PACKAGE = Path(os.environ.get("ONNXRUNTIME_WEB") or ROOT / "node_modules" / "onnxruntime-web")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (CHROMIUM and DRIVER),
        reason="chromium and chromedriver (Debian: chromium, chromium-driver) are not installed",
    ),
    pytest.mark.skipif(
        not PACKAGE.is_dir(),
        reason="onnxruntime-web is not there: npm install onnxruntime-web in the checkout, or set ONNXRUNTIME_WEB to "
        "the folder of the unpacked package",
    ),
]
FLAGS = (
    *("--headless", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--mute-audio", "--autoplay-policy=no-user-gesture-required"),
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # no other host, not even for the worker
    *("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"),  # a microphone that beeps
)
IDLE = "document.body.getAttribute('aria-busy') === 'false' && document.getElementById('record').textContent"


class _Server(http.server.SimpleHTTPRequestHandler):
    asked: list[str]

    def log_message(self, *_: object) -> None:
        self.asked.append(self.path)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The folder, with teacher and student."""
    folder = tmp_path_factory.mktemp("page")
    teacher, student = (fairseq_skd.load(GOLDENS / "hubert.pt", exits=(layer,), device="cpu") for layer in (4, 2))
    web.check_runtime(PACKAGE)
    web.write(student, folder, PACKAGE, beside=[teacher])
    return folder


@pytest.fixture(scope="module")
def browser(page, tmp_path_factory):
    """Chromium on the page, when its models are loaded."""
    handler = type("Handler", (_Server,), {"asked": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=str(page)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    profile = tmp_path_factory.mktemp("profile")
    for flag in (*FLAGS, f"--user-data-dir={profile}", *(["--no-sandbox"] if os.geteuid() == 0 else [])):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    try:
        driver.get("about:blank")
        driver.get_log("performance")  # the browser's own first page
        driver.asked, driver.server = handler.asked, f"http://127.0.0.1:{server.server_address[1]}/"
        driver.get(driver.server)
        wait_for(driver, IDLE)
        yield driver
    finally:
        driver.quit()
        server.shutdown()
        server.server_close()


@pytest.fixture(autouse=True)
def quiet_console(browser):
    yield
    assert browser.get_log("browser") == []


def wait_for(browser, script, *arguments):
    """Wait up to 30 seconds until ``script`` returns a true value; returns it."""
    ends = time.monotonic() + 30
    while time.monotonic() < ends:
        if found := browser.execute_script(f"return {script}", *arguments):
            return found
        time.sleep(0.02)
    raise AssertionError(f"{script} did not come true: {browser.execute_script('return document.body.innerText')}")


def read(browser, selector):
    """Texts of elements, with all their spaces."""
    return browser.execute_script(
        "return [...document.querySelectorAll(arguments[0])].map(one => one.textContent)", selector
    )


def choose(browser, path):
    """Give the page a file; returns the sentence of an error, or an empty text."""
    browser.execute_script("for (const id of ['status', 'error']) document.getElementById(id).textContent = ''")
    browser.find_element("css selector", "#file").send_keys(str(path))
    wait_for(browser, f"{IDLE} && (arguments[0].textContent || arguments[1].textContent)", *map(by_id(browser), NOTES))
    return browser.find_element("css selector", "#error").text


NOTES = ("status", "error")


def by_id(browser):
    return lambda name: browser.find_element("id", name)


@pytest.fixture(scope="module")
def sessions(page):
    """The int8 models in Python, in the page's order."""
    exits = json.loads((page / "models.json").read_text(encoding="utf-8"))["exits"]
    return [onnxruntime.InferenceSession(page / one["file"], providers=["CPUExecutionProvider"]) for one in exits]


@pytest.fixture(scope="module")
def rec():
    return fairseq_skd.load(GOLDENS / "hubert.pt", exits=(4, 2), device="cpu")


@pytest.mark.parametrize("name", ["test0", "test1", "test2"])
def test_the_text_is_that_of_python(browser, sessions, rec, name):
    """Both of onnxruntime on the same int8 file, and of the checkpoint in float32."""
    path = GOLDENS / "corpus" / f"{name}.flac"
    assert choose(browser, path) == ""
    texts = read(browser, "#texts .words")
    audio = soundfile.read(path, dtype="float32")[0]
    for text, session, layer in zip(texts, sessions, rec.exits, strict=True):
        log_probs, frames = session.run(None, {"x": audio[None], "lengths": np.array([len(audio)])})
        assert text == text_of(log_probs[0, : frames[0]], rec.symbols, "letter")
        assert text == rec.transcribe([path], exit_layer=layer)[0].text


def test_other_rates_and_channels(browser, tmp_path):
    """48 kHz and two channels: the same second, the same number of frames."""
    path = tmp_path / "stereo.wav"
    soundfile.write(path, np.random.default_rng(0).normal(scale=0.05, size=(48000, 2)), 48000, subtype="PCM_16")
    assert choose(browser, path) == ""
    assert read(browser, "#name") == ["stereo.wav, 1.0 s"]


@pytest.mark.parametrize(
    ("name", "subtype", "channels"),
    [
        ("a.wav", "PCM_16", 1),
        ("a.flac", "PCM_16", 1),
        ("a.wav", "PCM_16", 2),
        ("a.wav", "FLOAT", 1),
        ("a.wav", "PCM_24", 1),
    ],
)
def test_audio_at_the_models_rate_is_read_exactly(browser, tmp_path, name, subtype, channels):
    """Chromium divides 16-bit samples above zero by 32767, libsndfile by 32768."""
    numbers = np.random.default_rng(1).integers(-32768, 32768, (1000, channels), dtype=np.int16)
    numbers[:2] = [[-32768], [32767]]
    path = tmp_path / name
    soundfile.write(path, numbers if subtype == "PCM_16" else numbers / 40000, 16000, subtype=subtype)
    decode = (
        "const done = arguments[1]; import('/audio.js')"
        ".then(audio => audio.decode(new Blob([Uint8Array.from(arguments[0])]), 16000, 'a'))"
        ".then(samples => done([...samples]), error => done(error.message))"
    )
    found = np.array(browser.execute_async_script(decode, list(path.read_bytes())))
    wanted = soundfile.read(path, dtype="float32", always_2d=True)[0].mean(axis=1)
    assert np.array_equal(found, wanted)


def test_spikes_and_words(browser):
    choose(browser, GOLDENS / "corpus" / "test0.flac")
    lanes = [
        browser.execute_script(
            "return [...arguments[0].querySelectorAll('.spike text')].map(one => one.textContent)", lane
        )
        for lane in browser.find_elements("css selector", ".lane")
    ]
    texts = read(browser, "#texts .words")
    assert ["".join(lane).replace("␣", " ").strip() for lane in lanes] == texts
    words = read(browser, "#words .word")
    assert [word.split()[0] for word in words] == " ".join(texts).split()
    labels = [one.get_attribute("aria-label") for one in browser.find_elements("css selector", ".spike")]
    assert all(" s, posterior 0." in label or " s, posterior 1.00" in label for label in labels)
    assert all("; the student of 2 layers " in label or "; the teacher " in label for label in labels)


def test_the_keyboard_moves_and_plays(browser):
    choose(browser, GOLDENS / "corpus" / "test1.flac")
    first, second, *_ = browser.find_elements("css selector", ".spike")
    browser.execute_script("arguments[0].focus()", first)
    first.send_keys(Keys.ARROW_RIGHT)
    assert browser.switch_to.active_element == second
    second.send_keys(Keys.ENTER)
    begins = float(second.get_attribute("data-from"))
    wait_for(browser, "document.getElementById('audio').currentTime > arguments[0] + 0.02", begins)
    browser.execute_script("document.getElementById('audio').pause()")


@pytest.mark.parametrize(
    ("name", "seconds", "sentence"),
    [
        ("short.wav", 0.02, "short.wav has 0.020 s, the model needs 0.025 s: choose longer audio."),
        ("long.wav", 31, "long.wav has 31.0 s, this page takes up to 30 s: cut it, or use"),
        ("broken.wav", None, "broken.wav cannot be decoded by this browser: convert it"),
        ("empty.wav", 0, "empty.wav is empty: choose another file."),
    ],
)
def test_a_mistake_is_told_in_a_sentence(browser, tmp_path, name, seconds, sentence):
    path = tmp_path / name
    if seconds:
        soundfile.write(path, np.zeros(int(16000 * seconds)), 16000)
    else:
        path.write_bytes(b"" if seconds == 0 else b"RIFF and nothing more")
    assert choose(browser, path).startswith(sentence)
    assert not browser.find_element("id", "result").is_displayed()


def test_a_file_is_dropped(browser):
    content = list((GOLDENS / "corpus" / "test0.flac").read_bytes())
    choose(browser, GOLDENS / "corpus" / "test0.flac")
    expected = read(browser, "#texts .words")
    drop = (
        "const dataTransfer = new DataTransfer();"
        "dataTransfer.items.add(new File([Uint8Array.from(arguments[0])], 'dropped.flac'));"
        "document.body.dispatchEvent(new DragEvent('drop', {dataTransfer, bubbles: true, cancelable: true}))"
    )
    browser.execute_script(drop, content)
    wait_for(browser, f"{IDLE} && arguments[0].textContent.startsWith('dropped.flac')", by_id(browser)("status"))
    assert read(browser, "#texts .words") == expected


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("NotAllowedError", "The microphone is not allowed: allow it in the browser's settings for this page."),
        ("NotFoundError", "There is no microphone that can be used: connect one, or choose a file."),
    ],
)
def test_no_microphone(browser, name, sentence):
    refuse = (
        "window.before ??= navigator.mediaDevices.getUserMedia; const name = arguments[0];"
        "navigator.mediaDevices.getUserMedia = async () => { throw new DOMException('no', name); }"
    )
    browser.execute_script(refuse, name)
    browser.find_element("id", "record").click()
    error = by_id(browser)("error")
    wait_for(browser, "arguments[0].textContent === arguments[1]", error, sentence)
    browser.execute_script("navigator.mediaDevices.getUserMedia = window.before; arguments[0].textContent = ''", error)


def test_the_microphone(browser):
    button = browser.find_element("id", "record")
    button.click()
    wait_for(browser, "arguments[0].textContent === 'Stop'", button)
    time.sleep(0.5)
    button.click()
    wait_for(
        browser, f"{IDLE} === 'Record' && arguments[0].textContent.includes('transcribed')", by_id(browser)("status")
    )
    assert read(browser, "#name")[0].startswith("The recording, 0.")


def test_no_page_is_wider_than_a_phone(browser):
    choose(browser, GOLDENS / "corpus" / "test0.flac")
    browser.set_window_size(500, 900)
    assert browser.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
    browser.set_window_size(1200, 1000)


def test_all_files_are_asked_of_this_server_and_nothing_of_another(browser, page):
    """The last test: the log of all requests so far."""
    sent = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [one["params"]["request"]["url"] for one in sent if one["method"] == "Network.requestWillBeSent"]
    assert browser.server in asked
    assert [url for url in asked if not url.startswith((browser.server, "blob:", "data:"))] == []
    files = {path.relative_to(page).as_posix() for path in page.rglob("*") if path.is_file()}
    assert set(browser.asked) == {"/", *(f"/{name}" for name in files - {"index.html"})}
