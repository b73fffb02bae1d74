"""The demo page, which shows the emotions in a recording over time. Imports core, inference and the Hub files."""

from pathlib import Path

ROOT = Path(__file__).parent.parent
SHIPPED_MODEL = ROOT / "models" / "ser-align-mini"
