"""The page in a browser, served by the command: what is on it is what the library says.

The terminal must stay silent, whatever visitors do, and no file may be left: the fixture looks.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request

import numpy as np
import pytest
import torch
from PIL import Image

from rankseg._demo.example import load_sample
from rankseg._demo.network import maps_of_image
from rankseg.app import show
from rankseg.evaluation import Case
from support import maps
from support.frameworks import framework

pytestmark = pytest.mark.filterwarnings("ignore")

OFFLINE = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"]
WAIT = 60_000  # milliseconds
OPTIONS = {"correlation": 0.5}
"""What the page has chosen when it opens, besides the defaults of the library."""


class Served:
    """The command, serving the page until it is left."""

    def __init__(self, scratch, *options):
        scratch.mkdir()
        self.scratch = scratch
        self.process = subprocess.Popen(
            [sys.executable, "-m", "rankseg", "app", *options],
            env={**os.environ, "TMPDIR": str(scratch)},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.address = self.process.stdout.readline().split()[2]

    def stop(self):
        """Stop it as Ctrl-C does; check what it wrote and left."""
        assert list(self.scratch.iterdir())
        self.process.send_signal(signal.SIGINT)
        output, errors = self.process.communicate(timeout=60)
        assert (output, errors) == ("", "Stopped; uploads are removed.\n")
        assert self.process.returncode == 130
        assert not list(self.scratch.iterdir())


@pytest.fixture(scope="module")
def browser():
    if importlib.util.find_spec("gradio") is None:  # its import takes seconds, in the command only
        framework("gradio")
    driver = framework("playwright.sync_api")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("needs the browser chromium")
    with driver.sync_playwright() as player:
        browser = player.chromium.launch(executable_path=chromium, args=OFFLINE)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def served(browser, tmp_path_factory):
    served = Served(tmp_path_factory.mktemp("app") / "scratch")
    yield served
    served.stop()


@pytest.fixture
def page(browser, served):
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    page.set_default_timeout(WAIT)
    elsewhere = []
    page.on("request", lambda one: elsewhere.append(one.url))
    page.goto(served.address)
    page.locator("#scores table").wait_for()
    yield page
    page.close()
    inside = (served.address, "data:", "blob:")
    assert [url for url in elsewhere if not url.startswith(inside)] == []


def example(number=0, **options):
    sample = load_sample()
    case = Case("a", sample.probs[number], sample.labels[number])
    return show(case, sample.classes, **{**OPTIONS, **options})


def wait_for(page, shown):
    page.locator("#summary").get_by_text(shown.summary).wait_for()
    rows = page.locator("#scores tbody tr")
    assert [row.locator("th, td").all_inner_texts() for row in rows.all()] == shown.rows


def upload(page, path, field="maps"):
    page.locator(f"#{field} input[type=file]").set_input_files(path)
    page.locator(f"#{field}").get_by_text(path.stem).first.wait_for()


def picture(page, name):
    """Return the pixels of a picture on the page as text; another one after a change."""
    return page.locator(f"img[alt='{name}']").first.get_attribute("src")


def test_the_page_decides_when_it_opens(page, tmp_path):
    shown = example()
    wait_for(page, shown)
    for name in ("argmax", "RankSEG", "where they differ", "truth"):
        page.locator(f"img[alt='{name}']").first.wait_for()
    page.locator("#curves img").wait_for()
    for name in ("organ", "only RankSEG right"):
        page.locator("#legend").get_by_text(name).wait_for()
    assert page.locator("#messages").inner_text().strip() == ""
    page.screenshot(path=tmp_path / "page.png")
    pixels = np.asarray(Image.open(tmp_path / "page.png").convert("RGB"))
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 20


def focus(page, name, most=60):
    """Press Tab until the element of a label has the focus."""
    for _ in range(most):
        page.keyboard.press("Tab")
        told = page.evaluate(
            "() => { const e = document.activeElement; return [e.getAttribute('aria-label'),"
            " e.closest('label')?.innerText, e.innerText].filter(Boolean).join(' ') }"
        )
        if name in told:
            return
    pytest.fail(f"no way to {name!r} by the keyboard")


def test_the_keyboard_alone_is_enough(page):
    focus(page, "Click to upload")
    focus(page, "Or an example")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    wait_for(page, example(1))
    focus(page, "IoU")
    page.keyboard.press("Space")
    wait_for(page, example(1, metric="iou"))
    focus(page, "More options")
    page.keyboard.press("Enter")
    focus(page, "range slider for pruning_prob")
    for _ in range(4):
        page.keyboard.press("ArrowRight")
    wait_for(page, example(1, metric="iou", pruning_prob=0.7))
    before = picture(page, "RankSEG")
    focus(page, "range slider for Opacity")
    page.keyboard.press("ArrowLeft")
    page.wait_for_function(
        "before => document.querySelector(\"img[alt='RankSEG']\").src != before", arg=before
    )


def test_logits_and_errors_and_warnings(page, tmp_path):
    probs = maps.softmax(1, 3, 9, 11)[0].astype(np.float32)
    np.savez(tmp_path / "<i>my maps.npz", logits=np.log(probs) + 3)
    upload(page, tmp_path / "<i>my maps.npz")
    messages = page.locator("#messages")
    messages.get_by_text("On this page, choose what the maps hold").wait_for()
    assert "Error: probs must lie in [0, 1]" in messages.inner_text()
    assert page.locator("#curves img").count() == 0
    assert page.locator("#scores table").count() == 0
    assert page.locator("#summary").inner_text().strip() == ""
    page.get_by_label("logits, softmax").check()
    wait_for(page, show(torch.from_numpy(np.log(probs) + 3).softmax(0), **OPTIONS))
    with page.expect_download() as download:
        page.locator("a[download='decision.npy']").click()
    decided = np.load(download.value.path())
    np.testing.assert_array_equal(decided, show(probs, **OPTIONS).labels["RankSEG"])
    page.get_by_label("logits, sigmoid").check()
    messages.get_by_text("Warning: ").first.wait_for()
    assert page.locator(".toast-body").count() == 0


def test_numbers_out_of_bounds_are_told(page):
    page.get_by_text("More options").click()
    box = page.get_by_label("number input for pruning_prob")
    box.fill("7")
    box.press("Enter")
    page.locator("#messages").get_by_text("pruning_prob must").wait_for()
    assert page.locator(".toast-body").count() == 0


def test_a_label_in_the_file_and_a_file_of_its_own(page, tmp_path):
    probs, truth = maps.labelled(0)
    probs = probs.astype(np.float32)
    np.savez(tmp_path / "with label.npz", probs=probs, label=truth)
    case = Case("a", torch.from_numpy(probs), torch.from_numpy(truth).long())
    shown = show(case, ignore_index=255, **OPTIONS)
    upload(page, tmp_path / "with label.npz")  # while the curves of the example are being drawn
    wait_for(page, shown)
    curves = re.search(r'img src="([^"]+)"', shown.curves).group(1)
    page.wait_for_function(
        "src => document.querySelector('#curves img')?.getAttribute('src') == src", arg=curves
    )
    np.save(tmp_path / "alone.npy", probs)
    np.save(tmp_path / "truth.npy", truth)
    page.reload()
    upload(page, tmp_path / "alone.npy")
    wait_for(page, show(probs, **OPTIONS))
    page.locator("img[alt='truth']").first.wait_for(state="hidden")
    upload(page, tmp_path / "truth.npy", field="truth")
    wait_for(page, shown)


def test_slices_of_a_volume(page, tmp_path):
    probs = maps.softmax(1, 3, 5, 8 * 6)[0].reshape(3, 5, 8, 6).astype(np.float32)
    np.save(tmp_path / "volume.npy", probs)
    upload(page, tmp_path / "volume.npy")
    wait_for(page, show(probs, **OPTIONS))
    slider = page.get_by_label("range slider for Slice of 5")
    slider.wait_for()
    before = picture(page, "argmax")
    slider.focus()
    page.keyboard.press("End" if slider.input_value() == "0" else "Home")
    page.wait_for_function(
        "before => document.querySelector(\"img[alt='argmax']\").src != before", arg=before
    )
    page.get_by_label("third").check()
    page.get_by_label("range slider for Slice of 6").wait_for()


def test_an_image_goes_through_the_embedded_network(page, tmp_path):
    sample = load_sample()
    Image.fromarray(sample.images[7]).save(tmp_path / "drawn.png")
    upload(page, tmp_path / "drawn.png")
    pixels = torch.from_numpy(sample.images[7]).permute(2, 0, 1) / 255
    wait_for(page, show(maps_of_image(pixels), sample.classes, **OPTIONS))
    page.locator("#messages").get_by_text("knows no other pictures").wait_for()


def test_a_phone_scrolls_in_one_direction(page):
    page.set_viewport_size({"width": 390, "height": 844})
    page.locator("#curves img").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") == 390


def ask(address, maps):
    """Ask for a decision without a browser; return what comes as server-sent events."""
    values = [0.7, maps, None, None, 0, "", "dice", "auto", 0.5, 0.5, 0, "", "", 255, ""]
    body = json.dumps({"data": values}).encode()
    place = f"{address.rstrip('/')}/gradio_api/call/decide"
    request = urllib.request.Request(place, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        event = json.load(answer)["event_id"]
    with urllib.request.urlopen(f"{place}/{event}", timeout=60) as answer:
        return answer.read().decode()


def test_a_hosted_page_caps_uploads_has_no_models_and_reads_no_file_of_the_server(
    browser, tmp_path
):
    served = Served(tmp_path / "scratch", "--max-upload", "1")
    np.save(tmp_path / "large.npy", np.zeros((3, 700, 700), np.float32))
    page = browser.new_page()
    page.set_default_timeout(WAIT)
    page.goto(served.address)
    page.locator("#scores table").wait_for()
    page.get_by_text("More options").click()
    page.get_by_label("smooth").wait_for()
    assert page.get_by_label("Model for an image").count() == 0
    page.locator("#maps input[type=file]").set_input_files(tmp_path / "large.npy")
    page.get_by_text("exceed the maximum allowed size").wait_for()
    page.close()
    secret = tmp_path / "secret.npy"
    np.save(secret, load_sample().probs[3].numpy())
    assert example().summary in ask(served.address, None)
    for path in (str(secret), f"file={secret}", f"{served.scratch}/../secret.npy"):
        told = ask(served.address, {"path": path, "meta": {"_type": "gradio.FileData"}})
        assert "event: error" in told
        assert "pixels differ" not in told
    served.process.send_signal(signal.SIGINT)
    served.process.communicate(timeout=60)
    assert not list(served.scratch.iterdir())
