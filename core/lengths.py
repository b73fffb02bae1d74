"""How short an utterance may be."""

from configuration_ser_align import SERAlignConfig
from feature_extraction_ser_align import HOP, WINDOW


def shortest_utterance(config: SERAlignConfig) -> int:
    """Samples at 16 kHz that one frame of the encoder needs."""
    if config.takes_log_mel:
        return WINDOW + (config.num_stacked_log_mel - 1) * HOP
    return config.receptive_field
