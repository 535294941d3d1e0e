"""Find secrets in a text by their forms: keys of known services, and what is assigned to a telling name."""

from __future__ import annotations

import re
from collections.abc import Iterator


def _word(start: str, rest: str) -> re.Pattern:
    """Compile a pattern for a word; as its first letters are known, a text is searched at memory's speed."""
    return re.compile(f"{start}(?<!\\w{start}){rest}")


SECRETS = {
    "a private key": [re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----")],
    "a cloud access key": [
        *(_word(each, r"[0-9A-Z]{16}\b") for each in ("AKIA", "ASIA")),  # Amazon
        _word("ALTAK", r"-?[A-Za-z0-9]{16,}"),  # Baidu
        _word("LTAI", r"[A-Za-z0-9]{12,26}\b"),  # Alibaba
        _word("AKID", r"[A-Za-z0-9]{32}\b"),  # Tencent
    ],
    "a GitHub token": [_word("gh", r"[pousr]_[A-Za-z0-9]{36}"), _word("github_pat_", r"\w{60,}")],
    "a GitLab token": [_word("glpat-", r"[\w-]{20,}")],
    "a Hugging Face token": [_word("hf_", r"[A-Za-z0-9]{30,}")],
    "a package index's token": [_word("npm_", r"[A-Za-z0-9]{36}"), _word("pypi-AgEI", r"[\w-]{30,}")],
    "a Slack token": [_word("xox", r"[abeoprs]-[A-Za-z0-9-]{10,}"), _word("xapp-", r"\d-[A-Za-z0-9-]{10,}")],
    "a web token": [_word("eyJ", r"[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,}")],
    "an API key": [
        _word("sk-", r"[A-Za-z0-9_-]{32,}"),
        _word("AIza", r"[\w-]{35}"),  # Google
        _word("[sr]k_live_", r"[A-Za-z0-9]{16,}"),  # Stripe
    ],
}
# In lower case. A name may end with one of these; what stands for a value, as ${NAME} or <name>, is none.
PASSWORD_NAMES = ("password", "passwd", "secret", "secret_key", "access_key", "api_key", "apikey")
PASSWORD_NAMES += ("auth_token", "access_token")
STANDS_FOR = r"(?!\$\{|\$\(|\$\w+[\"']|[{<%])"
ASSIGNED = r"[\"']?\]?\s{0,9}(?:[=:]|:\s{0,9}[\w.]{1,40}\s{0,9}=)\s{0,9}"
QUOTE = r"[rbu]{0,2}[\"']"
QUOTED = [re.compile(rf"{each}{ASSIGNED}{QUOTE}{STANDS_FOR}[^\"'\s]{{8,}}[\"']") for each in PASSWORD_NAMES]
# A line of its own, in files where texts need no quotes.
BARE_TEXT = {".yaml", ".yml", ".cfg", ".ini", ".conf", ".env", ".properties", ".sh", ""}
LINE = r"^[ \t-]{{0,40}}(?:export |set )?[\w.-]{{0,40}}(?:{})[ \t]{{0,9}}[=:][ \t]{{0,9}}"
LINE_END = r"[ \t\r]{0,9}(?:#.*)?$"
BARE = re.compile(
    LINE.format("|".join(PASSWORD_NAMES)) + rf"(?![$&*!|>{{<%\[])[^\s\"'#]{{8,}}{LINE_END}", re.MULTILINE
)
# A tokenizer has tokens too: what is given to such a name must look as if it was drawn by lot. ak and sk are
# what clouds call the two halves of a key; no other letter or digit may come before.
KEY_NAMES = ("token", "app_key", "appkey", "secret_id", "ak", "sk")
DRAWN = r"(?=[^\s\"']{0,200}\d[a-z])[\w+=~-]{16,}"
WHOLE = {each: f"{each}(?<![a-z0-9]{each})" if len(each) == 2 else each for each in KEY_NAMES}
QUOTED_KEYS = [re.compile(rf"{each}{ASSIGNED}{QUOTE}{DRAWN}[\"']") for each in WHOLE.values()]
BARE_KEY = re.compile(LINE.format("|".join(WHOLE.values())) + DRAWN + LINE_END, re.MULTILINE)


def secrets_in(text: str, suffix: str) -> Iterator[str]:
    """Yield what kinds of secrets a text seems to hold. suffix: of its file's name, in lower case."""
    for what, forms in SECRETS.items():
        if any(form.search(text) for form in forms):
            yield what
    lower = text.lower()
    for what, names, quoted, bare in (
        ("a password", PASSWORD_NAMES, QUOTED, BARE),
        ("a key or token", KEY_NAMES, QUOTED_KEYS, BARE_KEY),
    ):
        by_line = suffix in BARE_TEXT and any(name in lower for name in names)
        if any(form.search(lower) for form in quoted) or (by_line and bare.search(lower)):
            yield what
