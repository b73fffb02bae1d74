"""Every command and snippet in the documentation: options and files exist; fast ones print the stated output."""

import contextlib
import io
import itertools
import re
import shlex
import tomllib
from functools import cache

import pytest
import soundfile
from conftest import ROOT, tiny_model
from documents import DOCUMENTS, PROGRAMS, read_blocks, read_commands
from running import run_anew, run_script

pytestmark = pytest.mark.slow

EXAMPLE = ROOT / "examples" / "speech.flac"
# Names that stand for a user's own files; the tests put a recording there.
OWN = ("interview.", "interviews/", "more/", "emotions.", "timelines/", "calls.", "answers/")
# Scripts that are too long for here, or need more than this machine, and the test that runs them.
ELSEWHERE = {
    "train.py": "tests/scripts/test_quickstart.py",
    "experiment.py": "tests/scripts/test_experiment.py",
    "baseline.py": "tests/scripts/test_baseline.py",
    "export_onnx.py": "tests/inference/test_export_onnx.py",
    "examples/onnx_inference.py": "tests/inference/test_export_onnx.py",
    "examples/make_speech.py": "tests/docs/test_documents.py",
    "app.py": "tests/scripts/test_app.py",
}
# Scripts that a maintainer runs, and what they leave in the repository.
BY_HAND = {
    "benchmarks/onnx_export.py": "docs/results/onnx.json",
    "docs/build/make.py": "docs/RESULTS.md",
    "docs/build/page_screenshot.py": "docs/app.png",
    "docs/build/first_screen.py": "docs/timeline.png",
    "models/ship.py": "models/ser-align-mini/README.md",
    "studies/conversion.py": "docs/results/reliability/conversion.json",
    "studies/diarization.py": "docs/results/diarization.json",
    "studies/explanation.py": "docs/results/explanation.json",
    "studies/int8.py": "docs/results/int8.json",
    "studies/fuzz_audio.py": "docs/results/reliability/fuzz_audio.json",
    "studies/encoders.py": "docs/results/encoders.json",
    "studies/hostile_input.py": "docs/results/reliability/security.json",
    "studies/oldest_versions.py": "docs/results/reliability/versions.json",
    "studies/words.py": "docs/results/words.json",
}
PREDICTIONS = [  # that run here; the others need a trained model, Whisper, several processes or ffmpeg
    command
    for path in DOCUMENTS
    for command in read_commands(path)
    if command[:2] == ["python", "predict.py"]
    and "examples/speech.flac" not in command
    and not {"-", "outputs/quickstart/stage2", "--transcribe"} & set(command)
    if not any(word.startswith("outputs/") for word in command)
]
SNIPPETS = [
    pytest.param(snippet, id=f"{path.stem}-{number}")
    for path in DOCUMENTS
    for number, snippet in enumerate(read_blocks(path.read_text(encoding="utf-8"), "python"))
    if "outputs/quickstart" not in snippet  # run by tests/scripts/test_quickstart.py, which trains it
]


def name_document(path):
    return path.relative_to(ROOT).as_posix()


# ------------------------------------------------------------------------------------------ options and files


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_document)
def test_options_and_files_of_every_command_exist(path):
    for command in read_commands(path):
        check_command(command)


def check_command(command):
    program, *rest = command
    if command[:2] == ["python", "-m"]:
        assert command[2] in ("pytest", "mypy", "ruff", "http.server"), command
    elif program in ("python", "accelerate"):
        position = next(number for number, word in enumerate(rest) if word.endswith(".py"))
        check_script(rest[position], rest[position + 1 :])
    elif program == "pip":
        check_pip(rest)
    elif program == "make":
        assert {word for word in rest if "=" not in word} <= read_targets(), command
    elif program.startswith("."):
        assert (ROOT / program).is_file(), command
    else:
        assert program in (*PROGRAMS, "git", "cd", "ffmpeg", "npm", "tar"), command


def check_script(script, words):
    assert (ROOT / script).is_file(), script
    options = {word.partition("=")[0] for word in words if word.startswith("--")}
    if options:
        assert options <= read_options(script), f"{script} has no {sorted(options - read_options(script))}"
    for option, word in itertools.pairwise([script, *words]):
        if option != "--output" and word.startswith(("run_configs/", "models/", "examples/", "docs/")):
            assert (ROOT / word).exists(), f"{script}: {word}"


@cache
def read_options(script):
    """The options of a script: as --help lists them, or, where that imports for seconds, as its source names them."""
    if "/" in script:
        options = set(re.findall(r'"(--\w+)"', (ROOT / script).read_text(encoding="utf-8")))
    else:
        options = set(re.findall(r"--\w+", run_anew(script, "--help").stdout))
    passes_on = script in ("experiment.py", "models/ship.py")  # what they do not know is train.py's
    return options | read_options("train.py") if passes_on else options


def check_pip(words):
    for word in words:
        if word.startswith("requirements"):
            assert (ROOT / word).is_file(), word
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    for names in re.findall(r"\.\[(.*)\]", " ".join(words)):
        assert set(names.split(",")) <= set(extras), words


def read_targets():
    return set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_document)
def test_every_option_that_is_named_exists(path):
    text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    named = {word for code in re.findall(r"`(--[^`]+)`", text) for word in re.findall(r"--\w+", code)}
    scripts = ("train.py", "baseline.py", "experiment.py", "predict.py", "app.py", "export_onnx.py")
    assert named <= set().union(*map(read_options, scripts)), path


def test_what_does_not_run_here_runs_elsewhere():
    words = {word for path in DOCUMENTS for command in read_commands(path) for word in command}
    scripts = {word for word in words if word.endswith(".py") and not word.startswith("tests/")}
    assert scripts == {"predict.py", *ELSEWHERE, *BY_HAND}
    for script, test in ELSEWHERE.items():
        assert script.rpartition("/")[2] in (ROOT / test).read_text(encoding="utf-8"), script
    assert all((ROOT / result).is_file() for result in BY_HAND.values())


# ------------------------------------------------------------------------------------------ what they do


@pytest.mark.slow
def test_the_readmes_prediction_prints_what_is_written():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    commands = [block.strip() for block in read_blocks(readme, "bash")]
    written = read_blocks(readme, "text")[0]
    assert "python predict.py examples/speech.flac" in commands
    assert_same_output(run_script("predict.py", "examples/speech.flac").stdout, written)


@pytest.mark.slow
@pytest.mark.parametrize("command", PREDICTIONS, ids=shlex.join)
def test_predictions_run(command, tmp_path):
    for name in ("interview.wav", "interviews/one.wav", "interviews/two.wav", "more/deeper/three.mp3"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(tmp_path / name, *soundfile.read(EXAMPLE))
    (tmp_path / "calls.txt").write_text("interviews/one.wav\n")
    words = [f"{tmp_path}/{word}" if word.startswith(OWN) else word for word in command[2:]]
    run = run_script("predict.py", *words)
    assert run.stderr.count("error") == 0
    for option, target in itertools.pairwise(words):
        if option in ("--output", "--plot"):
            assert (tmp_path / target).exists(), target


@pytest.mark.slow
@pytest.mark.parametrize("snippet", SNIPPETS)
def test_snippets_print_what_their_comments_say(snippet, tmp_path, monkeypatch):
    tiny_model().encoder.save_pretrained(tmp_path / "encoder")
    monkeypatch.chdir(ROOT)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(snippet.replace("facebook/wav2vec2-base", str(tmp_path / "encoder")), {})
    written = "\n".join(line[2:] for line in snippet.splitlines() if line.startswith("# "))
    assert written, "a snippet shows what it prints"
    assert_same_output(printed.getvalue(), written)


def assert_same_output(found, written):
    """The same words in the same order; numbers, which processors round differently, within 0.02."""
    numbers = re.compile(r"\d+\.\d+")
    assert numbers.sub("", found).split() == numbers.sub("", written).split()
    values = [[float(number) for number in numbers.findall(text)] for text in (found, written)]
    assert values[0] == pytest.approx(values[1], abs=0.02)
