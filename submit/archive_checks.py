"""Check the archive and the text in it: S01 to S05 and S16."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from pipeline.batch.dataset import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from pipeline.batch.run_folder import MANIFEST as RUN_MANIFEST
from pipeline.submission import FILE as MANIFEST
from submit.archive import MB, MODE, STAMP, UNIX, beside_entries, damaged, unsafe
from submit.checks import Note, Submission, check, too_large
from submit.local_headers import beside_headers, headers_differ
from submit.pack import ENTRY, RECIPE, REQUIREMENTS
from submit.secret_forms import BARE_TEXT, secrets_in

AT_ROOT = (ENTRY, MANIFEST, RECIPE, REQUIREMENTS)
PACK = "make the archive with python -m submit pack, and change nothing in it"
ZIP64_SIZE, ZIP64_COUNT = 0xFFFFFFFF, 0xFFFF
NOT_OURS = {"data", "videos", "images", "outputs", "out", "runs", "report", "tests", ".venv", "venv"}
PACKED = re.compile(rb"PK\x03\x04|PK\x05\x06|\x1f\x8b|BZh[1-9]|\xfd7zXZ|7z\xbc\xaf|Rar!|\x28\xb5\x2f\xfd")
MEDIA = re.compile(
    rb"....ftyp|RIFF....(AVI |WEBP)|\x1aE\xdf\xa3|\x89PNG|\xff\xd8\xff|GIF8|\x00\x00\x01[\xb3\xba]|FLV\x01",
    re.DOTALL,
)
LEFT_OVER = re.compile(r"\.(log|tmp|part|openvino|pyc|zip|tar|gz|7z|rar)$|^\.(new|writable)-|^core$")
SECRET_NAMES = re.compile(
    r"^\.(env|netrc|pypirc)|^id_(rsa|dsa|ecdsa|ed25519)|\.(pem|key|p12|pfx)$|^credentials"
)
TEXT = {".py", ".toml", ".txt", ".json", ".md", ".csv"} | BARE_TEXT
GRAPHS = {".onnx", ".engine"}
ROOTS = "home|root|Users|mnt|media|data|workspace|work|opt|srv|tmp|var|usr|tcdata|content|kaggle|private"
BEFORE = r"[\w./:~-]"  # in the midst of something else
ABSOLUTE = [  # each with the letters before its match that belong to it
    (re.compile(rf"/(?<!{BEFORE}/)({ROOTS})/[\w.-]"), 0),
    (re.compile(rf"~/(?<!{BEFORE}~/)\w"), 0),
    (re.compile(rf":(?<=[A-Za-z]:)(?<!{BEFORE}[A-Za-z]:)(\\{{1,2}}|/)[\w.-]"), 1),
]
WORKING_FOLDER = ("os.getcwd", "Path.cwd", "pathlib.Path.cwd")
ABSOLUTE_IN_BYTES = re.compile(rb"/(home|root|Users|workspace)/[\w.-]{2,}/[\w.-]{2,}")


@check("S01", "archive hygiene", "an unpacker refuses it, unpacks it elsewhere, or loses files", PACK)
def hygiene(submission: Submission) -> Iterator[str]:
    """Check names, methods and kinds of entries, both headers of each; then their bytes, if that is safe."""
    wrong = [*unsafe(submission.entries), *headers_differ(submission.path, submission.entries)]
    yield from wrong
    if not wrong and submission.is_safe:
        yield from damaged(submission.path)


@check("S02", "root folder", f"the grader starts {ENTRY} at the root of the archive", PACK)
def root(submission: Submission) -> Iterator[str]:
    """Check that the entry script and what it reads are at the root."""
    names = {entry.orig_filename for entry in submission.entries}
    for wanted in AT_ROOT:
        deeper = sorted(name for name in names if PurePosixPath(name).name == wanted)
        if wanted not in names:
            yield f"{wanted} is not at the root" + (f", but at {deeper[0]}" if deeper else "")


@check("S03", "size", "uploads are limited, and a zip bomb fills the disk", "send fewer or smaller files")
def size(submission: Submission) -> Iterator[str]:
    """Check the packed and the unpacked size, and that every unzip can read the archive."""
    packed, most = submission.path.stat().st_size / MB, submission.profile.max_mb
    largest = max(submission.entries, key=lambda entry: entry.file_size, default=None)
    what = f", the largest is {largest.orig_filename} with {largest.file_size / MB:.1f}" if largest else ""
    yield Note(f"{packed:.1f} MB{what}")
    if packed > most:
        yield f"it has {packed:.1f} MB, allowed are {most:g}"
    yield from too_large(submission.entries, submission.profile)
    if len(submission.entries) > ZIP64_COUNT or (largest and largest.file_size > ZIP64_SIZE):
        yield "it needs zip64, which some unpackers lack"


@check("S04", "nothing else", "data and demos are not ours to send, and secrets become everybody's", PACK)
def forbidden(submission: Submission) -> Iterator[str]:
    """Find data, videos, pictures, leftovers of runs, and secrets by name and by content."""
    for name in submission.files:
        path = PurePosixPath(name)
        begins = submission.beginning(name)
        if path.suffix.lower() in VIDEO_SUFFIXES | IMAGE_SUFFIXES or MEDIA.match(begins):
            yield f"{name} is a video or a picture"
        elif path.parts[0].lower() in NOT_OURS or path.name.lower() in (RUN_MANIFEST, "pairs.csv"):
            yield f"{name} is data, or was left by a run"
        elif any(LEFT_OVER.search(part.lower()) for part in path.parts):
            yield f"{name} was left by a run or a build, or is an archive"
        elif path.suffix != ".whl" and PACKED.match(begins):
            yield f"{name} is an archive, which hides what is in it"
        elif SECRET_NAMES.search(path.name.lower()):
            yield f"{name} may be a secret, by its name"
        elif path.suffix.lower() in TEXT:
            found = secrets_in(submission.text(name), path.suffix.lower())
            yield from (f"{name} seems to hold {what}" for what in found)


@check("S05", "no absolute paths", "they lead nowhere on another machine", "make it relative to the file")
def absolute_paths(submission: Submission) -> Iterator[str]:
    """Find paths of a machine in code, settings and graphs, and code that depends on the working folder."""
    for name in submission.files:
        path, suffix = submission.folder / name, PurePosixPath(name).suffix.lower()
        if suffix == ".py":
            yield from (f"{name}:{line}: {what}" for line, what in _paths_in_code(submission.code(name)))
        elif suffix in TEXT and PurePosixPath(name).name != "LICENSE":
            found = _absolute(submission.text(name))
            yield from (f"{name}: {each!r} begins an absolute path" for each in found)
        elif suffix in GRAPHS:
            found = ABSOLUTE_IN_BYTES.search(path.read_bytes())
            if found:
                yield f"{name}: has {found[0].decode()!r} in it"


def _absolute(text: str) -> Iterator[str]:
    for form, before in ABSOLUTE:
        yield from (text[found.start() - before : found.end()] for found in form.finditer(text))


def _paths_in_code(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            found = next(_absolute(node.value), None)
            if found:
                yield node.lineno, f"{found!r} begins an absolute path"
        elif isinstance(node, ast.Attribute) and ast.unparse(node) in WORKING_FOLDER:
            yield node.lineno, f"{ast.unparse(node)}: the working folder is another there"


@check("S16", "repeatable archive", "whether two archives hold the same could not be seen otherwise", PACK)
def deterministic(submission: Submission) -> Iterator[str]:
    """Check that order, times, modes and extras of entries are as pack makes them, and all there is."""
    yield from beside_entries(submission.path, submission.entries)
    yield from beside_headers(submission.path, submission.entries)
    names = [entry.orig_filename for entry in submission.entries]
    if names != sorted(names):
        yield "entries are not in the order of their names"
    for entry in submission.entries:
        if entry.date_time != STAMP:
            yield f"{entry.orig_filename} has the time {entry.date_time}, not {STAMP}"
        elif (entry.create_system, entry.external_attr >> 16) != (UNIX, MODE):
            yield f"{entry.orig_filename} has the mode {entry.external_attr >> 16:o}, not {MODE:o}"
        elif entry.extra or entry.comment:
            yield f"{entry.orig_filename} has an extra field or a comment"
