"""The page in a headless Chromium: it plays what is being made, and survives errors, cancelling, reloads."""

import re
import shutil

import pytest

pytestmark = pytest.mark.slow
PLAYS = "() => { const v = document.querySelector('#screen'); return v.currentTime && v.videoWidth === 32 }"


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium."""
    sync_api = pytest.importorskip("playwright.sync_api")
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("needs chromium on the PATH")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser, running):
    """The service's page; a message on its console, or a request elsewhere, fails the test."""
    context = browser.new_context(viewport={"width": 390, "height": 844})
    page, wrong = context.new_page(), []
    page.set_default_timeout(60_000)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda message: message.type == "error" and wrong.append(message.text))
    page.on("request", lambda asked: asked.url.startswith((running.url, "blob:")) or wrong.append(asked.url))
    page.wrong = wrong
    page.goto(running.url)
    yield page
    context.close()
    broken = ("status of 4", "INCOMPLETE_CHUNKED")  # the latter: a stream whose job was cancelled
    assert [text for text in wrong if not any(each in text for each in broken)] == []


def choose(page, files):
    for kind, (_, data) in files.items():
        mime = {"video": "video/mp4", "image": "image/png"}[kind]
        page.set_input_files(f"#{kind}", {"name": f"<b>{kind}</b>", "mimeType": mime, "buffer": data})


def status(page, text):
    page.wait_for_function("text => document.querySelector('#status').textContent === text", arg=text)


def test_a_video_plays_while_it_is_made_and_goes_on_after_a_reload(page, running, inputs):
    choose(page, inputs(400))
    assert page.inner_text("#video-name") == "<b>video</b>" and page.locator(".drop b").count() == 0
    page.click("#make")
    page.wait_for_function(PLAYS)
    name = re.search("#(video_.*)", page.url)[1]
    assert running.client.get(f"/v1/videos/{name}").json()["status"] == "in_progress"
    page.reload()
    page.wait_for_function(PLAYS)
    assert page.inner_text("#status") == "Being made." and page.inner_text("#level") == "baseline"
    assert re.fullmatch(r"\d+\.\d\d s", page.inner_text("#first"))
    status(page, "Made.")
    assert page.inner_text("#frames") == "400 of 400" and page.get_attribute("#bar", "value") == "100"
    page.wait_for_function("() => document.querySelector('#screen').duration > 16.6")
    with page.expect_download() as saved:
        page.click("#save")
    content = running.client.get(f"/v1/videos/{name}/content").content
    assert saved.value.path().read_bytes() == content


FULL = """
const append = SourceBuffer.prototype.appendBuffer;
window.refused = 0;
SourceBuffer.prototype.appendBuffer = function (data) {
  const { buffered } = this, last = buffered.length - 1;
  if (last >= 0 && buffered.end(last) - buffered.start(0) > 8) {
    window.refused += 1;
    throw new DOMException("full", "QuotaExceededError");
  }
  append.call(this, data);
};
"""


def test_a_long_video_plays_to_its_end_though_the_browser_keeps_little(page, inputs):
    page.add_init_script(FULL)
    page.reload()
    choose(page, inputs(400))
    page.click("#make")
    page.wait_for_function(PLAYS)
    page.evaluate("document.querySelector('#screen').playbackRate = 2")
    page.wait_for_function("() => document.querySelector('#screen').ended")
    assert page.evaluate("window.refused") > 0 and page.is_hidden("#error")
    assert page.evaluate("document.querySelector('#screen').buffered.start(0)") > 1


def test_a_video_that_was_removed_is_said_to_be(page, running, inputs):
    choose(page, inputs(5))
    page.click("#make")
    status(page, "Made.")
    page.evaluate("show({ deleted: true })")
    status(page, "Removed.")
    assert page.is_hidden("#save")


def test_a_cancel_that_comes_late_keeps_the_video(page, running, inputs):
    def late(route):
        running.ended(re.search("(video_[^/]*)/cancel", route.request.url)[1])
        route.continue_()

    page.route("**/cancel", late)
    choose(page, inputs(400))
    page.click("#make")
    page.click("#cancel")
    status(page, "Made.")
    name = re.search("#(video_.*)", page.url)[1]
    assert running.client.get(f"/v1/videos/{name}/content").status_code == 200
    assert page.is_hidden("#error")


def test_a_video_is_cancelled_and_the_next_can_be_made_by_keyboard(page, inputs):
    choose(page, inputs(400))
    page.focus("#make")
    page.keyboard.press("Enter")
    page.wait_for_selector("#cancel:not([hidden])")
    page.focus("#cancel")
    page.keyboard.press("Space")
    status(page, "Cancelled.")
    assert page.is_hidden("#cancel")
    choose(page, inputs(5))
    page.focus("#make")
    page.keyboard.press("Enter")
    status(page, "Made.")


def test_what_is_wrong_is_said_on_the_page(page, inputs):
    page.click("#make")
    assert page.inner_text("#error") == "Choose a skeleton video and a picture, or take a sample."
    choose(page, {**inputs(), "image": ("i.png", b"<img src=x onerror=alert(1)>")})
    page.click("#make")
    page.wait_for_function("() => document.querySelector('#error').textContent.startsWith('image: is not')")
    assert page.inner_text("#status") == "Not made." and page.is_enabled("#make")


def test_a_sample_is_one_press_and_nothing_is_wider_than_a_phone(page):
    page.click("#samples button >> nth=0")
    page.wait_for_selector("#image-view:not([hidden])")
    assert page.inner_text("#video-name").startswith("sample ")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_a_video_is_compared_with_the_base_model_which_a_later_one_has_without_asking(page, running, inputs):
    choose(page, inputs(30))
    page.click("#make")
    status(page, "Made.")
    assert page.is_hidden("#compare") and page.is_hidden("#beside")  # it is the base model's
    choose(page, inputs(12))
    page.select_option("#recipe", "quick")
    page.click("#make")
    page.click("#compare")
    page.wait_for_selector("#verdict .screens")
    assert page.is_hidden("#compare") and page.is_hidden("#error") and page.inner_text("#beside-status") == ""
    figures = dict(zip(page.locator("#verdict dt").all_inner_texts(),
                       page.locator("#verdict dd").all_inner_texts(), strict=True))
    assert figures["The same video?"] == "✓ passes" and float(figures["Similarity"]) > 0.97
    assert page.locator("#verdict figcaption").all_inner_texts()[:2] == ["base model", "quick"]
    assert page.locator("#verdict .strip").count() >= 2
    shown = "[...document.querySelectorAll('#verdict video')]"
    page.wait_for_function(f"() => {shown}.every(v => v.readyState >= 2)")
    page.click("#verdict button[title='one frame on']")
    assert page.inner_text("#verdict output") == "frame 2 of 12"
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.reload()
    page.wait_for_selector("#verdict .screens")
    name = re.search("#(video_.*)", page.url)[1]
    base = running.client.get(f"/v1/videos/{name}/comparison").json()["base"]["id"]
    choose(page, inputs(30))
    page.select_option("#recipe", "quick")
    page.click("#make")
    page.wait_for_url(lambda url: name not in url)
    page.wait_for_selector("#verdict .screens")  # its base run is that of the first
    assert page.is_hidden("#compare")
    running.client.delete(f"/v1/videos/{base}")


def test_a_base_run_is_stopped_and_can_be_asked_for_again(page, inputs):
    choose(page, inputs(390))
    page.select_option("#recipe", "quick")
    page.click("#make")
    page.click("#compare")
    page.click("#stop")
    page.wait_for_selector("#compare:not([hidden])")
    assert page.inner_text("#beside-status") == "The base model's video was not made: it was cancelled."
    assert page.is_hidden("#stop") and page.is_hidden("#beside-bar")
