"""What the chat agent lets through to vLLM: ids of the vocabulary and nothing else."""

import pytest

from stepaudio_runtime.errors import InputError
from stepaudio_runtime.pods.chat import check_prompt


@pytest.mark.parametrize("prompt", [[0], [1, 4, 7999], list(range(8000))])
def test_ids_of_the_vocabulary_pass(prompt):
    check_prompt(prompt, 8000)


@pytest.mark.parametrize("prompt", [None, "text", [], [[1]], [1.0], [True], ["1"], [8000], [-1], [1, 10**30]])
def test_anything_else_is_refused(prompt):
    with pytest.raises(InputError) as error:
        check_prompt(prompt, 8000)
    assert (error.value.param, error.value.code) == ("prompt", "invalid_prompt")
