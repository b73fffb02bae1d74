"""Fuzz the audio readers of training and inference, predict.py and the demo page with damaged files.

    python -m studies.fuzz_audio --files 10000

Each file is a WAV, FLAC or OGG file with a random rate, number of channels and sample format, damaged in one to three
ways; its number is the seed. A reader must return finite float32 audio or raise a ValueError with a one-line message.
Readers run in separate processes with limited time and memory, so that a crash or a hang affects a single file. Writes
docs/results/reliability/fuzz_audio.json and keeps files with any other outcome in outputs/fuzz_audio.
"""

import argparse
import io
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from benchmarks.measuring import peak_megabytes
from core.audio import read_audio
from recording_ser_align import read_blocks

ROOT = Path(__file__).parent.parent
RESULT = ROOT / "docs" / "results" / "reliability" / "fuzz_audio.json"
KEPT = ROOT / "outputs" / "fuzz_audio"
FORMATS = {
    "WAV": ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW", "IMA_ADPCM", "MS_ADPCM"),
    "FLAC": ("PCM_S8", "PCM_16", "PCM_24"),
    "OGG": ("VORBIS", "OPUS"),
}
RATES = (8000, 12000, 16000, 24000, 48000)  # supported by Opus
EXTREMES = (b"\0\0\0\0", b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\x80", b"\1\0\0\0", b"\0\0", b"\xff\xff")
BATCH = 500  # files per process
SECONDS, MEGABYTES = 300, 4000  # limits per process
OUTCOMES = ("audio", "refused")


# ------------------------------------------------------------------------------------------- files


def damage_file(number: int) -> tuple[str, bytes]:
    """The name and content of a damaged file."""
    rng = np.random.default_rng(number)
    form = str(rng.choice(list(FORMATS)))
    content = bytearray(write_intact(form, rng))
    for _ in range(rng.integers(1, 4)):
        if len(content) > 8:
            rng.choice(DAMAGES)(content, rng)  # type: ignore[arg-type]
    if form == "OGG" and rng.integers(2):
        mend_checksums(content)
    return f"{number:05}.{form.lower()}", bytes(content)


def write_intact(form: str, rng: np.random.Generator) -> bytes:
    """Generate an intact file of up to a second."""
    rate, channels = int(rng.choice(RATES)), int(rng.choice((1, 1, 2, 3, 8)))
    times = np.arange(int(rng.uniform(0.1, 1) * rate)) / rate
    voice = 0.3 * np.sin(2 * np.pi * rng.uniform(80, 300) * times)[:, None] + rng.normal(
        0, 0.05, (len(times), channels)
    )
    subtypes = [name for name in FORMATS[form] if channels <= 2 or "ADPCM" not in name]
    file = io.BytesIO()
    soundfile.write(file, voice, rate, format=form, subtype=str(rng.choice(subtypes)))
    return file.getvalue()


def flip_bits(content: bytearray, rng: np.random.Generator) -> None:
    for place in rng.integers(len(content), size=rng.integers(1, 20)):
        content[place] ^= 1 << int(rng.integers(8))


def cut_short(content: bytearray, rng: np.random.Generator) -> None:
    del content[rng.integers(len(content)) :]


def set_extreme(content: bytearray, rng: np.random.Generator) -> None:
    """Overwrite a header field; fields start at even offsets."""
    start, value = 2 * int(rng.integers(min(60, len(content) // 2))), EXTREMES[rng.integers(len(EXTREMES))]
    content[start : start + len(value)] = value


def repeat_chunk(content: bytearray, rng: np.random.Generator) -> None:
    start = int(rng.integers(len(content)))
    content[start:start] = content[start : start + int(rng.integers(1, 1000))]


def delete_chunk(content: bytearray, rng: np.random.Generator) -> None:
    start = int(rng.integers(len(content)))
    del content[start : start + int(rng.integers(1, 1000))]


def zero_chunk(content: bytearray, rng: np.random.Generator) -> None:
    start = int(rng.integers(len(content)))
    end = min(len(content), start + int(rng.integers(1, 1000)))
    content[start:end] = bytes(end - start)


def mend_checksums(content: bytearray) -> None:
    """Repair the page checksums of an OGG file, so that the damage reaches the decoder (RFC 3533, section 6)."""
    starts = [match.start() for match in re.finditer(b"OggS", content)]
    for start, end in pairwise([*starts, len(content)]):
        if end - start < 27:
            continue
        content[start + 22 : start + 26] = bytes(4)
        checksum = 0
        for byte in content[start:end]:
            checksum = checksum << 8 & 0xFFFFFFFF ^ CHECKSUMS[checksum >> 24 ^ byte]
        content[start + 22 : start + 26] = checksum.to_bytes(4, "little")


def compute_checksum(byte: int) -> int:
    value = byte << 24
    for _ in range(8):
        value = value << 1 ^ (0x104C11DB7 if value >> 31 else 0)
    return value


CHECKSUMS = [compute_checksum(byte) for byte in range(256)]
DAMAGES = (flip_bits, cut_short, set_extreme, set_extreme, repeat_chunk, delete_chunk, zero_chunk)


# ------------------------------------------------------------------------------------------- readers


def inference(path: Path) -> np.ndarray:
    return np.concatenate([np.zeros(0, np.float32), *read_blocks(path)])


READERS: dict[str, Callable[[Path], np.ndarray]] = {"inference": inference, "training": read_audio}


def try_reader(read: Callable[[Path], np.ndarray], path: Path) -> str:
    """Read a file; return `audio`, `refused`, or a description of any other outcome."""
    try:
        waveform = read(path)
    except ValueError as error:
        message = str(error)
        is_clear = message.isprintable() and message.startswith(str(path))
        return "refused" if is_clear else f"unclear: {type(error).__name__}: {message!r}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    if waveform.dtype != np.float32 or waveform.ndim != 1 or not np.isfinite(waveform).all():
        return f"{waveform.dtype} {waveform.shape}, finite: {np.isfinite(waveform).all()}"
    return "audio"


def outcomes(numbers: range, folder: Path) -> Iterator[dict[str, Any]]:
    """Create a record per file: the outcome of each reader, the seconds, and the peak memory so far."""
    for number in numbers:
        name, content = damage_file(number)
        path = folder / name
        path.write_bytes(content)
        start = time.perf_counter()
        found = {reader: try_reader(read, path) for reader, read in READERS.items()}
        path.unlink()
        yield {"number": number, **found, "seconds": time.perf_counter() - start, "megabytes": peak_megabytes()}


def read_in_processes(numbers: range) -> Iterator[dict[str, Any]]:
    """Create the same records in separate processes; a file that ends its process gets a record too."""
    first = numbers.start
    while first < numbers.stop:
        command = [sys.executable, "-m", "studies.fuzz_audio", "--range", str(first), str(numbers.stop)]
        try:
            run = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=SECONDS)
            written, end = run.stdout, f"process ended with {run.returncode}"
        except subprocess.TimeoutExpired as expired:
            written, end = expired.stdout or b"", f"no answer within {SECONDS} s"
        lines = [json.loads(line) for line in written.decode().splitlines()]
        yield from lines
        first += len(lines)
        if first < numbers.stop:
            yield {"number": first, **dict.fromkeys(READERS, end), "seconds": 0.0, "megabytes": 0.0}
            first += 1


def read_in_this_process(numbers: range) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEGABYTES * 2**20,) * 2)
    with tempfile.TemporaryDirectory() as folder:
        for warm in (0, 1, 2):  # import and allocate everything once
            for read in READERS.values():
                path = Path(folder) / "warm.wav"
                soundfile.write(path, np.full(8000 * (warm + 1), 0.1), 8000 * (warm + 1))
                read(path)
        before = peak_megabytes()
        for line in outcomes(numbers, Path(folder)):
            print(json.dumps({**line, "megabytes": line["megabytes"] - before}), flush=True)


# --------------------------------------------------------------------------------- command and page


def write_files(numbers: range, folder: Path) -> list[Path]:
    paths = []
    for name, content in map(damage_file, numbers):
        paths.append(folder / name)
        paths[-1].write_bytes(content)
    return paths


def run_command(numbers: range) -> dict[str, int]:
    """Count the outcomes of one predict.py run on a folder of these files."""
    with tempfile.TemporaryDirectory() as name:
        folder, output = Path(name) / "files", Path(name) / "out.jsonl"
        folder.mkdir()
        paths = write_files(numbers, folder)
        command = [sys.executable, "predict.py", str(folder), "--output", str(output), "--quiet", "--model", "mini"]
        run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        records = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    lines = run.stderr.splitlines()
    errors = [record["error"] for record in records if "error" in record]
    said = Counter(line.split(": ")[0] for line in lines)
    return {
        "files": len(paths),
        "records": len({record["file"] for record in records} & {str(path) for path in paths}),
        "answered": len(records) - len(errors),
        "error lines": said["error"],
        "error records": len(errors),
        "same errors": len(set(lines) & {f"error: {error}" for error in errors}),
        "warnings": said["warning"],
        "notes of libmpg123": said["Note"],
        "other lines": len(lines) - said["error"] - said["warning"] - said["Note"] - 1,  # the summary
        "tracebacks": run.stderr.count("Traceback"),
        "exit status": run.returncode,
    }


def upload_files(numbers: range) -> Counter[str]:
    """Count the demo page's responses to uploads of these files."""
    from core.loading import load_pipeline
    from core.shipped import MINI_MODEL
    from demo.answers import answer_upload

    recognize = load_pipeline(str(MINI_MODEL), device="cpu")
    found: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        for path in write_files(numbers, Path(folder)):
            try:
                _, page = answer_upload(recognize, str(path))
            except Exception as error:
                page = f"{path.name}: {type(error).__name__}: {error}"
            if '<section class="answer">' in page:  # sure or unsure
                found["answered"] += 1
            elif page.startswith('<p class="wrong" role="alert">') and page.isprintable() and folder not in page:
                found["one line"] += 1
            else:
                found[page] += 1
    return found


# ------------------------------------------------------------------------------------------- report


def run_study(files: int, num_shown: int) -> None:
    from studies.reporting import write_study  # slow, and the reading processes do not need it

    batches = [range(first, min(first + BATCH, files)) for first in range(0, files, BATCH)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        lines = [line for batch in pool.map(lambda batch: list(read_in_processes(batch)), batches) for line in batch]
    wrong = [line for line in lines if any(line[reader] not in OUTCOMES for reader in READERS)]
    KEPT.mkdir(parents=True, exist_ok=True)
    for line in wrong:
        name, content = damage_file(line["number"])
        (KEPT / name).write_bytes(content)
        print(f"{KEPT / name}: {line}")
    command, page = run_command(range(num_shown)), upload_files(range(num_shown))
    print(command, page)
    otherwise = page.total() - page["answered"] - page["one line"]
    measured = {
        **{f"{files} damaged files, {reader} reader": count_outcomes(lines, reader) for reader in READERS},
        "longest time for one file, both readers": f"{max(line['seconds'] for line in lines):.2f} s",
        f"additional peak memory for {min(BATCH, files)} files, compared with intact files": (
            f"{max(line['megabytes'] for line in lines):.0f} MB"
        ),
        f"predict.py over a folder of {num_shown} of them": (
            f"{command['records']} records, {command['answered']} of them predictions; {command['error lines']} error "
            f"lines, {command['same errors']} of them also in the records; {command['tracebacks']} tracebacks, "
            f"{command['other lines']} other lines; exit status {command['exit status']}"
        ),
        f"demo page, {num_shown} uploads": (
            f"{page['answered']} answered, {page['one line']} rejected with a one-line error, "
            f"{otherwise} other outcomes"
        ),
    }
    write_study(
        RESULT,
        title="Damaged audio files",
        command=f"python -m studies.fuzz_audio --files {files}",
        rows=[{"what": what, "measured": value} for what, value in measured.items()],
        notes="Damage: flipped bits, truncation, extreme header fields, and repeated, deleted or zeroed chunks, in "
        "WAV, FLAC and OGG files of many formats; half of the OGG files have repaired checksums. "
        f"libsndfile's MP3 decoder cannot be muted and wrote {command['notes of libmpg123']} lines.",
    )
    if wrong or otherwise:
        sys.exit(f"error: {len(wrong)} files had another outcome with a reader, {otherwise} with the page; see {KEPT}")


def count_outcomes(lines: list[dict[str, Any]], reader: str) -> str:
    counts = Counter(line[reader] for line in lines)
    other = len(lines) - counts["audio"] - counts["refused"]
    refused = f"{counts['refused']} rejected with a one-line error"
    return f"{counts['audio']} read as finite audio, {refused}, {other} other outcomes"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument(
        "--shown", type=int, default=500, help="number of files that also go through predict.py and the demo page"
    )
    parser.add_argument(
        "--range", type=int, nargs=2, metavar=("FIRST", "END"), help="read only these files, in this process"
    )
    given = parser.parse_args()
    if given.range:
        read_in_this_process(range(*given.range))
    else:
        run_study(given.files, min(given.shown, given.files))


if __name__ == "__main__":
    main()
