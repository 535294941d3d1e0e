"""Spoil the bytes of files, and the words of texts."""

from __future__ import annotations

import random
import re

MUTATIONS = ("cut", "bits", "zeros", "text", "begin", "repeat")
WORD = re.compile(rb'"[^"\n]*"|-?\d[\d.eE+-]*|[\[\]{},:=\n]|[A-Za-z_]\w*')
NASTY = (
    b"", b"0", b"-1", b"1e999", b"nan", b"1.5", b"1" * 400, b"-" + b"9" * 5000, b"0x" + b"f" * 300, b"true",
    b"null", b"[]", b"{}", b"[[]]", b'""', b'"\\u0000"', b'"\\ud800"', b"\0", b"\xff\xfe", b"\r", b'"', b"'",
    b"../../etc/passwd", b"/dev/zero", b"a" * 300, b"\xe8\xb7\xb3" * 90, b"[" * 50_000, b'{"a":' * 50_000,
    b",,", b"2024-01-01", b"4294967296", b"-9223372036854775809", b"18446744073709551616",
)  # fmt: skip


def mutated(data: bytes, kind: str, draws: random.Random) -> bytearray:
    """Spoil bytes in one of the ways of MUTATIONS."""
    data = bytearray(data)
    at = draws.randrange(1, len(data))
    if kind == "cut":
        return data[:at]
    if kind == "begin":
        return data[at:]
    if kind == "repeat":
        return data[:at] + data[draws.randrange(at) :]
    for _ in range(draws.choice((1, 20, 200))):
        at = draws.randrange(len(data))
        if kind == "bits":
            data[at] ^= 1 << draws.randrange(8)
        else:
            data[at : at + 16] = bytes(16) if kind == "zeros" else b"hello, it is me "
    return data


def reworded(text: bytes, draws: random.Random) -> bytes:
    """Replace, remove or double one to three words of a text: numbers, quoted texts, names, signs."""
    for _ in range(draws.randint(1, 3)):
        words = [match.span() for match in WORD.finditer(text[:100_000])]
        if not words:
            return draws.choice(NASTY)
        start, end = draws.choice(words)
        other = text[slice(*draws.choice(words))]
        new = draws.choice((draws.choice(NASTY), draws.choice(NASTY), other, text[start:end] * 2))
        text = text[:start] + new + text[end:]
    return text
