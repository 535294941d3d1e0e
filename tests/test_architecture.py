"""The rules of the design that decay unless a test holds them, each shown to notice a tree that breaks it."""

import ast
import graphlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from generators.contract import BUNDLED, FROM_FOLDER

ROOT = Path(__file__).parents[1]
# From the bottom up; rooms of one floor do not import each other.
TOP = {"optimize", "submit", "serve", "finish"}
FLOORS = [{"engines"}, {"generators"}, {"pipeline"}, {"bench"}, TOP, {"lab"}]
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
RUN_TIME = {"engines", "generators", "pipeline"}  # all that infer.py may import
LEAVES = {"finish", "serve", "lab"}  # nothing imports them, not even a script
OUTSIDE = {"tests", "examples"}  # may import everything, and nothing imports them
NOT_OURS = {"out", "runs", "built", "__pycache__"}
MOST_LINES = 300
VAGUE = {"util", "utils", "helper", "helpers", "common", "base"}
# Progress of long work and the scripts' messages, on stderr.
SPEAKERS = {"engines/progress.py", "engines/cli.py"}
CATCH_ALL = {"Exception", "BaseException"}
HEAVY = {"torch", "diffusers", "cv2", "PIL", "imageio_ffmpeg", "tqdm",
         "onnx", "onnxruntime", "openvino", "tensorrt", "pycuda", "open_clip", "ray"}


def sources(root):
    """Path and syntax tree of every Python file of ours, by its path from root."""
    found = {}
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".") and name not in NOT_OURS]
        if "pyvenv.cfg" in files:
            folders.clear()
            continue
        for path in (Path(folder, name) for name in files if name.endswith(".py")):
            found[path.relative_to(root)] = ast.parse(path.read_text(encoding="utf-8"), str(path))
    return dict(sorted(found.items()))


def module_name(path):
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path, code):
    """Line and full name of all that a file imports, also inside functions; `from a import b` gives a.b."""
    package = path.parent.parts
    for node in ast.walk(code):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = package[:len(package) - node.level + 1] if node.level else ()
            module = (*start, *filter(None, [node.module]))
            yield from ((node.lineno, ".".join((*module, alias.name))) for alias in node.names)


def may_import(path, target):
    """Whether a file may import a room."""
    room = path.parts[0]
    if target == room:
        return True
    if target in LEAVES and room != "lab":
        return False
    if len(path.parts) == 1:
        return path.name != "infer.py" or target in RUN_TIME
    return FLOOR[target] < FLOOR[room]


def forbidden_imports(root):
    files = sources(root)
    scripts = {path.stem for path in files if len(path.parts) == 1}
    wrong = [f"{path}: {path.parts[0]}/ is not a room of the design"
             for path in files if len(path.parts) > 1 and path.parts[0] not in {*FLOOR, *OUTSIDE}]
    for path, code in files.items():
        room = path.parts[0]
        if wrong or room in OUTSIDE:
            continue
        for line, name in imported(path, code):
            target = name.partition(".")[0]
            above = target in FLOOR and not may_import(path, target)
            if above or target in scripts or target in OUTSIDE:
                wrong.append(f"{path}:{line}: must not import {name}")
    return wrong


def import_cycle(root):
    """The modules of one import cycle, or nothing."""
    files = {module_name(path): (path, code) for path, code in sources(root).items()}
    graph = {}
    for module, (path, code) in files.items():
        names = {name if name in files else name.rpartition(".")[0] for _, name in imported(path, code)}
        graph[module] = names & files.keys()
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return error.args[1]
    return []


def long_files(root):
    lengths = {path: len((root / path).read_text(encoding="utf-8").splitlines()) for path in sources(root)}
    return [f"{path}: {lines} lines" for path, lines in lengths.items() if lines > MOST_LINES]


def vague_names(root):
    return [str(path) for path in sources(root) if not VAGUE.isdisjoint({path.stem, *path.parts[:-1]})]


def names_in(node):
    return {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}


def catch_alls(root):
    """Handlers and suppressions of every exception, bare ones included."""
    wrong = []
    for path, code in sources(root).items():
        for node in ast.walk(code):
            if isinstance(node, ast.ExceptHandler):
                everything = node.type is None or names_in(node.type) & CATCH_ALL
            else:
                call = isinstance(node, ast.Call) and ast.unparse(node.func).endswith("suppress")
                everything = call and names_in(node) & CATCH_ALL
            if everything:
                wrong.append(f"{path}:{node.lineno}")
    return wrong


def prints(root):
    """Calls of print in a room below lab, where only `__main__.py` and SPEAKERS talk to people."""
    return [f"{path}:{node.lineno}" for path, code in sources(root).items()
            if path.parts[0] in FLOOR.keys() - {"lab"} and path.name != "__main__.py"
            and path.as_posix() not in SPEAKERS
            for node in ast.walk(code)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"]


def python(root, *arguments):
    return subprocess.run([sys.executable, *arguments], cwd=root, capture_output=True, text=True, timeout=120)


def heavy_imports(root, modules):
    """The heavy packages that a new Python has loaded after importing modules."""
    program = f"import sys, {', '.join(modules)}; print(*{HEAVY} & set(sys.modules))"
    answer = python(root, "-c", program)
    assert answer.returncode == 0, answer.stderr
    return answer.stdout.split()


def style_errors(root):
    settings = ["--config", str(ROOT / "pyproject.toml"), "--no-cache", "--output-format", "concise"]
    answer = python(root, "-m", "ruff", "check", *settings, ".")
    return "" if answer.returncode == 0 else answer.stdout + answer.stderr


def tree(root, files):
    """root with small files in it: text by path."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_rooms_import_only_rooms_below_them_and_nothing_imports_a_script():
    assert forbidden_imports(ROOT) == []


@pytest.mark.parametrize(("path", "line"), [
    ("engines/a.py", "import generators"),
    ("engines/a.py", "from pipeline import video"),
    ("generators/presenter/a.py", "from ... import optimize"),
    ("bench/a.py", "from submit.pack import pack"),
    ("bench/a.py", "def f():\n    import finish"),
    ("submit/__main__.py", "from finish import cut"),
    ("infer.py", "import finish.cover"),
    ("tune.py", "import serve.store"),
    ("serve/a.py", "from submit import pack"),
    ("pipeline/a.py", "from . import video, jobs\nimport infer"),
    ("bench/__main__.py", "import infer"),
    ("tune.py", "from infer import parse"),
    ("generators/a.py", "import tests.pipeline.test_video"),
])
def test_an_import_upwards_or_sideways_is_noticed(tmp_path, path, line):
    wrong = forbidden_imports(tree(tmp_path, {"infer.py": "", path: line}))
    assert len(wrong) == 1 and wrong[0].startswith(f"{path}:")


def test_imports_downwards_within_a_room_and_on_the_top_floor_are_allowed(tmp_path):
    assert forbidden_imports(tree(tmp_path, {
        "infer.py": "import engines, generators, pipeline.runner",
        "tune.py": "import bench, optimize",
        "pipeline/a.py": "import engines, generators.x, pipeline.b, numpy",
        "optimize/a.py": "import bench.judge, pipeline",
        "lab/a.py": "import optimize, submit, finish, bench",
        "finish/a.py": "import bench.similarity",
        "tests/test_a.py": "import infer, bench",
        "examples/a.py": "import infer, engines",
    })) == []


def test_a_folder_that_is_no_room_is_noticed(tmp_path):
    assert forbidden_imports(tree(tmp_path, {"extras/a.py": ""})) == [
        "extras/a.py: extras/ is not a room of the design"]


def test_modules_do_not_import_each_other_in_a_circle():
    assert import_cycle(ROOT) == []


def test_a_circle_of_imports_is_noticed(tmp_path):
    tree(tmp_path, {"engines/a.py": "from engines.b import x", "engines/c.py": "import engines.a",
                    "engines/b.py": "def f():\n    from . import c"})
    assert set(import_cycle(tmp_path)) == {"engines.a", "engines.b", "engines.c"}


def test_no_file_is_longer_than_a_reader_holds():
    assert long_files(ROOT) == []


def test_a_long_file_is_noticed(tmp_path):
    tree(tmp_path, {"engines/a.py": "x = 1\n" * 300, "engines/b.py": "x = 1\n" * 301})
    assert long_files(tmp_path) == ["engines/b.py: 301 lines"]


def test_files_are_named_for_what_is_in_them():
    assert vague_names(ROOT) == []


def test_a_vague_name_is_noticed(tmp_path):
    tree(tmp_path, {"engines/utils.py": "", "pipeline/common/a.py": "", "engines/database.py": ""})
    assert vague_names(tmp_path) == ["engines/utils.py", "pipeline/common/a.py"]


def test_nothing_catches_every_exception():
    assert catch_alls(ROOT) == []


@pytest.mark.parametrize("text", [
    "try:\n    f()\nexcept:\n    pass",
    "try:\n    f()\nexcept Exception:\n    pass",
    "try:\n    f()\nexcept (OSError, BaseException) as error:\n    pass",
    "x = 1\n\nwith contextlib.suppress(Exception):\n    f()",
])
def test_catching_everything_is_noticed(tmp_path, text):
    narrow = "try:\n    f()\nexcept OSError:\n    raise Exception from None"
    assert catch_alls(tree(tmp_path, {"engines/a.py": text, "engines/b.py": narrow})) == ["engines/a.py:3"]


def test_rooms_do_not_print():
    assert prints(ROOT) == []


def test_a_print_in_a_room_is_noticed(tmp_path):
    tree(tmp_path, {"engines/a.py": "x = 'print()'\nprint(x)", "engines/__main__.py": "print()",
                    "infer.py": "print()", "engines/progress.py": "print()"})
    assert prints(tmp_path) == ["engines/a.py:2"]


def light_modules():
    """All that a run on another engine than torch may import; the rest of a generator makes networks."""
    rooms = {"infer.py", *RUN_TIME}
    generators = {place.partition(":")[0] for place in (*BUNDLED.values(), *FROM_FOLDER.values())}
    modules = {module_name(path): path for path in sources(ROOT)
               if path.parts[0] in rooms and path.name != "__main__.py"}
    return [name for name, path in modules.items()
            if path.parts[0] != "generators" or len(path.parts) == 2 or name in generators]


def test_importing_what_a_run_needs_loads_no_heavy_package():
    assert heavy_imports(ROOT, light_modules()) == []


def test_a_heavy_import_is_noticed(tmp_path):
    tree(tmp_path, {"engines/a.py": "from engines import b", "engines/b.py": "import PIL"})
    assert heavy_imports(tmp_path, ["engines.a"]) == ["PIL"]


def test_help_answers_without_importing_torch():
    answer = python(ROOT, "-X", "importtime", "infer.py", "--help")
    loaded = {line.rpartition("|")[2].strip() for line in answer.stderr.splitlines()}
    assert answer.returncode == 0 and "--data" in answer.stdout
    assert "argparse" in loaded and HEAVY.isdisjoint(loaded)


def test_ruff_finds_nothing():
    assert style_errors(ROOT) == ""


def test_bad_style_is_noticed(tmp_path):
    assert "F401" in style_errors(tree(tmp_path, {"engines/a.py": '"""A file."""\n\nimport os\n'}))
