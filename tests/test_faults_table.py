"""docs/faults.md lists every fault and names tests that are there."""

import ast
from pathlib import Path

from tests.fault_counts import rows

TESTS = Path(__file__).resolve().parent


def functions(name):
    (path,) = TESTS.rglob(name)
    code = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in code.body if isinstance(node, ast.FunctionDef)}


def test_every_fault_has_a_row_and_a_test():
    assert list(rows()) == [f"F{number:02}" for number in range(1, 41)]
    assert [fault for fault, names in rows().items() if not names] == []


def test_every_test_that_is_named_is_there():
    named = {name for names in rows().values() for name in names}
    found = {f"{file}::{test}" for file in {name.partition("::")[0] for name in named}
             for test in functions(file)}
    assert named <= found, sorted(named - found)


def test_every_test_of_faults_is_named():
    named = {name for names in rows().values() for name in names}
    for path in TESTS.glob("test_faults_*.py"):
        if path.name != Path(__file__).name:
            tests = {f"{path.name}::{name}" for name in functions(path.name) if name.startswith("test_")}
            assert tests <= named, sorted(tests - named)
