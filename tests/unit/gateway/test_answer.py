"""Reading the chat model's answer from ids: the pieces together are what SentencePiece decodes, for any ids
and any cutting; stop strings, audio and markers; and text that looks like markers stays text.
"""

import io

import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st

from stepaudio_runtime.chat.answer import AnswerReader, Delta, Detokeniser, StopScanner
from stepaudio_runtime.chat.model import build_model
from stepaudio_runtime.chat.vocabulary import AudioPiece, SilentPiece, TextPiece, Vocabulary, VocabularyError

CORPUS = "the answer is short, and clear. hello to the world! 你好 世界 これは日本語です <"


def train(**options) -> bytes:
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([*CORPUS.split(), *CORPUS] * 20),
        model_writer=out,
        vocab_size=420,
        hard_vocab_limit=False,
        model_type="bpe",
        byte_fallback=True,
        pad_id=0,
        bos_id=1,
        eos_id=2,
        unk_id=5,
        control_symbols=["<|EOT|>", "<|BOT|>"],
        user_defined_symbols=["<audio_7>", "\n"],
        minloglevel=2,
        **options,
    )
    return out.getvalue()


MODELS = [
    train(),
    train(add_dummy_prefix=False),
    train(normalization_rule_name="identity", remove_extra_whitespaces=False),
]
PROCESSORS = [sentencepiece.SentencePieceProcessor(model_proto=model) for model in MODELS]
VOCABULARIES = [
    Vocabulary(model, audio_offset=processor.get_piece_size())
    for model, processor in zip(MODELS, PROCESSORS, strict=True)
]


def in_pieces(vocabulary, ids):
    detokeniser = Detokeniser(vocabulary)
    pieces = [detokeniser.feed(vocabulary.piece(id_)) for id_ in ids]
    return [*pieces, detokeniser.flush()]


@pytest.mark.parametrize("which", range(len(MODELS)))
@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_pieces_together_are_the_whole(which, data):
    vocabulary, processor = VOCABULARIES[which], PROCESSORS[which]
    size = processor.get_piece_size()
    shown = [id_ for id_ in range(size) if isinstance(vocabulary.piece(id_), TextPiece)]
    text_ids = [id_ for id_ in shown if not processor.is_byte(id_)]
    byte_ids = [id_ for id_ in shown if processor.is_byte(id_)]
    spelt = st.text(max_size=4).map(
        lambda text: [processor.piece_to_id(f"<0x{byte:02X}>") for byte in text.encode()]
    )
    parts = data.draw(
        st.lists(
            st.one_of(
                st.sampled_from(text_ids).map(lambda i: [i]),
                st.sampled_from(byte_ids).map(lambda i: [i]),
                spelt,
            ),
            max_size=20,
        )
    )
    ids = [id_ for part in parts for id_ in part]
    whole = processor.decode(ids)
    pieces = in_pieces(vocabulary, ids)
    # Spaces before an answer's first letter are dropped here more eagerly than there.
    assert "".join(pieces).lstrip(" ") == whole.lstrip(" ")
    assert all("�" not in piece for piece in pieces) or "�" in whole


@settings(deadline=None)
@given(text=st.text(max_size=60))
def test_encoded_text_has_no_marker_and_comes_back(text):
    for vocabulary, processor in zip(VOCABULARIES, PROCESSORS, strict=True):
        ids = vocabulary.encode(text)
        assert all(isinstance(vocabulary.piece(id_), TextPiece) for id_ in ids)
        assert processor.decode(ids) == processor.decode(processor.encode(text))


@settings(deadline=None)
@given(
    parts=st.lists(
        st.sampled_from(
            ["<|EOT|>", "<|BOT|>", "<s>", "</s>", "<audio_7>", "<unk>", "＜|EOT|＞", "<0x41>", " ", "x", "\n"]
        ),
        max_size=8,
    )
)
def test_text_that_looks_like_markers_is_spelt_out(parts):
    for vocabulary, processor in zip(VOCABULARIES, PROCESSORS, strict=True):
        ids = vocabulary.encode("".join(parts))
        assert not {0, 1, 2, 3, 4, processor.piece_to_id("<audio_7>")} & set(ids)
    whole = VOCABULARIES[0].encode("a<|EOT|>b<audio_7>c")
    assert PROCESSORS[0].decode(whole) == "a<|EOT|>b<audio_7>c"


def test_an_answer_does_not_begin_with_the_dummy_space():
    vocabulary, processor = VOCABULARIES[0], PROCESSORS[0]
    assert vocabulary.strips_leading_space
    assert "".join(in_pieces(vocabulary, processor.encode("hello world"))) == "hello world"


def test_ids_mean_text_audio_or_nothing():
    vocabulary, size = VOCABULARIES[0], PROCESSORS[0].get_piece_size()
    for id_ in (0, 1, 2, 3, 4, -1, size + 5120, 10**9):
        assert vocabulary.piece(id_) == SilentPiece()
    assert vocabulary.piece(size) == AudioPiece(0)
    assert vocabulary.piece(size + 5119) == AudioPiece(5119)
    hello = PROCESSORS[0].encode("hello")
    assert vocabulary.piece(hello[0]) == TextPiece(
        PROCESSORS[0].id_to_piece(hello[0]).replace("▁", " ").encode(), False
    )


def test_an_answer_ends_at_the_end_of_turn_and_keeps_audio_apart():
    vocabulary, processor = VOCABULARIES[0], PROCESSORS[0]
    size = processor.get_piece_size()
    hello, world = processor.encode("hello"), processor.encode("world")
    reader = AnswerReader(vocabulary)
    delta = reader.feed([*hello, size + 5, 4, size + 6, *world, 3, *hello])
    assert (delta, reader.ended, reader.tokens) == (
        Delta("hello world", (5, 6)),
        True,
        len(hello) + len(world) + 4,
    )
    assert reader.feed(hello) == Delta()
    assert reader.finish() == Delta()


def test_a_character_cut_by_the_end_or_by_audio_is_marked():
    vocabulary, processor = VOCABULARIES[0], PROCESSORS[0]
    lead = processor.piece_to_id("<0xE4>")
    reader = AnswerReader(vocabulary)
    assert reader.feed([lead]) == Delta()
    assert reader.feed([processor.get_piece_size()]) == Delta("�", (0,))
    assert reader.feed([lead]) == Delta()
    assert reader.finish() == Delta("�")


@settings(deadline=None)
@given(
    text=st.text("abc", max_size=40),
    stops=st.lists(st.text("abc", min_size=1, max_size=4), max_size=4),
    data=st.data(),
)
def test_stop_strings_cut_at_the_same_place_however_the_text_arrives(text, stops, data):
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=12)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    scanner, out = StopScanner(stops), []
    for piece in pieces:
        out.append(scanner.feed(piece))
        if scanner.found:
            break
    if not scanner.found:
        out.append(scanner.flush())
    assert scanner.found == any(stop in text for stop in stops)
    if not scanner.found:
        assert "".join(out) == text
        return
    # The stop whose end comes first is met first; among those of one end, the one that begins first.
    ends = min(text.find(stop) + len(stop) for stop in stops if stop in text)
    shown = "".join(out)
    assert text.startswith(shown)
    assert len(shown) <= ends
    assert not any(stop in shown for stop in stops)
    assert any(text.startswith(stop, len(shown)) for stop in stops)


def test_a_model_is_built_only_of_what_the_contract_says():
    info = {
        "model": "m",
        "audio_offset": 500,
        "vocab_size": 5620,
        "bos": 1,
        "eot": 3,
        "bot": 4,
        "max_model_len": 99,
    }
    model = build_model(info, MODELS[0], None)
    assert build_model(info, MODELS[0], f'"{model.sha256}"').info == info
    bad = (
        (info, MODELS[0], '"0"'),
        (info, b"no model", None),
        (info, b"", None),
        ([], MODELS[0], None),
        ({**info, "eot": None}, MODELS[0], None),
        ({**info, "vocab_size": 5619}, MODELS[0], None),
    )
    for arguments in bad:
        with pytest.raises(VocabularyError):
            build_model(*arguments)
