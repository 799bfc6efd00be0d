"""stepaudio_runtime."""
