"""Generated texts against their references: BLEU, chrF and ROUGE."""

import json
import pathlib
from collections.abc import Sequence

import jax
import numpy as np

from common.fonts import covering
from train import types

METRICS = ("bleu", "chrf", "rouge")


def text_generation(
  context: types.EvalContext,
  *,
  reference: str = "target",
  metrics: Sequence[str] = ("bleu", "chrf"),
  beams: int = 4,
  alpha: float = 0.6,
  max_tokens: int | None = None,
  tokenize: str = "13a",
  lowercase: bool = False,
  attention: int = 0,
) -> types.Evaluator:
  """Generates a text for each example; metrics are from 0 to 100.

  WORKDIR/<key>/ has hypotheses.txt and references.txt, one text per line;
  figures.json, the metrics with sacrebleu's signatures; and attention_<i>.png
  of the first examples. BLEU (Papineni et al., 2002) and chrF (Popović, 2015)
  are sacrebleu's; ROUGE-1, -2 and -L (Lin, 2004) are rouge_score's mean F1 over
  the stems of English words.

  Args:
    context: of the run; its task predicts "samples", and its data has texts.
    reference: field of the reference text.
    metrics: some of "bleu", "chrf" and "rouge".
    beams: width of the beam search; 0 decodes greedily.
    alpha: exponent of the length penalty (Wu et al., 2016).
    max_tokens: the maximum length of a text, in tokens. Default: the length of
      the targets of a row.
    tokenize: sacrebleu's name of how BLEU splits words, such as "zh".
    lowercase: whether BLEU and chrF ignore case.
    attention: number of examples whose attention is drawn.

  Raises:
    ValueError: the task or the data lacks texts, an argument is wrong, or a
      library is not installed.
  """
  if "samples" not in context.task.predict or context.texts is None:
    raise ValueError(
      "text_generation needs rows of texts and a task that predicts samples"
    )
  for name in metrics:
    if name not in METRICS:
      raise ValueError(f"metrics: {name!r} is none of {', '.join(METRICS)}")
  if beams < 0:
    raise ValueError(f"beams={beams} is negative")
  judge = scorer(metrics, tokenize=tokenize, lowercase=lowercase)
  how = {"beams": beams, "alpha": alpha} if beams else {"temperature": 0.0}
  if max_tokens:
    how["length"] = max_tokens

  @jax.jit
  def write(variables, batch, rng):
    return context.task.predict["samples"](variables, {**batch, **how}, rng)

  @jax.jit
  def look(variables, batch, tokens_BT, rng):
    rows = {k: v for k, v in batch.items() if k.startswith("input")}
    rows["targets"] = tokens_BT
    return context.task.predict["attention"](variables, rows, rng).mean(2)

  def evaluate(variables, step):
    del step
    written: list[str] = []
    wanted: list[str] = []
    maps = []
    for batch in context.batches():
      found = write(variables, batch, context.rng)
      rows = {k: batch[k] for k in ("index", "inputs", "input_segments")}
      if len(maps) < attention:
        rows["maps"] = look(variables, batch, found["tokens"], context.rng)
      rows = context.fetch({**rows, **found})
      real = np.flatnonzero(rows["index"] >= 0)
      if not len(real):
        continue
      texts = context.texts(rows["index"][real])
      if reference not in texts:
        raise ValueError(
          f"reference: no field {reference!r}; valid: {', '.join(texts)}"
        )
      wanted += [_line(text) for text in texts[reference]]
      for i in real:
        ids = rows["tokens"][i, : rows["length"][i]]
        written.append(_line(context.decode(ids)))
      if "maps" in rows:
        maps += [_drawing(context, rows, i) for i in real]
    figures, signatures = judge(written, wanted)
    if context.workdir and jax.process_index() == 0:
      folder = pathlib.Path(context.workdir) / context.key
      folder.mkdir(exist_ok=True)
      for name, lines in (("hypotheses", written), ("references", wanted)):
        text = "".join(f"{line}\n" for line in lines)
        (folder / f"{name}.txt").write_text(text, "utf-8")
      content = json.dumps({**figures, "signatures": signatures}, indent=2)
      (folder / "figures.json").write_text(content + "\n")
      for i, drawing in enumerate(maps[:attention]):
        draw(folder / f"attention_{i}.png", *drawing)
      tokens = [t for _, a, b in maps[:attention] for t in (*a, *b)]
      if covering(tokens).missing:
        context.say(f"{context.key}: attention maps: {covering(tokens).note()}")
    return figures

  return evaluate


def scorer(metrics: Sequence[str], tokenize: str = "13a", lowercase=False):
  """(texts, references) -> ({name: figure}, {name: signature}).

  Raises:
    ValueError: a library is not installed.
  """
  judges = {}
  try:
    if "bleu" in metrics or "chrf" in metrics:
      from sacrebleu.metrics import BLEU, CHRF

      made = {
        "bleu": BLEU(tokenize=tokenize, lowercase=lowercase),
        "chrf": CHRF(lowercase=lowercase),
      }
      judges = {name: made[name] for name in metrics if name in made}
    if "rouge" in metrics:
      from rouge_score.rouge_scorer import RougeScorer

      rouge = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True)
  except ImportError as error:
    raise ValueError(
      f"metrics={list(metrics)} need {error.name}, which is not installed:"
      " pip install -e '.[text]'"
    ) from None

  def judge(written, wanted):
    figures, signatures = {}, {}
    for name, metric in judges.items():
      figures[name] = metric.corpus_score(written, [wanted]).score
      signatures[name] = str(metric.get_signature())
    if "rouge" in metrics:
      scores = [
        rouge.score(target, text)
        for text, target in zip(written, wanted, strict=True)
      ]
      for name in scores[0] if scores else ():
        found = [score[name].fmeasure for score in scores]
        figures[name] = 100 * float(np.mean(found))
    return figures, signatures

  return judge


def draw(path, maps_LTS, sources: Sequence[str], targets: Sequence[str]):
  """Writes a PNG of each layer's attention, from targets (y) to sources (x)."""
  import matplotlib
  from matplotlib.backends.backend_agg import FigureCanvasAgg
  from matplotlib.figure import Figure

  fonts = covering([*sources, *targets])
  sources, targets = (
    [fonts.drawable(text) for text in side] for side in (sources, targets)
  )
  L = len(maps_LTS)
  width, height = 1.2 + 0.24 * len(sources), 1.4 + 0.24 * len(targets)
  with matplotlib.rc_context({"font.family": list(fonts.family)}):
    figure = Figure(figsize=(L * width, height), layout="constrained")
    FigureCanvasAgg(figure)
    for layer, map_TS in enumerate(maps_LTS):
      axes = figure.add_subplot(1, L, layer + 1)
      axes.imshow(map_TS, cmap="Blues", vmin=0, vmax=1, aspect="auto")
      axes.set_title(f"layer {layer + 1}")
      axes.set_xticks(range(len(sources)), sources, rotation=90)
      axes.set_yticks(range(len(targets)), targets)
    figure.savefig(path, dpi=110)


def _drawing(context, rows, i: int):
  """(maps_LTS, source tokens, target tokens) of one row."""
  S = int((rows["input_segments"][i] > 0).sum())
  T = min(int(rows["length"][i]) + 1, rows["tokens"].shape[1])
  names = [
    [context.decode([int(token)]).strip().replace("$", r"\$") for token in ids]
    for ids in (rows["inputs"][i, :S], rows["tokens"][i, :T])
  ]
  # Some tokens have no visible text: an end, a part of a character.
  sources, targets = (
    [n if n.isprintable() and n else "∅" for n in side] for side in names
  )
  return rows["maps"][i][:, :T, :S], sources, targets


def _line(text: str | bytes) -> str:
  """Returns the text as one line."""
  if isinstance(text, bytes):
    text = text.decode()
  return " ".join(text.split())
