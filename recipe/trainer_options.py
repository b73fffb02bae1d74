"""The options of a run that say how it is trained and what it writes.

Imports nothing heavy, so that `python train.py --help` is instant.
"""

from dataclasses import dataclass
from typing import Literal

from options_ser_align import option


@dataclass(kw_only=True)
class TrainerArguments:
    """trainer: optimisation, run and output"""

    output_dir: str = option(
        "outputs/demo", "folder in which stage1 and stage2 are written", is_path=True, may_change=True, both_stages=True
    )
    stage: Literal["1", "2", "both"] = option(
        "both", "stage to train, or both in turn", may_change=True, both_stages=True, per_cell=True
    )
    init_from: str | None = option(
        None,
        "folder of the stage-1 model that stage 2 starts from; none means OUTPUT_DIR/stage1",
        is_path=True,
        may_change=True,
        both_stages=True,
        per_cell=True,
    )
    init_classifier: Literal["new", "stage1"] = option(
        "new", "initial classifier of stage 2: a new one, or the one from stage 1", "ours"
    )
    teacher: str | None = option(
        None,
        "folder of a trained model, whose probabilities soften the labels of the training utterances "
        "(Hinton et al. 2015); it must have been trained on speakers who also train this run",
        is_path=True,
        may_change=True,
    )
    teacher_weight: float = option(
        0.5, "weight of the teacher's probabilities in the label, from 0 to 1", "ours", minimum=0
    )
    num_epochs: float = option(10.0, "number of passes over the training set", "ours", minimum=0.01)
    max_steps: int = option(-1, "number of updates to train for; -1 trains for --num_epochs", minimum=-1)
    batch_size: int = option(16, "utterances per batch, over all processes", "ours", minimum=1)
    eval_batch_size: int = option(
        32, "utterances per evaluation batch; it does not affect scores", minimum=1, may_change=True
    )
    gradient_accumulation_steps: int = option(1, "batches accumulated per update", "ours", minimum=1)
    learning_rate: float = option(2e-5, "learning rate of the encoder", "ours", minimum=0)
    pooling_learning_rate: float = option(1e-4, "learning rate of the pooling module", "ours", minimum=0)
    classifier_learning_rate: float = option(1e-4, "learning rate of the classifier", "ours", minimum=0)
    center_learning_rate: float = option(
        5e-3, "learning rate of the centres of the center loss (5e-3 in Wang et al. 2025)", "ours", minimum=0
    )
    weight_decay: float = option(
        0.01, "AdamW weight decay, except for biases, norms, the CLS vector and class centres", "ours", minimum=0
    )
    warmup_ratio: float = option(0.1, "share of updates used for learning rate warm-up", "ours", minimum=0, below=1)
    lr_scheduler: Literal["linear", "cosine", "constant_with_warmup"] = option(
        "linear", "learning rate schedule after warm-up", "ours"
    )
    max_grad_norm: float = option(1.0, "maximum gradient norm; larger gradients are clipped to it", "ours", minimum=0)
    ema_decay: float = option(
        0.0,
        "decay of an exponential moving average (EMA) of the weights, which is then evaluated and saved; 0.998 "
        "averages over about 500 updates, 0 disables it",
        "ours",
        minimum=0,
        below=1,
        formerly="averaging",
    )
    sure_accuracy: float = option(
        0.8,
        "share of right answers that the sure ones have on validation utterances; answers with lower scores are called "
        "unsure, and 0 calls none unsure",
        "ours",
        minimum=0,
        below=1,
    )
    float16_weights: bool = option(
        False,
        "save the weights in float16, which halves the file; they are loaded in float32, and the scores are those of "
        "the rounded weights",
    )
    seed: int = option(
        0, "random seed for weight initialisation, batch order, dropout and SpecAugment", minimum=0, per_cell=True
    )
    bf16: bool = option(False, "train in bfloat16 mixed precision", "ours")
    activation_checkpointing: bool = option(
        False, "recompute activations in the backward pass, which saves memory but is slower"
    )
    attn_implementation: Literal["sdpa", "eager", "flash_attention_2"] | None = option(
        None, "attention implementation of the encoder; none uses sdpa if the encoder supports it", may_change=True
    )
    num_workers: int = option(0, "audio-loading processes per training process", minimum=0, may_change=True)
    use_cpu: bool = option(False, "train on the CPU even if there is a GPU", may_change=True, both_stages=True)
    logging_steps: int = option(10, "number of updates between logged training losses", minimum=1, may_change=True)
    tensorboard: bool = option(False, "write TensorBoard logs to the stage folder", may_change=True)
    predict_training: bool = option(
        False, "also write the predictions of the training utterances, without augmentation, to predictions.jsonl"
    )
    watch_test: bool = option(
        False,
        "also score the test set after each epoch, to report how much selecting checkpoints on it would inflate "
        "scores; checkpoints are never selected on it",
        may_change=True,
    )
    training_arguments: dict = option(
        {},
        'further transformers.TrainingArguments, as JSON: {"report_to": "wandb", "optim": "adafactor", "fp16": true}',
    )
    overwrite: bool = option(
        False, "train from scratch and replace what is in the stage folders", may_change=True, per_cell=True
    )
    push_to_hub: str | None = option(
        None,
        "Hub repository to push the last trained stage to, such as user/ser-align; a new repository is private",
        may_change=True,
        both_stages=True,
        per_cell=True,
    )
    hub_public: bool = option(
        False,
        "make the repository of --push_to_hub public if it is new; an existing one keeps its visibility",
        may_change=True,
        both_stages=True,
    )
