"""The nano preset's text vocabulary: a SentencePiece model of 2,880 pieces, written directly.

Unigram with byte fallback, so that any text goes in and comes back unchanged. Ids: `<unk>` (also padding) 0,
`<s>` 1, `</s>` 2, `<|EOT|>` 3, `<|BOT|>` 4, bytes 5..260, then letters, English words and Chinese characters.
"""

from __future__ import annotations

import string
from collections.abc import Iterator
from itertools import chain, islice, product

from sentencepiece import sentencepiece_model_pb2 as proto

PIECES = 2880
MARKERS = ("<unk>", "<s>", "</s>", "<|EOT|>", "<|BOT|>")
FIRST_TEXT_ID = len(MARKERS) + 256
_SPACE = "▁"

_WORDS = """
the of and to in a is that it for you was on are with as be at have this not but from they he she we his
her or had an which there were been their has would what will can when who said more if no out so up into
do than them some could time these two may then first my now over such our man me even most made after
also did many before must through back years where much your way well down should because each just
people how too little state good very make world still see own work men long here get both between life
being under three never know same last another while us off might great go come since against right came
take used himself few house use during without again place around however home small found thought went
say part once high general upon school every does got united left number course war until always away
something fact water though less public put think almost hand enough far took head yet government system
set better told nothing night end why didn know eyes find going look asked later point knew next program
city business give group toward young days let room word turn off on please set timer minutes minute
seconds hours kitchen bedroom bathroom living office garage light lights lamp radio fan heater door
window music play stop start pause louder quieter up down open close zero one two three four five six
seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen twenty
thirty forty fifty sixty seventy eighty ninety hundred thousand plus minus times divided equals hello hi
goodbye thanks thank welcome yes sorry okay morning afternoon evening today tomorrow yesterday monday
tuesday wednesday thursday friday saturday sunday weather rain sun snow wind cold warm hot voice speech
speak sing song rap hum story tell name is language english chinese cantonese sichuan japanese korean
happy angry sad fast slow model audio answer question help assistant human user call tool read write
listen hear sound word sentence text token stream test computer machine phone email message news book
movie food tea coffee milk bread rice fruit apple banana red green blue white black yellow big old new
best large important different possible real sure true free full early late by day hour nice o'clock oh orange
purple repeat second switch television
""".split()  # noqa: SIM905 - a page of words reads better than a list of strings
_CAPITALISED = 150
# A text's first word has no space in front. What the nano voices talk about begins with these.
_FIRST_WORDS = """
and are bathroom bedroom blue can divided eight eighteen eighty eleven fifteen fifty five forty four fourteen
friday garage good goodbye green hello how i it kitchen living minus monday nine nineteen ninety office oh one
orange please plus purple radio red repeat saturday say set seven seventeen seventy six sixteen sixty sorry
sunday switch tell ten thank the thirteen thirty three thursday tuesday turn twelve twenty two very wednesday
welcome what yellow you zero
""".split()  # noqa: SIM905
_CHINESE = (
    "的一是不了在人有我他这个们中来上大为和国地到以说时要就出会可也你对生能而子那得于着下自之年过发后作里用道行所然家种事成方多经么去法"
    "学如都同现当没动面起看定天分还进好小部其些主样理心她本前开但因只从想实日军者意无力它与长把机十民第公此已工使情明性知全三又关点正业"
    "外将两高间由问很最重并物手应战向头文体政美相见被利什二等产或新己制身果加西斯月话合回特代内信表化老给世位次度门任常先海通教儿原东声提"
    "立及比员解水名真论处走义各入几口认条平系气题活尔更别打女变四神总何电数安少报才结反受目太量再感建务做接必场件计管期市直德资命山金指克"
    "许统区保至队形社便空决治展马科司五基眼书非则听白却界达光放强即像难且权思王象完设式色路记南品住告类求据程北边死张该交规万取拉格望觉术"
    "领共确传师观清今切院让识候带导争运笑飞风步改收根干造言联持组每济车亲极林服快办议往元英士证近失转夫令准布始怎呢存未远叫台单影具罗字爱"
    "击流备兵连调深商算质团集百需价花党华城石级整府离况亚请技际约示复病息究线似官火断精满支视消越器容照须九增研写称企八功吗包片史委乎查轻"
    "易早曾除农找装广显吧阿李标谈吃图念六引历首医局突专费号尽另周较注语仅考落青随选列武红响虽推势参希古众构房半节土投某案黑维革划敌致陈律"
    "足态护七兴派孩验责营星够章音跟志底站严巴例防族供效续施留讲型料终答紧黄绝奇察母京段依批群项故按河米围江织害斗双境客纪采举杀攻父苏密低"
    "朝友诉止细愿千值仍男钱破网热助倒育属坐帮您谢喜欢歌唱慢粤川韩晚午昨睡醒茶饭菜猫狗鸟鱼雨雪春夏秋冬灯厨厅卧窗杯衣鞋帽"
)
_PUNCTUATION = "，。！？、；：“”‘’（）《》【】—…·"


def pieces() -> list[str]:
    """The text pieces in order of their ids, from FIRST_TEXT_ID on."""
    words = list(dict.fromkeys(_WORDS))
    marked = chain(
        (_SPACE + word for word in words),
        (_SPACE + word.capitalize() for word in words[:_CAPITALISED]),
        (_SPACE + letter for letter in string.ascii_letters + string.digits),
    )
    first = chain(_FIRST_WORDS, (word.capitalize() for word in _FIRST_WORDS))
    printable = (char for char in map(chr, range(0x21, 0x7F)))
    ordered = dict.fromkeys(
        chain(_SPACE, printable, _PUNCTUATION, _CHINESE, marked, first, _pairs(), _remaining_chinese())
    )
    return list(islice(ordered, PIECES - FIRST_TEXT_ID))


def vocabulary() -> bytes:
    """The serialised SentencePiece model."""
    model = proto.ModelProto()
    kinds = proto.ModelProto.SentencePiece
    for marker in MARKERS:
        kind = kinds.UNKNOWN if marker == MARKERS[0] else kinds.CONTROL
        model.pieces.add(piece=marker, score=0.0, type=kind)
    for byte in range(256):
        model.pieces.add(piece=f"<0x{byte:02X}>", score=0.0, type=kinds.BYTE)
    for rank, piece in enumerate(pieces()):
        # Nearly equal scores: the fewest pieces win, the earlier ones on ties.
        model.pieces.add(piece=piece, score=-8.0 - rank / PIECES, type=kinds.NORMAL)
    trainer = model.trainer_spec
    trainer.model_type = proto.TrainerSpec.UNIGRAM
    trainer.vocab_size = PIECES
    trainer.byte_fallback = True
    trainer.unk_id, trainer.bos_id, trainer.eos_id, trainer.pad_id = 0, 1, 2, -1
    trainer.unk_piece, trainer.bos_piece, trainer.eos_piece = MARKERS[:3]
    trainer.control_symbols.extend(MARKERS[3:])
    normalizer = model.normalizer_spec
    normalizer.name = "identity"
    normalizer.add_dummy_prefix = False
    normalizer.remove_extra_whitespaces = False
    normalizer.escape_whitespaces = True
    serialised: bytes = model.SerializeToString(deterministic=True)
    return serialised


def _pairs() -> Iterator[str]:
    """Two letters that English words often share."""
    yield from (
        "th",
        "er",
        "on",
        "an",
        "re",
        "he",
        "in",
        "ed",
        "nd",
        "ha",
        "at",
        "en",
        "es",
        "of",
        "or",
        "nt",
    )
    yield from ("ing", "tion", "ly", "est", "ment", "ness", "able", "ful", "'s", "n't", "'re", "'ll", "...")
    yield from ("".join(pair) for pair in product("bcdfghlmnprstvw", "aeiou"))


def _remaining_chinese() -> Iterator[str]:
    """The characters of GB 2312's first level, in its order."""
    for row, cell in product(range(16, 56), range(1, 95)):
        code = bytes((row + 0xA0, cell + 0xA0))
        yield from code.decode("gb2312", errors="ignore")
