"""A form's fields: brackets make a list, whatever else was sent; what does not fit is refused by name."""

import pytest
from starlette.datastructures import FormData

from stepaudio_runtime.errors import InputError
from stepaudio_runtime.gateway.forms import fields_of
from stepaudio_runtime.gateway.schemas import TranscriptionForm

GRAIN = "timestamp_granularities"


def fields(*sent: tuple[str, str]) -> TranscriptionForm:
    return fields_of(FormData([("model", "m"), *sent]), TranscriptionForm, {"file"})


def test_fields_with_brackets_make_a_list():
    assert (
        fields((f"{GRAIN}[]", "segment"), (f"{GRAIN}[]", "segment")).timestamp_granularities
        == ["segment"] * 2
    )
    assert fields((GRAIN, "word"), (f"{GRAIN}[]", "segment")).timestamp_granularities == ["segment"]


@pytest.mark.parametrize(
    ("sent", "param"),
    [
        ([(f"{GRAIN}[]", "segment"), (GRAIN, "segment")], GRAIN),
        ([("model[]", "m")], "model"),
        ([("include", "x"), ("include[]", "logprobs")], "include"),
        ([("[]", "x")], ""),
        ([("__class__", "x")], "__class__"),
        ([("stream", "perhaps")], "stream"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(sent, param):
    with pytest.raises(InputError) as refused:
        fields(*sent)
    assert refused.value.param == param
