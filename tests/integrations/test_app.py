"""The page in a browser, and as a command: a click, and the numbers on it are the library's."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from rankseg import app
from rankseg._demo.example import load_sample
from rankseg._demo.network import maps_of_image
from rankseg.app import show
from support.frameworks import framework

OFFLINE = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"]


@pytest.fixture(scope="module")
def page():
    framework("gradio")
    driver = framework("playwright.sync_api")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("needs the browser chromium")
    blocks = app.build()
    _, address, _ = blocks.launch(prevent_thread_lock=True, quiet=True)
    with driver.sync_playwright() as player:
        browser = player.chromium.launch(executable_path=chromium, args=OFFLINE)
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        page.set_default_timeout(60_000)
        page.goto(address)
        yield page
        browser.close()
    blocks.close()


def click(page):
    page.get_by_role("button", name="Decide").click()


def numbers(page, rows):
    """Return the first rows of the table as text."""
    return [
        [page.get_by_test_id(f"cell-{row}-{column}").inner_text().strip()
         for column in range(len(app.HEAD))]
        for row in range(rows)
    ]  # fmt: skip


def wait_for(page, summary):
    page.locator("#summary").get_by_text(summary.split(" Expected")[0]).wait_for(timeout=60_000)


@pytest.mark.filterwarnings("ignore")
def test_a_click_shows_what_the_library_says(page, tmp_path):
    sample = load_sample()
    expected = show(sample.probs[0], sample.classes)
    click(page)
    wait_for(page, expected.summary)
    assert numbers(page, len(expected.rows)) == expected.rows
    page.screenshot(path=tmp_path / "page.png")
    pixels = np.asarray(Image.open(tmp_path / "page.png").convert("RGB"))
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 20


@pytest.mark.filterwarnings("ignore")
def test_files_are_taken_and_errors_told(page, tmp_path):
    probs = np.random.default_rng(0).dirichlet([0.5] * 3, (9, 11)).transpose(2, 0, 1)
    np.savez(tmp_path / "maps.npz", probs=probs.astype(np.float32))
    page.locator("input[type=file]").first.set_input_files(tmp_path / "maps.npz")
    page.get_by_text("maps.npz").wait_for(timeout=60_000)
    page.get_by_label("iou").check()
    click(page)
    wait_for(page, show(probs.astype(np.float32), metric="iou").summary)
    with page.expect_download() as download:
        page.locator("a[download='decision.npy']").click()
    decided = np.load(download.value.path())
    np.testing.assert_array_equal(decided, show(probs.astype(np.float32), metric="iou").labels)
    np.savez(tmp_path / "logits.npz", probs=9 * probs)
    page.reload()
    page.locator("input[type=file]").first.set_input_files(tmp_path / "logits.npz")
    page.get_by_text("logits.npz").wait_for(timeout=60_000)
    click(page)
    page.get_by_text("divide by the largest value").wait_for(timeout=60_000)


@pytest.mark.filterwarnings("ignore")
def test_an_image_goes_through_the_embedded_network(page, tmp_path):
    sample = load_sample()
    Image.fromarray(sample.images[7]).save(tmp_path / "drawn.png")
    page.reload()
    page.locator("input[type=file]").first.set_input_files(tmp_path / "drawn.png")
    page.get_by_text("drawn.png").wait_for(timeout=60_000)
    click(page)
    pixels = torch.from_numpy(sample.images[7]).permute(2, 0, 1) / 255
    expected = show(maps_of_image(pixels), sample.classes)
    wait_for(page, expected.summary)
    page.locator("#summary").get_by_text("knows no other pictures").wait_for()
    assert numbers(page, len(expected.rows)) == expected.rows


@pytest.mark.filterwarnings("ignore")
def test_the_command_tells_errors_and_leaves_nothing_behind(tmp_path):
    framework("gradio")
    client = framework("gradio_client")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    np.save(tmp_path / "maps.npy", load_sample().probs[0].numpy())
    np.save(tmp_path / "<b>logits.npy", 9 * load_sample().probs[0].numpy())
    command = [sys.executable, "-m", "rankseg", "app"]
    with subprocess.Popen(
        command, env={**os.environ, "TMPDIR": str(scratch)}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as served:  # fmt: skip
        address = served.stdout.readline().split()[2]
        caller = client.Client(address, verbose=False)

        def decide(name):
            upload = client.handle_file(str(tmp_path / name))
            options = (0, "", "dice", "RMA", 0.5, 0, 0, 0.5)
            return caller.predict(upload, *options, api_name="/decide")

        sample = load_sample()
        assert decide("maps.npy")[0] == show(sample.probs[0], sample.classes).summary
        assert list(scratch.iterdir())
        with pytest.raises(Exception, match="divide by the largest value"):
            decide("<b>logits.npy")
        served.send_signal(signal.SIGINT)
        output, errors = served.communicate(timeout=60)
    assert served.returncode == 130
    assert (output, errors) == ("", "Stopped; uploads are removed.\n")
    assert not list(scratch.iterdir())
