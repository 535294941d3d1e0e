"""Further columns of pairs.csv: prompts, numbers and pictures reach the generator that asks for them."""

from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest

from engines.errors import Exit, FolderError, InputError
from pipeline.batch.batch import Jobs, run_here
from pipeline.batch.dataset import find_requests
from pipeline.batch.run_folder import RunFolder
from pipeline.parallel.ray_actors import Receipt, StoredSource
from pipeline.request import Source, make_video
from pipeline.runner import VideoRunner


@pytest.fixture
def asking(plain):
    """A generator that asks for columns, and keeps what it was given; its memory runs out once."""

    class Asking(plain):
        def __init__(self):
            super().__init__()
            self.given = []

        def condition(self, engines, chunks, image, *,
                      prompt="a person", strength=0.5, image2=None, image3=None):
            self.given.append({"prompt": prompt, "strength": strength, "image2": image2, "image3": image3})
            if len(self.given) == 1:
                raise MemoryError
            return super().condition(engines, chunks, image)

    return Asking()


@pytest.fixture
def listed(make_data, make_image_file):
    """A function that makes a data folder with a list, and finds its requests."""
    def make(*lines):
        data = make_data({"a": 3})
        make_image_file(data / "images" / "back.png", (20, 30))
        (data / "pairs.csv").write_text("\n".join(lines) + "\n")
        return find_requests(data)
    return make


def made(request, generator, tmp_path):
    silent = nullcontext(SimpleNamespace(tick=lambda: None))
    return make_video(request, tmp_path / "v.mp4", generator, generator.engines(), lambda total: silent)


def test_texts_numbers_and_pictures_reach_condition_and_the_manifest(asking, listed, tmp_path):
    [request] = listed("id,video,image,seed,prompt,strength,image2,image3",
                       'a,a.mp4,a.png,1,"she smiles, slowly",0.25,back.png,').requests
    line = {**request.described(), **made(request, asking, tmp_path)}
    for given in asking.given:  # the second time with less memory
        assert given["prompt"] == "she smiles, slowly" and given["strength"] == 0.25
        assert given["image3"] is None
        assert given["image2"].shape == (1, 96, 64, 3) and given["image2"].dtype == np.uint8
    assert len(asking.given) == 2
    assert line["columns"] == {"prompt": "she smiles, slowly", "strength": "0.25"}
    assert line["image2"].endswith("images/back.png") and len(line["image2_sha256"]) == 64
    assert not [note for note in line["notes"] if "pairs.csv" in note]


def test_an_empty_cell_or_no_column_means_the_default(asking, listed, tmp_path):
    for lines in (("id,video,image,prompt", "a,a.mp4,a.png,"), ("id,video,image", "a,a.mp4,a.png")):
        [request] = listed(*lines).requests
        made(request, asking, tmp_path)
        assert asking.given[-1] == {"prompt": "a person", "strength": 0.5, "image2": None, "image3": None}
        assert "columns" not in request.described()


def test_columns_that_a_generator_does_not_take_are_told(plain, asking, listed, tmp_path):
    [request] = listed("id,video,image,mood,image7", "a,a.mp4,a.png,merry,back.png").requests
    for generator, takes in ((plain(), "none beyond id, video, image, seed"),
                             (asking, "prompt, strength, image2, image3")):
        notes = made(request, generator, tmp_path)["notes"]
        assert f"plain makes no use of image7, mood in pairs.csv: it takes {takes}" in notes


@pytest.mark.parametrize(("header", "cell", "reason"), [
    ("strength", "much", "a: strength in pairs.csv is no number: 'much'"),
    ("mood", "merry", "a: plain needs the column prompt in pairs.csv")])
def test_cells_that_cannot_be_used_fail_their_video(asking, listed, tmp_path, header, cell, reason):
    if header == "mood":
        asking.condition = lambda engines, chunks, image, *, prompt: {}
    [request] = listed(f"id,video,image,{header}", f"a,a.mp4,a.png,{cell}").requests
    with pytest.raises(InputError, match=reason):
        made(request, asking, tmp_path)


def test_a_further_picture_that_is_not_there_is_its_requests_fault(listed):
    pairing = listed("id,video,image,image2", "a,a.mp4,a.png,none.png", "b,a.mp4,a.png,")
    assert [request.id for request in pairing.requests] == ["b"] and "none.png" in pairing.unpaired["a"]


@pytest.mark.parametrize(("changed", "reason"), [
    ("he frowns,back.png", "a: columns.prompt was .she smiles. when it was made, is .he frowns. here"),
    (",back.png", "a: columns.prompt was .she smiles. when it was made"),
    ("she smiles,a.png", "a: image2_sha256 was")])
def test_a_finished_video_is_kept_while_its_columns_are_the_same(asking, listed, tmp_path, changed, reason):
    def jobs(cells):
        pairing = listed("id,video,image,prompt,image2", f"a,a.mp4,a.png,{cells}")
        with RunFolder(tmp_path / "out") as folder:
            found = Jobs(pairing, folder, runner.identity, said.append)
            run_here(found, runner)
            return found.status

    said, runner = [], VideoRunner(asking, asking.engines())
    assert jobs("she smiles,back.png") == jobs("she smiles,back.png") == Exit.OK
    assert "1 of 1 videos were finished before and are kept" in said
    with pytest.raises(FolderError, match=reason):
        jobs(changed)


def test_a_cluster_hands_them_on(asking, listed, monkeypatch):
    [request] = listed("id,video,image,prompt,image2", "a,a.mp4,a.png,hello,back.png").requests
    with Source(request, asking) as source:
        columns = source.columns
    monkeypatch.setattr("pipeline.parallel.ray_actors.stored", lambda receipt: iter([source.image]))
    assert StoredSource(Receipt(columns=columns), asking).columns is columns
    assert columns["prompt"] == "hello" and columns["image2"].shape == (1, 96, 64, 3)
