"""The dual-codebook tokenizer: a wave becomes linguistic and semantic ids, whole or piece by piece."""
