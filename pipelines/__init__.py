"""Loaded models behind one contract; `contract`, `messages` and `errors` import no torch."""
