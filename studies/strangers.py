"""Give each door of the project what a stranger would, and record what comes out.

    python -m studies.strangers
    python -m studies.strangers --door "train.py with folders" --door "Python call"

The doors are the readers of audio, the Python call, predict.py, the page (its functions, and a server over HTTP), the
ONNX example, and train.py with folders and with a CSV file. An input is answered right, answered with a warning,
refused in one line, answered wrong in silence, or ends in a traceback. Writes
docs/results/reliability/strangers.json with every input, and prints those that are silent or a traceback.
"""

import argparse
import html
import json
import re
import secrets
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import soundfile

from core.audio import read_audio
from core.loading import load_pipeline
from core.shipped import MINI_MODEL, ROOT
from recipe import run as _training  # noqa: F401 -- before processes are forked, so that each of them starts at once
from recipe.broken import check_recording, explain_cut
from studies.reporting import RELIABILITY, write_study
from studies.stranger_calls import CALLS
from studies.stranger_corpora import CSV_FILES, FOLDERS, Corpus, list_rows
from studies.stranger_recordings import NO_VOICE, RECORDINGS, SAME, write_recordings
from studies.stranger_runs import (
    OUTCOMES,
    SILENT,
    TRACEBACK,
    Outcome,
    is_close,
    judge,
    judge_call,
    judge_run,
    run_script,
)

SPEECH = ROOT / "examples" / "speech.flac"
SHORT = (
    "--config",
    "run_configs/quickstart.yaml",
    "--num_epochs",
    "1",
    "--max_steps",
    "1",
    "--use_cpu",
    "--stage",
    "1",
)
# What one step and so few files always bring; and folders name no speakers.
EXPECTED_WARNINGS = {
    "--csv": r"warning: (stage 1 never|no validation).*\n",
    "--data_dir": r"warning: (stage 1 never|no validation|.* names no speakers).*\n",
}
Scores = dict[str, float]
Door = dict[str, Outcome]


def name_scores(answer: Any) -> Scores:
    entries = answer["scores"] if isinstance(answer, dict) else answer
    return {entry["label"]: entry["score"] for entry in entries}


class Strangers:
    """ser-align-mini, its answer to the example recording, and the recordings made from it."""

    def __init__(self, folder: Path, only: tuple[str, ...] = ()):
        self.folder, self.only = folder, only
        self.speech = soundfile.read(SPEECH, dtype="float32")[0]
        self.recognize = load_pipeline(str(MINI_MODEL), device="cpu")
        self.expected = name_scores(self.recognize(self.speech))
        self.paths = write_recordings(folder / "recordings", self.speech)

    def try_recordings(self, try_one: Callable[[str, Path], Outcome]) -> Door:
        return {what: try_one(what, path) for what, path in self.paths.items() if not self.only or what in self.only}

    def is_right(self, what: str, scores: Scores) -> bool:
        return RECORDINGS[what].expected == SAME and is_close(scores, self.expected)

    # ------------------------------------------------------------------------------------- recordings

    def read_for_training(self, what: str, path: Path) -> Outcome:
        """A corpus may hold anything that is audio; speech has to be what it was."""
        config = self.recognize.model.config

        def is_right(found: list[float]) -> bool:
            scores = {config.id2label[index]: score for index, score in enumerate(found)}  # type: ignore[index]
            return RECORDINGS[what].expected == NO_VOICE or self.is_right(what, scores)

        def read_and_score() -> list[float]:
            check = check_recording(str(path))  # as a run does, before it reads anything else
            if check.broken:
                raise ValueError(check.broken)
            if reason := explain_cut({str(path): check.is_cut}):
                warnings.warn(reason, stacklevel=1)
            waveform = read_audio(path, self.recognize.trim_db)
            return self.recognize.score_waveforms([waveform])["probabilities"][0].tolist()

        return judge_call(read_and_score, is_right)

    def call(self, what: str, path: Path) -> Outcome:
        return judge_call(lambda: self.recognize(str(path)), lambda found: self.is_right(what, name_scores(found)))

    def call_with(self) -> Door:
        """Objects and options that people give to the pipeline."""
        chosen = {what: make for what, make in CALLS.items() if not self.only or what in self.only}
        return {
            what: judge_call(
                partial(make, self.recognize, self.speech),
                lambda found: bool(found) and is_close(name_scores(found), self.expected),
            )
            for what, make in chosen.items()
        }

    def predict(self, what: str, path: Path) -> Outcome:
        output = self.folder / "answers" / f"{list(self.paths).index(what)}.jsonl"
        run = run_script("predict.py", path, "--output", output, "--model", MINI_MODEL)
        return judge_run(run, lambda: self.is_right(what, json.loads(output.read_text(encoding="utf-8"))["scores"]))

    def ask_page(self, what: str, path: Path) -> Outcome:
        from demo.answers import answer_upload

        copy = self.folder / "upload" / path.name  # the page deletes it
        copy.parent.mkdir(exist_ok=True)
        if path.is_dir():
            return (
                Outcome(TRACEBACK, "a folder")
                if answer_upload(self.recognize, str(path))[0]
                else Outcome("refused", "")
            )
        copy.write_bytes(path.read_bytes())
        try:
            return self.judge_page(what, answer_upload(self.recognize, str(copy))[1])
        except Exception as error:
            return Outcome(TRACEBACK, f"{type(error).__name__}: {error}")

    def judge_page(self, what: str, page: str) -> Outcome:
        """The outcome of an answer in HTML."""
        words = html.unescape(re.sub("<[^>]*>", " ", page)).strip()
        if page.startswith('<p class="wrong" role="alert">'):
            return Outcome("refused" if words.isprintable() else TRACEBACK, words)
        shares = re.findall(r'class="label">([^<]*)<.*?class="score">(\d+)', page, re.DOTALL)
        scores = {html.unescape(label): int(share) / 100 for label, share in shares}
        warned = [html.unescape(text) for text in re.findall('<p class="wrong">([^<]*)<', page)]
        return judge(self.is_right(what, scores), warned, str(scores)[:200])

    def ask_server(self, http: Any, function: int, what: str, path: Path) -> Outcome:
        """Upload over HTTP to a running server, as a browser does."""
        if path.is_dir():
            return Outcome("refused", "a browser uploads no folder")
        sent = http.post("/gradio_api/upload", files={"files": (path.name, path.read_bytes())})
        if sent.is_error:
            return Outcome("refused", sent.text)
        file, session = {"path": sent.json()[0], "meta": {"_type": "gradio.FileData"}}, secrets.token_hex(5)
        event = {"data": [file], "fn_index": function, "session_hash": session}
        http.post("/gradio_api/queue/join", json=event).raise_for_status()
        with http.stream("GET", "/gradio_api/queue/data", params={"session_hash": session}) as lines:
            for line in lines.iter_lines():
                message = json.loads(line[5:]) if line.startswith("data:") else {}
                if message.get("msg") == "process_completed":
                    if not message["success"]:
                        return Outcome(TRACEBACK, str(message["output"]))
                    return self.judge_page(what, message["output"]["data"][1])
        return Outcome(TRACEBACK, "no answer")

    def visit_server(self) -> Door:
        import httpx

        from docs.build.page_screenshot import serving

        with serving() as url, httpx.Client(base_url=url, timeout=120) as http:
            dependencies = http.get("/config").json()["dependencies"]
            function = next(entry["id"] for entry in dependencies if entry["targets"][0][1] == "upload")
            return self.try_recordings(partial(self.ask_server, http, function))

    def run_onnx(self) -> Door:
        model = self.folder / "model.onnx"
        exported = run_script("export_onnx.py", "--output", model)
        assert exported.status == 0, exported.stderr

        def run_one(what: str, path: Path) -> Outcome:
            run = run_script("examples/onnx_inference.py", model, path)
            found = {label: float(score) for label, score in re.findall(r"(\S+) +([\d.]+)\n", run.stdout)}
            return judge_run(run, lambda: self.is_right(what, found))

        return self.try_recordings(run_one)

    # --------------------------------------------------------------------------------------- corpora

    def train(self, corpora: dict[str, Corpus], option: str) -> Door:
        found = {}
        for number, (what, corpus) in enumerate(corpora.items()):
            if self.only and what not in self.only:
                continue
            folder = self.folder / option.strip("-") / str(number) / "corpus"
            corpus.write(folder, list_rows())
            output = folder.parent / "out"
            source = folder / "list.csv" if option == "--csv" else folder
            run = run_script("train.py", *SHORT, "--corpus", "folder", option, source, "--output_dir", output)
            counts = count_labels(output)
            run = run._replace(stdout=str(counts), stderr=re.sub(EXPECTED_WARNINGS[option], "", run.stderr))
            found[what] = judge_run(run, lambda: counts == corpus.expected)  # noqa: B023
        return found


def count_labels(output: Path) -> dict[str, int]:
    """Utterances of each label in a finished run; none if it did not finish."""
    if not (output / "stage1" / "results.json").is_file():
        return {}
    results = json.loads((output / "stage1" / "results.json").read_text(encoding="utf-8"))
    return dict(sum((Counter(part) for part in results["class_counts"].values()), Counter()))


DOORS: dict[str, Callable[[Strangers], Door]] = {
    "reader of training": lambda they: they.try_recordings(they.read_for_training),
    "pipeline": lambda they: they.try_recordings(they.call),
    "predict.py": lambda they: they.try_recordings(they.predict),
    "page": lambda they: they.try_recordings(they.ask_page),
    "page over HTTP": Strangers.visit_server,
    "ONNX example": Strangers.run_onnx,
    "Python call": Strangers.call_with,
    "train.py with folders": lambda they: they.train(FOLDERS, "--data_dir"),
    "train.py with a CSV file": lambda they: they.train(CSV_FILES, "--csv"),
}


def describe(found: dict[str, Door]) -> list[dict[str, str]]:
    """A row for each door, then one for each input: what came out, and where."""
    rows = []
    for door, outcomes in found.items():
        counts = Counter(outcome.kind for outcome in outcomes.values())
        told = ", ".join(f"{counts[kind]} {kind}" for kind in OUTCOMES)
        rows.append({"what": f"{door}, {len(outcomes)} inputs", "measured": told})
    inputs = {what: None for outcomes in found.values() for what in outcomes}
    for what in inputs:
        by_kind: dict[str, list[str]] = {}
        for door, outcomes in found.items():
            if what in outcomes:
                by_kind.setdefault(outcomes[what].kind, []).append(door)
        measured = "; ".join(f"{kind}: {', '.join(by_kind[kind])}" for kind in OUTCOMES if kind in by_kind)
        rows.append({"what": what, "measured": measured})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--door", action="append", choices=tuple(DOORS), help="only this one; may be repeated")
    chosen = parser.parse_args().door or list(DOORS)
    with tempfile.TemporaryDirectory() as folder:
        strangers = Strangers(Path(folder))
        found = {}
        for door in chosen:
            found[door] = DOORS[door](strangers)
            for what, outcome in found[door].items():
                if outcome.kind in (SILENT, TRACEBACK):
                    print(f"{door}: {what}: {outcome.kind} {outcome.words}".replace(folder, ""), flush=True)
    if chosen != list(DOORS):
        return
    tried = {door: {what: [*outcome] for what, outcome in outcomes.items()} for door, outcomes in found.items()}
    write_study(
        RELIABILITY / "strangers.json",
        title="What strangers give",
        command="python -m studies.strangers",
        rows=describe(found),
        notes=NOTES,
        tried=json.loads(json.dumps(tried).replace(folder, "")),
    )


NOTES = (
    "Each recording is made from `examples/speech.flac`. *Right* is the label of the intact recording, with nearly its "
    "score, or for a corpus the labels and utterances that it holds. No answer is right for what is no speech of one "
    "adult: it should be refused or come with a warning. *Refused* is one line that starts with `error:`, a ValueError "
    "of one line, or the same on the page. The training runs take one step. No ffmpeg was installed."
)

if __name__ == "__main__":
    main()
