"""What users write, as frozen models: documents, their parts, and the doors by which raw objects come in."""
