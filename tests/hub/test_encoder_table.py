"""docs/ENCODERS.md: every row is measured again."""

import pytest
from conftest import ROOT, TINY_ENCODERS

from core.json_files import read_json
from encoders_ser_align import FAMILIES
from studies.encoders import LIMITS, RESULTS, measure_encoder

pytestmark = pytest.mark.slow

# An export takes half a minute; tests/inference/test_export_onnx.py has those of wav2vec 2.0 and Whisper.
WITH_ONNX = ("wavlm-layer", "wav2vec2-conformer-layer", "data2vec-audio", "wav2vec2-bert")


def test_the_page_has_every_family():
    rows = read_json(RESULTS)["rows"]
    assert set(rows) == set(FAMILIES)
    assert all(row[name] <= limit for row in rows.values() for name, limit in LIMITS.items())
    page = (ROOT / "docs" / "ENCODERS.md").read_text(encoding="utf-8")
    assert "| `whisper` | log-mel frames | 20 ms |" in page and "| `wavlm` | waveform | 20 ms |" in page


@pytest.mark.parametrize("encoder", TINY_ENCODERS)
def test_every_encoder_is_within_the_limits_of_the_page(encoder):
    """ONNX once for each adapter: HuBERT and UniSpeech have that of wav2vec 2.0."""
    measured = measure_encoder(TINY_ENCODERS[encoder], with_onnx=encoder in WITH_ONNX)
    assert {name: value for name, value in measured.items() if value > LIMITS[name]} == {}
