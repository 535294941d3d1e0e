"""Load a wrapper's file with its own folder's modules first, apart from modules of the same names elsewhere.

A baseline has its `models.py`, `pipeline.py` or `bench.py`. What a wrapper's file imports, and what these
modules import, is looked for in its folder, and in folders that it adds to sys.path, before anywhere else.
It lives in a package of its own, so that nothing else of the process sees it under its plain name.
"""

from __future__ import annotations

import builtins
import importlib
import os
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from importlib.util import module_from_spec, spec_from_file_location, spec_from_loader
from itertools import islice
from pathlib import Path
from types import ModuleType

PACKAGE = "_wrapper"  # of the first folder in a process; others have a number
MOST = 10_000  # entries of a folder without __init__.py that are looked at for code
ROOT = Path(__file__).resolve().parents[1]


class OwnFolder:
    """A wrapper's folder as a package. path: folders where imports of its code look first."""

    def __init__(self, folder: Path, package: str) -> None:
        self.package, self.folder, self.path = package, folder, [] if folder == ROOT else [str(folder)]
        self._others = set(sys.path)
        self.builtins = {**vars(builtins), "__import__": self._import}
        module = sys.modules[package] = ModuleType(package)
        module.__path__, module.__spec__ = self.path, ModuleSpec(package, None, is_package=True)

    def has(self, name: str, wanted: Sequence[str] | None = ()) -> bool:
        """Tell whether the wrapper's code finds that module here.

        A folder without __init__.py yields to an installed package, and counts if what is wanted is in it, or
        any code. A name of a package of ours is here only if the whole of it is: `generators.noise` is ours
        beside a baseline's generators.py.
        """
        top, inside = name.partition(".")[0], [f"{name}.{each}" for each in wanted or ()]
        spec = PathFinder.find_spec(f"{self.package}.{top}", self.path)
        if spec is None:
            return False
        if (ROOT / top / "__init__.py").is_file() or (ROOT / f"{top}.py").is_file():
            alone = spec.origin is None and name == top  # a folder, which may have nothing of what is wanted
            return any(map(self._holds, inside if alone else [name]))
        if spec.origin is not None:
            return True
        if top in sys.stdlib_module_names or _found(top) is not None:
            return False
        asked = [each for each in (name, *inside) if each != top]
        return any(map(self._holds, asked)) or any(_has_code(Path(folder, top)) for folder in self.path)

    def _holds(self, name: str) -> bool:
        """Tell whether a file or folder of that whole name is here."""
        places = (Path(folder, *name.split(".")) for folder in self.path)
        return any(place.is_dir() or place.with_name(f"{place.name}.py").is_file() for place in places)

    def take_added(self) -> None:
        """Move what the wrapper's code has added to sys.path to this folder's own path, before the others."""
        added = [each for each in sys.path if each not in self._others]
        sys.path[:] = [each for each in sys.path if each not in added]
        paths = [str(path) for path in map(Path.resolve, map(Path, added)) if path != ROOT]
        self.path[:] = [*paths, *(each for each in self.path if each not in paths)]

    def _import(
        self,
        name: str,
        names: Mapping[str, object] | None = None,
        inner: Mapping[str, object] | None = None,
        wanted: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        """Import as the statement does, from this folder first; it is __import__ of all code in it."""
        self.take_added()
        if level or not self.has(name, wanted):
            return builtins.__import__(name, names, inner, wanted, level)
        module = builtins.__import__(f"{self.package}.{name}", names, inner, wanted or ("__name__",), 0)
        return module if wanted else sys.modules[f"{self.package}.{name.partition('.')[0]}"]


class OwnLoader(SourceFileLoader):
    """A loader of a folder's modules, whose import statements look there first."""

    def __init__(self, own: OwnFolder, name: str, path: str) -> None:
        super().__init__(name, path)
        self._own = own

    def exec_module(self, module: ModuleType) -> None:
        """Run the module's code."""
        module.__builtins__ = self._own.builtins
        super().exec_module(module)
        self._own.take_added()


class Alias:
    """A loader that gives the module of a folder to code that asks for its plain name, as unpickling does."""

    def __init__(self, full: str) -> None:
        self._full = full

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Return the module, loaded by its full name."""
        module = importlib.import_module(self._full)
        self._spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Leave the module as it is: it was run already."""
        module.__spec__ = self._spec


class OwnFinder:
    """A finder of the folders' modules by their full names, and below one that goes by its plain name."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: object = None) -> ModuleSpec | None:
        """Find a module in the folder whose package its name or its parent's begins with."""
        parent, _, last = name.rpartition(".")
        known = getattr(sys.modules.get(parent), "__name__", "")
        own = _OWN.get(known.partition(".")[0])
        if own is None:
            return None
        if known != parent:
            return spec_from_loader(name, Alias(f"{known}.{last}"))
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and type(spec.loader) is SourceFileLoader:
            spec.loader = OwnLoader(own, name, spec.loader.path)
        return spec


class PlainNames:
    """A finder, behind all others, of the folders' modules by their plain names."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: object = None) -> ModuleSpec | None:
        """Find a module that nobody else has, in the folder that was loaded last."""
        own = next((each for each in reversed(_OWN.values()) if each.has(name)), None)
        return None if own is None else spec_from_loader(name, Alias(f"{own.package}.{name}"))


_OWN: dict[str, OwnFolder] = {}  # by package
_FILES: dict[str, list[Path]] = {}  # by a wrapper's module


def load_file(path: Path) -> ModuleType:
    """Run a wrapper's file, each time anew, and return its module; errors are those of its code."""
    path = path.resolve()
    importlib.invalidate_caches()
    if OwnFinder not in sys.meta_path:
        sys.meta_path.insert(0, OwnFinder)
        sys.meta_path.append(PlainNames)
    package = _package_of(path.parent)
    name = f"{package}.{path.stem.replace('.', '_')}"
    spec = spec_from_file_location(name, path, loader=OwnLoader(_OWN[package], name, str(path)))
    module = module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up by name
    with ExitStack() as undoing:
        undoing.callback(sys.modules.pop, name)
        spec.loader.exec_module(module)
        undoing.pop_all()
    loaded = [each for name, each in sys.modules.items() if name.startswith(f"{package}.")]
    files = [Path(each.__file__) for each in loaded if getattr(each, "__file__", None)]
    _FILES.setdefault(name, sorted(files))
    return module


def files_beside(module: str) -> Sequence[Path]:
    """List the files of a wrapper's folder that were imported when its file was first run, itself too."""
    return _FILES.get(module, ())


def plain(text: object) -> str:
    """Return an error's text with modules as the wrapper's code calls them."""
    text = str(text)
    for package in sorted(_OWN, reverse=True):
        text = text.replace(f"{package}.", "")
    return text


def _package_of(folder: Path) -> str:
    """Return the package of a folder, made when it is first asked for."""
    for package, own in _OWN.items():
        if own.folder == folder:
            return package
    package = f"{PACKAGE}{len(_OWN) + 1 if _OWN else ''}"
    _OWN[package] = OwnFolder(folder, package)
    return package


def _has_code(folder: Path) -> bool:
    """Tell whether there is a module in a folder or, by names that can be imported, in one below it.

    Of a folder with more than MOST entries not all are looked at: it is a data set's.
    """
    folders, left = deque([folder]), MOST
    while folders and left:
        with suppress(OSError), os.scandir(folders.popleft()) as entries:
            for entry in islice(entries, left):
                left -= 1
                if entry.name.endswith(".py") and entry.is_file():
                    return True
                if entry.name.isidentifier() and entry.is_dir():
                    folders.append(Path(entry.path))
    return False


def _found(top: str) -> ModuleSpec | None:
    """Find a module by the paths that are not a wrapper's, unless it is a folder of ours."""
    spec = PathFinder.find_spec(top)
    return None if spec is None or str(ROOT / top) in (spec.submodule_search_locations or ()) else spec
