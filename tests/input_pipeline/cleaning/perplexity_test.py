import math
import os
import pickle
import sys

import forkserver
import numpy as np
import pytest

from input_pipeline import train_ngram
from input_pipeline.cleaning.parts import ngram, ngram_file
from input_pipeline.cleaning.perplexity import perplexity
from input_pipeline.document import Document, Dropped
from input_pipeline.sources import open_source
from input_pipeline.tokenizers import get_tokenizer

_SEEN = "the cat sat on the mat and the dog sat on the log. " * 4
_NOISE = "Xq#7 zP!! kW0 vvJ"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
  path = str(tmp_path_factory.mktemp("model") / "model.npz")
  tokenizer = get_tokenizer("byte", "unused:")
  counted = ngram.fit([tokenizer.encode(_SEEN)], 4, 256)
  ngram_file.save(path, counted, tokenizer)
  return path


def measured(model, text, **settings):
  return perplexity(model, **settings)(Document("a", text, {"lang": "en"}))


def test_it_is_the_model_s_own_a_byte(model):
  text = "the dog sat 猫"
  ids = np.frombuffer(text.encode(), np.uint8)
  nats = -ngram.log_prob(ngram_file.load(model)[0], ids).mean()
  found = measured(model, text).fields["perplexity"]
  assert found == pytest.approx(math.exp(nats), rel=1e-5)
  assert found == float(f"{found:.6g}")


def test_what_lies_outside_the_bounds_is_dropped(model):
  seen = measured(model, _SEEN).fields["perplexity"]
  noise = measured(model, _NOISE).fields["perplexity"]
  assert noise > 20 * seen
  between = (seen + noise) / 2
  assert measured(model, _NOISE, max=between) == Dropped("perplexity_above")
  assert measured(model, _SEEN, min=between) == Dropped("perplexity_below")
  assert measured(model, _SEEN, min=seen, max=seen).text == _SEEN
  assert measured(model, _NOISE, max=between, languages=["en"]) == Dropped(
    "perplexity_above"
  )


def test_other_languages_and_empty_texts_are_left(model):
  document = Document("a", _NOISE, {"lang": "zh"})
  stage = perplexity(model, max=1.1, languages=["en"])
  assert stage(document) == document
  empty = Document("b", "", {"lang": "en"})
  assert stage(empty) == empty


def test_a_stage_is_sent_away_as_a_name(model):
  stage = perplexity(model, max=100)
  sent = pickle.dumps(stage)
  assert len(sent) < 500
  document = Document("a", _SEEN)
  assert pickle.loads(sent)(document) == stage(document)


def test_a_model_that_is_replaced_is_read_again(model, tmp_path):
  path = str(tmp_path / "model.npz")
  os.symlink(model, path)
  stage = perplexity(path)
  before = stage(Document("a", "zzzz")).fields["perplexity"]
  os.unlink(path)
  tokenizer = get_tokenizer("byte", "unused:")
  ngram_file.save(
    path, ngram.fit([tokenizer.encode("z" * 99)], 4, 256), tokenizer
  )
  assert stage(Document("a", "zzzz")).fields["perplexity"] < before


@pytest.mark.parametrize(
  ("settings", "named"),
  [
    ({"model": "/nowhere.npz"}, "/nowhere.npz: No such file"),
    ({"min": 3, "max": 2}, r"min=3 and max=2: both must be at least 1"),
    ({"min": 0.5}, "min=0.5"),
    ({"max": "9"}, "max='9'"),
    ({"max": float("nan")}, "max=nan"),
    ({"languages": "en"}, "languages='en' is not a list"),
  ],
)
def test_wrong_settings_are_one_line(model, settings, named):
  with pytest.raises(ValueError, match=named) as error:
    perplexity(**{"model": model, **settings})
  assert "\n" not in str(error.value)


@pytest.fixture
def texts(tmp_path):
  for i in range(20):
    (tmp_path / f"{i}.txt").write_text(f"猫 {_SEEN}{i}\n", encoding="utf-8")
  return f"text:{tmp_path}/*.txt"


def test_the_verb_writes_what_the_stage_takes(texts, tmp_path):
  output = str(tmp_path / "out" / "model.npz")
  told = []
  train_ngram.train([texts], output, order=3, say=told.append)
  trained, tokenizer = ngram_file.load(output)
  assert (trained.order, tokenizer.spec) == (3, "byte")
  assert f"2-grams: {len(trained.keys[1]):,}, discount" in told[1]
  # Of 20 documents a tenth is held out: their mean by the stage's own measure.
  held_out = open_source(texts, "validation").read(np.arange(2))["text"]
  bits = [
    math.log2(ngram.perplexity(trained, tokenizer, text)) * len(text.encode())
    for text in held_out
  ]
  mean = sum(bits) / sum(len(text.encode()) for text in held_out)
  assert f"validation: {mean:.4f} bits and perplexity" in told[3]
  assert perplexity(output, max=1e9)(Document("a", _SEEN)).fields["perplexity"]


def test_the_verb_keeps_a_learned_tokenizer(texts, tmp_path):
  output = str(tmp_path / "model.npz")
  train_ngram.train([texts], output, tokenizer="char", held_out="")
  with pytest.raises(ValueError, match="char of model=.* cannot encode"):
    perplexity(output)


@pytest.mark.parametrize(
  ("flags", "named"),
  [
    ({"output": "model.bin"}, "model.bin must end in .npz"),
    ({"order": 99}, "order=99 is not from"),
    ({"tokenizer": "bytes"}, "tokenizer 'bytes' is unknown"),
    ({"text_key": "body"}, "has no field 'body'"),
  ],
)
def test_the_verb_names_what_is_wrong(texts, tmp_path, flags, named):
  given = {"data": [texts], "output": str(tmp_path / "m.npz"), **flags}
  with pytest.raises(ValueError, match=named) as error:
    train_ngram.train(**given)
  assert "\n" not in str(error.value)
  assert not (tmp_path / "m.npz").exists()


def test_the_command_ends_in_one_line(tmp_path):
  command = [sys.executable, "-m", "input_pipeline.train_ngram"]
  for given, line in {
    "--data=txt:x": "error: the flags --data=URI and --output=FILE.npz",
    f"--output={tmp_path}/m.npz --data=txt:x": "error: source 'txt:x'",
  }.items():
    done = forkserver.run(
      [*command, *given.split()], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr.startswith(line)
    assert done.stderr.count("\n") == 1
