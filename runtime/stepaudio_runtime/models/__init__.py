"""Torch modules of the speech models, under the published checkpoints' own key names; no I/O in here."""
