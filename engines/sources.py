"""The code of a Python file that one function can reach: what decides what the function makes.

A wrapper is edited often, and most of it, as guidance or windows, changes no network; hashing the whole file
would make every built file stale.
"""

from __future__ import annotations

import ast
import tokenize
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

# By these, code reaches other code whose names cannot be read from it.
DYNAMIC = {"__class__", "__dict__", "eval", "exec", "getattr", "globals", "locals", "setattr", "vars"}
SETTING = {"__dict__", "__setattr__", "setattr", "vars"}  # by these, a method sets what is named nowhere
Pieces = dict[str, list[ast.stmt]]  # statements by the names that they define


def reached_code(path: Path, start: str, kind: str | None = None) -> str:
    """Read the lines of a file that `start` may run: a function or class there, or a method of kind.

    They are found by name, rather too many than too few: statements that define nothing are always among
    them. Where names cannot be read from the code, or there is no such start, it is the whole file.
    """
    with tokenize.open(path) as file:
        text = file.read()
    top, members = defaultdict(list), defaultdict(list)
    reached: list[ast.AST] = []
    for node in ast.parse(text).body:
        if isinstance(node, ast.ClassDef) and node.name == kind:
            reached += [*node.bases, *node.keywords, *node.decorator_list]
            _sort(node.body, members, reached)
        else:
            _sort([node], top, reached)
    more = (members if kind else top)[start]
    names, attributes = _used(each for found in members.values() for each in found)
    if not more or SETTING & (names | attributes):
        return text
    while more:
        reached += more
        names, attributes = _used(reached)
        if DYNAMIC & (names | attributes) or "type" in names:
            return text
        found = [each for name in names for each in top[name]]
        found += [each for name in attributes for each in members[name]]
        more = [each for each in dict.fromkeys(found) if each not in reached]
    numbers = {number for node in reached for number in _lines(node)}
    return "\n".join(line for number, line in enumerate(text.split("\n"), 1) if number in numbers)


def _sort(body: Iterable[ast.stmt], defined: Pieces, always: list[ast.AST]) -> None:
    """Put each statement under the names that it defines, or into always if it defines none."""
    for node in body:
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):  # a docstring
            continue
        names = _defines(node)
        for name in names:
            defined[name].append(node)
        if not names:
            always.append(node)


def _defines(node: ast.stmt) -> set[str]:
    """Name what a statement defines; a method, what it sets on self too; import *, none."""
    if isinstance(node, ast.ImportFrom) and node.names[0].name == "*":
        return set()
    if isinstance(node, ast.Import | ast.ImportFrom):
        return {alias.asname or alias.name.partition(".")[0] for alias in node.names}
    if isinstance(node, ast.ClassDef):
        return {node.name}
    inside = list(ast.walk(node))
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        stored = {each.attr for each in inside if isinstance(each, ast.Attribute) and _is_stored(each)}
        return {node.name} | stored
    if isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign):
        return {each.id for each in inside if isinstance(each, ast.Name) and _is_stored(each)}
    return set()


def _is_stored(node: ast.Name | ast.Attribute) -> bool:
    return isinstance(node.ctx, ast.Store)


def _used(nodes: Iterable[ast.AST]) -> tuple[set[str], set[str]]:
    """Collect the names that nodes use, and the attributes that may be members of the class.

    Those are a.x and f().x; and x of all others, as in a.b.x, only where self is handed on.
    """
    inside = [each for node in nodes for each in ast.walk(node)]
    attributes = [each for each in inside if isinstance(each, ast.Attribute)]
    owners = {id(each.value) for each in attributes}
    found = [each for each in inside if isinstance(each, ast.Name)]
    names = {each.id for each in found}
    names |= {alias.name for each in inside if isinstance(each, ast.ImportFrom) for alias in each.names}
    handed_on = any(each.id == "self" and id(each) not in owners for each in found)
    near = [each for each in attributes if handed_on or isinstance(each.value, ast.Name | ast.Call)]
    return names, {each.attr for each in near}


def _lines(node: ast.AST) -> range:
    decorators = [each.lineno for each in getattr(node, "decorator_list", ())]
    return range(min([node.lineno, *decorators]), node.end_lineno + 1)
