"""The class of a checkpoint's licence is read where publishers state it, and the scripts say it."""

from pathlib import Path

import pytest

import export_onnx
from generators.weight_files import licence, licences

ROOT = Path(__file__).parents[1]
APACHE = (ROOT / "LICENSE").read_text()


@pytest.mark.parametrize(("name", "text", "found"), [
    ("README.md", "---\nlicense: apache-2.0\ntags: x\n---\nA model.", "apache-2.0"),
    ("LICENSE", APACHE, "apache-2.0"),
    ("LICENSE.md", "Stability AI Community License Agreement", "community licence"),
    ("README.md", "---\nlicense: other\nlicense_name: tencent-hunyuan-community\n---", "community licence"),
    ("README.md", "---\nlicense: creativeml-openrail-m\n---", "community licence"),
    ("README.md", "---\nlicense: cc-by-nc-4.0\n---", "non-commercial"),
    ("README.md", "---\nlicense: apache-2.0\n---\nFor academic research purposes only.", "non-commercial"),
    ("LICENSE", "This model is for non-commercial use.", "non-commercial"),
])
def test_a_card_or_licence_beside_the_weights_gives_the_class(tmp_path, name, text, found):
    (tmp_path / name).write_text(text)
    assert licence(tmp_path / "w.safetensors") == f"{found} (by {tmp_path / name})"


def test_without_a_card_or_with_an_unknown_one_the_class_is_unknown(tmp_path):
    assert licence(tmp_path / "w.safetensors") == f"unknown (no model card or LICENSE in {tmp_path})"
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---")
    assert licence(tmp_path / "w.safetensors") == f"unknown ({tmp_path / 'README.md'} names 'mit')"


@pytest.mark.parametrize("mark", ["model_index.json", "vivace.toml"])
def test_the_card_of_a_whole_model_counts_for_its_parts(tmp_path, mark):
    part = tmp_path / "transformer"
    part.mkdir()
    (tmp_path / "README.md").write_text("license: apache-2.0")
    assert licence(part / "w.safetensors").startswith("unknown")  # a stranger's README
    (tmp_path / mark).write_text("")
    assert licence(part / "w.safetensors").startswith("apache-2.0")


def test_each_folder_of_weights_that_is_here_has_one_sentence(tmp_path):
    sources = [tmp_path / "lost" / "d.pt"]
    for name in ("one/a.safetensors", "one/b.safetensors", "two/c.pth", "code.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
        sources.append(tmp_path / name)
    found = licences(sources)
    assert [line.partition(":")[0] for line in found] == [
        f"weights in {tmp_path / folder}" for folder in ("one", "two")]


def test_export_says_the_licence_of_the_weights(run_main, tiny_file, tmp_path):
    (tiny_file.parent / "README.md").write_text("license: apache-2.0")
    answer = run_main(export_onnx, "--generator", f"{tiny_file}:Tiny", "--component", "decode",
                      "--out", tmp_path)
    (tiny_file.parent / "README.md").unlink()
    assert answer.status == 0
    assert f"weights in {tiny_file.parent}: licence apache-2.0" in answer.err
