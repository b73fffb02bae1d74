"""The GPU benchmark: every code path on a CPU with tiny encoders, and what it says without a GPU."""

import copy
import os
import subprocess
import sys

import pytest
import torch
from conftest import ROOT

from benchmarks import gpu
from benchmarks.clips import clips
from studies.encoders import TINY_ENCODERS

CPU = gpu.Setting(torch.device("cpu"), clips=6, batch_size=3, repetitions=1)


def shrink(name, config):
    tiny = copy.deepcopy(config)
    for field, value in TINY_ENCODERS[{"wav2vec2-base": "wav2vec2-group", "whisper-base": "whisper"}[name]].items():
        if field not in ("model_type", "num_mel_bins", "max_source_positions"):
            setattr(tiny, field, value)
    return tiny


@pytest.mark.slow
def test_every_system_is_trained_and_asked_on_the_same_clips(monkeypatch):
    monkeypatch.setattr(gpu, "clips", lambda count: [clip[:16_000] for clip in clips(count)])
    monkeypatch.setattr(gpu, "list_dtypes", lambda device: ["float32", "bfloat16"])
    monkeypatch.setattr("core.loading.check_dtype", lambda dtype, device: None)  # slow on old processors, but exact
    monkeypatch.setattr(gpu, "is_flash_attn_2_available", lambda: True)
    tiny = {name: shrink(name, config) for name, config in gpu.ENCODERS.items()}
    result = gpu.run_benchmark(tiny, CPU)
    assert list(result) == ["wav2vec2-base", "whisper-base"]
    for of_encoder in result.values():
        for measured in of_encoder.values():
            systems = measured["systems"]
            assert "error" in systems.pop("ours flash")  # is not installed here, and is reported, not hidden
            rates = {name: of_one["utterances_per_second"] for name, of_one in systems.items()}
            assert list(rates) == ["reference float32", "ours float32", "reference bfloat16", "ours bfloat16"]
            for dtype in ("float32", "bfloat16"):
                ratio = rates[f"ours {dtype}"] / rates[f"reference {dtype}"]
                assert measured["ratio"][f"ours {dtype}"] == pytest.approx(ratio)
            assert all(len(of_one["seconds"]) == 1 for of_one in systems.values())
    lines = gpu.report_ratios(result)
    assert len(lines) == 8 and lines[0].startswith("wav2vec2-base, training, ours float32: ")


def test_both_train_on_all_clips_and_the_reference_pads_as_the_library_does():
    setting = gpu.Setting(torch.device("cpu"), clips=5, batch_size=2, repetitions=1)
    waveforms = [clip[: 16_000 * (index + 1) // 4] for index, clip in enumerate(clips(5))]
    samples = [len(waveform) for waveform in waveforms]
    for name, config in gpu.ENCODERS.items():
        tiny = shrink(name, config)
        theirs = gpu.make_reference_batches(tiny, waveforms, setting)
        ours = gpu.make_our_batches(tiny, waveforms, setting)
        labels = [sorted(torch.cat([batch["labels"] for batch in batches]).tolist()) for batches in (theirs, ours)]
        assert labels[0] == labels[1] == [0, 0, 1, 2, 3]
        if name == "whisper-base":
            assert all(batch["input_features"].shape[1:] == (80, 3000) for batch in theirs)
            assert max(batch["input_features"].shape[1] for batch in ours) == max(samples) // 160
        else:
            assert max(batch["input_values"].shape[1] for batch in theirs) == max(samples)
            assert all("attention_mask" not in batch for batch in theirs)
            assert sum(int(batch["attention_mask"].sum()) for batch in ours) < sum(samples) / 320


def test_the_encoders_have_the_sizes_of_the_published_ones():
    with torch.device("meta"):
        sizes = {name: gpu.build_ours(config).encoder.num_parameters() for name, config in gpu.ENCODERS.items()}
    assert sizes == {"wav2vec2-base": 94_371_712, "whisper-base": 20_590_592}


@pytest.mark.slow
def test_without_a_gpu_it_says_so():
    hidden = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "benchmarks.gpu"]
    run = subprocess.run(command, cwd=ROOT, env=hidden, capture_output=True, text=True)
    assert run.returncode == 2 and run.stdout == ""
    assert run.stderr.startswith("error: torch ") and run.stderr.count("\n") == 1
    assert run.stderr.endswith("; run this benchmark on a machine with an NVIDIA GPU\n")
