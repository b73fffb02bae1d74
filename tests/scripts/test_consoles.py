"""The scripts on consoles that are not UTF-8, and from other folders than the project's."""

import json
import os
import shutil

import pytest
from conftest import ROOT, write_wav
from running import BRIEF, SHORT, lines_of, run_anew

pytestmark = pytest.mark.slow

LABELS = ("生气", "快乐", "traurig ± →")
# A pipe of Windows, a teletype, and a container whose locale was never set.
CONSOLES = {
    "cp1252": {"PYTHONIOENCODING": "cp1252"},
    "ascii": {"PYTHONIOENCODING": "ascii"},
    "C locale": {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"},
}


@pytest.fixture(scope="module")
def chinese_csv(tmp_path_factory):
    """A list of 27 short recordings in ASCII names, with labels and speakers that no Western console can print."""
    folder = tmp_path_factory.mktemp("corpus")
    lines = ["path,label,speaker"]
    for index in range(27):
        write_wav(folder / f"{index}.wav", 0.3, seed=index)
        lines.append(f"{index}.wav,{LABELS[index % 3]},说话人 {index // 3}")
    (folder / "list.csv").write_text("\n".join(lines), encoding="utf-8")
    return folder / "list.csv"


@pytest.mark.parametrize("console", CONSOLES)
def test_a_recording_with_any_name_is_answered_on_any_console(console, tmp_path):
    speech = ROOT / "examples" / "speech.flac"
    names = [os.fsencode("生气.flac"), b"caf\xe9.flac", b"new\nline.flac"]
    for name in names:
        shutil.copy(speech, os.fsencode(tmp_path) + b"/" + name)
    argv = ["predict.py", tmp_path, "--output", tmp_path / "answers.jsonl", "--overwrite", "--model", "mini"]
    run = run_anew(*argv, **CONSOLES[console])
    assert run.stdout.count("calm") == 3 and "caf\\udce9.flac" in run.stdout and "new\\nline.flac" in run.stdout
    assert run.stdout.isascii() and "Traceback" not in run.stderr
    assert [record["label"] for record in lines_of(tmp_path / "answers.jsonl")] == ["calm"] * 3


def test_chinese_labels_train_answer_and_report_on_any_console(chinese_csv, tmp_path):
    """train.py, experiment.py and predict.py: what they print is escaped, what they write is UTF-8."""
    data = ["--corpus", "folder", "--csv", chinese_csv, "--data_dir", chinese_csv.parent]
    (tmp_path / "table.yaml").write_text(
        'title: "± 生气"\nconfig: run_configs/quickstart.yaml\nfolds: [1]\nvariants: {a: {name: "CLS → 生气"}}',
        encoding="utf-8",
    )
    output = tmp_path / "runs"
    options = [*BRIEF[2:], *data, "--output_dir", output]
    run = run_anew("experiment.py", "--config", tmp_path / "table.yaml", *options, **CONSOLES["C locale"])
    assert any(ascii(label)[1:-1] in run.stderr for label in LABELS)  # never predicted, after so few updates
    report = (output / "table" / "report.md").read_text(encoding="utf-8")
    assert report.startswith("# ± 生气") and "CLS → 生气" in report
    model = output / "fold1-seed0" / "a" / "stage2"
    assert set(json.loads((model / "config.json").read_text(encoding="utf-8"))["label2id"]) == set(LABELS)
    assert "生气" in (model / "README.md").read_text(encoding="utf-8")
    argv = ["predict.py", chinese_csv.with_name("0.wav"), "--model", model, "--overwrite", "--explain"]
    for console in ("cp1252", "C locale"):
        answer = run_anew(*argv, "--output", tmp_path / "answer.vtt", **CONSOLES[console])
        assert answer.stdout.isascii() and any(ascii(label)[1:-1] in answer.stdout for label in LABELS)
        assert any(label in (tmp_path / "answer.vtt").read_text(encoding="utf-8") for label in LABELS)


def test_a_list_with_a_file_name_that_the_locale_cannot_write_says_what_to_set(tmp_path):
    write_wav(tmp_path / "生气.wav")
    (tmp_path / "list.csv").write_text("path,label\n生气.wav,生气\n", encoding="utf-8")
    argv = ["train.py", *BRIEF, "--corpus", "folder", "--csv", tmp_path / "list.csv", "--output_dir", tmp_path / "out"]
    run = run_anew(*argv, expect=1, **CONSOLES["C locale"])
    assert run.stderr.startswith("error: ") and run.stderr.count("\n") == 1
    assert "is not a file name in the encoding of this system (ascii): set PYTHONUTF8=1" in run.stderr


def test_the_shipped_model_answers_from_any_folder(tmp_path):
    """No option names it, and nothing is asked of the Hub; the recording is where the user is.

    tests/inference/test_export_onnx.py exports it from another folder.
    """
    buzz = write_wav(tmp_path / "here" / "x.wav", 1.0)
    run = run_anew("predict.py", "x.wav", cwd=buzz.parent)
    assert run.stdout.startswith("x.wav  1.0 s")


def test_a_configuration_of_the_project_trains_from_any_folder(tmp_path):
    """What it writes and the corpus that it generates lie where the user is."""
    run_anew("train.py", *SHORT, "--stage", 1, cwd=tmp_path)
    assert (tmp_path / "outputs" / "quickstart" / "stage1" / "model.safetensors").is_file()
    assert (tmp_path / "data" / "demo").is_dir()
    run = run_anew("train.py", "--config", "run_configs/none.yaml", cwd=tmp_path, expect=1)
    assert run.stderr.startswith("error: --config run_configs/none.yaml: no such file; ")
    assert "run_configs/ has quickstart.yaml" in run.stderr and run.stderr.count("\n") == 1
    listing = run_anew("experiment.py", "--config", "run_configs/ravdess/table3.yaml", "--list", cwd=tmp_path).stdout
    assert listing.startswith("   1      fold 1, seed 0, stage 1")
