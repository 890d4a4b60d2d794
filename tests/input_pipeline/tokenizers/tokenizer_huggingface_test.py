import json
import subprocess
import sys

import numpy as np
import pytest

from input_pipeline.packing.token_file import token_file
from input_pipeline.sources import open_source
from input_pipeline.tokenizers import get_tokenizer, kept, rebuild
from input_pipeline.tokenizers.parts import chat_template, huggingface

tokenizers = pytest.importorskip("tokenizers")

_VOCABULARY = [
  *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
  *("un", "##aff", "##able", "##a", "##ff", "the", "want", "##want", "##ed"),
  *("runn", "##ing", "ok", ",", "猫", "e", "low", "##e", "##st", "##r"),
]
_LINES = [
  "the lowest of the low, and the lower one",
  "newest, widest and lowest: 猫 and 狗",
  "unaffable wanted running " * 3,
] * 4


def write(path, content):
  path.write_bytes(content if isinstance(content, bytes) else content.encode())
  return str(path)


@pytest.fixture
def vocabulary(tmp_path):
  return write(tmp_path / "vocab.txt", "\n".join(_VOCABULARY) + "\n")


def greedy(words, pieces):
  """Longest match first, from the left: Devlin et al., 2019."""
  found = []
  for word in words:
    start, spelled = 0, []
    while start < len(word):
      prefix = "##" if start else ""
      ends = range(len(word), start, -1)
      end = next((e for e in ends if prefix + word[start:e] in pieces), None)
      if end is None:
        spelled = ["[UNK]"]
        break
      spelled.append(prefix + word[start:end])
      start = end
    found += [pieces.index(piece) for piece in spelled]
  return found


@pytest.mark.parametrize(
  ("text", "words"),
  [
    ("unaffable", ["unaffable"]),
    ("Unwanted, running", ["unwanted", ",", "running"]),
    ("thé  lowest\n", ["the", "lowest"]),  # uncased drops accents
    ("猫猫ok", ["猫", "猫", "ok"]),
    ("unknown the xyz", ["unknown", "the", "xyz"]),
    ("", []),
  ],
)
def test_wordpiece_is_greedy_longest_match(vocabulary, text, words):
  tokenizer = get_tokenizer(f"wordpiece:{vocabulary}", "unused:")
  expected = greedy(words, _VOCABULARY)
  assert tokenizer.encode(text).tolist() == expected
  assert tokenizer.encode(text.encode()).tolist() == expected
  assert tokenizer.encode(text).dtype == np.int32


def test_wordpiece_is_the_library_s_own(vocabulary, tmp_path):
  tokenizer = get_tokenizer(f"wordpiece:{vocabulary}", "unused:")
  own = tokenizers.BertWordPieceTokenizer(vocabulary, lowercase=True)
  text = "The UNAFFABLE lowest, want-ed 猫! thé\tok"
  ids = own.encode(text, add_special_tokens=False).ids
  assert tokenizer.encode(text).tolist() == ids
  assert tokenizer.decode(ids) == own.decode(ids, skip_special_tokens=False)
  assert tokenizer.vocab_size == len(_VOCABULARY)
  assert tokenizer.eos == _VOCABULARY.index("[SEP]")
  expected = [
    0 if p[0] == "[" else len(p.removeprefix("##").encode())
    for p in _VOCABULARY
  ]
  assert tokenizer.byte_lengths.tolist() == expected


def test_special_tokens_are_not_read_out_of_text(vocabulary):
  tokenizer = get_tokenizer(f"wordpiece:{vocabulary}", "unused:")
  ids = tokenizer.encode("the [SEP] the").tolist()
  assert tokenizer.eos not in ids
  assert ids == greedy(["the", "[", "sep", "]", "the"], _VOCABULARY)


def test_a_cased_vocabulary_keeps_case(tmp_path):
  path = write(tmp_path / "v.txt", "[UNK]\nThe\nthe\n")
  tokenizer = get_tokenizer(f"wordpiece:{path}", "unused:")
  assert tokenizer.encode("The the THE").tolist() == [1, 2, 0]


def test_a_run_keeps_its_tokenizer(vocabulary, tmp_path):
  spec, workdir = f"wordpiece:{vocabulary}", str(tmp_path / "run")
  tokenizer = get_tokenizer(spec, "unused:", workdir=workdir)
  (tmp_path / "vocab.txt").unlink()
  for again in (
    kept(spec, workdir),
    get_tokenizer(spec, "unused:", workdir=workdir),
    rebuild(spec, tokenizer.content),
  ):
    assert again.content == tokenizer.content
    text = "the unwanted"
    assert again.encode(text).tolist() == tokenizer.encode(text).tolist()


def test_wordpiece_learns_the_same_in_every_process(tmp_path):
  code = f"""
import hashlib
from input_pipeline.tokenizers.parts import huggingface as t
content = t.fit_wordpiece("t", {_LINES!r}, 60)
print(hashlib.sha256(content).hexdigest())
"""
  # The library's hash tables are seeded anew by each process.
  digests = {
    subprocess.run(
      [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    for _ in range(3)
  }
  assert len(digests) == 1


def test_wordpiece_learns_what_is_frequent(tmp_path):
  content = huggingface.fit_wordpiece("t", _LINES, 70)
  path = write(tmp_path / "tokenizer.json", content)
  tokenizer = get_tokenizer(f"wordpiece:{path}", "unused:")
  pieces = list(json.loads(content)["model"]["vocab"])
  assert pieces[:5] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
  assert tokenizer.vocab_size == len(pieces) <= 70
  assert len(tokenizer.encode("the lowest")) == 2
  words = ["lowest", "widening", "the", ","]
  text = "lowest widening the,"
  assert tokenizer.encode(text).tolist() == greedy(words, pieces)


@pytest.mark.parametrize(
  ("lines", "size", "named"),
  [
    ([], 50, "t: no word"),
    (["  "], 50, "t: no word"),
    (_LINES, 9, "vocab_size 9 is less than the 33 of"),
  ],
)
def test_what_cannot_be_learned_from(lines, size, named):
  with pytest.raises(ValueError, match=named) as error:
    huggingface.fit_wordpiece("t", lines, size)
  assert "\n" not in str(error.value)


def byte_level_bpe():
  model = tokenizers.Tokenizer(tokenizers.models.BPE())
  pre_tokenizers = tokenizers.pre_tokenizers
  model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
  model.decoder = tokenizers.decoders.ByteLevel()
  trainer = tokenizers.trainers.BpeTrainer(
    vocab_size=300,
    special_tokens=["<|endoftext|>"],
    initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    show_progress=False,
  )
  model.train_from_iterator(_LINES, trainer)
  return model


def test_byte_level_bpe_gives_the_text_back(tmp_path):
  model = byte_level_bpe()
  model.enable_truncation(3)
  model.enable_padding(length=30)
  path = write(tmp_path / "tokenizer.json", model.to_str())
  tokenizer = get_tokenizer(f"tokenizers:{path}", "unused:")
  text = "  the lowest 猫 \U0001f408\r\n\tnaïve <|endoftext|>"
  ids = tokenizer.encode(text)
  assert tokenizer.decode(ids) == text
  assert tokenizer.byte_lengths[ids].sum() == len(text.encode())
  assert tokenizer.vocab_size == 300
  assert tokenizer.eos == 0
  assert 0 not in ids


def test_what_begins_a_text_begins_documents_prompts_and_turns(tmp_path):
  model = byte_level_bpe()
  model.add_special_tokens(["<s>"])
  path = write(tmp_path / "tokenizer.json", model.to_str())
  plain = get_tokenizer(f"tokenizers:{path}", "unused:")
  begun = get_tokenizer(f"tokenizers:{path}?eos=0&bos=300", "unused:")
  assert (plain.bos, begun.bos, begun.eos) == (None, 300, 0)
  assert begun.encode("low").tolist() == plain.encode("low").tolist()
  low, lower = (plain.encode(text).tolist() for text in ("low", "lower"))
  assert begun.begun("low").tolist() == [300, *low]
  assert plain.begun("low").tolist() == low
  turns = [chat_template.Message("user", "low")]
  said = chat_template.bind("plain", begun).prompt(turns).tolist()
  assert said == [300, *chat_template.bind("plain", plain).prompt(turns)]

  (tmp_path / "train.jsonl").write_text('{"text":"low"}\n{"text":"lower"}\n')
  uri = f"jsonl:{tmp_path}/train.jsonl"
  source = open_source(uri, "all")
  file = token_file(
    source, begun, uri=uri, split="all", cache_dir=str(tmp_path / "cache")
  )
  assert file.tokens.tolist() == [300, *low, 0, 300, *lower]
  assert file.ends.tolist() == [1 + len(low), len(file.tokens)]
  with pytest.raises(ValueError, match="no id 301 to begin a document"):
    get_tokenizer(f"tokenizers:{path}?bos=301", "unused:")


@pytest.mark.parametrize(
  ("single", "begins"),
  [("<s> $A", True), ("<s> $A <|endoftext|>", True), ("$A <s>", False)],
)
def test_what_a_file_adds_before_a_text(single, begins):
  model = byte_level_bpe()
  assert huggingface.added_before(model.to_str().encode()) is None
  model.add_special_tokens(["<s>"])
  model.post_processor = tokenizers.processors.TemplateProcessing(
    single=single, special_tokens=[("<s>", 300), ("<|endoftext|>", 0)]
  )
  found = huggingface.added_before(model.to_str().encode())
  assert found == (300 if begins else None)


def test_byte_fallback_counts_bytes(tmp_path):
  vocabulary = {"<unk>": 0, "a": 1, "\u2581": 2}
  vocabulary |= {f"<0x{i:02X}>": 3 + i for i in range(256)}
  bpe = tokenizers.models.BPE(
    vocabulary, [], unk_token="<unk>", byte_fallback=True
  )
  model = tokenizers.Tokenizer(bpe)
  model.normalizer = tokenizers.normalizers.Replace(" ", "\u2581")
  path = write(tmp_path / "tokenizer.json", model.to_str())
  tokenizer = get_tokenizer(f"tokenizers:{path}", "unused:")
  ids = tokenizer.encode("a 猫")
  assert ids.tolist() == [1, 2, *(3 + b for b in "猫".encode())]
  assert tokenizer.byte_lengths[ids].tolist() == [1, 1, 1, 1, 1]


def test_an_id_without_a_piece_is_no_text(tmp_path):
  content = changed(vocab={"[UNK]": 0, "a": 5}, unk_token="[UNK]")
  good = {**json.loads(content), "added_tokens": []}
  path = write(tmp_path / "tokenizer.json", json.dumps(good))
  tokenizer = get_tokenizer(f"wordpiece:{path}", "unused:")
  assert tokenizer.vocab_size == 6
  assert tokenizer.decode([5, 3, 5]) == "a a"
  assert tokenizer.byte_lengths.tolist() == [0, 0, 0, 0, 0, 1]
  assert tokenizer.eos is None


_GOOD = json.loads(huggingface.fit_wordpiece("t", _LINES, 60).decode())


def changed(**model):
  return json.dumps({**_GOOD, "model": {**_GOOD["model"], **model}})


@pytest.mark.parametrize(
  ("content", "named"),
  [
    ("", "vocab.txt must contain"),
    ("a\nb\n", "vocab.txt must contain"),
    ("[UNK]\na\na\n", "vocab.txt must contain"),
    (b"\xff\xfe", "no text"),
    ("{", "damaged JSON"),
    ('{"a":' * 100_000, "damaged JSON"),
    ("{}", "its type is None"),
    ('{"model": []}', "its type is None"),
    ('{"model": {"type": "WordPiece"}}', "is not a model"),
    (changed(type="BPE", merges=[]), "its type is 'BPE'"),
    (changed(vocab={"[UNK]": 0, "a": 4_000_000_000}), "the id 4000000000"),
    (changed(vocab={"[UNK]": -1}), "is not a model"),
    (changed(vocab={"a": 0}, unk_token="[no]"), "is not a model"),
    (changed(vocab={}), "is not a model"),
    (json.dumps({**_GOOD, "normalizer": {"type": "X"}}), "is not a model"),
    (
      json.dumps(
        {
          **_GOOD,
          "normalizer": {"type": "Precompiled", "precompiled_charsmap": "AA=="},
        }
      ),
      "is not a model",
    ),
  ],
)
def test_a_hostile_file_is_one_line(tmp_path, content, named):
  path = write(tmp_path / "tokenizer.json", content)
  with pytest.raises(ValueError, match=named) as error:
    get_tokenizer(f"wordpiece:{path}", "unused:")
  assert "\n" not in str(error.value)
  assert path in str(error.value)


@pytest.mark.parametrize("kind", ["wordpiece", "tokenizers"])
def test_what_is_wrong_is_named(tmp_path, kind, monkeypatch):
  with pytest.raises(ValueError, match="/nowhere: No such file"):
    get_tokenizer(f"{kind}:/nowhere", "unused:")
  with pytest.raises(ValueError, match=f"'{kind}[?]a' is unknown"):
    get_tokenizer(f"{kind}?a", "unused:")
  path = write(tmp_path / "x", "no json")
  monkeypatch.setitem(sys.modules, "tokenizers", None)
  with pytest.raises(ValueError, match=r"-e '\.\[text\]"):
    get_tokenizer(f"{kind}:{path}", "unused:")
