"""What large jobs would cost, computed from the measured figures: a section of docs/PERFORMANCE.md."""

from statistics import median
from typing import Any

JOB_HOURS = 1_000_000
PODCAST_HOURS = 409  # of MSP-Podcast 2.0, see recipe/corpora/msp_podcast.py
SUSTAINED = 1e14  # FLOP/s that a GPU is taken to sustain; a round number, not a measurement
BYTES = 2 * 16_000  # of a second of 16 kHz WAV

PROJECTION = """## Projection

Not measured: `docs/build/projection.py` computes it from the figures above, for the size of wav2vec2-base. Core-hours
are those of the CPU that was measured, with {threads} threads. GPU-hours assume {sustained:.0f} TFLOP/s sustained.

| job | FLOP | core-hours, float32 | core-hours, bfloat16 | GPU-hours |
|---|---|---|---|---|
| scoring {hours:,} hours of speech, without timelines | {score_flop:.1e} | {score_float32} | {score_bfloat16} | {score_gpu} |
| one epoch on the {podcast} hours of MSP-Podcast | {train_flop:.1e} | {train_float32} | - | {train_gpu} |

An epoch costs {work:.0f} GFLOP per second of audio, padding included, which is {padding:.2f} times the speech. To
score a second costs at least {forward:.0f} GFLOP: a training step of the reference, convolutions included, less the
backward pass, which is two thirds of our step. The windows of a timeline overlap by half and cost up to twice as much
again.

On the CPU, arithmetic is the bottleneck: the two threads take in {cpu_rate:.1f} MB of 16 kHz WAV a second. The GPU
would take in {gpu_rate} MB, {audio_rate} seconds of speech, a second: there, the bottleneck moves to reading and
decoding, and several processes have to share a GPU. {hours:,} hours of WAV are {terabytes:.0f} TB.
"""


def describe_projection(training: dict[str, Any], inference: dict[str, Any]) -> str:
    """The section, from the results of benchmarks.training_speed and benchmarks.inference_speed."""
    work, padding = training["gflop_per_second_of_audio"]["ours"], training["padded_audio"]["ours"]
    forward = training["gflop_per_second_of_audio"]["reference"] - 2 / 3 * work
    score_flop = forward * 1e9 * 3600 * JOB_HOURS
    train_flop = work * 1e9 * padding * 3600 * PODCAST_HOURS
    cost = {  # seconds of compute for a second of speech, on all threads
        dtype: median(inference["seconds"][dtype]) / inference["seconds_of_audio"] for dtype in ("float32", "bfloat16")
    }
    speech = training["utterances_per_second"]["ours"] * training["seconds_of_audio"] / training["clips"]
    audio_rate = SUSTAINED / (forward * 1e9)
    return PROJECTION.format(
        threads=inference["threads"],
        sustained=SUSTAINED / 1e12,
        hours=JOB_HOURS,
        podcast=PODCAST_HOURS,
        score_flop=score_flop,
        score_float32=format_rounded(JOB_HOURS * cost["float32"] * inference["threads"]),
        score_bfloat16=format_rounded(JOB_HOURS * cost["bfloat16"] * inference["threads"]),
        score_gpu=format_rounded(score_flop / SUSTAINED / 3600),
        train_flop=train_flop,
        train_float32=format_rounded(PODCAST_HOURS / speech * training["threads"]),
        train_gpu=format_rounded(train_flop / SUSTAINED / 3600),
        work=work,
        padding=padding,
        forward=forward,
        cpu_rate=BYTES / cost["float32"] / 1e6,
        gpu_rate=format_rounded(audio_rate * BYTES / 1e6),
        audio_rate=format_rounded(audio_rate),
        terabytes=JOB_HOURS * 3600 * BYTES / 1e12,
    )


def format_rounded(value: float) -> str:
    """To two digits, which is more than a projection is worth: 207954 is `210,000`."""
    return f"{float(f'{value:.2g}'):,.10g}"
