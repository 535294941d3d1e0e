"""The default of highlights under the rules of the contest's later rounds, on the command line."""

import json

import finish.__main__ as script


def later_rounds(videos, scorer, asked, count, run_main):
    """Nearly all frames are kept, every line states the size, check and score go by it."""
    every = asked.with_name("every.jsonl")
    made = run_main(script, "highlights", *videos, "--out", every, "--scorer", scorer, "--index", asked,
                    "--rules", "later")
    assert made.status == 0
    lines = [json.loads(line) for line in every.read_text().splitlines()]
    assert {line["model_size_mb"] for line in lines} == {lines[0]["model_size_mb"]}
    assert all(len(line["predictions"]) >= 0.9 * count for line in lines)
    checked = run_main(script, "check", every, "--index", asked, *videos)
    assert checked.status == 0 and "rules of the later rounds" in checked.err
    first = run_main(script, "check", every, "--index", asked, *videos, "--rules", "first")
    assert first.status == 3 and "line 1: model_size_mb is not known in the first round" in first.out
    scored = run_main(script, "score", every, every, *videos).out.splitlines()
    assert scored[-2].endswith("times 1.00") and scored[-1] == "100.0000"
    large = asked.parent / "large.jsonl"
    large.write_text("\n".join(json.dumps({**line, "model_size_mb": 501}) for line in lines))
    assert run_main(script, "score", large, every, *videos).out.endswith("times 0.90\n90.0000\n")
