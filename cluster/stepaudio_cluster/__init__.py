"""stepaudio_cluster."""
