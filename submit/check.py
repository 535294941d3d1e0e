"""Make all checks of an archive, in the order of their ids, for one verdict."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from engines.errors import Exit
from submit import archive_checks, content_checks, trial_checks
from submit.checks import FAIL, PASS, Check, Result, Submission, evaluate
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
    path: Path, profile: Profile, question: Question, say: Callable[[str], None]
) -> Iterator[Result]:
    """Yield the result of every check, as it comes: first those that run nothing, then the others.

    InputError: this is no zip file. An archive that is not safe to unpack is never run.
    """
    with Submission(path, profile) as submission:
        yield from (evaluate(each, submission) for each in STATIC)
        with Trial(submission, question, say) as trial:
            yield from (evaluate(each, trial) for each in TRIALS)


def check_statically(path: Path, profile: Profile) -> list[Result]:
    """Make the checks that run nothing of the archive. InputError: this is no zip file."""
    with Submission(path, profile) as submission:
        return [evaluate(each, submission) for each in STATIC]


def exit_status(results: Iterable[Result]) -> Exit:
    """Return that of the first check that failed; one not evaluated is no pass, for the environment."""
    results = list(results)
    failed = [ALL[each.id].exit for each in results if each.status == FAIL]
    if failed:
        return failed[0]
    return Exit.OK if all(each.status == PASS for each in results) else Exit.ENVIRONMENT


def told(result: Result) -> str:
    """Return a result in lines for people."""
    lines = [f"{result.id} {result.name}: {result.status}"]
    lines += [f"    {text}" for each in result.notes for text in each.splitlines()]
    lines += [f"  - {text}" for each in result.problems for text in each.splitlines()]
    if result.problems:
        lines += [f"    why: {result.reason}", f"    fix: {result.fix}"]
    return "\n".join(lines)
