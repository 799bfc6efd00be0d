"""Voices that users create: what is kept of each, and the store that all gateways and TTS pods share."""
