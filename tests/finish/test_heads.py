"""Heads find an answer that is in the features, none that is not, and say so on videos left out."""

import json

import numpy as np
import pytest

import finish.__main__ as script
from bench.similarity import load_extractor
from engines.errors import InputError
from finish.heads import PARTS, PLACES, Table, describe, fit, predict, read_table, write_table
from tests.clips import write
from tests.extractors import write_extractor

pytest.importorskip("sklearn")


def table(count=60, wide=20):
    random = np.random.default_rng(0)
    features = random.normal(size=(count, wide)).astype(np.float32)
    return Table([f"v{n}" for n in range(count)], features, "stfn")


def test_a_number_that_is_in_the_features_is_found_and_noise_is_not(tmp_path):
    made, random = table(), np.random.default_rng(1)
    rates = {name: float(0.03 + 0.01 * row[2]) for name, row in zip(made.ids, made.features, strict=True)}
    figures = fit(made, rates, "number", "rate", tmp_path / "head.npz")
    assert figures["rank correlation"]["value"] > 0.95 and figures["rank correlation"]["95 %"][0] > 0.9
    said = {line["video_id"]: line["rate"] for line in predict(tmp_path / "head.npz", made)}
    assert max(abs(said[name] - rate) for name, rate in rates.items()) < 0.01
    noise = fit(made, {name: float(random.normal()) for name in made.ids}, "number", "x", tmp_path / "n.npz")
    low, high = noise["rank correlation"]["95 %"]
    assert low < 0.25 and high - low > 0.2


def test_what_only_the_person_tells_is_not_found_where_people_are_left_out(tmp_path):
    random = np.random.default_rng(1)
    people, rates = random.normal(size=(12, 20)), random.normal(size=12)
    rows = np.repeat(people, 5, 0) + 0.05 * random.normal(size=(60, 20))
    made = Table([f"v{n}" for n in range(60)], rows.astype(np.float32), "stfn")
    who = {name: n // 5 for n, name in enumerate(made.ids)}
    labels = {name: float(rates[n]) for name, n in who.items()}
    seen = fit(made, labels, "number", "rate", tmp_path / "head.npz")["rank correlation"]
    unseen = fit(made, labels, "number", "rate", tmp_path / "head.npz", who)["rank correlation"]
    assert seen["value"] > 0.95 and unseen["value"] < 0.2
    assert np.ptp(unseen["95 %"]) > 2 * np.ptp(seen["95 %"])  # twelve people are fewer than sixty videos
    with pytest.raises(InputError, match="of one group"):
        fit(made, labels, "number", "rate", tmp_path / "head.npz", dict.fromkeys(made.ids, "a"))


@pytest.mark.parametrize("classes", [2, 3])
def test_classes_are_told_apart_and_the_file_gives_what_scikit_learn_gave(tmp_path, classes):
    made = table(90)
    best = made.features[:, :classes].argmax(1)
    labels = {name: "abc"[n] for name, n in zip(made.ids, best, strict=True)}
    figures = fit(made, labels, "class", "clothes", tmp_path / "head.npz")
    assert set(figures) == {"videos", "accuracy", "precision", "recall", "F1"}
    assert figures["accuracy"]["value"] > 0.8
    said = predict(tmp_path / "head.npz", made)
    assert np.mean([line["clothes"] == labels[line["video_id"]] for line in said]) > 0.9
    assert all(1 / classes - 1e-6 <= line["chance"] <= 1 for line in said)


def test_the_nearest_are_others_in_the_order_of_their_cosine(tmp_path):
    made = table(12)
    made.features[7] = 2 * made.features[3]
    fit(made, {}, "like", "like", tmp_path / "head.npz")
    first = predict(tmp_path / "head.npz", made, 3)[3]["like"]
    assert first[0] == {"video_id": "v7", "cosine": pytest.approx(1)} and len(first) == 3
    assert first[1]["cosine"] >= first[2]["cosine"] and "v3" not in {each["video_id"] for each in first}


def test_labels_and_heads_that_do_not_fit_are_input_errors(tmp_path):
    made = table()
    same = dict.fromkeys(made.ids, "a")
    for labels, kind, said in (({"v1": 1}, "number", "at least 10"), (same, "number", "--kind class"),
                               (same, "class", "needs two classes")):
        with pytest.raises(InputError, match=said):
            fit(made, labels, kind, "x", tmp_path / "head.npz")
    fit(made, {}, "like", "x", tmp_path / "head.npz")
    with pytest.raises(InputError, match="is for features of stfn; these are of other"):
        predict(tmp_path / "head.npz", Table(made.ids, made.features, "other"))
    with pytest.raises(InputError, match="for 20 numbers a video, these features have 19; write both anew"):
        predict(tmp_path / "head.npz", Table(made.ids, made.features[:, 1:], "stfn"))
    (tmp_path / "bad.npz").write_bytes(b"PK")
    for bad in (tmp_path / "bad.npz", tmp_path / "head.npz"):
        with pytest.raises(InputError, match="make it with: python -m finish features"):
            read_table(bad if bad.name == "bad.npz" else other(tmp_path))


def other(folder):
    np.savez(folder / "other.npz", ids=np.array(["a"]))
    return folder / "other.npz"


def test_a_table_is_read_as_it_was_written(tmp_path):
    made = table(3)
    write_table(made, tmp_path / "t.npz")
    back = read_table(tmp_path / "t.npz")
    assert back.ids == made.ids and back.extractor == "stfn" and (back.features == made.features).all()


def test_from_videos_to_predictions_on_the_command_line(tmp_path, run_main):
    videos = tmp_path / "videos"
    videos.mkdir()
    random = np.random.default_rng(0)
    apart, one = "Zoe\u0301", "Zo\u00e9"  # as macOS stores a name, and as others write it
    names = [*map(str, range(9)), one]
    for n in range(10):
        noise = random.integers(0, 120, (6, 32, 48, 3), dtype=np.uint8)
        write(videos / f"{names[n] if n < 9 else apart}.mp4", list(noise + np.uint8(100 * (n % 2))))
    (videos / "bad.mp4").write_bytes(b"no video")
    features, head, out = tmp_path / "f.npz", tmp_path / "h.npz", tmp_path / "p.jsonl"
    answer = run_main(script, "features", videos, "--out", features)
    assert answer.status == 7 and "bad.mp4" in answer.err and len(read_table(features).ids) == 10
    labels = tmp_path / "labels.jsonl"
    labels.write_text("\n".join(json.dumps({"video_id": names[n], "light": "dl"[n % 2]}) for n in range(10)))
    told = run_main(script, "fit", features, labels, "--kind", "class", "--target", "light", "--out", head)
    assert told.status == 0 and json.loads(told.out)["accuracy"]["value"] == 1
    assert run_main(script, "predict", head, features, "--out", out).status == 0
    said = {line["video_id"]: line["light"] for line in map(json.loads, out.read_text().splitlines())}
    assert said == {names[n]: "dl"[n % 2] for n in range(10)}
    assert run_main(script, "fit", features, "--out", head).status == 2
    lacking = run_main(script, "fit", features, labels, "--group", "brand", "--out", head)
    assert lacking.status == 3 and "no line has a brand" in lacking.err


def test_a_feature_has_the_mean_of_its_parts_how_they_differ_and_what_each_place_looks_like(tmp_path):
    frame = np.zeros((32, 48, 3), np.uint8)
    frame[20:] = 200  # the lower half looks unlike the upper one
    extractor = load_extractor("stfn")
    found = describe(write(tmp_path / "still.mp4", [frame] * 3), extractor)
    clip, frames = extractor.features([frame] * 3)
    mean, spread, looks = np.split(found, [len(clip), 2 * len(clip)])
    assert PARTS > 1 and np.abs(spread).max() < 1e-5 and np.linalg.norm(mean) > 0.5
    whole, _, upper, lower = looks.reshape(len(PLACES), frames.shape[1])
    assert whole @ frames[0] > 0.99 and upper @ lower < 0.9


def test_an_extractor_of_frames_alone_describes_videos_too(tmp_path):
    described = write_extractor(tmp_path / "grid", kind="frames")
    path = write(tmp_path / "still.mp4", [np.full((32, 48, 3), 90, np.uint8)] * 3)
    found = describe(path, load_extractor(str(described)))
    assert np.isfinite(found).all() and np.linalg.norm(found) > 0.5
