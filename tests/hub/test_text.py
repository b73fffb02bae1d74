"""Words beside the voice: every fusion against NumPy, missing words, exact batches, losses, freezing, saving."""

import numpy as np
import pytest
import reference
import torch
import torch.nn.functional as F
from conftest import TINY_ENCODERS, batch, tiny_model, utterances
from running import fresh
from transformers import (
    ASTConfig,
    AutoModel,
    AutoTokenizer,
    T5Config,
    T5Model,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    WhisperConfig,
)

from configuration_ser_align import SERAlignConfig
from modeling_ser_align import SERAlignForAudioClassification
from pipeline_ser_align import SpeechEmotionRecognitionPipeline
from speech_ser_align import cut_recording
from text_ser_align import load_text_encoder, read_text_config
from words_ser_align import LONGEST_TEXT, collate_words, tokenize

FUSIONS = ("concat", "gated", "cross_attention", "late")
TEXTS = ("Kids are talking by the door", "", "sad", "Great news: dogs sit")
SECONDS = (0.6, 1.4, 0.31, 1.0)


def make_model(folder, fusion="concat", **fields):
    """A model on a tiny wav2vec 2.0 and the text encoder of a folder, whose norms and biases are not 0 and 1."""
    model = tiny_model("wav2vec2-layer", text_encoder_config=read_text_config(folder), text_fusion=fusion, **fields)
    with torch.no_grad():
        model.fusion.missing.normal_(generator=torch.Generator().manual_seed(1))
    return model


@pytest.fixture
def tokens(tiny_bert):
    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
    return [tokenize(tokenizer, text) for text in TEXTS]


def weights_of(model):
    return {name: value.double().numpy() for name, value in model.state_dict().items()}


# ------------------------------------------------------------------------------------------- fusion


@pytest.mark.parametrize("fusion", FUSIONS)
def test_every_fusion_is_that_of_numpy_with_the_states_of_the_librarys_own_encoder(fusion, tiny_bert, tokens):
    model = make_model(tiny_bert, fusion, pooling="cls")
    own = AutoModel.from_config(model.config.text_encoder_config, attn_implementation="eager").eval()
    own.load_state_dict(model.text_encoder.state_dict(), strict=False)  # the pooler is not used
    weights, speech = weights_of(model), utterances(model, SECONDS)
    with torch.no_grad():
        found = model(**batch(model, speech), **collate_words(tokens))
        for row, (values, ids) in enumerate(zip(speech, tokens)):
            frames = model.encode(values[None])[0][0].double().numpy()
            _, frames, shares, voice_logits, frame_logits = reference.cls_head(frames, weights, num_heads=4)
            words = weights["fusion.missing"][None]
            if len(ids):
                states = own(input_ids=ids[None]).last_hidden_state[0].double().numpy()
                words = reference.linear(states, weights, "fusion.projection")
            vector, logits = reference.fuse(
                fusion, shares @ frames, frames, shares, voice_logits, words, weights, num_heads=4
            )
            text_logits = reference.linear(words.mean(0), weights, "fusion.text_classifier")
            expected = (vector, logits, voice_logits, text_logits)
            names = ("embedding", "logits", "voice_logits", "text_logits")
            for name, value in zip(names, expected):
                np.testing.assert_allclose(found[name][row].numpy(), value, atol=2e-5, err_msg=name)
            np.testing.assert_allclose(found.frame_logits[row, : len(frames)].numpy(), frame_logits, atol=2e-5)


@pytest.mark.parametrize("fusion", FUSIONS)
@torch.no_grad()
def test_alone_is_as_in_a_batch_with_padding_of_both_and_words_missing(fusion, tiny_bert, tokens):
    model = make_model(tiny_bert, fusion)
    speech = utterances(model, SECONDS)
    words = collate_words(tokens)
    for filler in (0, 7):  # what stands in the padding does not matter
        padded = torch.where(words["text_mask"] == 1, words["text_ids"], filler)
        together = model(**batch(model, speech, float(filler)), text_ids=padded, text_mask=words["text_mask"])
        for row, (values, ids) in enumerate(zip(speech, tokens)):
            alone = model(input_values=values[None], **(collate_words([ids]) if len(ids) else {}))
            if len(ids):  # as read before, by a frozen encoder
                states = model.text_encoder(input_ids=ids[None]).last_hidden_state[0]
                read = model(input_values=values[None], **collate_words([states]))
                torch.testing.assert_close(alone.logits, read.logits, atol=1e-6, rtol=0)
            for name in ("logits", "voice_logits", "text_logits", "embedding"):
                torch.testing.assert_close(alone[name][0], together[name][row], atol=1e-5, rtol=0, msg=name)


@torch.no_grad()
def test_words_change_the_answer_but_neither_the_frames_nor_that_of_the_voice(tiny_bert, tokens):
    model = make_model(tiny_bert)
    one = {"input_values": utterances(model, [1.0])}
    one["input_values"] = one["input_values"][0][None]
    first, second, without = (model(**one, **words) for words in (*(collate_words([tokens[i]]) for i in (0, 3)), {}))
    for other in (second, without):
        assert torch.equal(first.frame_logits, other.frame_logits) and torch.equal(
            first.voice_logits, other.voice_logits
        )
        assert not torch.allclose(first.logits, other.logits, atol=1e-3)


# ------------------------------------------------------------------------------------------- training


def test_the_losses_are_those_of_numpy(tiny_bert, tokens):
    labels = torch.tensor([2, 0, 1, 1])
    for utterance in ("voice", "fused"):
        options = {"pooling": "cls", "fual_weight": 0.7, "branch_weight": 0.4, "fual_utterance": utterance}
        model = make_model(tiny_bert, **options)
        with torch.no_grad():
            output = model(**batch(model, utterances(model, SECONDS)), **collate_words(tokens), labels=labels)
        voice, words, logits, frames = (
            output[name].double().numpy() for name in ("voice_logits", "text_logits", "logits", "frame_logits")
        )
        spoken = [row for row, ids in enumerate(tokens) if len(ids)]
        chosen = labels.numpy()
        expected = sum(reference.cross_entropy(voice[[i]], chosen[[i]]) for i in range(4))
        expected += sum(reference.cross_entropy(words[[i]], chosen[[i]]) for i in spoken)
        assert output.branch_loss.item() == pytest.approx(expected / 4, abs=1e-5)
        assert output.ce_loss.item() == pytest.approx(reference.cross_entropy(logits, chosen), abs=1e-5)
        lengths, weights = output.frame_mask.sum(1).tolist(), output.frame_weights.double().numpy()
        fual = reference.fual(logits if utterance == "fused" else voice, frames, weights, lengths)
        assert output.fual_loss.item() == pytest.approx(fual, abs=1e-5)
        parts = output.ce_loss + 0.4 * output.branch_loss + 0.7 * output.fual_loss + 0.05 * output.eal_loss
        assert output.loss.item() == pytest.approx(parts.item(), abs=1e-6)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_all_that_is_new_is_trained_and_a_frozen_text_encoder_is_not(fusion, tiny_bert, tokens):
    labels = torch.tensor([2, 0, 1, 1])
    for frozen in (True, False):
        model = make_model(tiny_bert, fusion, freeze_text_encoder=frozen).train()
        assert model.text_encoder.training is not frozen
        inputs = batch(model, utterances(model, SECONDS)) | collate_words(tokens)
        model(**inputs, labels=labels).loss.backward()
        grown = {name for name, weight in model.named_parameters() if weight.grad is not None}
        assert {name for name, _ in model.named_parameters() if name.startswith("fusion.")} <= grown
        assert any(name.startswith("text_encoder.") for name in grown) is not frozen


def test_words_are_hidden_in_training_as_often_as_asked(tiny_bert, tokens):
    model = make_model(tiny_bert, text_dropout=0.25)
    states = torch.randn(4000, 3, 32)
    mask = torch.ones(4000, 3, dtype=torch.bool)
    pooled = model.pooling(torch.randn(4000, 5, 32), torch.ones(4000, 5, dtype=torch.bool))
    arguments = (pooled, torch.ones(4000, 5, dtype=torch.bool), torch.zeros(4000, 3), states, mask)
    hidden = ~model.fusion.train()(*arguments).has_text
    assert 0.22 < hidden.float().mean().item() < 0.28  # 4 standard deviations are 0.027
    assert model.fusion.eval()(*arguments).has_text.all()


# ------------------------------------------------------------------------------------------- encoders


def test_a_pretrained_encoder_brings_its_weights_and_one_with_a_decoder_only_those_of_its_encoder(tiny_bert, tmp_path):
    loaded = load_text_encoder(tiny_bert, read_text_config(tiny_bert))
    own = AutoModel.from_pretrained(tiny_bert)
    for name, weight in loaded.state_dict().items():
        assert torch.equal(weight, own.state_dict()[name])
    assert not any("pooler" in name for name in loaded.state_dict())
    sizes = {"d_model": 32, "num_layers": 1, "num_decoder_layers": 1, "num_heads": 2, "d_kv": 16, "d_ff": 32}
    T5Model(T5Config(vocab_size=60, **sizes)).save_pretrained(tmp_path / "t5")
    model = make_model(tmp_path / "t5")
    assert not any("decoder" in name for name in model.state_dict())
    model.save_pretrained(tmp_path / "saved")
    again, info = SERAlignForAudioClassification.from_pretrained(tmp_path / "saved", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    inputs = batch(model, utterances(model, SECONDS)) | collate_words([torch.tensor([4, 9]), torch.tensor([3])] * 2)
    with torch.no_grad():
        assert torch.equal(model(**inputs).logits, again(**inputs).logits)


def test_what_does_not_fit_is_refused(tiny_bert, tiny_whisper, tokens):
    text = {"text_encoder_config": read_text_config(tiny_bert)}
    for fields, words in (
        ({"statistics_layers": 1, "freeze_encoder_layers": 1}, "for the voice alone"),
        ({"pooling": "mean", "text_fusion": "cross_attention", "pooling_num_heads": 5}, "does not divide"),
        ({"text_fusion": "early"}, "concat, gated"),
    ):
        with pytest.raises(ValueError, match=words):
            SERAlignConfig(encoder_config=dict(TINY_ENCODERS["wav2vec2-layer"]), **text, **fields)
    plain = tiny_model("wav2vec2-layer")
    inputs = batch(plain, utterances(plain, SECONDS))
    with pytest.raises(ValueError, match="reads no words"):
        plain(**inputs, **collate_words(tokens))
    with pytest.raises(ValueError, match="collate_words"):
        make_model(tiny_bert)(**inputs, **collate_words(tokens[:2]))


def test_long_and_blank_texts(tiny_bert):
    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
    assert [len(tokenize(tokenizer, text)) for text in (None, "", " \n", "kids " * 900)] == [0, 0, 0, 16]
    tokenizer.model_max_length = 10**30  # as of a tokenizer that does not say
    assert len(tokenize(tokenizer, "kids " * 900)) == LONGEST_TEXT
    assert collate_words([torch.zeros(0, dtype=torch.long)] * 2)["text_mask"].tolist() == [[0], [0]]


# ------------------------------------------------------------------------------------------- pipeline


@pytest.fixture
def recognize(tiny_bert):
    extractor = Wav2Vec2FeatureExtractor(return_attention_mask=True)
    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
    model = make_model(tiny_bert)
    with torch.no_grad():
        model.fusion.classifier.weight.mul_(10)  # so that a word changes a score clearly
    return SpeechEmotionRecognitionPipeline(model, feature_extractor=extractor, tokenizer=tokenizer)


def noise(seconds, seed=0):
    return 0.1 * np.random.default_rng(seed).standard_normal(int(16000 * seconds)).astype(np.float32)


def ask(recognize, waveform, words=None):
    """What the model itself says of a waveform and a text: scores by label."""
    inputs = recognize.feature_extractor(waveform, sampling_rate=16000, return_tensors="pt")
    ids = tokenize(recognize.tokenizer, words)
    with torch.no_grad():
        logits = recognize.model(**inputs, **(collate_words([ids]) if len(ids) else {})).logits
    return dict(zip(recognize.model.config.id2label.values(), F.softmax(logits, -1)[0].tolist()))


def by_label(scores):
    return {entry["label"]: entry["score"] for entry in scores}


def test_words_reach_the_utterance_and_words_with_times_their_phrases(recognize):
    speech = noise(2)
    for text in ("Great news", None):
        found = recognize({"audio": speech, "text": text})
        assert by_label(found) == pytest.approx(ask(recognize, speech, text), abs=1e-5)
    long = np.concatenate([noise(1.5, 1), np.zeros(16000, np.float32), noise(1.5, 2)])
    words = [{"word": " Sad", "start": 0.2, "end": 0.9}, {"word": " great", "start": 2.6, "end": 3.0}]
    answer = recognize({"audio": long, "text": words}, return_timeline=True)
    assert by_label(answer["scores"]) == pytest.approx(ask(recognize, long, "Sad great"), abs=1e-5)
    assert set(answer["alone"]) == {"voice", "words"}
    for entry in (answer["alone"]["voice"], answer["alone"]["words"]):
        assert sum(by_label(entry).values()) == pytest.approx(1, abs=1e-6)
    phrases = [piece["waveform"] for piece in cut_recording(iter([long]), True) if piece["phrase"] >= 0]
    for segment, text, phrase in zip(answer["timeline"], ("Sad", "great"), phrases, strict=True):
        assert segment["score"] == pytest.approx(max(ask(recognize, phrase, text).values()), abs=1e-5)
        assert abs(segment["score"] - max(ask(recognize, phrase).values())) > 1e-3  # the words count
    together = recognize([speech, {"audio": speech, "text": "Great news"}], batch_size=2)
    assert by_label(together[0]) == pytest.approx(by_label(recognize(speech)), abs=1e-6)
    assert "alone" not in recognize(speech, return_timeline=True)


def test_words_that_cannot_be_placed_or_read_are_refused(recognize):
    with pytest.raises(ValueError, match="a text without times is for one utterance"):
        recognize({"audio": noise(16), "text": "Great news"})
    with pytest.raises(ValueError, match="list of dicts of word"):
        recognize({"audio": noise(1), "text": [{"word": "Great"}]})
    plain = SpeechEmotionRecognitionPipeline(
        tiny_model("wav2vec2-layer"), feature_extractor=recognize.feature_extractor
    )
    with pytest.raises(ValueError, match="reads no words"):
        plain({"audio": noise(1), "text": "Great news"})
    with pytest.raises(ValueError, match="needs its tokenizer"):
        SpeechEmotionRecognitionPipeline(recognize.model, feature_extractor=recognize.feature_extractor)


SCRIPT = """
import json, sys
import numpy as np
from transformers import pipeline
recognize = pipeline("speech-emotion-recognition", sys.argv[1], trust_remote_code=True)
speech = np.load(sys.argv[2])
print("RESULT" + json.dumps([recognize({"audio": speech, "text": text}) for text in ("Great news", None)]))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "config", [WhisperConfig(), Wav2Vec2Config(), ASTConfig()], ids=lambda config: config.model_type
)
def test_a_speech_encoder_is_refused_though_it_may_have_a_vocabulary(config, tmp_path):
    config.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=f"model_type '{config.model_type}', which is no text encoder"):
        read_text_config(tmp_path)


def test_the_saved_folder_brings_tokenizer_and_text_encoder_to_a_fresh_process(recognize, tmp_path):
    recognize.save_pretrained(tmp_path / "folder")
    np.save(tmp_path / "speech.npy", noise(1.2))
    found, _ = fresh(SCRIPT, tmp_path / "folder", tmp_path / "speech.npy", home=tmp_path / "hf")
    for text, scores in zip(("Great news", None), found):
        assert by_label(scores) == pytest.approx(ask(recognize, noise(1.2), text), abs=1e-5)
