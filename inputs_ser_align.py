"""The model's input: which one it is, how long each utterance is, and several in one batch.

Part of the model code on the Hugging Face Hub; requires only torch and transformers.
"""

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

try:
    from .checks_ser_align import check_inputs, check_mask
    from .configuration_ser_align import SERAlignConfig
    from .words_ser_align import PROSODY, collate_words
except ImportError:
    if __package__:  # inside a package, the relative import must work: do not hide its error
        raise
    from checks_ser_align import check_inputs, check_mask
    from configuration_ser_align import SERAlignConfig
    from words_ser_align import PROSODY, collate_words


def select_input(
    config: SERAlignConfig, values: Tensor | None, features: Tensor | None, extracted: Tensor | None
) -> Tensor:
    """Return the one input that is given. Raises ValueError if it is missing or of the wrong kind."""
    given, other = (features, values) if config.takes_log_mel else (values, features)
    if extracted is not None:
        given, other = extracted, values if values is not None else features
    name = config.family.input_name
    if given is None or other is not None:
        raise ValueError(
            f"a {config.encoder_config.model_type} encoder takes only {name} as audio input: compute it with the "
            "model's own feature extractor, and call model(**inputs)"
        )
    width = config.family.get_input_width(config.encoder_config)
    if extracted is not None:
        name, width = "extracted_features", config.extracted_size
    check_inputs(name, given, width)
    return given


def count_lengths(config: SERAlignConfig, inputs: Tensor, attention_mask: Tensor | None, is_extracted: bool) -> Tensor:
    """Return the (batch,) valid lengths of the input.

    Args:
        is_extracted: whether the input is the output of `extract_features`.

    Raises:
        ValueError: the batch is empty or padded on the left, or an utterance is too short or too long. Not checked in
            a compiled or exported model.
    """
    if attention_mask is None:
        lengths = torch.full((inputs.shape[0],), inputs.shape[1], device=inputs.device)
    else:
        check_mask(attention_mask, inputs)
        lengths = attention_mask.sum(dim=-1).long()
    if torch.compiler.is_compiling() or lengths.is_meta:
        return lengths
    if lengths.numel() == 0:
        raise ValueError("the batch is empty; it needs at least one utterance")
    if not is_extracted:
        check_lengths(config, lengths)
    return lengths


def check_lengths(config: SERAlignConfig, lengths: Tensor) -> None:
    """Raise ValueError if an utterance is too short or too long."""
    family, encoder_config = config.family, config.encoder_config
    unit = family.compute_unit_seconds(encoder_config)
    needed, most = family.compute_receptive_field(encoder_config), family.compute_longest(encoder_config)
    shortest, index = (value.item() for value in lengths.min(dim=0))
    if shortest < needed:
        raise ValueError(
            f"utterance {index} of the batch has {shortest} {family.input_unit} ({shortest * unit:.4f} s); one frame "
            f"needs at least {needed} ({needed * unit:.4f} s): remove it or pad it"
        )
    longest, index = (value.item() for value in lengths.max(dim=0))
    if most is not None and longest > most:
        raise ValueError(
            f"utterance {index} of the batch has {longest} {family.input_unit} ({longest * unit:.1f} s); a "
            f"{encoder_config.model_type} encoder takes at most {most} ({most * unit:g} s): cut it, or use the "
            "pipeline, which covers longer recordings with windows"
        )


def pad_batch(inputs: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Zero-pad the inputs of several pieces, each (samples,) or (frames, features), on the right into one batch.

    A batch without padding has no attention mask, because the model is faster without one.
    """
    words = [each["text_ids"] for each in inputs if "text_ids" in each]
    batch = {
        name: pad_sequence([each[name] for each in inputs], batch_first=True)
        for name in inputs[0]
        if name not in ("text_ids", *PROSODY)
    }
    if bool(batch["attention_mask"].all()):
        del batch["attention_mask"]
    is_needed = any(map(len, words)) or "utterance_prosody" in inputs[0]
    return batch | (collate_words(words, inputs) if is_needed else {})
