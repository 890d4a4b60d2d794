r"""Trains a tokenizer: `python -m input_pipeline.train_tokenizer`.

  python -m input_pipeline.train_tokenizer --kind=bpe --vocab_size=32000 \
    --data='text:en/*.txt,jsonl:zh/*.jsonl' --output=zh_en.model

The kinds bpe and unigram are SentencePiece models with byte fallback, which can
restore every text; wordpiece is BERT's, written as a tokenizer.json. Configs
name them as "sentencepiece:FILE" and "wordpiece:FILE". Prints for each language
of the held-out texts the fertility (tokens per word and per character), the
coverage (share of the characters that are in the vocabulary) and the
compression (bytes per token), and writes them to FILE.fertility.json.
"""

import json
import os
import sys
from collections.abc import Callable, Sequence

from absl import flags

from common import cli, storage

KINDS = ("bpe", "unigram", "wordpiece")


def define_flags() -> None:
  """Defines the flags; not on import, as other programs share their names."""
  flags.DEFINE_list("data", [], "The URIs of the texts, separated by commas.")
  flags.DEFINE_enum("kind", "bpe", KINDS, "The kind of tokenizer.")
  flags.DEFINE_integer(
    "vocab_size", 32000, "The number of tokens in the vocabulary.", 1
  )
  flags.DEFINE_string("output", None, "The file to write the tokenizer to.")
  flags.DEFINE_string(
    "split", "train", "The split to learn the vocabulary from."
  )
  flags.DEFINE_string(
    "held_out", "validation", "The split to measure on; '' measures nothing."
  )
  flags.DEFINE_list(
    "text_key",
    ["text"],
    "The field of the text: one name, or one for each URI.",
  )
  flags.DEFINE_list(
    "languages",
    [],
    "The language of each URI, by which the figures are grouped. By default "
    "the language of each text is guessed from its script: zh, en or other.",
  )
  flags.DEFINE_bool(
    "lowercase",
    True,
    "Lower-case the text, as BERT uncased does. For wordpiece.",
  )


def main(argv) -> None:
  """Trains with the settings that the flags give."""
  del argv
  values = flags.FLAGS
  if not values.data or not values.output:
    raise cli.UserError("the flags --data=URI and --output=FILE are required")
  storage.check_local("--output", values.output)
  names = "data output kind vocab_size split held_out text_key languages"
  names = [*names.split(), "lowercase"]
  try:
    train(**{name: values[name].value for name in names})
  except ValueError as error:
    raise cli.UserError(str(error)) from error


def train(
  data: Sequence[str],
  output: str,
  kind: str = "bpe",
  vocab_size: int = 32000,
  split: str = "train",
  held_out: str = "validation",
  text_key: Sequence[str] = ("text",),
  languages: Sequence[str] = (),
  lowercase: bool = True,
  say: Callable[[str], None] = print,
) -> None:
  """Trains a tokenizer, writes it and measures it; see the flags.

  Raises:
    ValueError: one of them is wrong; the message is one line.
  """
  from common.files import write_atomically
  from input_pipeline.sources import open_source
  from input_pipeline.sources.parts.documents import texts
  from input_pipeline.tokenizers import lines_to_learn

  if kind not in KINDS:
    raise ValueError(f"--kind={kind} is unknown; valid: {', '.join(KINDS)}")
  if len(text_key) not in (1, len(data)):
    raise ValueError(
      f"--text_key={','.join(text_key)}: give one name, or one for each URI"
    )
  if languages and len(languages) != len(data):
    raise ValueError(
      f"--languages={','.join(languages)}: give one language for each URI"
    )
  keys = list(text_key) * (len(data) // len(text_key))
  languages = languages or [""] * len(data)
  corpus = list(zip(data, keys, languages, strict=True))

  def read(uri: str, key: str, split: str):
    return texts(open_source(uri, split), key, uri)

  found = [read(uri, key, split) for uri, key, _ in corpus]
  title = f"{kind} on {', '.join(data)}"
  content = _learn(kind, title, lines_to_learn(found), vocab_size, lowercase)
  write_atomically(os.path.abspath(output), [content])
  say(output)
  if not held_out:
    return
  measured = _measured(
    kind,
    output,
    (
      (language, text)
      for uri, key, language in corpus
      for text in read(uri, key, held_out)
    ),
  )
  for line in table(measured["languages"]):
    say(line)
  report = {"kind": kind, "data": list(data), "held_out": held_out, **measured}
  text = json.dumps(report, indent=1, ensure_ascii=False) + "\n"
  write_atomically(os.path.abspath(f"{output}.fertility.json"), [text.encode()])


def _learn(kind, title, lines, vocab_size: int, lowercase: bool) -> bytes:
  if kind == "wordpiece":
    from input_pipeline.tokenizers.parts import huggingface

    return huggingface.fit_wordpiece(title, lines, vocab_size, lowercase)
  from input_pipeline.tokenizers import sentencepiece

  return sentencepiece.fit(title, lines, vocab_size, kind)


def _measured(kind: str, output: str, texts) -> dict:
  from input_pipeline.tokenizers import get_tokenizer
  from input_pipeline.tokenizers.parts import fertility

  scheme = "wordpiece" if kind == "wordpiece" else "sentencepiece"
  learned = get_tokenizer(f"{scheme}:{output}", "")
  counts = fertility.measure(
    learned,
    ((given or fertility.language(text), text) for given, text in texts),
  )
  return {
    "vocab_size": learned.vocab_size,
    "languages": {
      name: {**each, **fertility.rates(each)} for name, each in counts.items()
    },
  }


def table(languages: dict[str, dict]) -> list[str]:
  """The lines of a table with a row of figures for each language."""
  titles = "language tokens tokens/word tokens/character coverage bytes/token"
  rows = [titles.split()]
  for name, each in languages.items():
    rows.append(
      [
        name,
        f"{each['tokens']:,}",
        f"{each['tokens_per_word']:.3f}",
        f"{each['tokens_per_character']:.3f}",
        f"{100 * each['coverage']:.3f} %",
        f"{each['bytes_per_token']:.3f}",
      ]
    )
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  return [
    "  ".join(cell.rjust(n) for cell, n in zip(row, widths, strict=True))
    for row in rows
  ]


if __name__ == "__main__":
  define_flags()
  sys.exit(cli.run(main))
