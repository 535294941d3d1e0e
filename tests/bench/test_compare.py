"""Two reports compared: what noise explains is no regression, anything else is named, with a status."""

import copy

import pytest

from bench.compare import compare
from engines.errors import Exit


@pytest.fixture
def old():
    """A report of a baseline and a run twice as fast, with a noise floor of 1 %."""
    videos = [{"id": "a", "passes": True}, {"id": "b", "passes": False}]
    runs = [
        {"name": name, "timing": {"contest_seconds": 10 / speed}, "videos": videos,
         "verdict": {"alike": True, "in_time": True, "similarity": 0.99, "speed_ratio": speed, "reasons": []}}
        for name, speed in (("baseline", 1.0), ("fast", 2.0))
    ]
    return {"schema": 1, "noise_floor": 0.01, "settings": {"extractors": ["stfn", "clip"]}, "runs": runs}


@pytest.fixture
def new(old):
    return copy.deepcopy(old)


def test_a_report_is_no_regression_of_itself(old):
    outcome = compare(old, old)
    assert outcome.exit == Exit.OK and "no regression" in str(outcome)
    assert "| fast | 0.9900 | 2.00 | 5.00 |" in outcome.table


@pytest.mark.parametrize(("speed", "status"), [(2.2, Exit.OK), (1.97, Exit.OK), (1.95, Exit.TIME)])
def test_speed_may_fall_by_the_least_floor(old, new, speed, status):
    new["runs"][1]["verdict"]["speed_ratio"] = speed
    outcome = compare(old, new)
    assert outcome.exit == status and ("fast: 1.95 times" in str(outcome)) == (status == Exit.TIME)


def test_a_noisier_machine_allows_more(old, new):
    new["runs"][1]["verdict"]["speed_ratio"] = 1.9
    new["noise_floor"] = 0.06
    assert compare(old, new).exit == Exit.OK
    new["noise_floor"] = None
    assert compare(old, new).exit == Exit.TIME


def test_ratios_decide_so_that_a_slower_machine_is_no_regression(old, new):
    new["runs"][1]["timing"]["contest_seconds"] = 50
    assert compare(old, new).exit == Exit.OK
    new["runs"][1]["verdict"]["speed_ratio"] = None
    assert compare(old, new).regressions == ["fast: 50.00 s a video, was 5.00"]


def test_a_ratio_that_is_lost_as_videos_failed_is_a_regression_and_seconds_stand_for_none(old, new):
    new["runs"][1]["verdict"]["speed_ratio"] = None
    new["runs"][1] |= {"speed_unknown": "its speed is no ratio: b failed", "timing": {"contest_seconds": 1}}
    outcome = compare(old, new)
    assert outcome.exit == Exit.TIME
    assert outcome.regressions == ["fast: was 2.00 times as fast, and now its speed is no ratio: b failed"]
    assert compare(new, old).exit == compare(new, new).exit == Exit.OK


@pytest.mark.parametrize(("similarity", "status"), [
    (1.0, Exit.OK), (0.9895, Exit.OK), (0.988, Exit.SIMILARITY), (None, Exit.SIMILARITY)])
def test_similarity_may_fall_by_a_thousandth_and_must_be_there(old, new, similarity, status):
    new["runs"][1]["verdict"]["similarity"] = similarity
    assert compare(old, new).exit == status


def test_a_verdict_that_is_lost_is_a_regression_with_its_reasons(old, new):
    new["runs"][1]["verdict"] |= {"alike": False, "reasons": ["a: black 1, needs <= 0"]}
    new["runs"][0]["verdict"]["in_time"] = False
    outcome = compare(old, new)
    assert outcome.exit == Exit.SIMILARITY  # outranks time
    assert outcome.regressions == ["fast: is not the same video any more: a: black 1, needs <= 0",
                                   "baseline: is above the time threshold now"]


def test_a_video_that_passed_and_does_not_is_a_regression_though_its_run_had_failed_before(old, new):
    new["runs"][0]["videos"] = [{"id": "a", "passes": False}, {"id": "b", "passes": False}]
    outcome = compare(old, new)
    assert outcome.regressions == ["baseline: video a does not pass any more"]
    assert outcome.exit == Exit.SIMILARITY


def test_a_report_by_fewer_extractors_is_a_regression(old, new):
    new["settings"]["extractors"] = ["stfn", "another"]
    assert compare(old, new).regressions == ["extractor clip is missing"]


def test_missing_runs_and_videos_are_regressions_and_new_ones_are_not(old, new):
    baseline = new["runs"][0]
    new["runs"] = [{**baseline, "videos": baseline["videos"][:1]}, {**baseline, "name": "faster"}]
    outcome = compare(old, new)
    assert outcome.regressions == ["baseline: video b is missing", "fast: the new report has no such run"]
    assert "| faster | – → 0.9900 |" in outcome.table and "- fast: the new report" in str(outcome)


@pytest.mark.parametrize("other", [{"schema": 2}, {}, []])
def test_another_schema_is_refused(old, other):
    with pytest.raises(ValueError, match="the new report has the schema .*, understood is 1"):
        compare(old, other)


def test_a_report_that_lacks_a_part_is_refused(old, new):
    del new["runs"][0]["verdict"]
    with pytest.raises(ValueError, match="one of the reports is not whole: 'verdict'"):
        compare(old, new)
