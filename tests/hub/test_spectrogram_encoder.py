"""The Audio Spectrogram Transformer on inputs as long as the utterance, against transformers' own; patch-out."""

import numpy as np
import pytest
import torch
from conftest import TINY_ENCODERS, assert_same_encoder, batch, tiny_model, utterances
from transformers import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification

from configuration_ser_align import SERAlignConfig
from core.loading import load_feature_extractor
from exact_ser_align import draw_frames, take_frames
from feature_extraction_ser_align import SERAlignSpectrogramExtractor
from modeling_ser_align import SERAlignForAudioClassification

AST = "audio-spectrogram-transformer"
SETTINGS = TINY_ENCODERS[AST]


def noise(frames: int) -> np.ndarray:
    return (0.1 * np.random.default_rng(frames).standard_normal(400 + 160 * (frames - 1))).astype(np.float32)


@pytest.mark.parametrize("frames", [1, 16, 123, 1024])
def test_the_frames_are_those_of_the_library_without_its_padding(frames):
    theirs = ASTFeatureExtractor()(noise(frames), sampling_rate=16000, return_tensors="pt")["input_values"]
    ours = SERAlignSpectrogramExtractor()(noise(frames), sampling_rate=16000, return_tensors="pt")
    assert ours["input_features"].shape == (1, frames, 128) and ours["attention_mask"].sum() == frames
    torch.testing.assert_close(ours["input_features"], theirs[:, :frames], atol=1e-4, rtol=0)


def test_silence_is_the_floor_of_the_library():
    silence = np.zeros(16000, np.float32)
    theirs = ASTFeatureExtractor()(silence, sampling_rate=16000, return_tensors="pt")["input_values"]
    ours = SERAlignSpectrogramExtractor()(silence, sampling_rate=16000, return_tensors="pt")["input_features"]
    torch.testing.assert_close(ours, theirs[:, : ours.shape[1]], atol=1e-4, rtol=0)


@pytest.fixture
def published(tmp_path):
    """A fine-tuned checkpoint of random weights, with its feature extractor."""
    torch.manual_seed(1)
    whole = ASTForAudioClassification(ASTConfig(**{**SETTINGS, "num_labels": 5})).eval()
    with torch.no_grad():
        for parameter in whole.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    whole.save_pretrained(tmp_path)
    ASTFeatureExtractor(num_mel_bins=40, max_length=600, mean=-6.8, std=5.6).save_pretrained(tmp_path)
    return tmp_path, whole.audio_spectrogram_transformer


def test_a_published_checkpoint_gives_the_librarys_frames_at_its_full_length(published):
    folder, theirs = published
    model = SERAlignForAudioClassification.from_pretrained_encoder(str(folder)).eval()
    assert_same_encoder(model.encoder, theirs)
    extractor = load_feature_extractor(str(folder))
    assert (extractor.feature_size, extractor.mean, extractor.std) == (40, -6.8, 5.6)
    inputs = extractor(noise(600), sampling_rate=16000, return_tensors="pt")
    padded = ASTFeatureExtractor.from_pretrained(folder)(noise(600), sampling_rate=16000, return_tensors="pt")
    with torch.no_grad():
        frames, mask = model.encode(**inputs)
        patches = theirs(**padded).last_hidden_state[:, 2:]
    assert mask.sum() == 59
    # three rows of patches; the library's order is row by row
    torch.testing.assert_close(frames, patches.unflatten(1, (3, 59)).mean(dim=1), atol=1e-5, rtol=0)


def test_an_extractor_without_normalisation_keeps_the_logarithms(tmp_path):
    ASTFeatureExtractor(num_mel_bins=40, do_normalize=False).save_pretrained(tmp_path)
    plain = ASTFeatureExtractor.from_pretrained(tmp_path)(noise(30), sampling_rate=16000, return_tensors="pt")
    ours = load_feature_extractor(str(tmp_path))(noise(30), sampling_rate=16000, return_tensors="pt")
    torch.testing.assert_close(ours["input_features"], plain["input_values"][:, :30], atol=2e-4, rtol=0)


def test_patches_reach_no_further_than_the_utterance():
    """What stands in the padding changes no frame of the utterance, in evaluation and in training."""
    model = tiny_model(AST)
    inputs = utterances(model, [0.31, 1.4])
    silent, loud = batch(model, inputs), batch(model, inputs, padding=7.0)
    for mode in (False, True):
        model.train(mode)
        torch.testing.assert_close(model(**silent).logits, model(**loud).logits, atol=1e-6, rtol=0)


@pytest.mark.parametrize("layer_mix", ["last", "weighted"])
def test_cached_layers_give_the_same_logits(layer_mix):
    model = tiny_model(AST, freeze_encoder_layers=1, layer_mix=layer_mix)
    (one,) = utterances(model, [1.0])
    with torch.no_grad():
        extracted = model.extract_features(one[None])
        assert extracted.shape[-1] == model.config.extracted_size
        found, expected = model(extracted_features=extracted).logits, model(input_features=one[None]).logits
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_utterances_beyond_the_positions_are_refused():
    model = tiny_model(AST)
    too_long, too_short = torch.randn(1, 601, 40), torch.randn(1, 15, 40)
    with pytest.raises(ValueError, match=r"601 log-mel frames .* takes at most 600 \(6 s\)"):
        model(input_features=too_long)
    with pytest.raises(ValueError, match=r"15 log-mel frames .* needs at least 16"):
        model(input_features=too_short)


# ------------------------------------------------------------------------------------------ patch-out


def test_frames_are_drawn_from_the_utterance_in_order_and_evenly():
    torch.manual_seed(0)
    mask = torch.tensor([[True] * 10, [True] * 5 + [False] * 5, [True] + [False] * 9])
    counts = torch.zeros(3, 10)
    for _ in range(400):
        kept, kept_mask = draw_frames(mask, 0.3)
        assert kept_mask.sum(dim=1).tolist() == [7, 4, 1]  # 3 of 10, 1 of 5 and none of 1 are dropped
        for row, (indices, valid) in enumerate(zip(kept, kept_mask)):
            chosen = indices[valid]
            assert (chosen.diff() > 0).all() and mask[row, chosen].all()
            counts[row, chosen] += 1
    torch.testing.assert_close(counts[0] / 400, torch.full((10,), 0.7), atol=0.1, rtol=0)
    torch.testing.assert_close(counts[1, :5] / 400, torch.full((5,), 0.8), atol=0.1, rtol=0)
    hidden = torch.arange(30.0).view(3, 10, 1)
    assert torch.equal(take_frames(hidden, kept)[0, :, 0], kept[0].float())


@pytest.mark.parametrize("encoder", [AST, "wav2vec2-layer", "whisper"])
def test_patch_out_trains_on_fewer_frames_and_scores_on_all(encoder):
    plain, dropping = tiny_model(encoder), tiny_model(encoder, patchout_frames=0.5)
    inputs = batch(plain, utterances(plain, [1.0, 2.0]))
    torch.testing.assert_close(dropping(**inputs).logits, plain(**inputs).logits, atol=0, rtol=0)
    full, kept = (model.train()(**inputs).frame_mask.sum(dim=1) for model in (plain, dropping))
    assert kept.tolist() == [length - length // 2 for length in full.tolist()]


def test_rows_are_dropped_in_training_only_and_the_same_in_every_step():
    model = tiny_model(AST, patchout_rows=1)
    family, states = model.config.family, [torch.arange(5.0).repeat_interleave(32).expand(1, 4, -1)]
    (left,) = family.drop_rows(model.encoder, states, 1)
    tokens = left.unflatten(2, (4, 32))[0, :, :, 0]
    assert (tokens == tokens[0]).all() and tokens[0, :2].tolist() == [0.0, 1.0]
    assert set(tokens[0, 2:].tolist()) < {2.0, 3.0, 4.0}
    assert tiny_model(AST)(**(given := batch(model, utterances(model, [1.0])))).logits.equal(model(**given).logits)


@pytest.mark.parametrize(
    ("settings", "rows", "reason"),
    [
        (SETTINGS, 3, "has 3 rows of patches: drop at most 2"),
        (TINY_ENCODERS["whisper"], 1, "has no patches: set it to 0"),
    ],
)
def test_too_many_rows_are_refused(settings, rows, reason):
    with pytest.raises(ValueError, match=f"patchout_rows={rows}, but the encoder {reason}"):
        SERAlignConfig(encoder_config=dict(settings), patchout_rows=rows)
