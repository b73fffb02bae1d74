"""Fit a classical model to acoustic features, and score it on unseen speakers.

    python baseline.py --config run_configs/ravdess/whisper.yaml --data_dir RAVDESS --features egemaps --classifier svm
    python baseline.py --config run_configs/ravdess/whisper.yaml --data_dir RAVDESS --features encoder --first_layer 2 \
      --encoder_config '{"num_hidden_layers": 6}'
    python predict.py speech.wav --model outputs/baseline

The utterances, their split and the scores are those of train.py with the same run configuration, so that the results
compare with those of networks; an experiment can contain both (run_configs/acoustic). Features are standardised on
training speakers, and C is chosen on validation speakers. Those of a recording are computed once and cached.

openSMILE (pip install -r requirements-opensmile.txt) has a licence of its own: research, teaching and personal use are
free, but a product may use neither it nor models of its features without a commercial licence of audEERING.
"""

from core.errors import run_script
from recipe.classical_arguments import parse_classical


def main(argv: list[str]) -> None:
    args = parse_classical(argv, description=__doc__)
    from recipe.classical import (
        run_classical,  # imports torch, which takes seconds; --help and option errors come first
    )

    run_classical(args)


if __name__ == "__main__":
    run_script(main)
