"""Several corpora, several languages: each corpus gives its share, a voice is one name in every language, and
a language model goes on with what it never read as a new one begins."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st

from stepaudio_runtime.models.step1 import Step1, Step1Config
from stepaudio_runtime.train.answers import Answers
from stepaudio_runtime.train.corpus import Utterance, read_corpus
from stepaudio_runtime.train.prompts import choose_prompts, name_of
from stepaudio_runtime.train.speech_lm import as_anybody_writes
from stepaudio_runtime.train.stages import Job, fair_share

EMBEDDED = "model.embed_tokens.weight"


@given(st.lists(st.integers(1, 60), min_size=1, max_size=5), st.integers(1, 200))
def test_corpora_give_alike_and_no_more_than_is_asked_for(lengths: list[int], at_most: int) -> None:
    share = fair_share(lengths, at_most)
    given_ = [min(length, share) for length in lengths]
    assert sum(given_) <= at_most
    # One more each would be too many, or there is no more.
    one_more = sum(min(length, share + 1) for length in lengths)
    assert given_ == lengths or one_more > at_most


def test_a_job_reads_the_first_of_each_corpus(tmp_path: Path) -> None:
    corpora = []
    for name, count in (("few", 2), ("many", 9)):
        corpora.append(tmp_path / name)
        corpora[-1].mkdir()
        lines = [{"audio": f"{i}.wav", "text": name, "voice": "cmn+f2"} for i in range(count)]
        (corpora[-1] / "manifest.jsonl").write_text("\n".join(map(json.dumps, lines)))
    job = Job(tuple(corpora), tmp_path, tmp_path, utterances=7)
    assert job.read(100) == [*read_corpus(corpora[0]), *read_corpus(corpora[1])[:5]]


def test_a_name_is_a_voice_in_both_languages_and_its_recording_is_english(tmp_path: Path) -> None:
    assert [name_of(v) for v in ("en-us+f2", "cmn+f2", "cmn+f5", "deep")] == [
        "Treble",
        "Treble",
        "Alto",
        None,
    ]
    soundfile.write(tmp_path / "a.wav", np.full(2 * 22_050, 0.5, np.float32), 22_050)
    chinese, english = (Utterance(tmp_path / "a.wav", "", v, "", "train") for v in ("cmn+f2", "en-us+f2"))
    assert choose_prompts([chinese, english]) == {"Treble": english}


def test_a_text_ends_with_the_marks_of_its_language() -> None:
    assert {text[-1] for text in as_anybody_writes("请说一二三")} == set("。？！")
    assert {text[-1] for text in as_anybody_writes("say one")} == set(".?!")


def test_what_was_never_read_begins_anew() -> None:
    torch.manual_seed(0)
    config = Step1Config(40, 8, 16, 1, 2, 1)
    first, second = Step1(config), Step1(config)
    new = second.state_dict()[EMBEDDED].clone()
    state = Answers(first, [30, 31]).exported([1, 2])
    Answers(second, [30, 31]).take_over(state)
    taken = second.state_dict()[EMBEDDED]
    read = torch.tensor([1, 2, 30, 31])
    unread = torch.ones(40, dtype=torch.bool).index_fill(0, read, value=False)
    assert torch.equal(taken[read], first.state_dict()[EMBEDDED][read])
    assert torch.equal(taken[unread], new[unread])
    assert not state[EMBEDDED][unread].any()
