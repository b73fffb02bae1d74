"""What large jobs would cost, computed from the measured figures: a section of docs/PERFORMANCE.md."""

from statistics import median
from typing import Any

JOB_HOURS = 1_000_000
PODCAST_HOURS = 409  # of MSP-Podcast 2.0, see recipe/corpora/msp_podcast.py
SUSTAINED = 1e14  # FLOP/s that a GPU is taken to sustain; a round number, not a measurement
BYTES = 2 * 16_000  # of a second of 16 kHz WAV

PROJECTION = """## Projection

Not measured: computed from the figures above (`docs/build/projection.py`), for the size of wav2vec2-base. *Core-hours* are
those of the CPU that was measured, with {threads} threads; *GPU-hours* assume {sustained:.0f} TFLOP/s sustained.

| job | FLOP | core-hours, float32 | core-hours, bfloat16 | GPU-hours |
|---|---|---|---|---|
| scoring {hours:,} hours of speech | {score_flop:.1e} | {score_float32:,.0f} | {score_bfloat16:,.0f} | {score_gpu:,.0f} |
| one epoch on MSP-Podcast ({podcast} hours) | {train_flop:.1e} | {train_float32:,.0f} | - | {train_gpu:.1f} |

An epoch costs {work:.0f} GFLOP per second of padded audio, with {padding:.2f} seconds of it for one of speech. Scoring
costs at least {forward:.0f} GFLOP per second: what an epoch of the reference costs, convolutions included, less the backward
pass of the Transformer, which is two thirds of ours. On the CPU, arithmetic is the bottleneck: it takes in {cpu_rate:.1f} MB
of WAV a second. A GPU at that rate takes in {gpu_rate:.0f} MB a second, {audio_rate:,.0f} seconds of speech: there, reading
and decoding limit the throughput, and several processes per GPU have to share them. {hours:,} hours of 16 kHz WAV are
{terabytes:.0f} TB.
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
        score_float32=JOB_HOURS * cost["float32"] * inference["threads"],
        score_bfloat16=JOB_HOURS * cost["bfloat16"] * inference["threads"],
        score_gpu=score_flop / SUSTAINED / 3600,
        train_flop=train_flop,
        train_float32=PODCAST_HOURS / speech * training["threads"],
        train_gpu=train_flop / SUSTAINED / 3600,
        work=work,
        padding=padding,
        forward=forward,
        cpu_rate=BYTES / cost["float32"] / 1e6,
        gpu_rate=audio_rate * BYTES / 1e6,
        audio_rate=audio_rate,
        terabytes=JOB_HOURS * 3600 * BYTES / 1e12,
    )
