"""Text or codes to speech: the language model, voices, flow and vocoder, and the pod's routes."""
