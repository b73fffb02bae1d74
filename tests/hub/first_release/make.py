"""Writes this folder, with the code of the first release: python tests/hub/first_release/make.py"""

import json
import sys
from pathlib import Path

import numpy as np
import torch

FOLDER = Path(__file__).parent
sys.path.insert(0, str(FOLDER.parents[2]))

from transformers import Wav2Vec2FeatureExtractor

from configuration_ser_align import SERAlignConfig
from modeling_ser_align import SERAlignForAudioClassification
from pipeline_ser_align import SpeechEmotionRecognitionPipeline

ENCODER = {"model_type": "wav2vec2", "feat_extract_norm": "group", "hidden_size": 16, "num_hidden_layers": 1}
ENCODER |= {"num_attention_heads": 2, "intermediate_size": 16, "conv_dim": [8] * 7, "num_conv_pos_embeddings": 8}
ENCODER |= {"num_conv_pos_embedding_groups": 2}


def waveform() -> np.ndarray:
    """A tone that rises for a second, float32 (samples,) at 16 kHz; no random number, which a library might change."""
    time = np.arange(16000) / 16000
    return (0.3 * np.sin(2 * np.pi * (100 + 200 * time) * time)).astype(np.float32)


def main() -> None:
    torch.manual_seed(0)
    config = SERAlignConfig(encoder_config=ENCODER, id2label={0: "angry", 1: "calm", 2: "sad"}, temperature=1.5)
    model = SERAlignForAudioClassification(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # fresh biases and norms are 0 and 1
            parameter.add_(0.1 * torch.randn_like(parameter))
    extractor = Wav2Vec2FeatureExtractor(return_attention_mask=True)
    SpeechEmotionRecognitionPipeline(model=model, feature_extractor=extractor).save_pretrained(FOLDER)
    for path in FOLDER.glob("*_ser_align.py"):
        path.unlink()
    with torch.no_grad():
        output = model(**extractor(waveform(), sampling_rate=16000, return_tensors="pt"))
    expected = {"logits": output.logits[0].tolist(), "frame_logits": output.frame_logits[0].tolist()}
    (FOLDER / "expected.json").write_text(json.dumps(expected) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
