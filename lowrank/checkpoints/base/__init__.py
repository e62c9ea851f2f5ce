"""The embedded base model (Meta's own checkpoint format)."""
