"""The processes behind `stepaudio serve chat|tts|tokenizer`: each one wires its models to its routes."""
