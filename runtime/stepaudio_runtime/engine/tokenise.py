"""Waves to audio codes, by our own tokenizers here or by a tokenizer pod or gateway elsewhere."""

from __future__ import annotations

from stepaudio_runtime.contract import Component
from stepaudio_runtime.engine.recipe import TokenizerSource
from stepaudio_runtime.engine.speech import Tokenise


def open_tokenizer(source: TokenizerSource) -> Tokenise:
    """The tokenizer that a recipe names, loaded. Raises ModelFileError for a bad folder.

    It computes in one thread: the engine runs several processes, and the result must not depend on them.
    """
    if source.models is not None:
        from stepaudio_runtime.health.state import PodState
        from stepaudio_runtime.pods.loading import load_tokenizer
        from stepaudio_runtime.settings import EngineSettings, PodSettings

        settings = PodSettings(Component.TOKENIZER, source.models, threads=1)
        tokenizer = load_tokenizer(settings, EngineSettings(), PodState(Component.TOKENIZER.value))
        return lambda wave: tokenizer.encode(wave.samples, wave.rate).codes
    from stepaudio_runtime.engine.tokenizer_endpoint import open_endpoint

    return open_endpoint(source)
