"""Named entities: F1 of spans, and the tagged text as a file."""

import pathlib

import jax
import numpy as np

from train import types
from train.objectives import span_f1


def entities(context: types.EvalContext) -> types.Evaluator:
  """Measures f1, precision, recall (micro), macro_f1, f1 of each type, loss.

  Spans are counted by the rules of seqeval, see train/objectives/span_f1.py,
  over all words of the data; a word that is in no row is predicted as O. Each
  line of WORKDIR/<key>.conll has a word, its true and its predicted tag,
  separated by tabs.

  Raises:
    ValueError: the task does not predict labels, or the rows have no words.
  """
  names = context.class_names
  if "labels" not in context.task.predict or not names or not context.texts:
    raise ValueError(
      "entities needs data.rows=dict(name='tagged', labels=[…]) and a task that"
      " predicts labels"
    )
  span_f1.spans(names)  # Raises for labels that are not tags of spans.

  @jax.jit
  def predict(variables, batch, at):
    loss, _ = context.task.losses["loss"](variables, batch, at)
    return loss, context.task.predict["labels"](variables, batch, at.rng)

  def evaluate(variables, step):
    at = types.Context(context.rng, np.int32(step), train=False)
    total = np.zeros(2)
    sentences: dict[int, tuple[list[str], list[str], list[str]]] = {}
    for batch in context.batches():
      loss, labels_BT = context.fetch(predict(variables, batch, at))
      total += [float(loss.total), float(loss.weight)]
      index_B, mask_BT = context.fetch((batch["index"], batch["mask"]))
      real = np.flatnonzero(index_B >= 0)
      texts = context.texts(index_B[real])
      for i, row in enumerate(real):
        words, tags = list(texts["words"][i]), list(texts["tags"][i])
        found = sentences.setdefault(
          int(texts["record"][i]), (words, tags, ["O"] * len(words))
        )
        places = np.flatnonzero(mask_BT[row])
        first = int(texts["first"][i])
        for word, place in enumerate(places, first):
          found[2][word] = names[labels_BT[row, place]]
    ordered = [sentences[record] for record in sorted(sentences)]
    if context.workdir and jax.process_index() == 0:
      path = pathlib.Path(context.workdir) / f"{context.key}.conll"
      path.write_text("".join(map(_conll, ordered)), encoding="utf-8")
    scores = span_f1.score(
      [tags for _, tags, _ in ordered],
      [predicted for _, _, predicted in ordered],
    )
    micro, macro = scores.pop("micro"), scores.pop("macro")
    del scores["weighted"]
    return {
      "loss": float(total[0] / max(total[1], 1)),
      "f1": micro.f1,
      "precision": micro.precision,
      "recall": micro.recall,
      "macro_f1": macro.f1,
      **{f"f1_{kind}": each.f1 for kind, each in scores.items()},
    }

  return evaluate


def _conll(sentence: tuple[list[str], list[str], list[str]]) -> str:
  lines = ("\t".join(columns) + "\n" for columns in zip(*sentence, strict=True))
  return "".join(lines) + "\n"
