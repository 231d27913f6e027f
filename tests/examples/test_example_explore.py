"""The page of ``examples/explore.py``: its answers over plain HTTP, and the page itself in a browser."""

import base64
import io
import json
import threading
import urllib.error
import urllib.request
from pathlib import Path

import explore
import mnist_cinn
import numpy as np
import pytest
import torch
import weights
from browser import CHROMIUM, Browser
from colorization.photos import EMBEDDED
from digits import data
from exploring import digits, photos, server
from PIL import Image
from test_example_colorization_models import colorizer, stirred

import invgraph as ig

PHOTO, OTHER = sorted((EMBEDDED / "test").iterdir())[:2]


@pytest.fixture(scope="module")
def page():
    """A running server with the trained digits and a small untrained colorizer."""
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setattr(digits, "MEASURED", 1000)
    model = stirred(colorizer("bedrooms", "cinn")).eval()
    monkeypatch.setattr(explore, "load_colorizer", lambda *arguments: model)
    running = explore.start(weights.FOLDER / "mnist_cinn.safetensors", Path("unused"), 0)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    yield running
    running.shutdown()
    running.server_close()
    monkeypatch.undo()


def send(page, name, body, **headers):
    """Status and answer of a request."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(f"{page.url}api/{name}", content, headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, json.loads(response.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


def ask(page, name, body):
    status, answer = send(page, name, body)
    assert status == 200, answer
    return answer


def refused(page, name, body, status=400, **headers):
    found, answer = send(page, name, body, **headers)
    assert found == status
    return answer["error"]


def picture(url):
    """Pixels of a data URL."""
    with Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))) as image:
        return np.asarray(image).astype(int)


def digits_of(answer):
    return np.stack([picture(url) for url in answer["pictures"]])


def test_the_page_and_its_facts(page):
    with urllib.request.urlopen(page.url) as response:
        assert response.headers["Content-Type"] == "text/html; charset=utf-8"
        assert b"<canvas" in response.read()
    with urllib.request.urlopen(f"{page.url}api/facts") as response:
        facts = json.loads(response.read())
    assert len(facts["axes"]) == 4
    assert facts["test_digits"] == 10_000


def test_one_code_in_ten_classes_is_what_the_flow_says(page):
    given = {"seed": 3, "temperature": 0.7, "axes": [1.0, 0, 0, -2.0], "denoise": False}
    found = digits_of(ask(page, "digits", given))
    tens = page.questions["digits"].__self__
    z = 0.7 * torch.randn(784, generator=torch.Generator().manual_seed(3)) + tens.components[0] - 2 * tens.components[3]
    with torch.no_grad():
        x, _ = tens.flow.graph.inverse(z.expand(10, -1).contiguous(), data.condition(torch.arange(10)))
    expected = 255 * (1 - data.to_pixels(x)[:, 0]).numpy()
    assert found.shape == (10, 28, 28)
    assert np.abs(found - expected).max() <= 1


def test_every_control_of_the_digits_changes_the_pictures(page):
    start = {"seed": 0, "temperature": 0.7, "axes": [0, 0, 0, 0]}
    before = digits_of(ask(page, "digits", start))
    for change in (
        {"seed": 1},
        {"temperature": 1.0},
        {"axes": [2, 0, 0, 0]},
        {"axes": [0, 0, 0, 1]},
        {"denoise": False},
    ):
        assert np.abs(digits_of(ask(page, "digits", start | change)) - before).max() > 20
    assert np.array_equal(digits_of(ask(page, "digits", start)), before)


def test_a_test_digit_comes_back_in_its_own_class(page):
    picked = ask(page, "pick", {"index": 7})
    test = data.load("test")
    assert picked["label"] == int(test.labels[7])
    given = {"pixels": picked["pixels"], "label": picked["label"], "temperature": 1.0}
    own = digits_of(ask(page, "digits", given))[picked["label"]]
    real = 255 - test.pixels[7].numpy().astype(int)
    others = [np.abs(255 - test.pixels[k].numpy().astype(int) - own).mean() for k in (0, 1, 2, 3)]
    assert np.abs(own - real).mean() < min(others) / 2


def drawing(*strokes, size=280):
    canvas = np.full((size, size), 255, np.uint8)
    for rows, columns in strokes:
        canvas[rows, columns] = 0
    buffer = io.BytesIO()
    Image.fromarray(canvas).save(buffer, "PNG")
    return buffer.getvalue()


def test_a_drawing_is_centered_like_mnist_and_recognized(page):
    stroke = (slice(20, 240), slice(30, 56))  # an upright line, far left of the middle
    found = ask(page, "drawing", drawing(stroke))
    pixels = np.frombuffer(base64.b64decode(found["pixels"]), np.uint8).reshape(28, 28)
    rows, columns = np.nonzero(pixels)
    assert (rows.min(), rows.max()) == (4, 23)
    assert abs(columns.mean() - 13.5) <= 0.5
    assert found["label"] == 1


def test_digits_refuse_what_they_can_not_use(page):
    assert "canvas is empty" in refused(page, "drawing", drawing())
    assert "not a picture" in refused(page, "drawing", b"noise")
    assert "temperature: 9 is not a number from 0 to 1.5" in refused(page, "digits", {"temperature": 9})
    assert "temperature: 'hot'" in refused(page, "digits", {"temperature": "hot"})
    assert "temperature: True" in refused(page, "digits", {"temperature": True})
    assert "seed: 0.5 is not a whole number" in refused(page, "digits", {"seed": 0.5})
    assert "at most 4 numbers" in refused(page, "digits", {"axes": [0] * 5})
    assert "axis: 4 is not" in refused(page, "digits", {"axes": [4]})
    assert "28 x 28 bytes" in refused(page, "digits", {"pixels": "YQ=="})
    assert "28 x 28 bytes" in refused(page, "digits", {"pixels": 5})
    assert "index: 10000" in refused(page, "pick", {"index": 10_000})


def test_photographs_are_colorized_scaled_and_transferred(page):
    first = ask(page, "photo", PHOTO.read_bytes())
    gray = picture(first["gray"])
    assert np.abs(gray.max(2) - gray.min(2)).max() <= 6  # JPEG
    assert max(gray.shape) <= photos.SHOWN
    given = {"photo": first["photo"], "seed": 1, "scale": 1.0}
    answer = ask(page, "colorize", given)
    shown = [picture(url) for url in answer["pictures"]]
    assert len(shown) == 8
    assert all(one.shape == gray.shape for one in shown)
    assert np.abs(shown[0] - shown[1]).max() > 20
    half = [picture(url) for url in ask(page, "colorize", given | {"scale": 0.5})["pictures"]]
    assert np.abs(half[0] - shown[0]).max() > 10
    none = [picture(url) for url in ask(page, "colorize", given | {"scale": 0})["pictures"]]
    assert np.array_equal(none[0], none[1])
    second = ask(page, "photo", OTHER.read_bytes())
    own = ask(page, "transfer", {"photo": first["photo"], "colors_of": first["photo"]})["pictures"]
    other = ask(page, "transfer", {"photo": first["photo"], "colors_of": second["photo"]})["pictures"]
    assert len(own) == len(other) == 1
    # Its own code gives a photograph its own colors, at the resolution of the model.
    original = picture(first["original"])
    assert np.abs(picture(own[0]) - original).mean() < np.abs(picture(other[0]) - original).mean()


def test_photographs_refuse_what_they_can_not_use(page, monkeypatch):
    assert "not a picture that can be read" in refused(page, "photo", b"broken")
    assert "can't be read" in refused(page, "photo", PHOTO.read_bytes()[:900])
    assert "too small" in refused(page, "photo", drawing(size=8))
    assert "not here any more" in refused(page, "colorize", {"photo": 999})
    monkeypatch.setattr(photos, "LARGEST", 100)
    assert "128 pixels are too many" in refused(page, "photo", drawing(size=128))


def test_old_photographs_are_forgotten(page, monkeypatch):
    monkeypatch.setattr(photos, "KEPT", 2)
    numbers = [ask(page, "photo", PHOTO.read_bytes())["photo"] for _ in range(3)]
    assert "choose it again" in refused(page, "colorize", {"photo": numbers[0]})
    ask(page, "colorize", {"photo": numbers[1]})


def test_the_server_refuses_other_requests(page, monkeypatch):
    assert "there is no /api/nothing" in refused(page, "nothing", {}, status=404)
    assert "not JSON" in refused(page, "digits", b"{")
    assert "not a JSON object" in refused(page, "digits", b"[]")
    assert "127.0.0.1" in refused(page, "digits", {}, status=403, Host="example.org")
    monkeypatch.setattr(server, "LARGEST", 10)
    assert "at most 0 MB" in refused(page, "photo", b"x" * 20, status=413)
    with pytest.raises(urllib.error.HTTPError, match="404") as caught:
        urllib.request.urlopen(f"{page.url}favicon.ico")
    caught.value.close()


def test_the_command_says_what_is_missing_and_which_port_is_taken(tmp_path, page, monkeypatch):
    monkeypatch.chdir(tmp_path)
    set_threads = []
    monkeypatch.setattr(torch, "set_num_threads", set_threads.append)
    with pytest.raises(SystemExit, match=r"no\.safetensors"):
        explore.main(["--digits", "no.safetensors", "--no-browser"])
    with pytest.raises(SystemExit, match="choose another --port"):
        explore.main(["--port", str(page.server_address[1]), "--no-browser"])
    assert set_threads == [1, 1]


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_the_page_in_a_browser(tmp_path, page):
    """Sliders, drawing, uploads and error messages, as a user sees them."""
    (tmp_path / "broken.jpg").write_bytes(b"broken")
    first = "document.querySelector('#tens img').src"
    with Browser(tmp_path / "profile") as browser:
        browser.open(page.url)
        browser.wait("document.body && document.body.dataset.ready === 'yes'")
        assert browser.value("document.querySelectorAll('#tens img').length") == 10
        assert browser.value("document.querySelectorAll('#sliders input[type=range]').length") == 5
        for name in ("temperature", "axis 1"):
            before = browser.value(first)
            slider = f"document.querySelector('#sliders input[name^=\"{name}\"]')"
            browser.value(f"{slider}.value = 1.2, {slider}.dispatchEvent(new Event('input'))")
            browser.wait(f"{first} !== {json.dumps(before)}")
        assert float(browser.value("document.getElementById('digit-time').textContent.match(/[0-9.]+/)[0]")) < 5
        x, y = browser.value("(() => { const b = document.getElementById('pad').getBoundingClientRect();"
                             "return [b.left, b.top]; })()")  # fmt: skip
        browser.drag(*((x + 90, y + 20 + 10 * step) for step in range(15)))
        browser.wait("document.getElementById('label').value === '1'")
        browser.wait("document.querySelectorAll('#tens .own').length === 1")
        browser.choose_file("#photo", tmp_path / "broken.jpg")
        browser.wait("document.getElementById('photo-error').textContent.includes('not a picture that can be read')")
        assert browser.value("getComputedStyle(document.getElementById('photo-error')).display") == "block"
        browser.choose_file("#photo", PHOTO)
        browser.wait("document.querySelectorAll('#colors img').length === 8")
        assert browser.value("document.getElementById('photo-error').textContent") == ""
        browser.choose_file("#colors-of", OTHER)
        browser.wait("document.querySelectorAll('#colors img').length === 1")
        assert browser.value("[...document.images].every(i => !i.src || i.naturalWidth > 0)")


def test_answers_use_the_bound_runner(page, monkeypatch):
    def refuse(*arguments):
        raise AssertionError("the graph was run without being bound")

    monkeypatch.setattr(ig.Graph, "inverse", refuse)
    ask(page, "digits", {"seed": 0})
    uploaded = ask(page, "photo", PHOTO.read_bytes())
    ask(page, "colorize", {"photo": uploaded["photo"]})


def test_a_run_of_the_user_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    started = []
    monkeypatch.setattr(
        explore, "start", lambda *arguments: started.append(arguments) or (_ for _ in ()).throw(OSError)
    )
    monkeypatch.setattr(torch, "set_num_threads", lambda number: None)
    for path in (mnist_cinn.RUN / "model.safetensors", explore.COLORIZER):
        path.parent.mkdir(parents=True)
        path.touch()
    with pytest.raises(SystemExit):
        explore.main(["--port", "0", "--no-browser"])
    assert started == [(mnist_cinn.RUN / "model.safetensors", explore.COLORIZER, 0)]
