"""Token layout, interleaving and prompts: pure functions over integers and text, no models and no I/O."""
