"""Controls: fields, tags in front of the text and instructions in words become the model's own tags; nothing
that a user writes is lost, nothing but a known tag acts, and strict reading refuses what it does not know.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepaudio_runtime.codec.controls import (
    NAMES,
    Controls,
    Directed,
    Reading,
    direct,
    known_tags,
    music,
    split_names,
    split_tags,
)
from stepaudio_runtime.codec.instruction_grammar import FILLERS, NEGATIONS, WORDS, understand
from stepaudio_runtime.codec.instructions import Instruction
from stepaudio_runtime.codec.tags import TAGS, Group
from stepaudio_runtime.errors import InputError

STRICT, COMPATIBLE = Reading.STRICT, Reading.COMPATIBLE
ALL_TAGS = [tag for tags in TAGS.values() for tag in tags]
controls = st.builds(
    Controls, **{group.value: st.none() | st.sampled_from(tags) for group, tags in TAGS.items()}
)
plain = st.text(min_size=1).filter(lambda text: text.strip() and text.lstrip()[0] not in "(（")
# Brackets of all sorts with tags, near-tags and anything else in them.
messy = st.lists(
    st.sampled_from(["(", ")", "（", "）", " ", "\n", "happy", "Humming (哼唱)", "x", "1", *ALL_TAGS])
    | st.text(max_size=3),
    max_size=12,
).map("".join)


@given(controls, plain)
def test_tags_and_text_come_back_as_they_were_put_together(wanted, text):
    wire = wanted.tags + text
    assert split_tags(wire) == (wanted.tags, text)
    for reading in Reading:
        assert direct(wire, reading=reading) == Directed(text.lstrip(), wanted)


@given(controls, plain)
def test_fields_give_what_tags_give(wanted, text):
    typed = {group: tag for group in Group if (tag := getattr(wanted, group.value))}
    assert direct(text, typed=typed, reading=STRICT) == Directed(text.lstrip(), wanted)


@given(messy)
def test_splitting_loses_nothing(text):
    tags, rest = split_tags(text)
    assert tags + rest == text


@given(messy)
def test_names_are_split_off_as_they_are_read(text):
    tags, rest = split_names(text)
    assert tags + rest == text
    assert (split_names(rest)[0].strip(), split_names(tags)[1]) == ("", "")
    assert rest.strip() == "" or direct(rest).controls == Controls()


@given(messy)
def test_compatible_reading_takes_any_text_and_only_known_tags_act(text):
    try:
        directed = direct(text, reading=COMPATIBLE)
    except InputError as fault:
        assert (fault.param, fault.code) == ("input", "empty_input")
        return
    assert directed.text.strip()
    # What the pod will read in front of the text is exactly what was found, so no text makes a tag of itself.
    assert split_tags(directed.wire)[0] == directed.controls.tags


@given(messy)
def test_strict_reading_is_the_compatible_one_or_an_error_that_names_its_field(text):
    try:
        strict = direct(text, reading=STRICT)
    except InputError as fault:
        assert fault.param == "input"
        assert fault.code in ("empty_input", "unknown_tag", "conflicting_controls")
    else:
        assert strict == direct(text, reading=COMPATIBLE)
        assert strict.notes == ()


@pytest.mark.parametrize(
    ("text", "wire"),
    [
        ("(RAP)词", "(RAP)词"),
        ("（四川话）（高兴1）你好", "(四川话)(高兴1)你好"),
        ("(高兴1)(RAP)词", "(RAP)(高兴1)词"),  # music first: it chooses the prompt
        ("(Humming (哼唱))啦啦", "(哼唱)啦啦"),
        ("(Humming（哼唱）)啦啦", "(哼唱)啦啦"),
        ("(humming) la", "(哼唱)la"),
        (" ( Happy ) hello", "(高兴1)hello"),
        ("(高兴１)你好", "(高兴1)你好"),
        ("(laughs) hello (sad)", "laughs, hello (sad)"),
        ("(happy)(laughs)(sad)hello", "(高兴1)laughs, sad, hello"),
        ("((happy)) hello", "happy, hello"),
        ("()hello", "hello"),
        ("(1) first", "1, first"),
        ("(happy hello", "(happy hello"),
        (
            "(a remark that is far too long to be a tag) hello",
            "(a remark that is far too long to be a tag) hello",
        ),
        ("(happy)(sad)hello", "(高兴1)hello"),
    ],
)
def test_texts_and_what_the_model_gets_compatibly(text, wire):
    assert direct(text).wire == wire


@pytest.mark.parametrize(
    ("text", "typed", "instructions", "param", "code"),
    [
        ("(laughs) hello", {}, "", "input", "unknown_tag"),
        ("(happy)(laughs) hello", {}, "", "input", "unknown_tag"),
        ("(happy)(sad) hello", {}, "", "input", "conflicting_controls"),
        ("(happy) hello", {Group.EMOTION: "sad"}, "", "input", "conflicting_controls"),
        ("hello", {Group.EMOTION: "sad"}, "very happy", "instructions", "conflicting_controls"),
        ("hello", {}, "whisper", "instructions", "unknown_instruction"),
        ("hello", {Group.RATE: "happy"}, "", "rate", "unknown_control"),
        ("hello", {Group.STYLE: ""}, "", "style", "unknown_control"),
        ("(happy)", {}, "", "input", "empty_input"),
    ],
)
def test_strict_reading_refuses_by_name_and_lists_what_is_known(text, typed, instructions, param, code):
    with pytest.raises(InputError) as refused:
        direct(text, typed=typed, instructions=instructions, reading=STRICT)
    assert (refused.value.param, refused.value.code) == (param, code)
    if code.startswith("unknown"):
        assert "高兴1" in str(refused.value) or param in ("rate", "style")
        assert "known are" in str(refused.value)


def test_fields_win_over_tags_and_tags_over_words_with_a_note():
    directed = direct("(sad)(slow)hi", typed={Group.EMOTION: "angry"}, instructions="happy, fast, in English")
    assert directed.controls == Controls(emotion="生气1", rate="慢速1", language="英文")
    assert len(directed.notes) == 3
    # An unknown field is an error in either reading: it can only be a slip.
    with pytest.raises(InputError):
        direct("hi", typed={Group.EMOTION: "hungry"})


@pytest.mark.parametrize(
    ("instructions", "tags", "unknown"),
    [
        ("Speak in a cheerful and positive tone.", "(高兴1)", ()),
        ("very happy", "(高兴2)", ()),
        ("Please read this extremely slowly, in Cantonese.", "(粤语)(慢速2)", ()),
        ("a bit faster", "(快速1)", ()),
        ("请用非常高兴的语气，用四川话说，快一点", "(四川话)(高兴2)(快速1)", ()),
        ("用粤语慢慢地朗读", "(粤语)(慢速1)", ()),
        ("高兴2，慢速1", "(高兴2)(慢速1)", ()),
        ("rap it", "(RAP)", ()),
        ("哼唱", "(哼唱)", ()),
        ("sound like a happy pirate", "(高兴1)", ("like", "pirate")),
        ("don't sound sad, speak quickly", "(快速1)", ("don't sound sad",)),
        ("不要生气，但是快", "(快速1)", ("不要生气",)),
        ("用海盗的语气", "", ("海盗",)),
        ("", "", ()),
        ("😀", "", ("😀",)),
    ],
)
def test_words_and_what_they_mean(instructions, tags, unknown):
    assert understand(instructions)[1] == unknown
    assert direct("x", instructions=instructions).controls.tags == tags


@given(st.text(max_size=60))
def test_any_instructions_are_read(instructions):
    wishes, unknown = understand(instructions)
    assert all(wish.tag in TAGS[wish.group] for wish in wishes)
    assert all(unknown)


@given(st.sampled_from(sorted(WORDS)), st.lists(st.sampled_from(sorted(w for w in FILLERS if w.isascii()))))
def test_fillers_change_nothing_and_a_negation_takes_the_wish_back(word, fillers):
    said = " ".join([*fillers, word, *fillers])
    assert [wish.tag for wish in understand(said)[0]] == [WORDS[word][0]]
    assert understand(f"not {said}")[0] == ()


def test_no_word_has_two_meanings():
    assert not (set(WORDS) & FILLERS or set(WORDS) & NEGATIONS or FILLERS & NEGATIONS)
    names = [name for group in NAMES.values() for name in group]
    assert len(names) == len(set(names))
    assert all(tag in known_tags() for tag in ALL_TAGS)


def test_music_is_asked_for_by_tags_alone():
    assert music("(高兴1)(RAP)哼唱") is Instruction.RAP
    assert music("（ 哼唱 ）RAP") is Instruction.HUMMING
    assert music("RAP (RAP)") is None
