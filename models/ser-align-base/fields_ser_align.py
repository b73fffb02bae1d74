"""The options of the SER-Align model. Each is declared once, with its default, range, meaning and source.

`SERAlignConfig` and the command line of train.py inherit them. The sampling rate and `printable` are also defined here,
because the model code and the rest of the project both need them.

Part of the model code on the Hugging Face Hub; imports only the standard library, so that `--help` is fast.
"""

from dataclasses import dataclass
from typing import Literal

try:
    from .options_ser_align import option
except ImportError:
    if __package__:
        raise
    from options_ser_align import option

SAMPLING_RATE = 16_000  # Hz, of all audio that the model reads
BLOCK_SECONDS = 30.0  # longest block in which a recording is read

TEXT_LEVELS = ("embedding", "word", "utterance")


def printable(text: str) -> str:
    """Escape control characters, so that the text fits on one line: a line break becomes \\n, an escape \\x1b."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)


@dataclass(kw_only=True)
class SERAlignFields:
    """model: the pooling of stage 2 and the losses

    Source: Byun and Lee, "Frame and Utterance Emotional Alignment for Speech Emotion Recognition", Future Internet
    2025, 17(11), 509. "paper" marks what the paper states; "ours" marks our interpretation where it is ambiguous, and
    our additions. EAL and FUAL need the CLS output, so they require pooling="cls".
    """

    pooling: Literal["attentive", "self_attention", "cls", "mean", "max", "flam", "style"] = option(
        "cls",
        "pooling of stage 2: cls; self_attention, the paper's baseline without CLS; attentive, as in stage 1; mean or "
        "max over frames; flam, self-attention with a residual and one learned score vector (Wang et al. 2025); or "
        "style, gated convolutions and self-attention, then the mean (Cho et al. 2025)",
        "paper",
    )
    pooling_num_heads: int = option(4, "number of attention heads in the pooling encoder", "paper", minimum=1)
    pooling_num_layers: int = option(1, "number of layers in the pooling encoder", "paper", minimum=1)
    pooling_dropout: float = option(0.0, "dropout in the pooling encoder", "paper", minimum=0, maximum=1)
    pooling_intermediate_size: int | None = option(
        None,
        "feed-forward size of the pooling encoder; none means 4 x hidden size (Vaswani et al. 2017)",
        "ours",
        minimum=1,
    )
    pooling_norm: Literal["post", "pre"] = option(
        "post",
        "position of the layer norm in the pooling encoder: after each block (Vaswani et al. 2017), or before it",
        "ours",
    )
    pooling_activation: Literal["relu", "gelu"] = option(
        "relu", "activation function in the feed-forward layers of the pooling encoder", "ours"
    )
    attentive_scorer: Literal["tanh", "linear"] = option(
        "tanh", "frame scorer of attentive pooling: v^T tanh(W h + b) (Okabe et al. 2018), or v^T h", "ours"
    )
    attentive_hidden_size: int | None = option(
        None,
        "hidden size of the tanh scorer of attentive pooling; none means the encoder's hidden size",
        "ours",
        minimum=1,
    )
    self_attention_readout: Literal["attentive", "mean"] = option(
        "attentive",
        "frame weights of the baseline without CLS: from the attentive scorer of stage 1, or uniform",
        "ours",
    )
    cls_init_std: float = option(
        0.02,
        "standard deviation for the normal initialisation of the CLS vector; 0 initialises it with zeros",
        "ours",
        minimum=0,
    )
    frame_similarity: Literal["dot", "cosine"] = option(
        "dot", "similarity between the CLS output and a frame, which determines the weight of the frame", "ours"
    )
    frame_temperature: float | None = option(
        None,
        "temperature of the softmax over frames; none means sqrt(hidden size) for dot and 0.1 for cosine",
        "ours",
        above=0,
    )
    cls_in_embedding: Literal["none", "add", "concat"] = option(
        "none", "how to combine the CLS output with the weighted sum of the frames", "ours"
    )
    frame_classifier: Literal["shared", "separate"] = option(
        "shared", "classifier for the frames: shared with the utterance, or a separate one", "ours"
    )
    classifier_hidden_size: int = option(
        0,
        "hidden units of the classifiers (LayerNorm, linear, ReLU, dropout of 0.3, linear); 0 means one linear layer",
        "ours",
        minimum=0,
    )
    ce_weight: float = option(
        1.0, "weight of the cross-entropy; 0 disables it, if KL or the focal loss replaces it", "paper", minimum=0
    )
    eal_margin: float = option(
        0.8,
        "cosine margin of the EAL loss (the best of 0.4, 0.6 and 0.8 in the paper)",
        "paper",
        minimum=-1,
        maximum=2,
    )
    eal_weight: float = option(
        0.05,
        "weight of the EAL loss (the best of 0.05, 0.10 and 0.15 in the paper); 0 disables it",
        "paper",
        minimum=0,
    )
    fual_weight: float = option(
        0.05, "weight of the FUAL loss (the best value in the paper); 0 disables it", "paper", minimum=0
    )
    fual_direction: Literal["utterance_to_frames", "frames_to_utterance"] = option(
        "utterance_to_frames",
        "direction of the KL divergence in the FUAL loss: KL(utterance || frames) or KL(frames || utterance)",
        "ours",
    )
    fual_gradient: Literal["both", "frames", "utterance"] = option(
        "both", "side of the FUAL loss that receives its gradient; the other one is detached", "ours"
    )
    kl_weight: float = option(
        0.0,
        "weight of KL(label || prediction), which has the gradient of the cross-entropy (Wang et al. 2025); 0 disables "
        "it",
        "ours",
        minimum=0,
    )
    cosine_weight: float = option(
        0.0,
        "weight of 1 - cos(label, prediction), for label distributions (Li et al. 2025); 0 disables it",
        "ours",
        minimum=0,
    )
    focal_weight: float = option(0.0, "weight of the focal loss (Lin et al. 2017); 0 disables it", "ours", minimum=0)
    focal_gamma: float = option(
        2.0, "exponent of the focal loss; the larger it is, the less confident answers count", "ours", minimum=0
    )
    center_weight: float = option(
        0.0,
        "weight of the center loss, which pulls a projection of each utterance to a learned centre of its class (Wen "
        "et al. 2016); 0 disables it",
        "ours",
        minimum=0,
    )
    center_size: int = option(
        64, "number of dimensions of the projection in the center loss (64 in Wang et al. 2025)", "ours", minimum=1
    )
    contrastive_weight: float = option(
        0.0,
        "weight of the supervised contrastive loss (Khosla et al. 2020) after context broadcasting; it compares the "
        "utterances of one batch on one process, so accumulated batches are not one large batch; 0 disables it",
        "ours",
        minimum=0,
    )
    contrastive_temperature: float = option(0.1, "temperature of the supervised contrastive loss", "ours", above=0)
    contrastive_samples: Literal["utterances", "frames"] = option(
        "utterances",
        "what the contrastive loss compares: the mean direction of the frames of each utterance, or every frame, whose "
        "cost grows with the square of the frames in a batch",
        "ours",
    )
    ccc_weight: float = option(
        1.0,
        "weight of 1 - CCC, summed over the dimensions of --targets dimensions (Cho et al. 2025); of a batch on one "
        "process, so accumulated batches are not one large batch",
        "ours",
        minimum=0,
    )
    region_weight: float = option(
        0.0,
        "weight of the cross-entropy of the region, one for each combination of low and high values of the dimensions: "
        "the octants of three (Cho et al. 2025); only training uses this classifier; 0 disables it",
        "ours",
        minimum=0,
    )
    frame_distillation_weight: float = option(
        0.0,
        "weight of the squared error between the frames of the encoder, mapped linearly, and those of --teacher, each "
        "feature standardised over the batch (as in Romero et al. 2015); 0 disables it",
        "ours",
        minimum=0,
    )
    region_epochs: int = option(
        5,
        "epochs over which --region_weight falls linearly to a hundredth, after which the regions are left out, as in "
        "the code of Cho et al. 2025; 0 keeps the weight",
        "ours",
        minimum=0,
    )
    dimension_dropout: float = option(
        0.5, "dropout before each layer of the heads of dimensions and regions", "ours", minimum=0, below=1
    )
    label_smoothing: float = option(
        0.0, "label smoothing of the cross-entropy; 0 disables it", "ours", minimum=0, maximum=1
    )
    freeze_feature_encoder: bool = option(True, "freeze the convolutional feature encoder in both stages", "paper")
    freeze_encoder_layers: int = option(
        0,
        "number of the encoder's first layers that are frozen in both stages, with the convolutions; they have no "
        "dropout, and their output is cached",
        "ours",
        minimum=0,
    )
    average_frames: int = option(
        1,
        "number of neighbouring frames that are averaged into one before the first trained layer of the encoder; 2 "
        "halves the cost of the layers after it and the resolution of the timeline; 1 is off",
        "ours",
        minimum=1,
    )
    average_after: int | None = option(
        None,
        "layer of the encoder after which --average_frames averages, one of those that are frozen; none means the last "
        "of them; needed if stage 2 freezes more layers than stage 1",
        "ours",
        minimum=0,
    )
    layer_mix: Literal["last", "weighted", "normalized"] = option(
        "last",
        "frames of the encoder: output of the last layer, or a learned softmax-weighted sum of the outputs of all "
        "layers (SUPERB), as they are or each normalised first",
        "ours",
    )
    statistics_layers: int = option(
        0,
        "number of the encoder's first layers, all frozen, whose mean and standard deviation over time are also "
        "classified, by a logistic regression that is fitted before training and added to the logits after it; 0 is "
        "off",
        "ours",
        minimum=0,
    )
    tracker_size: int = option(
        0,
        "width of the network that tells in the timeline where an emotion begins and ends; it is trained after the "
        "rest, on training utterances of one speaker that follow each other without a pause, and changes no other "
        "score; 0 has none",
        "ours",
        minimum=0,
    )
    patchout_frames: float = option(
        0.0,
        "share of the frames of each utterance that are dropped at random in training, before the first trained layer "
        "(structured patch-out in time, Koutini et al. 2022); 0 is off",
        "ours",
        minimum=0,
        below=1,
    )
    patchout_rows: int = option(
        0,
        "number of rows of patches that are dropped at random in training (structured patch-out in frequency); only "
        "audio-spectrogram-transformer has rows; 0 is off",
        "ours",
        minimum=0,
    )
    log_mel_layer_norm: bool = option(
        True,
        "layer norm on each log-mel frame of wav2vec2-bert, as in its pretrained checkpoints; false keeps frame levels",
        "ours",
    )
    text_fusion: Literal["concat", "gated", "cross_attention", "late"] = option(
        "gated",
        "how a model with a text encoder joins voice and words: concat, a classifier of both vectors; gated (Arevalo "
        "et al. 2017); cross_attention, words attend to frames and frames to words (Tsai et al. 2019); or late, a "
        "learned weighted sum of the logits of each",
        "ours",
    )
    text_levels: list[str] = option(
        ["embedding"],
        "what a model with a text encoder knows of the words: embedding, the states of their tokens; word, the pitch, "
        "energy, duration and pause of each word whose times are known; utterance, statistics of pitch, energy and "
        "timing of the whole (levels of Jon et al. 2025)",
        "ours",
        choices=TEXT_LEVELS,
    )
    freeze_text_encoder: bool = option(True, "freeze the text encoder, which then has no dropout", "ours")
    text_dropout: float = option(
        0.2,
        "share of the utterances whose words are hidden in training, so that the model also serves recordings without",
        "ours",
        minimum=0,
        below=1,
    )
    branch_weight: float = option(
        0.5,
        "weight of the cross-entropy of the voice alone and of the words alone, in a model with a text encoder; 0 "
        "disables it",
        "ours",
        minimum=0,
    )
    fual_utterance: Literal["voice", "fused"] = option(
        "voice",
        "answer that FUAL aligns the frames with in a model with a text encoder: that of the voice alone, or of both",
        "ours",
    )
