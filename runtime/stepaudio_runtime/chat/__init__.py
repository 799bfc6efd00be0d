"""Talking to the chat model: its vocabulary, its prompt as ids, its answer read from ids. No torch."""
