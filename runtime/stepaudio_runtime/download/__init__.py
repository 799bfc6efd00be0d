"""Brings the model files from where they are published into one folder: resumed, in parallel, checked."""
