"""fake:KIND?key=value&...: synthetic examples, computed from their indices."""

import functools
import inspect
import urllib.parse

import numpy as np

from input_pipeline.bad_records import Policy
from input_pipeline.sources import Source
from input_pipeline.sources.parts import fake_pictures
from input_pipeline.sources.parts.fake_sounds import fake_audio

_SYLLABLES = [a + b for a, b in zip("bcdfghjklm", "aeiouaeiou", strict=True)]


def fake(rest: str, policy: Policy = Policy()) -> dict[str, Source]:
  """fake:text, fake:labeled_text, fake:image, …, each with its own options."""
  del policy  # none of its records is bad
  kinds = {
    "text": fake_text,
    "labeled_text": fake_labeled_text,
    "pairs": fake_pairs,
    "conversations": fake_conversations,
    "preferences": fake_preferences,
    "image": fake_image,
    "boxes": fake_pictures.fake_boxes,
    "masks": fake_pictures.fake_masks,
    "linear": fake_linear,
    "points": fake_points,
    "table": fake_table,
    "tagged": fake_tagged,
    "questions": fake_questions,
    "audio": fake_audio,
    "triples": fake_triples,
  }
  kind, _, query = rest.partition("?")
  if kind not in kinds:
    raise ValueError(
      f"fake:{rest}: unknown kind {kind!r}; valid: {', '.join(kinds)}"
    )
  make = kinds[kind]
  defaults = {
    name: parameter.default
    for name, parameter in inspect.signature(make).parameters.items()
  }
  options = {}
  for key, value in urllib.parse.parse_qsl(query, keep_blank_values=True):
    if key not in defaults:
      raise ValueError(
        f"fake:{rest}: unknown option {key!r}; valid: {', '.join(defaults)}"
      )
    try:
      options[key] = type(defaults[key])(value)
    except ValueError:
      kind = type(defaults[key]).__name__
      raise ValueError(
        f"fake:{rest}: {key}={value} is not of type {kind}"
      ) from None
  source = make(**options)
  if source.length < 1:
    raise ValueError(f"fake:{rest} holds no example")
  return {"all": source._replace(name=lambda i: f"fake:{rest} example {i}")}


def _no_name(index: int) -> str:
  return str(index)


def fake_text(documents: int = 20, length: int = 2000, seed: int = 0):
  """Documents of `length` characters, made of common and rare words."""
  words = [a + b for a in _SYLLABLES for b in ["", *_SYLLABLES]]
  weights = 1.0 / np.arange(1, len(words) + 1)
  weights /= weights.sum()

  @functools.lru_cache(maxsize=64)
  def document(index: int) -> str:
    rng = np.random.default_rng([seed, index])
    chosen = rng.choice(len(words), size=length // 3 + 1, p=weights)
    return " ".join(words[w] for w in chosen)[:length]

  def read(indices: np.ndarray) -> dict[str, np.ndarray]:
    texts = np.empty(len(indices), object)
    texts[:] = [document(int(i)) for i in indices]
    return {"text": texts}

  return Source(
    documents, read, _no_name, fingerprint=f"{documents} {length} {seed}"
  )


def fake_labeled_text(
  documents: int = 40, length: int = 60, classes: int = 2, seed: int = 0
):
  """Texts as in `fake_text`; the first word determines the label."""
  texts = fake_text(documents, length, seed)

  def read(indices: np.ndarray) -> dict[str, np.ndarray]:
    label = np.asarray(indices, np.int64) % classes
    found = texts.read(indices)["text"]
    marked = [
      f"{_SYLLABLES[n]} {text}" for n, text in zip(label, found, strict=True)
    ]
    return {"text": np.array(marked, object), "label": label}

  return Source(documents, read, _no_name, num_classes=classes)


def fake_pairs(
  documents: int = 40,
  length: int = 30,
  seed: int = 0,
  source_key: str = "source",
  target_key: str = "target",
):
  """Pairs of a text as in `fake_text` and the same words in reverse order."""
  texts = fake_text(documents, length, seed)

  def read(indices: np.ndarray) -> dict[str, np.ndarray]:
    found = texts.read(indices)["text"]
    turned = [" ".join(reversed(text.split(" "))) for text in found]
    return {source_key: found, target_key: np.array(turned, object)}

  return Source(documents, read, _no_name, fingerprint=texts.fingerprint)


def fake_conversations(documents: int = 40, turns: int = 4, seed: int = 0):
  """Conversations of `turns` turns: each answer repeats the question.

  {"messages": [{"role", "content"}, …]}.
  """

  def messages(index: int) -> list[dict[str, str]]:
    rng = np.random.default_rng([seed, index])
    said = [str(rng.choice(_SYLLABLES)) for _ in range(-(-turns // 2))]
    roles = ("user", "assistant")
    return [
      {"role": roles[i % 2], "content": said[i // 2]} for i in range(turns)
    ]

  def read(indices: np.ndarray) -> dict[str, np.ndarray]:
    found = np.empty(len(indices), object)
    found[:] = [messages(int(i)) for i in indices]
    return {"messages": found}

  return Source(
    documents, read, _no_name, fingerprint=f"{documents} {turns} {seed}"
  )


def fake_preferences(documents: int = 40, seed: int = 0):
  """Pairs of answers: one repeats the question, the other is another word.

  {"prompt", "chosen", "rejected"}, texts.
  """

  def read(indices: np.ndarray) -> dict[str, np.ndarray]:
    pairs = [
      np.random.default_rng([seed, int(i)]).choice(_SYLLABLES, 2, replace=False)
      for i in indices
    ]
    prompt, other = np.array(pairs, object).reshape(-1, 2).T
    return {"prompt": prompt, "chosen": prompt, "rejected": other}

  return Source(documents, read, _no_name)


def fake_image(
  n: int = 256,
  size: int = 28,
  channels: int = 1,
  classes: int = 10,
  seed: int = 0,
  dtype: str = "float32",
):
  """Images with a visible class: a pattern per class under noise.

  {"image": [size, size, channels], "label": int32 []}; float32 in [-1, 1], or
  uint8 in 0..255, as images are before the ops.
  """
  if dtype not in ("float32", "uint8"):
    raise ValueError(f"fake:image: dtype {dtype!r} is not float32 or uint8")
  cells = np.arange(size) * 4 // max(size, 1)
  rng = np.random.default_rng([seed, 2**31])
  coarse = rng.choice([-1.0, 1.0], size=(classes, 4, 4, channels))
  coarse = coarse.astype(np.float32)

  def read(indices: np.ndarray) -> dict[str, np.ndarray]:
    labels = (np.asarray(indices) % classes).astype(np.int32)
    shape = (size, size, channels)
    noise = [
      np.random.default_rng([seed, int(i)]).standard_normal(shape, np.float32)
      for i in indices
    ]
    noise = np.reshape(np.array(noise, np.float32), (len(labels), *shape))
    patterns = coarse[labels][:, cells][:, :, cells]
    image = 0.5 * patterns + 0.25 * noise
    image = np.clip(image, -1, 1)
    if dtype == "uint8":
      image = np.round((image + 1) * 127.5).astype(np.uint8)
    return {"image": image, "label": labels}

  return Source(
    n,
    read,
    _no_name,
    num_classes=classes,
    class_names=tuple(str(c) for c in range(classes)),
  )


def fake_linear(
  n: int = 100,
  slope: float = 2.0,
  intercept: float = 0.0,
  noise: float = 0.0,
  seed: int = 0,
  features: int = 1,
):
  """Points on a line or plane, {"x": float32 [features], "y": float32 [1]}.

  x is uniform in [-1, 1], and y = slope * sum(x) + intercept + noise * normal.
  """

  def read(indices: np.ndarray) -> dict[str, np.ndarray]:
    draws = [np.random.default_rng([seed, int(i)]) for i in indices]
    x = np.array([d.uniform(-1, 1, features) for d in draws])
    x = x.reshape(-1, features)
    error = np.array([d.standard_normal() for d in draws]).reshape(-1, 1)
    y = slope * x.sum(1, keepdims=True) + intercept + noise * error
    return {"x": x.astype(np.float32), "y": y.astype(np.float32)}

  return Source(n, read, _no_name)


def fake_points(x: str = "0", y: str = "", label: str = ""):
  """The points that are written out: "x=0,0;0,1&y=1;2" or "…&label=0;1".

  ";" separates examples, "," the numbers of one. {"x": float32 [n]}, and "y",
  float32 [m], or "label", int32 [], or both.
  """
  leaves = {"x": _written("x", x)}
  if y:
    leaves["y"] = _written("y", y)
  if label:
    found = _written("label", label)
    if found.shape[1:] != (1,) or (found < 0).any() or (found % 1).any():
      raise ValueError(
        f"fake:points: label={label} is not whole numbers from 0"
      )
    leaves["label"] = found[:, 0].astype(np.int32)
  if len({len(leaf) for leaf in leaves.values()}) > 1:
    counts = ", ".join(f"{len(v)} of {k}" for k, v in leaves.items())
    raise ValueError(f"fake:points: as many of each are needed, not {counts}")

  return Source(
    len(leaves["x"]),
    lambda indices: {name: leaf[indices] for name, leaf in leaves.items()},
    _no_name,
    num_classes=int(leaves["label"].max()) + 1 if label else None,
  )


def _written(name: str, text: str) -> np.ndarray:
  """float32 [examples, numbers] of "1,2;3,4"."""
  try:
    rows = [[float(v) for v in row.split(",")] for row in text.split(";")]
    return np.array(rows, np.float32)
  except ValueError:
    raise ValueError(
      f"fake:points: {name}={text} is not numbers of one count, as in 0,0;0,1"
    ) from None


def fake_table(n: int = 80, seed: int = 0):
  """A table: age, hours, job, income, and price, which depends on them all.

  Every eighth age is NaN and every tenth job "?". `income` is "high" or "low".
  """
  jobs = ("clerk", "nurse", "smith")

  def read(indices: np.ndarray) -> dict[str, np.ndarray]:
    draws = [np.random.default_rng([seed, int(i)]) for i in indices]
    age = np.array([d.uniform(20, 60) for d in draws])
    hours = np.array([d.integers(10, 50) for d in draws], np.int64)
    job = np.array([d.integers(3) for d in draws], np.int64)
    price = 2 * age + hours + 20.0 * job
    income = np.where(price > 130, "high", "low").astype(object)
    names = np.array([jobs[j] for j in job], object)
    places = np.asarray(indices)
    names[places % 10 == 9] = "?"
    age = np.where(places % 8 == 7, np.nan, age)
    return {
      "age": age,
      "hours": hours,
      "job": names,
      "income": income,
      "price": price,
    }

  return Source(n, read, _no_name)


def fake_tagged(documents: int = 40, length: int = 9, seed: int = 0):
  """Sentences of at most `length` words, whose names begin with a capital.

  {"words": [str, …], "tags": [str, …]}: a capitalized word is a person,
  together with the next word if its second letter is "a".
  """

  @functools.lru_cache(maxsize=1024)
  def sentence(index: int) -> tuple[list[str], list[str]]:
    rng = np.random.default_rng([seed, index])
    words = list(rng.choice(_SYLLABLES, size=rng.integers(3, length + 1)))
    tags = ["O"] * len(words)
    place = int(rng.integers(len(words)))
    words[place], tags[place] = words[place].title(), "B-person"
    if words[place][1] == "a" and place + 1 < len(words):
      tags[place + 1] = "I-person"
    return list(map(str, words)), tags

  def read(indices: np.ndarray) -> dict[str, np.ndarray]:
    out = {k: np.empty(len(indices), object) for k in ("words", "tags")}
    for i, index in enumerate(indices):
      out["words"][i], out["tags"][i] = sentence(int(index))
    return out

  return Source(documents, read, _no_name)


def fake_questions(documents: int = 40, length: int = 60, seed: int = 0):
  """Texts as in `fake_text`, with the question which word follows a given one.

  {"id", "context", "question": str, "answers": {"text", "answer_start"}}; the
  question of every fourth text has no answer.
  """
  texts = fake_text(documents, length, seed)

  def record(index: int, text: str) -> tuple[str, str, dict]:
    words = text.split(" ")
    place = int(np.random.default_rng([seed, index]).integers(len(words) - 1))
    start = len(" ".join(words[: place + 1])) + 1
    known = index % 4 > 0 and bool(words[place + 1])
    return (
      text,
      f"{words[place] if known else 'zzz'} and then?",
      {
        "text": [words[place + 1]] if known else [],
        "answer_start": [start] if known else [],
      },
    )

  def read(indices: np.ndarray) -> dict[str, np.ndarray]:
    names = ("context", "question", "answers", "id")
    out = {k: np.empty(len(indices), object) for k in names}
    for i, text in enumerate(texts.read(indices)["text"]):
      found = (*record(int(indices[i]), text), f"q{int(indices[i])}")
      for name, value in zip(names, found, strict=True):
        out[name][i] = value
    return out

  return Source(documents, read, _no_name)


def fake_triples(n: int = 80, entities: int = 12, seed: int = 0):
  """Facts {"head", "relation", "tail"}: the tail follows from the others."""

  def read(indices: np.ndarray) -> dict[str, np.ndarray]:
    places = (np.asarray(indices, np.int64) + seed) % (2 * entities)
    head, relation = places % entities, places // entities
    tail = (head + 1 + 2 * relation) % entities
    named = (
      ("head", "e", head),
      ("relation", "r", relation),
      ("tail", "e", tail),
    )
    return {
      field: np.array([f"{letter}{number}" for number in column], object)
      for field, letter, column in named
    }

  return Source(n, read, _no_name)
