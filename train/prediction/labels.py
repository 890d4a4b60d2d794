"""A tag for each word, and the spans that the tags make."""

from collections.abc import Sequence

import numpy as np

from train.objectives import span_f1
from train.prediction import Context, Renderer


def labels(context: Context) -> Renderer:
  """Records {"record", "words", "tags", "spans"} of labels [B, T].

  A span is {"label", "start", "end", "text"}, where the words start … end - 1
  are its words. Tags that are not those of spans, such as parts of speech, have
  no "spans". The windows of a long sentence make one record.
  """
  names = context.class_names
  try:
    span_f1.spans(names)
    spanned = True
  except ValueError:
    spanned = False
  other = "O" if "O" in names else context.class_name(0)

  def record(name: str, words: list[str], tags: list) -> dict:
    found = {"record": name, "words": words, "tags": tags}
    return {**found, "spans": _spans(words, tags)} if spanned else found

  def render(pieces):
    number, held = None, ("", [], [])  # the sentence that may have more windows
    for piece in pieces:
      texts = piece.texts()
      for i, name in enumerate(piece.records):
        if texts["record"][i] != number:
          if number is not None:
            yield record(*held)
          words = list(texts["words"][i])
          number, held = texts["record"][i], (name, words, [other] * len(words))
        places = np.flatnonzero(piece.mask[i])
        for word, place in enumerate(places, int(texts["first"][i])):
          held[2][word] = context.class_name(int(piece.values[i, place]))
    if number is not None:
      yield record(*held)

  return render


def _spans(words: Sequence[str], tags: Sequence[str]) -> list[dict]:
  return [
    {
      "label": kind,
      "start": first,
      "end": last + 1,
      "text": " ".join(words[first : last + 1]),
    }
    for kind, first, last in span_f1.spans(tags)
  ]
