"""Numbers, dates, money and units as words in Chinese, English and Japanese, by wetext's real grammars; what
no grammar knows stays, and nothing that a caller writes makes them fail."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepaudio_runtime.tts.written_out import written_out


@pytest.mark.parametrize(
    ("language", "text", "said"),
    [
        ("zh", "今天是2024年5月1日，气温25℃。", "今天是二零二四年五月一日，气温二十五摄氏度。"),
        ("zh", "价格是￥12.50，涨了3.5%。", "价格是十二点五零元，涨了百分之三点五。"),
        ("zh", "1/2的人", "二分之一的人"),
        ("zh", "拨打13800138000", "拨打幺三八零零幺三八零零零"),
        ("zh", "3+5=8", "三加五等于八"),
        ("zh", "没有数字，好吗？", "没有数字，好吗？"),
        ("zh", "￥1,234.50", "一千二百三十四点五零元"),
        ("zh", "花了1,200美元，还剩1,234,567。", "花了一千二百美元，还剩一百二十三万四千五百六十七。"),
        ("zh", "3,4,5号和3，4号", "三、四、五号和三、四号"),
        ("en", "He ran 3.5 km; 50% won.", "He ran three point five kilometers; fifty percent won."),
        ("en", "It costs $12.50 at 3:30 p.m.", "It costs twelve point five dollars at three thirty PM"),
        ("en", "In 2024, 1,000,000 left.", "In twenty twenty four, one million left."),
        ("en", 'She said "5 apples".', "She said 'five apples'."),
        ("en", "nothing to change", "nothing to change"),
        ("en", "No. That is wrong.", "no. That is wrong."),
        ("en", "It is No. 5.", "It is number five."),
        ("en", "We won. Sun shone.", "We won. sun shone."),
        (
            "en",
            "On Sun. 5 May, 9 to 5, Sat and Sun",
            "On Sunday. five May, nine to five, Saturday and Sunday",
        ),
        ("en", "$1,234", "one thousand two hundred and thirty four dollars"),
        ("en", "In 2024, 1,000 or 21,000.", "In twenty twenty four, one thousand or twenty one thousand."),
        ("en", "$1,000 or several thousand.", "one thousand dollars or several thousand."),
        ("ja", "2024年5月1日、気温は25℃です。", "二千二十四年五月一日、気温は二十五摂氏です。"),
        ("ja", "1,500円です。3時30分。", "千五百円です。三時三十分。"),
        ("ja", "￥1,200", "千二百円"),
    ],
)
def test_numbers_and_signs_become_words(language, text, said):
    assert written_out(text, language) == said


@settings(deadline=None, max_examples=30)
@given(
    st.sampled_from(["zh", "en", "ja"]), st.text("0123456789.,%$/\\\"'[]{}<>|-+=:℃№a 一のé\n", max_size=30)
)
def test_whatever_is_written_is_said_somehow(language, text):
    said = written_out(text, language)
    assert isinstance(said, str)
    assert bool(said) == bool(text)
