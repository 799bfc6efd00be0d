"""Measures speech and transcription: by an independent recogniser, speaker embeddings, mels and clocks."""
