"""The demo page, which shows the emotions in a recording over time. Imports core, inference and the Hub files."""
