"""Translators on diffusion models, through diffusers and transformers (extra `diffusion`)."""
