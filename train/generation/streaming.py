"""Streaming text generation from a trained model."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from common.errors import UserError
from train import trained, types
from train.generation import decoding_programs, detokenize, speculative


class Options(NamedTuple):
  """The generation options of one row.

  max_tokens: the maximum number of tokens to generate.
  temperature: the sampling temperature; 0 is greedy.
  top_k, top_p, min_p: see sampling.filter_logits; None disables the filter.
  repetition_penalty: see sampling.penalize; it applies to the prompt's tokens
    as well.
  stop: the text ends before the first occurrence of any of these strings.
  seed: the row's samples depend only on the seed and the row's text.
  """

  max_tokens: int = 200
  temperature: float = 1.0
  top_k: int | None = None
  top_p: float | None = None
  min_p: float | None = None
  repetition_penalty: float = 1.0
  stop: tuple[str, ...] = ()
  seed: int = 0


class Piece(NamedTuple):
  """The next piece of a row's text.

  row: the index of the row's prompt.
  text: the new text. It contains only complete characters (one that max_tokens
    cuts is dropped) and no part of a stop string.
  tokens: the ids generated since the row's last piece, including those that
    end the text.
  finish: None while the row is unfinished; "stop" after a stop string or one
    of the tokenizer's ends, "length" after max_tokens.
  """

  row: int
  text: str
  tokens: tuple[int, ...]
  finish: str | None


class Inference(NamedTuple):
  """A trained model as generation uses it.

  model: with adapters merged and layers unstacked.
  variables: its types.Variables.
  tokenizer: the tokenizer of the run.
  """

  model: Any
  variables: types.Variables
  tokenizer: Any


# (prompts, options) -> the pieces of all rows, in the order of generation.
Write = Callable[[Sequence[Sequence[int]], Sequence[Options]], Iterator[Piece]]


def stream(
  found: trained.Trained,
  prompts: Sequence[Sequence[int]],
  options: Sequence[Options],
  chunk: int = 8,
) -> Iterator[Piece]:
  """Yields the pieces of the texts that follow the prompts; see `writer`."""
  return writer(inference(found), chunk)(prompts, options)


def check(options: Options) -> Options:
  """Validates the options and returns them.

  Raises:
    ValueError: an option is outside its valid range.
  """
  wrong = {
    "max_tokens": options.max_tokens < 1,
    "temperature": not 0 <= options.temperature < float("inf"),
    "top_k": options.top_k is not None and options.top_k < 1,
    "top_p": options.top_p is not None and not 0 < options.top_p <= 1,
    "min_p": options.min_p is not None and not 0 <= options.min_p <= 1,
    "repetition_penalty": not 0 < options.repetition_penalty < float("inf"),
    "stop": "" in options.stop,
  }
  valid = {
    "max_tokens": "at least 1",
    "temperature": "at least 0",
    "top_k": "at least 1",
    "top_p": "above 0 and at most 1",
    "min_p": "between 0 and 1",
    "repetition_penalty": "above 0",
    "stop": "a sequence of non-empty strings",
  }
  for name, is_wrong in wrong.items():
    if is_wrong:
      value = getattr(options, name)
      raise ValueError(f"{name} = {value!r} is not {valid[name]}")
  return options


def writer(
  own: Inference, chunk: int = 8, draft: Inference | None = None
) -> Write:
  """Returns a generation function whose compiled programs serve all its calls.

  Args:
    own: the model that generates the text; see `inference`.
    chunk: the number of tokens generated between two updates of the text.
    draft: a smaller model with the same tokenizer, which drafts
      chunk - 1 tokens at a time for the larger one to verify
      (train/generation/speculative.py). The distribution of the text stays the
      same, but the same seed gives other samples.

  Raises:
    UserError: the two models cannot be combined.
    ValueError: `chunk` is below 2 with a draft. The returned function raises it
      for an empty prompt, an unknown id, an invalid option or, with a draft, a
      text that exceeds a model's max_len.
  """
  model, variables, tokenizer = own
  most = float("inf")
  if draft is None:
    programs = decoding_programs.programs(model, tokenizer.ends, chunk)
  else:
    if chunk < 2:
      raise ValueError(f"chunk = {chunk} must be at least 2 with a draft model")
    drafter, drafters, other = draft
    if (other.vocab_size, other.content) != (
      tokenizer.vocab_size,
      tokenizer.content,
    ):
      raise UserError("the draft model's tokenizer differs from the run's")
    programs = speculative.programs(model, drafter, chunk - 1)
    # The last round may begin with one token left, yet it feeds a full chunk.
    lengths = [m.max_len for m in (model, drafter) if m.max_len is not None]
    most = min(lengths, default=most) - chunk + 2
    variables = (variables, drafters)

  def write(prompts, options):
    prompts = [[int(i) for i in prompt] for prompt in prompts]
    for row, prompt in enumerate(prompts):
      if not prompt:
        raise ValueError(f"prompt {row} is empty")
      if not 0 <= min(prompt) <= max(prompt) < tokenizer.vocab_size:
        raise ValueError(
          f"prompt {row} has an id outside 0 … {tokenizer.vocab_size - 1}"
        )
    if len(prompts) != len(options):
      raise ValueError(f"{len(prompts)} prompts, but {len(options)} options")
    for row, (ids, each) in enumerate(zip(prompts, options, strict=True)):
      total = len(ids) + check(each).max_tokens
      if total > most:
        raise ValueError(
          f"prompt {row} and max_tokens = {each.max_tokens} need {total}"
          f" tokens: with this draft model a text may have {most}"
        )
    if not prompts:
      return iter(())
    texts = [
      _Text(ids, each, detokenize.begin(tokenizer.decode, ids))
      for ids, each in zip(prompts, options, strict=True)
    ]
    return _written(programs, variables, tokenizer, texts)

  return write


def inference(found: trained.Trained, unstack: bool = True) -> Inference:
  """Returns the Inference of a run.

  Args:
    found: the run.
    unstack: whether layers are unstacked, which copies them.

  Raises:
    UserError: the model cannot generate text.
  """
  model, params = found.parts.model, found.variables.params
  writes = getattr(model, "init_cache", None) is not None
  if found.parts.data.tokenizer is None or not writes:
    drawn = "samples" in found.parts.task.predict
    hint = "; train.predict --number=16 draws its pictures" if drawn else ""
    raise UserError(f"this run's model cannot generate text{hint}")
  if model.plain is not None:
    model, params = found.parts.network, jax.jit(model.plain)(params)
  if unstack and model.unstacked is not None:
    model, params = model.unstacked(params)
  vocabulary = found.parts.data.tokenizer.vocab_size
  if _logits(model, params, found.variables.model_state) > vocabulary:
    model = _of_the_tokenizer(model, vocabulary)
  variables = types.Variables(params, found.variables.model_state)
  return Inference(model, variables, found.parts.data.tokenizer)


def _logits(model, params, model_state) -> int:
  """Returns the number of logits per token."""

  def first():
    token_11 = jnp.zeros((1, 1), jnp.int32)
    cache = model.init_cache(1, 1)
    return model.apply(params, model_state, token_11, cache=cache)[0][0]

  return jax.eval_shape(first).shape[-1]


def _of_the_tokenizer(model, vocabulary: int):
  """Restricts the model's logits to the ids of the tokenizer.

  A model's embedding table may be padded to more rows than the vocabulary has.
  """

  def apply(*args, **kwargs):
    outputs, model_state = model.apply(*args, **kwargs)
    if kwargs.get("cache") is None:
      return outputs[..., :vocabulary], model_state
    logits_BTV, cache = outputs
    return (logits_BTV[..., :vocabulary], cache), model_state

  return model._replace(apply=apply, represents=False)


class _Text(NamedTuple):
  """The state of a row on the host.

  ids: the ids of the prompt and those generated so far.
  options: the row's options.
  reader: the state of detokenizing the generated text.
  fresh: the ids generated since the row's last piece.
  drawn: the number of ids generated so far.
  finish: see Piece.
  """

  ids: list[int]
  options: Options
  reader: detokenize.Reader
  fresh: tuple[int, ...] = ()
  drawn: int = 0
  finish: str | None = None


def _written(programs, variables, tokenizer, texts) -> Iterator[Piece]:
  """Yields the pieces of all rows and updates `texts` in place."""
  B = decoding_programs.rounded(len(texts))
  how = _how([text.options for text in texts], B)

  def begun(room):
    fed = [text.ids[:-1] for text in texts] + [[]] * (B - len(texts))
    return programs.begin(variables, fed, room)

  def needed():
    going = (text for text in texts if text.finish is None)
    left = ((t, t.options.max_tokens - t.drawn) for t in going)
    return programs.room(
      max(len(t.ids) - 1 + programs.feeds(n) for t, n in left)
    )

  room = needed()
  rows = _rows(texts, B, tokenizer.vocab_size, how)._replace(cache=begun(room))
  while any(text.finish is None for text in texts):
    wanted = needed()
    if room is not None and wanted is None:
      rows, room = rows._replace(cache=begun(None)), None
    elif room is not None and wanted > room:
      cache = programs.grow(rows.cache, B, wanted)
      rows, room = rows._replace(cache=cache), wanted
    rows, tokens_CB, count_B = programs.advance(variables, rows, how)
    tokens_CB, count_B = np.asarray(tokens_CB), np.asarray(count_B)
    for row, text in enumerate(texts):
      if text.finish is None:
        drawn = tokens_CB[: count_B[row], row]
        texts[row], piece = _read(tokenizer, text, row, drawn)
        if piece is not None:
          yield piece
    going_B = np.array(
      [text.finish is None for text in texts] + [False] * (B - len(texts))
    )
    rows = rows._replace(left_B=jnp.where(going_B, rows.left_B, 0))


def _how(options: Sequence[Options], B: int) -> decoding_programs.How:
  """Returns the options as arrays; padding rows repeat the first row's."""
  options = [*options, *[options[0]] * (B - len(options))]

  def of(name, dtype, neutral):
    values = [getattr(each, name) for each in options]
    if all(value in (None, neutral) for value in values):
      return None
    values = [neutral if value is None else value for value in values]
    return np.array(values, dtype)

  all_ids = np.iinfo(np.int32).max
  return decoding_programs.How(
    seed=np.array([decoding_programs.seed_of(o.seed) for o in options]),
    temperature=of("temperature", np.float32, 0),
    top_k=of("top_k", np.int32, all_ids),
    top_p=of("top_p", np.float32, 1),
    min_p=of("min_p", np.float32, 0),
    penalty=of("repetition_penalty", np.float32, 1),
  )


def _rows(
  texts, B: int, V: int, how: decoding_programs.How
) -> decoding_programs.Rows:
  """Returns the Rows of the texts, without a cache."""
  token_B, place_B, left_B = np.zeros((3, B), np.int32)
  seen_BV = None if how.penalty is None else np.zeros((B, V), bool)
  for row, text in enumerate(texts):
    token_B[row], place_B[row] = text.ids[-1], len(text.ids) - 1
    left_B[row] = text.options.max_tokens
    if seen_BV is not None:
      seen_BV[row, text.ids] = True
  arrays = (token_B, place_B, left_B, seen_BV)
  return decoding_programs.Rows(
    None, *(None if a is None else jnp.asarray(a) for a in arrays)
  )


def _read(tokenizer, text: _Text, row: int, tokens):
  """Appends a chunk's tokens up to the end; returns (text, Piece or None)."""
  part = detokenize.read_part(
    tokenizer.decode,
    tokenizer.ends,
    text.options.stop,
    text.options.max_tokens - text.drawn,
    text.reader,
    tokens,
  )
  text.ids.extend(part.tokens)
  fresh = (*text.fresh, *part.tokens)
  drawn = text.drawn + len(part.tokens)
  text = text._replace(reader=part.reader, drawn=drawn, finish=part.finish)
  if not part.text and not part.finish:
    return text._replace(fresh=fresh), None
  return text._replace(fresh=()), Piece(row, part.text, fresh, part.finish)
