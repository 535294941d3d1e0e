"""Secrets are found in all their forms, and ordinary code has none."""

import subprocess
from pathlib import Path

import pytest

from submit.archive_checks import TEXT
from submit.secret_forms import secrets_in

ROOT = Path(__file__).resolve().parents[2]
HELD = [
    (".json", '{"api_key": "0123456789abcdef0123"}'), (".json", '{"password":"hunter2hunter2"}'),
    (".yaml", "db:\n  password: hunter2hunter2  # ours\n"),
    (".ini", "[db]\nDB_PASSWORD = hunter2hunter2\r\n"),
    (".env", "export API_KEY=0123456789abcdef\n"), ("", "MY_SECRET=0123456789abcdef"),
    (".py", 'DB_PASSWORD = "hunter2hunter2"'), (".py", 'os.environ["API_KEY"] = "0123456789abcdef"'),
    (".py", "connect(user, password='hunter2hunter2')"), (".py", 'password: str = "hunter2hunter2"'),
    (".py", 'openai_api_key=b"0123456789ab"'), (".yaml", 'auth_token: "0123456789ab"')]
FREE = [
    (".py", 'token = tokenizer("a text of some words")'),
    (".py", "connect(password=None, secret=secret_of(me))"),
    (".py", 'api_key = os.environ["OPENAI_API_KEY"]'),
    (".py", 'api_key = os.getenv("API_KEY", "nothing-here")'),
    (".py", 'parser.add_argument("--password", help="of-the-server")'),
    (".py", 'if password == "correcthorse":'),
    (".py", 'password: str = ""'), (".py", "def ask(password: str, api_key: SomeLongType) -> None:"),
    (".py", 'password = f"{user}-{host}-{port}"'), (".py", 'api_key = "${OPENAI_API_KEY}"'),
    (".py", "secret = secrets.token_hex(32)"), (".py", 'words = {"secret_name": "abcdefghijkl"}'),
    (".json", '{"eos_token": "<|endoftext|>", "pad_token": "[PADDING]"}'),
    (".md", "password: whatever-you-like"),
    (".yaml", "password: ${DB_PASSWORD}\napi_key: null\nsecret:\n  name: abcdefghijkl\n"),
    (".ini", "password = %(db_password)s\npassword_file = secrets.txt\n"),
    (".sh", "API_KEY=$(cat somewhere)\n")]


def test_passwords_are_found_in_all_their_forms_and_ordinary_code_is_none():
    assert [each for each in HELD if list(secrets_in(each[1], each[0])) != ["a password"]] == []
    assert [each for each in FREE if list(secrets_in(each[1], each[0]))] == []


DRAWN = "0a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7"
# Put together here, or the test itself would seem to hold them.
KEYS = [
    ("a cloud access key", "AKIA" + "0A1B2C3D4E5F6G7H"), ("a cloud access key", "ALTAK" + DRAWN[:21]),
    ("a cloud access key", "bce-v3/ALTAK-" + DRAWN[:21] + "/" + "0a" * 20),
    ("a cloud access key", "LTAI" + DRAWN[:20]), ("a cloud access key", "AKID" + DRAWN[:32]),
    ("an API key", "AIza" + DRAWN), ("an API key", "sk-" + DRAWN), ("an API key", "sk_live_" + DRAWN[:24]),
    ("a Slack token", "xoxb-" + "0123456789-" + DRAWN[:24]), ("a Slack token", "xapp-1-" + DRAWN),
    ("a GitLab token", "glpat-" + DRAWN[:20]), ("a package index's token", "npm_" + (DRAWN * 2)[:36]),
    ("a package index's token", "pypi-" + "AgEI" + DRAWN),
    ("a web token", "eyJ" + DRAWN + ".eyJ" + DRAWN + "." + DRAWN)]


@pytest.mark.parametrize(("what", "text"), KEYS, ids=[text[:8] for _, text in KEYS])
def test_keys_of_known_services_are_found_anywhere_and_not_within_a_word(what, text):
    for put in ("{}", 'x = "{}"', "see {}, please", "KEY={}\n"):
        assert list(secrets_in(put.format(text), ".md")) == [what]
    assert list(secrets_in("x" + text.removeprefix("bce-v3/"), ".md")) == []


TOKENS = [
    (".py", f'bce_sk = "{DRAWN[:32]}"'), (".py", f'client(ak="{DRAWN[:32]}")'),
    (".json", f'{{"sk": "{DRAWN[:16]}"}}'), (".py", f"token = '{DRAWN}'"),
    (".py", f'HUB_TOKEN: str = "{DRAWN}"'), (".toml", f'app_key = "{DRAWN}"'),
    (".json", f'{{"SecretId": 1, "secret_id": "{DRAWN}"}}'), (".yaml", f"hub:\n  token: {DRAWN}  # ours\n"),
    (".env", f"export BCE_SK={DRAWN[:32]}\n"), (".ini", f"ak = {DRAWN[:32]}\r\n")]
NO_TOKENS = [
    (".py", 'token = "a-text-without-any-digit"'), (".py", 'pad_token = "[PAD]"'),
    (".json", '{"image_token": "image_placeholder_0001"}'),
    (".json", '{"bos_token": "<s2begin_of_sentence>"}'),
    (".py", 'token = os.environ["HUB_TOKEN_2B_OR_NOT"]'), (".py", f'mask = "{DRAWN}"'),
    (".py", f'disk = "{DRAWN}"'), (".py", f'break_ = "{DRAWN}"'), (".py", 'token = "short1a"'),
    (".yaml", f"task: {DRAWN}\n"), (".yaml", "token: ${HUB_TOKEN_1a}\n"), (".md", f"token: {DRAWN}")]


def test_what_is_given_to_a_key_is_one_if_it_seems_drawn_by_lot():
    assert [each for each in TOKENS if list(secrets_in(each[1], each[0])) != ["a key or token"]] == []
    assert [each for each in NO_TOKENS if list(secrets_in(each[1], each[0]))] == []


def test_none_of_our_own_files_seems_to_hold_a_secret():
    """But for those of the tests that have some to be found."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    names = [ROOT / name for name in listed.stdout.splitlines()] or [*ROOT.glob("*.py"), *ROOT.glob("*/*.py")]
    texts = {path: path.read_text(encoding="utf-8") for path in names
             if path.suffix.lower() in TEXT - {""} and "tests" not in path.relative_to(ROOT).parts}
    found = {path: what for path, text in texts.items() if (what := list(secrets_in(text, path.suffix)))}
    assert len(texts) > 50 and found == {}
