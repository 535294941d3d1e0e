"""Pairing a data folder: who belongs to whom, and what is said of the rest."""

import os
import re
import time

import pytest

from engines.errors import InputError
from pipeline.batch.dataset import SKELETON_SUFFIXES, Request, find_requests
from pipeline.video.image import PICTURE_SUFFIXES
from pipeline.video.reader import VideoReader
from tests.clips import make

SEED = 42


@pytest.fixture
def folder(tmp_path):
    """A function that makes a data folder of files by name; pairs is the text of pairs.csv."""
    def make(videos=(), images=(), pairs=None):
        for kind, names in (("videos", videos), ("images", images)):
            (tmp_path / kind).mkdir()
            for name in names:
                (tmp_path / kind / name).write_bytes(b"x")
        if pairs is not None:
            (tmp_path / "pairs.csv").write_text(pairs, encoding="utf-8")
        return tmp_path
    return make


def pair(data):
    return find_requests(data, SEED)


def names(pairing):
    return [(each.id, each.video.name, each.image.name, each.seed) for each in pairing.requests]


def refusal(data):
    with pytest.raises(InputError) as error:
        pair(data)
    return str(error.value)


def test_equal_stems_are_pairs_in_order_with_the_given_seed(folder):
    data = folder(["b.mp4", "a.mov"], ["a.png", "b.jpg"])
    assert pair(data).requests == [Request("a", data / "videos/a.mov", data / "images/a.png", SEED),
                                   Request("b", data / "videos/b.mp4", data / "images/b.jpg", SEED)]
    assert pair(data).unpaired == {}


def test_one_image_serves_all_videos(folder):
    pairing = pair(folder(["b.mp4", "a.mp4"], ["person.png"]))
    assert names(pairing) == [("a", "a.mp4", "person.png", SEED), ("b", "b.mp4", "person.png", SEED)]
    assert pairing.unpaired == {}


def test_one_image_with_a_video_of_its_name_belongs_to_that_one_only(folder):
    pairing = pair(folder(["a.mp4", "b.mp4"], ["a.png"]))
    assert names(pairing) == [("a", "a.mp4", "a.png", SEED)]
    assert set(pairing.unpaired) == {"b"}


def test_what_has_no_partner_is_listed_with_what_to_do(folder):
    data = folder(["a.mp4", "lonely.mp4"], ["a.png", "nobody.png"])
    assert pair(data).unpaired == {
        "lonely": f"{data}/videos/lonely.mp4 has no image; add images/lonely.png or a line to pairs.csv",
        "nobody": f"{data}/images/nobody.png has no video; "
                  "add videos/nobody.mp4, a line to pairs.csv, or remove it"}


@pytest.mark.parametrize(("videos", "images"), [(["a.mp4", "a.mov", "b.mp4"], ["a.png", "b.png"]),
                                                (["a.mp4", "b.mp4"], ["a.jpg", "a.png", "b.png"])])
def test_two_files_of_one_name_are_listed_and_the_others_made(folder, videos, images):
    pairing = pair(folder(videos, images))
    assert names(pairing) == [("b", "b.mp4", "b.png", SEED)]
    assert set(pairing.unpaired) == {"a"}
    assert re.fullmatch(r"two files with this name: a\.\w+, a\.\w+; keep one", pairing.unpaired["a"])


def test_an_animation_beside_a_video_of_its_name_is_a_preview(folder):
    data = folder(["a.gif", "a.mp4", "b.gif", "c.gif", "c.webp"], ["a.png", "b.png", "c.png"])
    assert names(pair(data)) == [("a", "a.mp4", "a.png", SEED), ("b", "b.gif", "b.png", SEED)]
    assert pair(data).ignored == {"videos/a.gif": f"{data}/videos/a.gif is not taken beside a.mp4"}
    assert pair(data).unpaired == {"c": "two files with this name: c.gif, c.webp; keep one"}


def test_two_pictures_of_one_name_are_not_one_image_for_all(folder):
    pairing = pair(folder(["a.mp4"], ["person.jpg", "person.png"]))
    assert pairing.requests == []
    assert "two files with this name: person.jpg, person.png; keep one" in pairing.unpaired["person"]
    assert "has no image" in pairing.unpaired["a"]


def test_hidden_and_foreign_files_are_ignored(folder):
    data = folder(["a.mp4", ".b.mp4", "._a.mp4", "notes.txt"], ["a.png", ".DS_Store", ".c.png", "Thumbs.db"])
    assert [request.id for request in pair(data).requests] == ["a"]
    assert pair(data).unpaired == {}


def test_every_container_that_ffmpeg_may_read_and_every_picture_is_taken(folder):
    suffixes = SKELETON_SUFFIXES, PICTURE_SUFFIXES
    pairing = pair(folder(*([f"{suffix[1:]}{suffix}" for suffix in sorted(kind)] for kind in suffixes)))
    assert {".gif", ".wmv", ".flv", ".ts", ".mpg", ".3gp", ".webp", ".mxf"} <= SKELETON_SUFFIXES
    assert set(pairing.unpaired) == {suffix[1:] for suffix in SKELETON_SUFFIXES ^ set(PICTURE_SUFFIXES)}
    assert pairing.ignored == {}


@pytest.mark.parametrize("suffix", ["gif", "webp", "wmv", "flv", "ts", "3gp", "mxf", "nut", "ogv"])
def test_what_is_taken_is_read_frame_by_frame(tmp_path, suffix):
    how = {"3gp": ["-c:v", "mpeg4"], "webp": ["-c:v", "libwebp_anim", "-preset", "none"]}.get(suffix, [])
    reader = VideoReader(make(tmp_path / f"a.{suffix}", *how, rate="25", seconds=0.4, size="160x120"))
    assert sum(1 for _ in reader) == 10 and reader.fps == 25


def test_what_is_not_taken_is_listed(folder):
    data = folder(["a.mp4", "b.txt", "Thumbs.db"], ["a.png", "c.psd"])
    (data / "videos" / "frames").mkdir()
    assert names(pair(data)) == [("a", "a.mp4", "a.png", SEED)]
    assert pair(data).ignored == {
        "videos/b.txt": f"{data}/videos/b.txt is not taken, by its ending it is no video: convert it to MP4",
        "videos/frames": f"{data}/videos/frames is a folder and not taken; make a file of it",
        "images/c.psd": f"{data}/images/c.psd is not taken, by its ending it is no picture: "
                        "convert it to PNG"}


@pytest.mark.parametrize(("kind", "name"), [("videos", "a.mp4"), ("images", "a.png")])
@pytest.mark.parametrize(("put", "why"), [
    (os.mkdir, "is a folder"), (lambda path: path.symlink_to("/nowhere"), "is a link to nothing"),
    (os.mkfifo, "is no regular file (a pipe, socket or device)"),
    (lambda path: path.symlink_to("/dev/zero"), "is no regular file (a pipe, socket or device)"),
    (lambda path: path.symlink_to(path), "cannot be read (Too many levels of symbolic links)")])
def test_what_is_no_file_is_listed_unopened_and_the_others_made(folder, kind, name, put, why):
    data = folder(["a.mp4", "b.mp4"], ["a.png", "b.png"])
    (path := data / kind / name).unlink()
    put(path)
    assert names(pair(data)) == [("b", "b.mp4", "b.png", SEED)]
    assert pair(data).unpaired == {"a": f"{path}: {why}; put a file in its place, or remove it"}
    (data / "pairs.csv").write_text("id,video,image\none,a.mp4,a.png\ntwo,b.mp4,b.png\n")
    assert names(pair(data)) == [("two", "b.mp4", "b.png", SEED)]
    assert pair(data).unpaired == {"one": f"{data / 'pairs.csv'}, line 2: {path} {why}"}


def test_a_folder_of_that_name_is_no_person_for_all(folder):
    (data := folder(["a.mp4"])).joinpath("images", "person.png").mkdir()
    assert pair(data).requests == [] and set(pair(data).unpaired) == {"a", "person"}


def test_a_name_that_fits_no_output_file_is_listed(folder):
    name = "a" * 252
    pairing = pair(folder([f"{name}.ts", "b.mp4"], ["p.png"]))
    assert [each.id for each in pairing.requests] == ["b"]
    assert f"has a name too long for {'a' * 20}....mp4; give it a shorter one" in pairing.unpaired[name]


def test_suffixes_count_in_any_case(folder):
    assert names(pair(folder(["a.MP4"], ["a.PNG"]))) == [("a", "a.MP4", "a.PNG", SEED)]


def test_names_may_hold_spaces_dots_and_any_script(folder):
    stems = ["a b", "take.2", "Łódź", "跳舞", "😀"]
    data = folder([f"{stem}.mp4" for stem in stems], [f"{stem}.png" for stem in stems])
    assert [request.id for request in pair(data).requests] == sorted(stems)


def test_both_ways_to_write_an_accent_are_one_name(folder):
    data = folder(["Zoe\u0308.mp4", "b.mp4"], ["Zo\u00eb.png", "b.png"])  # as macOS does, and others
    assert [request.id for request in pair(data).requests] == ["Zo\u00eb", "b"]


def test_a_missing_data_folder_is_named(tmp_path):
    text = refusal(tmp_path / "nowhere")
    assert text == f"data folder {tmp_path / 'nowhere'} does not exist; it needs videos/ and images/ in it"


@pytest.mark.parametrize("kind", ["videos", "images"])
def test_a_missing_videos_or_images_folder_is_named(folder, kind):
    data = folder(["a.mp4"], ["a.png"])
    for path in (data / kind).iterdir():
        path.unlink()
    (data / kind).rmdir()
    assert refusal(data) == f"{data / kind} does not exist; a data folder has videos/ and images/ in it"


@pytest.mark.parametrize(("videos", "images", "kind", "suffix"),
                         [([], ["a.png"], "videos", ".mp4"), (["a.mp4"], ["a.txt"], "images", ".png")])
def test_a_folder_without_videos_or_images_says_which_endings_count(folder, videos, images, kind, suffix):
    text = refusal(folder(videos, images))
    assert f"{kind} holds no file ending in" in text and suffix in text


def test_a_folder_that_holds_frames_alone_says_so(folder):
    (data := folder([], ["a.png"])).joinpath("videos", "a").mkdir()
    assert refusal(data).endswith(f"; {data}/videos/a is a folder and not taken; make a file of it")


# pairs.csv


def test_pairs_csv_decides_with_seeds(folder):
    data = folder(["v.mp4", "w.mp4"], ["p.png", "q.png"],
                  "id,video,image,seed\none,v.mp4,p.png,7\ntwo,v.mp4,q.png,\n three ,w.mp4,p.png,0\n")
    assert names(pair(data)) == [("one", "v.mp4", "p.png", 7), ("two", "v.mp4", "q.png", SEED),
                                 ("three", "w.mp4", "p.png", 0)]


def test_pairs_csv_may_leave_out_the_seeds_and_have_other_columns(folder):
    data = folder(["v.mp4"], ["p.png"], "note,image,video,id\nhello,p.png,v.mp4,one\n")
    assert names(pair(data)) == [("one", "v.mp4", "p.png", SEED)]


def test_pairs_csv_may_come_from_excel(folder):
    data = folder(["v.mp4"], ["p.png"], "\ufeffid,video,image\r\none,v.mp4,p.png\r\n")
    assert names(pair(data)) == [("one", "v.mp4", "p.png", SEED)]


@pytest.mark.parametrize("header", ["id,video", "video,image,seed", "id;video;image", ""])
def test_missing_columns_are_refused_with_those_that_are_there(folder, header):
    text = refusal(folder(["v.mp4"], ["p.png"], f"{header}\none,v.mp4\n"))
    assert "pairs.csv needs the columns id,video,image and may have seed; it has [" in text


def test_a_header_alone_is_refused(folder):
    assert "pairs.csv lists no request" in refusal(folder(["v.mp4"], ["p.png"], "id,video,image\n"))


def test_another_encoding_is_refused_with_what_to_do(folder):
    data = folder(["v.mp4"], ["p.png"])
    (data / "pairs.csv").write_bytes("id,video,image\nLódz,Ł.mp4,p.png\n".encode("cp1250"))
    assert "pairs.csv is not UTF-8" in refusal(data)


@pytest.mark.parametrize("first", ["v.mp4", "lost.mp4"])
def test_an_id_that_is_there_twice_is_refused(folder, first):
    data = folder(["v.mp4"], ["p.png"], f"id,video,image\none,{first},p.png\none,v.mp4,p.png\n")
    assert refusal(data) == f"{data / 'pairs.csv'}, line 3: id 'one' is there twice"


@pytest.mark.parametrize("put", [os.mkdir, os.mkfifo, lambda path: path.symlink_to("/nowhere")])
def test_pairs_csv_that_is_no_file_is_refused_instead_of_ignored(folder, put):
    data = folder(["v.mp4"], ["v.png"])
    put(data / "pairs.csv")
    assert re.fullmatch(rf"{data}/pairs.csv: is .*; put the list of pairs in its place.*", refusal(data))


def test_a_field_without_end_is_no_csv(folder):
    data = folder(["v.mp4"], ["p.png"], f'id,video,image\none,v.mp4,"{"x" * 140_000}\n')
    assert "pairs.csv is not a CSV file (field larger than field limit (131072)); save it" in refusal(data)


@pytest.mark.parametrize("name", ["a" * 252, "跳" * 84])
def test_an_id_too_long_for_a_file_is_refused_and_one_that_fits_is_not(folder, name):
    data = folder(["v.mp4"], ["p.png"], f"id,video,image\n{name},v.mp4,p.png\n")
    assert "pairs.csv, line 2:" in refusal(data) and "is too long for a file's name" in refusal(data)
    (data / "pairs.csv").write_text(f"id,video,image\n{name[:-1]},v.mp4,p.png\n", encoding="utf-8")
    assert [each.id for each in pair(data).requests] == [name[:-1]]


def test_many_rows_take_time_in_proportion(folder):
    """20,000 rows: 0.7 s on a quiet core; compared with each other they took 20 s."""
    rows = "".join(f"v{n},v.mp4,p.png\n" for n in range(20_000))
    data = folder(["v.mp4"], ["p.png"], f"id,video,image\n{rows}")
    began = time.process_time()
    assert len(pair(data).requests) == 20_000 and time.process_time() - began < 5


@pytest.mark.parametrize("name", ["../x", "a/b", "/etc/x", "..", ".", ".x", "", "  ", "a\0b", "a\x1b[2Jb"])
def test_an_id_that_is_no_file_name_is_refused(folder, name):
    text = refusal(folder(["v.mp4"], ["p.png"], f"id,video,image\n{name},v.mp4,p.png\n"))
    assert f"pairs.csv, line 2: {name.strip()!r} cannot name an output file; use letters, digits" in text


@pytest.mark.parametrize("seed", ["-1", "1.5", "x", "1e3", "²", str(2**63)])
def test_a_seed_that_is_no_whole_number_is_refused(folder, seed):
    text = refusal(folder(["v.mp4"], ["p.png"], f"id,video,image,seed\none,v.mp4,p.png,{seed}\n"))
    assert f"pairs.csv, line 2: seed {seed!r} is not a whole number >= 0 and < 2**63" in text


def test_a_seed_of_thousands_of_digits_is_refused_in_short_and_the_largest_is_taken(folder):
    data = folder(["v.mp4"], ["p.png"], f"id,video,image,seed\none,v.mp4,p.png,{'7' * 5000}\n")
    assert "line 2: seed '" in refusal(data) and len(refusal(data)) < 300
    (data / "pairs.csv").write_text(f"id,video,image,seed\none,v.mp4,p.png,{2**63 - 1}\n")
    assert pair(data).requests[0].seed == 2**63 - 1


@pytest.mark.parametrize(("line", "lost"), [("two,lost.mp4,p.png", "videos/lost.mp4"), ("two,v.mp4,lost.png",
                         "images/lost.png"), ("two,v.mp4", "images"), ("two,,p.png", "videos")])
def test_a_line_whose_file_is_missing_is_listed_and_the_others_made(folder, line, lost):
    data = folder(["v.mp4"], ["p.png"], f"id,video,image\none,v.mp4,p.png\n{line}\n")
    assert [request.id for request in pair(data).requests] == ["one"]
    assert pair(data).unpaired == {"two": f"{data / 'pairs.csv'}, line 3: {data / lost} "
                                           f"{'does not exist' if 'lost' in lost else 'is a folder'}"}
