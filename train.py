"""Train SER-Align in two stages and score it on unseen speakers.

    accelerate launch train.py --config run_configs/quickstart.yaml
    accelerate launch train.py --config run_configs/ravdess/mini.yaml --data_dir RAVDESS --learning_rate 5e-4
    accelerate launch train.py --config my.yaml --stage 2 --init_from outputs/my/stage1

The command line overrides the YAML file, which overrides the defaults. In the YAML file, the sections `stage1` and
`stage2` contain options that differ between the stages.

Each stage writes a folder, OUTPUT_DIR/stage1 or OUTPUT_DIR/stage2, that can be loaded with AutoModel and pushed to the
Hub. It contains the weights with the best validation UA, those of the last epoch in `last`, and the scores of both in
results.json. To resume an interrupted run, repeat the command.
"""

from core.errors import run_script
from recipe.arguments import parse_arguments


def main(argv: list[str]) -> None:
    arguments = parse_arguments(argv, description=__doc__)
    from recipe.run import run  # imports torch, which takes seconds; --help and option errors come first

    run(arguments)


if __name__ == "__main__":
    run_script(main)
