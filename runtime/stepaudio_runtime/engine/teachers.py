"""Which teacher a recipe means. What a teacher needs is imported when it is opened, not before."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping

from stepaudio_runtime.engine.recipe import EspeakTeacher, SpeechTeacher
from stepaudio_runtime.engine.speech import Teacher
from stepaudio_runtime.errors import ConfigError
from stepaudio_runtime.keys import bearer, read_key


def open_teacher(
    teacher: EspeakTeacher | SpeechTeacher,
    *,
    sleep: Callable[[float], None] = time.sleep,
    env: Mapping[str, str] = os.environ,
) -> Teacher:
    """The teacher that a recipe names, ready to speak; `sleep` waits between attempts. Raises ConfigError."""
    if isinstance(teacher, EspeakTeacher):
        from stepaudio_runtime.engine.espeak import Espeak

        return Espeak()
    from stepaudio_runtime.engine.speech_endpoint import open_endpoint

    key = "" if teacher.api_key_env is None else read_key(env, teacher.api_key_env)
    if teacher.api_key_env is not None and not key:
        what = f"teacher.api_key_env: the variable {teacher.api_key_env} is empty"
        raise ConfigError(what=what, cure="set it to the API key")
    return open_endpoint(teacher, bearer(key), sleep)


def described(teacher: EspeakTeacher | SpeechTeacher) -> str:
    """The teacher in words, for provenance."""
    if isinstance(teacher, EspeakTeacher):
        from stepaudio_runtime.engine import espeak

        return f"espeak-ng {espeak.version()}"
    return f"{teacher.model} at {str(teacher.url).rstrip('/')}"
