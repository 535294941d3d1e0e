"""What a hostile client sends is refused, and nothing is read or kept beyond its job."""

import re
import stat
import struct
import zlib

import anyio
import pytest

from engines.errors import UsageError
from serve.__main__ import is_loopback
from serve.keys import add_key, load_keys, owner_of
from tests.serve.test_serve_jobs import error, post

SECRET = "root:x:0:0"


def kept(service):
    return list(service.settings.videos.iterdir())


def png_header(width, height):
    """The first chunk of a PNG that claims a size and holds no pixels."""
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))


@pytest.mark.parametrize("text", [
    "#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n",
    "ffconcat version 1.0\nfile '/etc/passwd'\n",
    "#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:1/x.mp4\n",
    '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"></MPD>',
    "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\nm=video 5004 RTP/AVP 96\r\n",
    "root:x:0:0:root:/root:/bin/bash\n",
])
def test_playlists_and_texts_are_no_videos(service, inputs, text):
    answer = post(service, {**inputs(), "video": ("x.mp4", text.encode())})
    told = error(answer, 400, "invalid_input")
    assert told.startswith("video: is not a video") and SECRET not in told and kept(service) == []


@pytest.mark.parametrize("data", [
    b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n(/etc/passwd) run\n",
    b"<svg xmlns='http://www.w3.org/2000/svg'><image href='/etc/passwd'/></svg>",
    png_header(60_000, 60_000),
    png_header(8, 8),
    b"",
])
def test_what_is_no_picture_or_too_large_is_refused(service, inputs, data):
    told = error(post(service, {**inputs(), "image": ("i.png", data)}), 400, "invalid_input")
    assert told.startswith("image: is") and kept(service) == []


def test_long_and_large_videos_are_refused_before_they_are_decoded(service, inputs):
    assert "more than 64 frames" in error(post(service, inputs(65)), 400, "invalid_input")
    assert "6144 pixels" in error(post(service, inputs(2, (98, 96))), 400, "invalid_input")
    assert kept(service) == []


def test_an_upload_that_does_not_come_to_its_end_is_given_up(open_service):
    service, sent = open_service(upload_seconds=0.1), []
    headers = [(b"host", b"testserver"), (b"content-type", b"multipart/form-data; boundary=a")]
    scope = {"type": "http", "method": "POST", "path": "/v1/videos", "query_string": b"", "headers": headers}

    async def receive():
        await anyio.sleep_forever()

    async def send(message):
        sent.append(message)

    anyio.run(service.client.app, scope, receive, send)
    assert sent[0]["status"] == 408 and b"too_slow" in sent[1]["body"]


def test_an_upload_above_the_limit_is_refused_announced_or_not(open_service, inputs):
    service, files = open_service(most_bytes=2_000), inputs()
    assert "at most 2000 bytes" in error(post(service, files), 413, "too_large")
    request = service.client.build_request("POST", "/v1/videos", files=files)

    def parts():
        yield request.read()

    kind = {"Content-Type": request.headers["content-type"]}
    answer = service.client.post("/v1/videos", content=parts(), headers=kind)
    error(answer, 413, "too_large")
    assert kept(service) == []


@pytest.mark.parametrize(("data", "code"), [
    ({"recipe": "../../etc/passwd"}, "unknown_recipe"), ({"recipe": "x.toml"}, "unknown_recipe"),
    ({"seed": "-1"}, "invalid_field"), ({"seed": "٣"}, "invalid_field"),
    ({"seed": "9" * 400}, "invalid_field"), ({"seed": "0" * 19 + "1" + "9" * 20}, "invalid_field"),
    ({"seed": str(2**63)}, "invalid_field"), ({"seed": ["1", "2"]}, "invalid_field"),
    ({"generator": "/tmp/evil.py:Evil"}, "unknown_generator"), ({"recipe": "x" * 2_000}, "bad_request"),
])
def test_fields_that_are_not_offered_are_refused(service, inputs, data, code):
    error(post(service, inputs(), data=data), 400, code)
    assert kept(service) == []


def test_a_form_without_files_or_no_form_at_all_is_refused(service, inputs):
    files = inputs()
    error(post(service, {"video": files["video"]}), 400, "missing_file")
    paths = {"video": "/etc/passwd", "image": "/etc/passwd"}
    error(service.client.post("/v1/videos", data=paths), 400, "missing_file")
    error(service.client.post("/v1/videos", content=b"x", headers={
        "Content-Type": "multipart/form-data; boundary=a"}), 400, "bad_request")


@pytest.mark.parametrize("name", [
    "..%2f..%2fjobs.sqlite", "%2e%2e", "video_%00", "<script>",
    "video_' OR '1'='1", "video_" + "0" * 24, "a" * 5_000])
def test_names_of_jobs_lead_nowhere_else(service, name):
    for path in ("", "/content", "/stream", "/events"):
        answer = service.client.get(f"/v1/videos/{name}{path}")
        assert answer.status_code == 404 and set(answer.json()) == {"error"} and len(answer.text) < 300
        assert str(service.settings.home) not in answer.text and "SQLite" not in answer.text


@pytest.mark.parametrize("path", [
    "/../serve/keys.py", "/page.js/../keys.py", "/samples/..%2f..%2fLICENSE/video"])
def test_only_the_page_s_own_files_are_given(service, path):
    assert service.client.get(path).status_code == 404


def test_names_of_uploaded_files_name_nothing_here(service, inputs):
    files = inputs()
    named = {"video": ("../../../evil.mp4", files["video"][1]), "image": ("/etc/x", files["image"][1])}
    answer = post(service, named)
    assert answer.status_code == 202 and "evil" not in answer.text
    assert sorted(path.name for path in kept(service)[0].iterdir()) == ["image", "video"]


def test_answers_carry_what_keeps_browsers_strict_and_the_page_needs_nothing_else(service):
    answer = service.client.get("/")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "data:" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "style=" not in answer.text and "onclick" not in answer.text and "http" not in answer.text
    named = re.findall(r'(?:src|href)="([^"]+)"', answer.text)
    assert {"elements.js", "player.js", "player.css"} < set(named)  # the report's own
    assert [service.client.get(f"/{name}").status_code for name in named] == [200] * len(named)
    assert service.client.get("/v1/videos").headers["cache-control"] == "no-store"


def test_other_hosts_and_pages_of_other_sites_are_refused(service, inputs):
    error(service.client.get("/v1/videos", headers={"Host": "evil.example"}), 400, "other_host")
    for origin in ("https://evil.example", "null", "http://testserver.evil.example"):
        error(post(service, inputs(), headers={"Origin": origin}), 403, "other_origin")
    assert post(service, inputs(), headers={"Origin": "http://testserver"}).status_code == 202


def test_keys_are_kept_as_hashes_and_each_sees_its_own_jobs(open_service, inputs, tmp_path):
    path = tmp_path / "keys"
    keys = {name: add_key(path, name) for name in ("ada", "ben")}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and keys["ada"] not in path.read_text()
    service = open_service(keys=load_keys(path))
    for wrong in ({}, {"Authorization": "Bearer "}, {"Authorization": f"Basic {keys['ada']}"},
                  {"Authorization": f"Bearer {keys['ada']}x"}, {"Authorization": b"Bearer \xff"}):
        answer = post(service, inputs(), headers=wrong)
        error(answer, 401, "unauthorized")
        assert answer.headers["www-authenticate"] == "Bearer" and kept(service) == []
        for where in ("/metrics", "/v1/recipes", "/v1/videos"):
            error(service.client.get(where, headers=wrong), 401, "unauthorized")
    mine, other = ({"Authorization": f"Bearer {keys[name]}"} for name in ("ada", "ben"))
    name = post(service, inputs(), headers=mine).json()["id"]
    assert service.client.get(f"/v1/videos/{name}", headers=mine).status_code == 200
    error(service.client.get(f"/v1/videos/{name}", headers=other), 404, "not_found")
    error(service.client.delete(f"/v1/videos/{name}", headers=other), 404, "not_found")
    assert service.client.get("/v1/videos", headers=other).json()["data"] == []
    assert service.client.get("/v1/videos?after=" + name, headers=other).status_code == 404


@pytest.mark.parametrize("text", ["", "ada", "ada:123\n", "a b:" + "0" * 64, f"a:{'0' * 64}\na:{'1' * 64}\n"])
def test_a_file_that_holds_no_keys_stops_the_service(tmp_path, text):
    (tmp_path / "keys").write_text(text)
    with pytest.raises(UsageError, match="--add-key NAME"):
        load_keys(tmp_path / "keys")


@pytest.mark.parametrize("text", ["", "# keys of the studio\n", "ben:" + "0" * 64])
def test_a_key_is_added_to_a_file_that_was_edited(tmp_path, text):
    """The last key's line was removed, or an editor left no newline at the end."""
    (tmp_path / "keys").write_text(text)
    key = add_key(tmp_path / "keys", "ada")
    keys = load_keys(tmp_path / "keys")
    assert owner_of(keys, f"Bearer {key}") == "ada" and len(keys) == 1 + text.startswith("ben")


def test_a_name_gets_one_key_and_cannot_write_lines_of_its_own(tmp_path):
    key = add_key(tmp_path / "keys", "ada")
    assert owner_of(load_keys(tmp_path / "keys"), f"bearer {key}") == "ada"
    for name in ("ada", "local", f"x:{'0' * 64}\nroot", ""):
        with pytest.raises(UsageError, match="--add-key"):
            add_key(tmp_path / "keys", name)


@pytest.mark.parametrize(("host", "loopback"), [
    ("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("10.0.0.1", False),
    ("localhost.evil.example", False), ("", False)])
def test_what_only_this_machine_reaches(host, loopback):
    assert is_loopback(host) is loopback
