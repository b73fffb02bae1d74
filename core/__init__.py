"""What inference and training share: errors, escaping, audio, loading, speed."""
