"""stepaudio_operator."""
