"""Which files of ours and which packages a script needs: read from its imports, nothing is run."""

from __future__ import annotations

import ast
import re
import sys
import tokenize
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from engines.load import BACKENDS, packages, starts_from
from pipeline.caches.technique import load_technique
from pipeline.recipe import Recipe
from submit.errors import SubmitError

# A module that is imported by its name: engines/load.py and generators/contract.py have such names.
MODULE_NAME = re.compile(r"[a-z_]\w*(\.[a-z_]\w*)+(:\w+)?")
MISSING = {"ImportError", "ModuleNotFoundError", "Exception"}
# Of ours: for pictures that a contest's data has none of, which are refused without it; and for arrays to
# stay on a GPU, without which they pass through the host (TensorRT's submissions have it).
OPTIONAL = {"pi_heif", "cupy"}
# What a file of ours needs and does not import by name.
BY_NAME = {"pipeline/caches/cache_dit_blocks.py": ("transformers",)}  # cache-dit has it as a hidden import
# Packages that are installed under another name than they are imported by; a backend's file has its own.
DISTRIBUTIONS = {
    "PIL": "pillow", "cv2": "opencv-python-headless", "onnx_ir": "onnxscript",
    "imageio_ffmpeg": "imageio-ffmpeg", "tensorrt_rtx": "tensorrt-rtx", "open_clip": "open-clip-torch",
}  # fmt: skip


@dataclass(frozen=True)
class Import:
    """A module that a file imports; a relative name begins with its dots.

    lazy: inside a function; by_name: a string that names a module; tried: the file goes on without it.
    """

    name: str
    lazy: bool = False
    by_name: bool = False
    tried: bool = False

    @property
    def package(self) -> str:
        """The outermost part of the name."""
        return self.name.partition(".")[0]


def distribution(package: str, device: str = "cpu") -> str:
    """What to install for an import."""
    known = {name: what for backend in BACKENDS for name, what in packages(backend, device).items()}
    return {**DISTRIBUTIONS, **known}.get(package, package)


def needed_files(root: Path, starts: Iterable[str]) -> list[str]:
    """Paths below root of the scripts and of all of ours that they may ever import, packages included."""
    found, todo = set(), list(starts)
    while todo:
        path = todo.pop()
        if path not in found:
            found.add(path)
            for each in imports(root / path, sys.version_info[:2]):
                todo += own_files(root, each.name)
    return sorted(found)


def wrapper_files(root: Path, start: Path, sources: Iterable[Path]) -> tuple[list[Path], list[str]]:
    """List what a wrapper's file may import: itself and files near it or its sources, and those of ours.

    SubmitError: Python cannot read one.
    """
    below = [path.parent for path in sources if start.parent in path.parents]
    folders = list(dict.fromkeys([start.parent, *below]))
    near, ours, todo = set(), [], [start]
    while todo:
        path = todo.pop()
        if path not in near:
            near.add(path)
            try:
                imported = list(imports(path, sys.version_info[:2]))
            except (SyntaxError, ValueError) as error:
                raise SubmitError(f"{path}: Python cannot read this ({error}); correct it") from error
            for each in (each for each in imported if not each.name.endswith(".py")):  # a file's name
                found = _near(folders, path, each.name)
                todo += found
                ours += [] if found else own_files(root, each.name)
    return sorted(near), needed_files(root, ours)


def _near(folders: Iterable[Path], path: Path, module: str) -> list[Path]:
    """Find the files of a module that a wrapper's code at `path` imports from these folders."""
    name = module.lstrip(".")
    places = [path.parents[len(module) - len(name) - 1]] if module.startswith(".") else folders
    return next(filter(None, ([place / each for each in own_files(place, name)] for place in places)), [])


def needed_packages(
    root: Path, starts: Iterable[str], backend: str, generator: str | None, python: tuple[int, int]
) -> dict[str, str]:
    """Third-party packages that a run imports, by import name, and the first file of ours that does.

    Files of ours are followed from starts, the backend's and a generator's file (for a bundled one None),
    and the files in its folder from there.
    What functions import in them counts, but not what they import of ours; in a generator that is what
    builds networks from weights, for the torch engine alone, so for that it is followed too.
    """
    torch = starts_from(backend) is None
    entry = BACKENDS[backend][0].replace(".", "/") + ".py"
    own = set(filter(None, [generator]))
    todo, seen, near = [*starts, entry, *own], set(), []
    found = dict.fromkeys(packages(backend, "cuda"), entry)
    if generator is None:
        bundled = [path for path in bundled_generators(root) if (root / path).is_file()]
        own, todo = set(bundled), [*todo, *bundled]
    elif "/" in generator:
        beside = (root / generator).parent
        near = [beside, *sorted({path.parent for path in beside.rglob("*.py")} - {beside})]
    while todo:
        path = todo.pop(0)
        if path in seen:
            continue
        seen.add(path)
        for name in BY_NAME.get(path, ()):
            found.setdefault(name, path)
        for each in imports(root / path, python):
            beside = _near(near, root / path, each.name) if path in own else []
            files = [file.relative_to(root).as_posix() for file in beside] or own_files(root, each.name)
            own |= set(files if beside else ())
            builds = torch and (path in own or path.startswith("generators/"))
            if files and not each.by_name and (builds or not each.lazy):
                todo += files
            third_party = not files and not each.by_name and not _is_ours(root, each.package) and each.package
            spared = each.package in OPTIONAL or (path in own and each.tried)
            if third_party and not spared and (builds or not (each.lazy and path in own)):
                found.setdefault(each.package, path)
    return {name: found[name] for name in sorted(found)}


def technique_files(recipe: Recipe) -> list[str]:
    """The file of the recipe's technique, if it has one, which infer.py imports by name."""
    if recipe.technique is None:
        return []
    return [f"{load_technique(recipe.technique.name).module.replace('.', '/')}.py"]


def bundled_generators(root: Path) -> list[str]:
    """Files of the generators that come with Vivace, as generators/contract.py names them."""
    named = imports(root / "generators" / "contract.py", sys.version_info[:2])
    return [path for each in named if each.by_name for path in own_files(root, each.name)]


def own_files(root: Path, module: str) -> list[str]:
    """The file of a module of ours, and those of the packages around it; none if it is not ours."""
    parts = module.partition(":")[0].split(".")
    found = [
        Path(*parts[:end], "__init__.py").as_posix()
        for end in range(1, len(parts) + 1)
        if (root / Path(*parts[:end]) / "__init__.py").is_file()
    ]
    for end in (len(parts), len(parts) - 1):  # of `from a import b` the module may be a
        path = Path(*parts[:end]).with_suffix(".py") if end else None
        if path and (root / path).is_file():
            return [*found, path.as_posix()]
    return found


def imports(path: Path, python: tuple[int, int]) -> Iterator[Import]:
    """What a file imports on that Python, leaving out what only type checkers do; SyntaxError, ValueError."""
    with tokenize.open(path) as file:
        yield from _imports(ast.parse(file.read(), str(path)), python, False)


def _imports(node: ast.AST, python: tuple[int, int], lazy: bool, tried: bool = False) -> Iterator[Import]:
    if isinstance(node, ast.Import):
        yield from (Import(alias.name, lazy, tried=tried) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        within = "." * node.level + (f"{node.module}." if node.module else "")
        yield from (Import(f"{within}{alias.name}", lazy, tried=tried) for alias in node.names)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str) and MODULE_NAME.fullmatch(node.value):
        yield Import(node.value, lazy, by_name=True)
    children = ast.iter_child_nodes(node)
    if isinstance(node, ast.If):
        known = _known(node.test, python)
        if known is not None:
            children = node.body if known else node.orelse
    inside = lazy or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
    caught = isinstance(node, ast.Try) and any(
        each.type is None or MISSING & set(re.findall(r"\w+", ast.unparse(each.type)))
        for each in node.handlers
    )
    for child in children:
        yield from _imports(child, python, inside, tried or (caught and child in node.body))


def _known(test: ast.expr, python: tuple[int, int]) -> bool | None:
    """Whether a branch is taken, where that is known before the run."""
    text = ast.unparse(test)
    if text in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
        return False
    at_least = re.fullmatch(r"sys\.version_info >= \((\d+), (\d+)\)", text)
    return python >= (int(at_least[1]), int(at_least[2])) if at_least else None


def _is_ours(root: Path, package: str) -> bool:
    standard = package in sys.stdlib_module_names or package in ("tomllib", "__future__")
    return standard or (root / package).is_dir() or (root / f"{package}.py").is_file()
