"""The file of results: all that was measured on a machine, written again after every figure.

It is also where a run that was cut off goes on: an entry that is done is not measured again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from bench.gpu.table import markdown
from bench.judge import plain
from engines.whole import whole

DONE, BEGUN, STOPPED = "done", "begun", "stopped"


class Record:
    """What is known of a machine, in <name>.json in each of the folders, and as tables in <name>.md.

    It begins with the first such file that is there, or with an earlier one. data: machine, installed, tests
    and entries by name. An entry has a status, facts, and ways by their name.
    """

    def __init__(self, name: str, folders: Sequence[Path], earlier: Path | None = None) -> None:
        self.paths = [folder / f"{name}.json" for folder in folders]
        known = next((path for path in [*self.paths, earlier] if path and path.is_file()), None)
        self.data: dict = json.loads(known.read_text(encoding="utf-8")) if known else {}
        self.data.setdefault("what", "python -m bench gpu")
        self.data.setdefault("entries", {})

    def done(self, entry: str) -> bool:
        """Whether an entry was measured to its end."""
        return self.data["entries"].get(entry, {}).get("status") == DONE

    def take(self, line: dict) -> None:
        """What a worker tells of an entry: that it begins, a fact, a way's figures, or that it is done."""
        entry, told = line["entry"], {key: value for key, value in line.items() if key != "entry"}
        if told.get("status") == BEGUN:
            ended = self.ended(entry)
            self.data["entries"][entry] = {"status": BEGUN, "ended": ended, "ways": {}, **told}
            return
        kept = self.data["entries"][entry]
        if "way" in told:
            kept["ways"][told.pop("way")] = told
        else:
            kept |= told

    def ended(self, entry: str) -> dict[str, str]:
        """By way, what it did to the process that measured; "" where that was in no way yet."""
        return self.data["entries"].get(entry, {}).get("ended", {})

    def stopped(self, entry: str, why: str, way: str | None = None) -> None:
        """That an entry was not measured to its end; way: whose fault it was."""
        kept = self.data["entries"][entry]
        kept |= {"status": STOPPED, "why": why}
        if way is not None:
            kept["ended"][way] = why

    def write(self) -> None:
        """All files, each whole or as it was."""
        found = plain(self.data)
        texts = {".json": json.dumps(found, indent=1, allow_nan=False) + "\n", ".md": markdown(found)}
        for path in self.paths:
            for suffix, text in texts.items():
                with whole(path.with_suffix(suffix)) as draft:
                    draft.write_text(text, encoding="utf-8")
