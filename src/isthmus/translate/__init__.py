"""Translators: images of one domain in the look of another, resumable."""
