"""The rules of C4, Gopher and FineWeb at both sides of their thresholds.

Each text is counted by hand in its own case; the thresholds are those of the
papers.
"""

import pickle
import time

import pytest

from input_pipeline.cleaning.c4 import c4
from input_pipeline.cleaning.fineweb import fineweb
from input_pipeline.cleaning.gopher_quality import gopher_quality
from input_pipeline.cleaning.gopher_repetition import gopher_repetition
from input_pipeline.document import Counted, Document, Dropped

STAGES = (c4, gopher_quality, gopher_repetition, fineweb)
PROSE = ("the", "small", "house", "of", "stone")  # four letters in the mean


def prose(count: int) -> str:
  return " ".join(PROSE[i % 5] for i in range(count))


def rule(stage, text: str) -> str | None:
  result = stage(Document("id", text))
  return result.rule if isinstance(result, Dropped) else None


def lines(count: int, marked: int, form: str) -> str:
  """`count` lines of twelve words, of which `marked` are set in `form`."""
  line = prose(12)
  return "\n".join(
    form.format(line) if i < marked else line for i in range(count)
  )


LONG = ["the", "and"] + ["a" * 17] * 2 + ["a" * 10] * 46  # 500 in 50 words
# (the setting, the rule, a text that passes just so, one that does not)
GOPHER_QUALITY = [
  ("min_words", "too_few_words", prose(50), prose(49) + " , ; ."),
  ("max_words", "too_many_words", prose(100_000), prose(100_001)),
  (
    "min_mean_word_length",
    "short_words",
    "the and cat " * 20,
    "the and cat " * 20 + "of",
  ),
  ("max_mean_word_length", "long_words", " ".join(LONG), " ".join(LONG) + "a"),
  (
    "max_symbols_per_word",
    "hashes",
    prose(90) + " #" * 10,
    prose(89) + " #" * 11,
  ),
  (
    "max_symbols_per_word",
    "ellipses",
    "... " * 10 + prose(90),
    "... " * 10 + "… " + prose(89),
  ),
  ("max_bullet_lines", "bullets", lines(10, 9, " - {}"), lines(10, 10, "• {}")),
  (
    "max_ellipsis_lines",
    "ellipsis_lines",
    lines(10, 3, "{}..."),
    lines(10, 4, "{}… "),
  ),
  (
    "min_alphabetic_words",
    "few_letters",
    prose(80) + " 1" * 20,
    prose(79) + " 1" * 21,
  ),
  (
    "min_stop_words",
    "few_stop_words",
    "the of " + "stone " * 60,
    "the The " + "stone " * 60,
  ),
]


@pytest.mark.parametrize(
  ("key", "name", "good", "bad"), GOPHER_QUALITY, ids=lambda x: str(x)[:20]
)
def test_gopher_quality(key, name, good, bad):
  assert rule(gopher_quality(), good) is None
  assert rule(gopher_quality(), bad) == name
  assert rule(gopher_quality(**{key: None}), bad) != name


def only(make, *keys: str):
  """The stage with no rule but these."""
  every = {
    gopher_repetition: (
      "max_duplicate_paragraphs",
      "max_duplicate_paragraph_characters",
      "max_duplicate_lines",
      "max_duplicate_line_characters",
      "top_ngrams",
      "duplicate_ngrams",
    ),
    fineweb: (
      "min_lines_with_mark",
      "max_short_lines",
      "max_duplicate_characters",
      "max_newlines_per_word",
    ),
  }[make]
  return make(**{key: None for key in every if key not in keys})


def padded(parts: list[str], length: int) -> str:
  """The parts with a word of its own between every two, `length` in all."""
  text = "".join(f"{part} x{i} " for i, part in enumerate(parts))
  return text + "z" * (length - len(text))


LETTERS = "abcdefghijklmnopqrstuvwxyz"
GOPHER_REPETITION = [
  # 3 of 10 paragraphs were there before; 4 of 10.
  (
    "max_duplicate_paragraphs",
    "duplicate_paragraphs",
    "\n\n".join("abcdefgaaa"),
    "\n\n".join("abcdefaaaa"),
  ),
  # 20 of 100 characters; 21 of 100.
  (
    "max_duplicate_paragraph_characters",
    "duplicate_paragraph_characters",
    "p" * 20 + "\n\n" + "p" * 20 + "\n\n" + "q" * 56,
    "p" * 21 + "\n\n" + "p" * 21 + "\n\n" + "q" * 54,
  ),
  (
    "max_duplicate_lines",
    "duplicate_lines",
    "\n".join("abcdefgaaa"),
    "\n\n".join("abcdefaaaa"),
  ),
  (
    "max_duplicate_line_characters",
    "duplicate_line_characters",
    "p" * 20 + "\n" + "p" * 20 + "\n" + "q" * 58,
    "p" * 21 + "\n" + "p" * 21 + "\n" + "q" * 56,
  ),
  # "ab cd" four times is 20 of 100 characters; of 99.
  (
    "top_ngrams",
    "top_2_gram",
    padded(["ab cd"] * 4, 100),
    padded(["ab cd"] * 4, 99),
  ),
  # "ab cd efg" four times is 36 of 200; of 199.
  (
    "top_ngrams",
    "top_3_gram",
    padded(["ab cd efg"] * 4, 200),
    padded(["ab cd efg"] * 4, 199),
  ),
  # "a b c dd" twice is 16 of 100; of 99.
  (
    "top_ngrams",
    "top_4_gram",
    padded(["a b c dd"] * 2, 100),
    padded(["a b c dd"] * 2, 99),
  ),
  # The second "aaa bbb ccc ddd eee" is 15 of 100 letters and blanks; of 99.
  (
    "duplicate_ngrams",
    "duplicate_5_gram",
    padded(["aaa bbb ccc ddd eee"] * 2, 100),
    padded(["aaa bbb ccc ddd eee"] * 2, 99),
  ),
  # Ten words of one letter are too few for n < 10: 10 of 100; of 99.
  (
    "duplicate_ngrams",
    "duplicate_10_gram",
    padded([" ".join(LETTERS[:10])] * 2, 100),
    padded([" ".join(LETTERS[:10])] * 2, 99),
  ),
]


@pytest.mark.parametrize(
  ("key", "name", "good", "bad"), GOPHER_REPETITION, ids=lambda x: str(x)[:30]
)
def test_gopher_repetition(key, name, good, bad):
  stage = only(gopher_repetition, key)
  assert rule(stage, good) is None
  assert rule(stage, bad) == name
  assert rule(only(gopher_repetition), bad) is None


def test_no_token_is_a_duplicate_twice():
  # "a" twelve times: the 5-grams at 0, 1 (dup, to 6), 6 (dup, to 11): 10 of 23.
  text = " ".join("a" * 12)
  for most, expected in ((10 / 23, None), (9.9 / 23, "duplicate_5_gram")):
    stage = gopher_repetition(None, None, None, None, None, None, ((5, most),))
    assert rule(stage, text) == expected


def test_the_memory_for_ngrams_is_bounded():
  stage = gopher_repetition(max_words=60)
  text = " ".join(f"w{i}" for i in range(60))
  assert rule(stage, text) is None
  assert rule(stage, text + " and") == "too_many_words"


def test_a_document_without_text_is_empty():
  assert rule(gopher_repetition(), "") == "empty"
  assert rule(fineweb(), " \n \n") == "empty"
  assert rule(gopher_quality(), "") == "too_few_words"
  assert rule(c4(), "") == "too_few_sentences"


LINE = "A line of more than thirty characters, all told"
FINEWEB = [
  # 3 of 25 lines are 0.12.
  (
    "min_lines_with_mark",
    "few_lines_with_mark",
    "\n".join(f"{LINE} {i}{'.' if i < 3 else ''}" for i in range(25)),
    "\n".join(f"{LINE} {i}{'。' if i < 2 else ''}" for i in range(25)),
  ),
  # 67 of 100 lines have 30 characters; 68.
  (
    "max_short_lines",
    "short_lines",
    "\n".join("s" * (30 if i < 67 else 31) for i in range(100)),
    "\n".join("s" * (30 if i < 68 else 31) for i in range(100)),
  ),
  # 2 of 200 characters; of 199. Line breaks do not count.
  (
    "max_duplicate_characters",
    "duplicate_characters",
    "ab\n" + "q" * 196 + "\nab\n\n",
    "ab\n" + "q" * 195 + "\nab",
  ),
  # 3 line breaks to 10 words; to 9.
  (
    "max_newlines_per_word",
    "list",
    "a b c d\n\ne f g\nh i j",
    "a b c d\n\ne f g\nh i",
  ),
]


@pytest.mark.parametrize(
  ("key", "name", "good", "bad"), FINEWEB, ids=lambda x: str(x)[:20]
)
def test_fineweb(key, name, good, bad):
  stage = only(fineweb, key)
  assert rule(stage, good) is None
  assert rule(stage, bad) == name
  assert rule(only(fineweb), bad) is None


FIVE = 'One is here. Two is here! Is three here? "Four is here." Five is here.'


def test_c4_leaves_out_lines():
  text = "\n".join(
    [
      "  " + FIVE + "  ",
      "No mark at the end",
      "It goes on...",
      "Two words.",
      "Please enable JavaScript to see this.",
      "Read our Privacy Policy before you go on.",
      "A word of " + "x" * 1001 + " letters.",
      "Water is wet.[12] So they say.[citation needed]",
      "",
    ]
  )
  document, counts = c4()(Document("id", text, {"url": "u"}))
  assert document.text == FIVE + "\nWater is wet. So they say."
  assert document.fields == {"url": "u"}
  assert counts == {
    "lines_without_terminal_mark": 2,
    "lines_too_short": 1,
    "lines_with_javascript": 1,
    "lines_with_policy": 1,
    "lines_with_long_word": 1,
  }


@pytest.mark.parametrize(
  ("settings", "line"),
  [
    ({"terminal_mark": False}, "No mark at the end"),
    ({"min_words_per_line": None}, "Two words."),
    ({"javascript": False}, "Please enable JavaScript to see this."),
    ({"policy": False}, "Read our Privacy Policy before you go on."),
    ({"max_word_length": None}, "A word of " + "x" * 1001 + " letters."),
    ({"citations": False}, "Water [12] is wet."),
  ],
)
def test_c4_keeps_a_line_whose_rule_is_off(settings, line):
  def text_of(stage) -> str:
    result = stage(Document("id", f"{FIVE}\n{line}"))
    return (result.document if isinstance(result, Counted) else result).text

  assert line in text_of(c4(**settings))
  assert line not in text_of(c4())


@pytest.mark.parametrize(
  ("name", "settings", "good", "bad"),
  [
    (
      "too_few_sentences",
      {"min_sentences": None},
      FIVE,
      FIVE.removesuffix(" Five is here."),
    ),
    (
      "lorem_ipsum",
      {"lorem_ipsum": False},
      FIVE + "\nLorem ipsum",
      FIVE + "\nThis is Lorem Ipsum.",
    ),
    (
      "curly_bracket",
      {"curly_bracket": False},
      FIVE + "\nif (x) { y }",
      FIVE + "\nHere is a {.",
    ),
  ],
)
def test_c4_drops_documents(name, settings, good, bad):
  assert rule(c4(), good) is None
  assert rule(c4(), bad) == name
  assert rule(c4(**settings), bad) is None


def test_c4_knows_bad_words_as_words():
  stage = c4(bad_words=("ass", "very bad"))
  assert rule(stage, FIVE + " He gave it a pass.") is None
  assert rule(stage, FIVE + " What an Ass he is.") == "bad_word"
  assert rule(stage, FIVE + " Very bad!") == "bad_word"


@pytest.mark.parametrize("unit", ["a+", "a.", "'", "http://!", "1/", "[1", "-"])
def test_hostile_text_takes_linear_time(unit):
  # What is quadratic would take minutes.
  text = unit * (300_000 // len(unit))
  start = time.process_time()
  for make in STAGES:
    make(languages=None)(Document("id", text))
  assert time.process_time() - start < 10


@pytest.mark.parametrize("make", STAGES)
def test_other_languages_pass(make):
  chinese = Document("id", "短 " * 5, {"lang": "zh"})
  assert make()(chinese) is chinese
  assert isinstance(make(languages=("en", "zh"))(chinese), Dropped)
  assert isinstance(make(languages=None)(chinese), Dropped)
  assert isinstance(make()(Document("id", "short " * 5)), Dropped)
  with pytest.raises(
    ValueError, match=r"languages='en' is neither .*\(\"en\","
  ):
    make(languages="en")


@pytest.mark.parametrize("make", STAGES)
def test_a_stage_travels_and_is_pure(make):
  there = pickle.loads(pickle.dumps(make()))
  for text in (FIVE, "short", prose(60)):
    document = Document("id", text)
    assert there(document) == make()(document) == make()(document)
