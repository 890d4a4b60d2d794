"""Answers that are spans of a text."""

from train.evaluators import question_answering as answering
from train.prediction import Context, Renderer


def span(context: Context) -> Renderer:
  """Records {"record", "id", "answer", "score"} of (start_BT, end_BT).

  The score is the sum of the logits of the answer's first and last token. With
  `top` K there are also "answer_2", "score_2" and so on. The evaluator's
  settings max_answer and null_threshold apply; with the latter an answer may be
  "". The windows of a long text make one record.
  """
  longest = context.settings.get("max_answer", 30)
  threshold = context.settings.get("null_threshold")

  def record(name: str, found: answering.Answered) -> dict:
    made = {"record": name, "id": found.identity}
    best = found.best + [(None, "")] * (context.top - len(found.best))
    for place, (score, text) in enumerate(best, 1):
      end = f"_{place}" if place > 1 else ""
      made[f"answer{end}"] = text
      made[f"score{end}"] = score if score is None else round(score, 4)
    return {**made, "answer": answering.chosen(found, threshold)}

  def render(pieces):
    number, held = None, None  # the question that may have more windows
    for piece in pieces:
      texts = piece.texts()
      for i, name in enumerate(piece.records):
        one = {key: values[i] for key, values in texts.items()}
        logits = (each[i] for each in piece.values)
        found = answering.of_window(*logits, one, longest, context.top)
        if one["record"] == number:
          held = (name, answering.merged(held[1], found, context.top))
          continue
        if held is not None:
          yield record(*held)
        number, held = one["record"], (name, found)
    if held is not None:
      yield record(*held)

  return render
