"""Train SER-Align in two stages and score it on unseen speakers.

    accelerate launch train.py --config run_configs/quickstart.yaml
    accelerate launch train.py --config run_configs/ravdess/mini.yaml --data_dir RAVDESS --learning_rate 5e-4
    accelerate launch train.py --config my.yaml --stage 2 --init_from outputs/my/stage1

Options come from the defaults, then from the YAML file, then from the command line; the last one wins. In
YAML, sections `stage1` and `stage2` hold what differs between the stages.

Each stage leaves a folder OUTPUT_DIR/stage1, OUTPUT_DIR/stage2 that AutoModel loads and the Hub takes: the
weights of the best validation UA, those of the last epoch in `last`, both scored in results.json. The same
command again goes on after an interruption.
"""

import sys

from core.errors import InputError, error_line
from recipe.arguments import parse_arguments


def main() -> None:
    arguments = parse_arguments(sys.argv[1:], description=__doc__)
    from recipe.run import run  # torch and transformers take seconds: --help and a mistake answer before

    run(arguments)


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(error_line(error))
