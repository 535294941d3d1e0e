"""The report's first screen in a headless Chromium: both videos in motion, and the large figures."""

import copy

import pytest

from bench.report import write_report

pytestmark = pytest.mark.slow
STAGE = """() => [...document.querySelectorAll('.stage video')].map((video) =>
  ({ at: video.currentTime, muted: video.muted, playing: !video.paused }))"""


def test_the_first_screen_plays_both_by_itself_in_step_and_begins_again(page):
    page.wait_for_function("() => document.querySelector('.stage video').currentTime > .5")
    first, second = page.evaluate(STAGE)
    assert first["muted"] and second["muted"] and first["playing"] and second["playing"]
    assert abs(first["at"] - second["at"]) < 2 / 24
    page.wait_for_function("() => document.querySelector('.stage video').currentTime < .4")
    page.locator(".told").get_by_role("button", name="Pause").click()
    assert not any(each["playing"] for each in page.evaluate(STAGE))
    top = page.locator(".first").bounding_box()
    assert top["y"] < 100 and top["y"] + top["height"] < 900


def test_who_wants_less_motion_begins_the_first_screen_by_hand(visit, index, browser):
    page = visit(index)
    page.emulate_media(reduced_motion="reduce")
    page.reload()
    page.wait_for_timeout(500)
    assert not any(each["playing"] for each in page.evaluate(STAGE))
    page.locator(".told").get_by_role("button", name="Play").click()
    assert all(each["playing"] for each in page.evaluate(STAGE))


def test_the_large_figures_are_ratio_similarity_and_noise_floor(visit, report, page, tmp_path):
    assert page.locator(".large b").all_inner_texts()[:2] == ["1.50\u00d7", "\u2013"]  # one has no candidate
    assert "could not be evaluated" in page.locator(".large").inner_text()
    assert "noise floor not measured" not in page.locator(".large").inner_text()  # the baseline is timed
    report = copy.deepcopy(report)
    report["runs"], report["baseline"] = report["runs"][:1], None
    report["runs"][0]["verdict"] |= {"speed_ratio": None, "similarity": 0.98765}
    report["runs"][0]["manifests"] = {"ratio": 12.34, "videos": ["a"], "base": "b"}
    text = visit(write_report(report, tmp_path)).locator(".large").inner_text()
    assert "12.3\u00d7" in text and "0.9877" in text and "by the manifests, a" in text
    assert "noise floor not measured" in text


def test_remarks_and_what_was_left_out_are_on_the_page(visit, report, tmp_path):
    report = copy.deepcopy(report)
    report["runs"][0]["remarks"] = ["its speed is no ratio: b failed"]
    report["runs"][0]["verdict"]["speed_ratio"] = None
    next(each for each in report["runs"][0]["videos"] if each["id"] == "a")["unchecked"] = ["x", "y"]
    page = visit(write_report(report, tmp_path))
    assert "its speed is no ratio: b failed" in page.locator(".verdict").first.inner_text()
    assert "times as fast" not in page.locator(".verdict").first.inner_text()
    assert "judged without its skeleton: 2 checks left out" in page.locator("#report").inner_text()
