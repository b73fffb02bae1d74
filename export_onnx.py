"""Export a SER-Align model as one ONNX file that takes waveforms.

    python export_onnx.py --model outputs/quickstart/stage2
    python export_onnx.py --model user/name --output model.onnx --int8
    python export_onnx.py --model user/name --output model.onnx --int8 static --calibration RECORDINGS

The file includes feature extraction. Inputs: `waveform` (batch, samples), float32 at 16 kHz, and `attention_mask`
(batch, samples), int64, 1 for the utterance and 0 for the padding on its right. Outputs: `logits` (batch, classes),
`frame_logits` (batch, frames, classes), `frame_weights` and `frame_mask` (batch, frames). Batch size and length are
dynamic, and padding does not change the scores. The metadata contains labels, sampling rate, trimming threshold,
seconds per frame and licence as JSON; examples/onnx_inference.py shows how to read them.

The file is written only if all of its scores on generated audio agree with PyTorch within 1e-4. --int8 also writes
model.int8.onnx, with 8-bit weights in the matrix products, and prints how much its scores differ. With static, the
activations of matrix products and convolutions have 8 bits, too, over ranges that the recordings in --calibration set.
"""

from pathlib import Path

from core.errors import run_script
from inference.onnx_options import read_options


def main(argv: list[str]) -> None:
    """Export, quantize if requested, and print what was written. Raises InputError."""
    options = read_options(argv, __doc__)

    # Imported here, so that --help and option errors are fast.
    from transformers.utils.logging import disable_progress_bar

    from core.loading import load_model
    from core.model_files import read_licence
    from inference.onnx_export import export, measure_difference, silence_exporter
    from inference.onnx_int8 import quantize, quantize_statically, read_calibration, spread

    disable_progress_bar()
    model, extractor = load_model(options.model)
    trim_db, shortest = getattr(extractor, "trim_db", None), model.config.shortest_samples
    utterances = read_calibration(options.calibration, trim_db, shortest) if options.calibration else None
    options.output.parent.mkdir(parents=True, exist_ok=True)
    with silence_exporter():
        difference = export(model, extractor, options.output, read_licence(options.model))
        print(describe_file(options.output, difference))
        int8_path = options.output.with_suffix(".int8.onnx")
        if utterances:  # whose ranges the file has: it is compared on speech, not on generated audio
            quantize_statically(options.output, int8_path, utterances)
            print(describe_file(int8_path, measure_difference(int8_path, model, extractor, spread(utterances, 10))))
        elif options.int8:
            quantize(options.output, int8_path)
            print(describe_file(int8_path, measure_difference(int8_path, model, extractor)))


def describe_file(path: Path, difference: float) -> str:
    return f"{path}: {path.stat().st_size / 1e6:.1f} MB, scores within {difference:.1e} of PyTorch's"


if __name__ == "__main__":
    run_script(main)
