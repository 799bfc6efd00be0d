"""stepaudio_vllm."""
