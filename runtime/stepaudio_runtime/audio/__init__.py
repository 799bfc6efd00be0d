"""Waves in and out: files, resampling, loudness and silence, mels and filter-bank features. NumPy only.

A wave is a one-dimensional float32 array, mono, nominally in [-1, 1].
"""
