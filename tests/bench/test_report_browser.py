"""The report in a headless Chromium: it plays, keeps its videos in step, seeks, and asks no network."""

import copy
import io
import os
import re

import pytest
from PIL import Image

from bench import report as module
from bench.report import write_report

pytestmark = pytest.mark.slow
FRAMES, BITS = 40, 6
# What a canvas reads back: the number in the blocks at the top of each video, and the frame it should show.
NUMBERS = """() => {
  const read = (picture) => {
    const canvas = document.createElement("canvas");
    Object.assign(canvas, { width: 96, height: 64 });
    const pen = canvas.getContext("2d", { willReadFrequently: true });
    pen.drawImage(picture, 0, 0);
    let number = 0;
    for (let bit = 0; bit < 6; bit += 1) {
      number += (pen.getImageData(16 * bit + 8, 8, 1, 1).data[1] > 128) << bit;
    }
    return number;
  };
  return [...document.querySelectorAll("details video")].map(read);
}"""

# The difference in the same blocks, and below them, where nothing changes from frame to frame.
LEVELS = """() => {
  const pen = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  pen.drawImage(document.querySelector(".screens canvas"), 0, 0);
  const level = (x, y) => pen.getImageData(x, y, 1, 1).data[1];
  return [...[0, 1, 2, 3, 4, 5].map((bit) => level(16 * bit + 8, 8)), level(48, 40)];
}"""


def opened(page):
    """The first video's section, open, with its videos loaded."""
    page.locator("summary b", has_text=re.compile("^a$")).first.click()
    ready = "() => [...document.querySelectorAll('details video')].filter((v) => v.readyState >= 2).length"
    page.wait_for_function(f"{ready} === 2")
    return page.locator("details[open]")


def settled(page):
    """The frame numbers that both videos show, when they have stopped seeking."""
    page.wait_for_function("() => [...document.querySelectorAll('details video')].every((v) => !v.seeking)")
    page.wait_for_timeout(100)
    return page.evaluate(NUMBERS)


def test_players_are_made_only_when_a_video_is_opened(page):
    assert page.locator("details video").count() == 0
    assert page.locator("details").count() == 4
    opened(page)
    assert page.locator("details video").count() == 2


def test_scrubbing_shows_the_frame_in_both_videos_and_their_difference(page):
    section = opened(page)
    for frame in (0, 1, 17, 39, 5):
        section.locator("input[type=range]").fill(str(frame))
        assert settled(page) == [frame, frame]
        assert section.locator("output").inner_text() == f"frame {frame + 1} of {FRAMES}"
    assert 20 <= page.evaluate(LEVELS)[-1] <= 60  # the candidate is 5 levels brighter there, encoding aside


def test_both_videos_play_in_step(page):
    section = opened(page)
    section.get_by_role("button", name="Play").click()
    for _ in range(4):  # a browser without a processor of its own may be late for a moment
        seen, levels = [], []
        for _ in range(8):
            page.wait_for_timeout(120)
            seen.append(page.evaluate(NUMBERS))
            levels += page.evaluate(LEVELS)
        in_step = seen[-1] != seen[0] and max(abs(a - b) for a, b in seen) <= 1
        if in_step and max(levels) < 128:  # else it is the difference of two different frames
            break
    assert in_step and max(levels) < 128, (seen, levels)
    section.get_by_role("button", name="Pause").click()
    first, second = settled(page)
    assert abs(first - second) <= 1


def test_a_click_on_a_strip_seeks_and_keys_step(page):
    section = opened(page)
    plot = section.locator(".plot").first
    width = plot.bounding_box()["width"]
    plot.click(position={"x": width * 20.5 / FRAMES, "y": 20})
    assert settled(page) == [20, 20]
    assert plot.locator(".now").evaluate("cursor => cursor.style.left") == f"{100 * 20.5 / FRAMES}%"
    section.get_by_title("one frame on").click()
    assert settled(page) == [21, 21]
    page.keyboard.press("ArrowLeft")
    assert settled(page) == [20, 20]
    page.keyboard.press("Shift+ArrowRight")
    assert settled(page) == [30, 30]
    section.get_by_role("button", name="worst: frame").first.click()
    assert settled(page) == [0, 0]  # the stand-in extractor's least cosine


def test_a_short_video_begins_again_unless_it_shall_not(page):
    section = opened(page)
    section.locator("input[type=range]").fill(str(FRAMES - 4))
    section.get_by_role("button", name="Play").click()
    page.wait_for_function("n => Number(document.querySelector('input[type=range]').value) < n", arg=20)
    section.get_by_label("loop").uncheck()
    section.locator("input[type=range]").fill(str(FRAMES - 4))
    section.get_by_role("button", name="Play").click()
    section.get_by_role("button", name="Play").wait_for()  # it was "Pause" meanwhile
    assert settled(page) == [FRAMES - 1, FRAMES - 1]


def test_a_recipes_note_and_the_requests_it_did_not_make_are_shown(page):
    one, two = page.locator(".verdict").all()
    assert one.locator("p.soft").inner_text() == "of one" and two.locator("p.soft").inner_text() == "of two"
    assert "b<i> was not made: is damaged" in one.locator("li").all_inner_texts()
    assert "was not made" not in two.inner_text()


def test_vmaf_is_in_a_videos_line_and_among_its_metrics(page):
    assert "VMAF 81.2" in page.locator("summary", has_text="PSNR").first.inner_text()
    assert "vmaf\n81.200" in opened(page).locator("dl.figures").inner_text()


def test_the_build_time_has_a_column(page):
    titles = page.locator("table").first.locator("th").all_inner_texts()
    cells = page.locator("table").first.locator("tbody tr").first.locator("td").all_inner_texts()
    assert dict(zip(titles, cells, strict=True))["build, s"] == "12.5"


def test_the_load_at_the_start_and_the_cores_are_shown(page):
    text = page.locator("dl.made").inner_text()
    assert f" of {os.cpu_count()} cores" in text and "0.50, 1.00, 9.25 (processes over 1, 5 and 15" in text


def test_figures_that_could_not_be_measured_are_said_and_leave_gaps(page):
    section = opened(page)
    assert "temporal error, levels from the frame before: not measurable" in section.inner_text()
    assert section.locator(".plot").nth(1).locator("path").first.get_attribute("d").count("M") == 2


def test_videos_beside_the_page_are_shown_as_those_within(visit, report, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "LARGEST", 4)
    page = visit(write_report(report, tmp_path))
    section = opened(page)
    assert "too large to be in this page" in page.locator("main").inner_text()
    section.locator("input[type=range]").fill("23")
    page.wait_for_timeout(500)  # a canvas may show what came from other files, but not read it
    pictures = [Image.open(io.BytesIO(video.screenshot())) for video in section.locator("video").all()]
    small = [picture.convert("L").resize((2 * BITS, 8)) for picture in pictures]
    lit = [[picture.getpixel((2 * bit + 1, 0)) > 128 for bit in range(BITS)] for picture in small]
    assert lit == 2 * [[bool(23 >> bit & 1) for bit in range(BITS)]]


def test_a_video_that_cannot_be_played_is_said_within_a_phones_width(visit, report, tmp_path):
    report = copy.deepcopy(report)
    report["runs"][0]["videos"][1]["candidate"] = str(tmp_path / f"{'long' * 20}.mp4")
    (tmp_path / f"{'long' * 20}.mp4").write_bytes(b"no video")
    page = visit(write_report(report, tmp_path))
    page.set_viewport_size({"width": 360, "height": 700})
    page.locator("summary b", has_text=re.compile("^a$")).first.click()
    section = page.locator("details[open]")
    section.get_by_text("this browser cannot play").wait_for()
    section.get_by_role("button", name="Play").click()
    section.get_by_role("button", name="Play").wait_for()  # it stops again
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_names_are_text_and_reasons_are_said(page):
    text = page.locator("main").inner_text()
    assert "</script><script>alert(2)</script>" in text and "<img src=x onerror=alert(1)>" in text
    assert "no video of that name in" in text and page.locator("main img, main script").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_has_no_sideways_scroll_and_text_has_contrast(page, scheme):
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": 360, "height": 700})
    opened(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    worst = page.evaluate("""() => {
      const light = (colour) => {
        const [r, g, b] = colour.match(/[\\d.]+/g).map((v) => v / 255)
          .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
      };
      const behind = (node) => {
        for (let at = node; at; at = at.parentElement) {
          const colour = getComputedStyle(at).backgroundColor;
          if (!/, 0\\)$/.test(colour)) return light(colour);
        }
        return 1;
      };
      const nodes = [...document.querySelectorAll("main :is(p, td, th, h1, h2, h3, span, summary, output)")];
      return Math.min(...nodes.filter((node) => node.innerText).map((node) => {
        const [a, b] = [light(getComputedStyle(node).color), behind(node)].sort();
        return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
      }));
    }""")
    assert worst >= 4.5  # WCAG AA for text
