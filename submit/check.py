"""Make all checks of an archive, in the order of their ids, for one verdict."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from engines.errors import Exit
from submit import archive_checks, content_checks, trial_checks
from submit.checks import FAIL, NOT_EVALUATED, ON_TRUST, PASS, Check, Result, Submission, evaluate
from submit.isolation import isolation
from submit.profile import Profile
from submit.trial import Question, Trial


def checks_in(module: object) -> list[Check]:
    """Return the checks that a file holds, by id."""
    found = (each for each in vars(module).values() if isinstance(each, Check))
    return sorted(found, key=lambda each: each.id)


STATIC = sorted([*checks_in(archive_checks), *checks_in(content_checks)], key=lambda each: each.id)
TRIALS = checks_in(trial_checks)
ALL = {each.id: each for each in sorted([*STATIC, *TRIALS], key=lambda each: each.id)}


def check_archive(
    path: Path, profile: Profile, question: Question, seconds: float, say: Callable[[str], None]
) -> Iterator[Result]:
    """Yield the result of every check, as it comes: first those that run nothing, then the others.

    Only an archive that passes all of the former is installed and run. seconds: that all of it may take.
    InputError: this is no zip file.
    """
    with Submission(path, profile, seconds) as submission:
        wrong = []
        for each in STATIC:
            result = evaluate(each, submission)
            wrong += [each.id] if result.status != PASS else []
            yield result
        with Trial(submission, question, say) as trial:
            for each in TRIALS:
                yield not_run(each, wrong) if wrong else evaluate(each, trial, on_trust=isolation() is None)


def not_run(each: Check, wrong: list[str]) -> Result:
    """Return the result of a check that would have run an archive that is wrong already."""
    note = f"nothing of the archive was installed or run: see {', '.join(wrong)}"
    return Result(each.id, each.name, NOT_EVALUATED, each.reason, each.fix, [], [note])


def exit_status(results: Iterable[Result]) -> Exit:
    """Return that of the first check that failed; one not evaluated is no pass, nor is one on trust."""
    results = list(results)
    failed = [ALL[each.id].exit for each in results if each.status == FAIL]
    if failed:
        return failed[0]
    statuses = {each.status for each in results}
    if NOT_EVALUATED in statuses:
        return Exit.ENVIRONMENT
    return Exit.ON_TRUST if ON_TRUST in statuses else Exit.OK


def told(result: Result) -> str:
    """Return a result in lines for people."""
    lines = [f"{result.id} {result.name}: {result.status}"]
    lines += [f"    {text}" for each in result.notes for text in each.splitlines()]
    lines += [f"  - {text}" for each in result.problems for text in each.splitlines()]
    if result.problems:
        lines += [f"    why: {result.reason}", f"    fix: {result.fix}"]
    return "\n".join(lines)
