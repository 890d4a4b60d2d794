"""What the configs share: common sections, and their smoke versions."""

from ml_collections import ConfigDict


def is_smoke(arg: str) -> bool:
  """Whether `--config=FILE.py:ARG` selects the tiny version on fake data.

  Raises:
    ValueError: ARG is neither empty nor "smoke".
  """
  if arg not in ("", "smoke"):
    raise ValueError(f"argument {arg!r} of the config is not 'smoke'")
  return arg == "smoke"


def language_model() -> ConfigDict:
  """Pre-training of a decoder of 85M parameters plus embeddings, without data.

  GPT-2 small's width and depth with Llama's components (rotary positions,
  RMSNorm, SwiGLU), rows of 1,024 tokens, 0.5M tokens per step, 10 billion in
  total; the optimizer is nanoGPT's. The tokenizer determines the vocabulary.
  """
  config = ConfigDict()
  config.seed = 0
  config.total_steps = 20_000
  config.batch_size = 512
  config.task = dict(name="language_modeling", loss_chunk=256)
  config.model = dict(
    name="decoder",
    layers=12,
    dim=768,
    heads=12,
    hidden=2048,
    positions="rotary",
    norm="rmsnorm",
    activation="swiglu",
    bias=False,
    tie_embeddings=True,
    dtype="bfloat16",
  )
  config.learner = dict(name="supervised", microbatches=4)
  config.optimizer = dict(
    name="adamw",
    lr=6e-4,
    b2=0.95,
    schedule="cosine",
    warmup_steps=1000,
    end_lr=6e-5,
    weight_decay=0.1,
    clip_norm=1.0,
  )
  config.evals = dict(
    val=dict(name="mean", split="validation", every_steps=1000)
  )
  config.checkpoint = dict(every_steps=1000, keep=3)
  config.mesh = dict(data=-1)
  config.sharding = [(".*", "fsdp")]
  return config


def interpolated(config: ConfigDict, order: int, **source) -> None:
  """Adds early stopping at the best val/loss, and the evaluator "mixed".

  At the end it measures the model interpolated with an n-gram model of the
  training text, wherever config.data.source points.

  Args:
    config: has data.source, data.split and evals.val.
    order: of the n-grams, in tokens.
    **source: of the evaluation, as in evals.val.
  """
  config.evals.mixed = dict(
    name="interpolation", order=order, every_steps=0, **source
  )
  config.evals.mixed.counted = config.data.get_ref("source")
  config.evals.mixed.counted_split = config.data.get("split", "train")
  config.early_stopping = dict(metric="val/loss", patience=3)
  config.checkpoint.keep_best = "val/loss"


def characters(
  *, batch_size: int, seq_len: int, total_steps: int, lr: float
) -> ConfigDict:
  """A config on Tiny Shakespeare's characters, without its model.

  The first 90 % of the text is for training and the rest for validation, as in
  nanoGPT. All models of benchmarks/language/language_models.md share it.

  Args:
    batch_size: rows per step.
    seq_len: characters per row.
    total_steps: of training.
    lr: the peak learning rate.
  """
  config = ConfigDict()
  config.seed = 0
  config.total_steps = total_steps
  config.batch_size = batch_size
  config.task = dict(name="language_modeling")
  config.learner = dict(name="supervised")
  config.optimizer = dict(
    name="adamw",
    lr=lr,
    b2=0.99,
    schedule="cosine",
    warmup_steps=100,
    end_lr=lr / 30,
    weight_decay=0.1,
    clip_norm=1.0,
  )
  config.data = dict(
    source="text:data/tinyshakespeare/input.txt",
    tokenizer="char",
    seq_len=seq_len,
  )
  config.evals = dict(
    val=dict(name="mean", split="validation", every_steps=500),
    text=dict(name="samples", count=1, prompt="\n", length=300, every_steps=0),
  )
  config.checkpoint = dict(every_steps=500, keep=2)
  config.mesh = dict(data=-1)
  return config


def shrink_characters(config: ConfigDict, **model) -> None:
  """`shrink` for a config of `characters`; `model` replaces model settings."""
  shrink(
    config,
    batch_size=8,
    model=model,
    data=dict(source="fake:text", seq_len=16),
  )
  if "text" in config.evals:
    config.evals.text.update(length=8, prompt="a")


def word_vectors(*, total_steps: int) -> ConfigDict:
  """Word vectors of WikiText-2, without a task, an optimizer and rows.

  The validation text is for training, and the test text is held out.
  """
  config = ConfigDict()
  config.seed = 0
  config.total_steps = total_steps
  config.model = dict(name="word_vectors", dim=100)
  config.learner = dict(name="supervised")
  config.data = dict(
    source="text:data/wikitext2/valid.txt",
    split="all",
    tokenizer="word?vocab_size=20000&min_count=5&lower=1",
  )
  every = total_steps // 2
  config.evals = dict(
    val=dict(
      name="mean",
      source="text:data/wikitext2/test.txt",
      split="all",
      every_steps=every,
    ),
    words=dict(
      name="word_vectors",
      words=("war", "film", "she", "city"),
      every_steps=0,
    ),
  )
  config.checkpoint = dict(every_steps=every, keep=2)
  config.mesh = dict(data=-1)
  return config


def word2vec(architecture: str, lr: float) -> ConfigDict:
  """`word_vectors` with negative sampling, 12 passes over 167,000 words.

  Args:
    architecture: "skip_gram" or "cbow".
    lr: the learning rate. Gradients are the mean over a batch, so that it is
      word2vec's 0.025 per pair times the pairs of a batch, about 3,000.
  """
  config = word_vectors(total_steps=2000)
  config.batch_size = 16
  config.task = dict(
    name="word2vec", architecture=architecture, window=5, negatives=5
  )
  config.optimizer = dict(name="sgd", lr=lr, schedule="linear")
  config.data.seq_len = 64
  return config


def shrink_word_vectors(config: ConfigDict, **sections) -> None:
  """`shrink` for a config of `word_vectors`."""
  shrink(
    config,
    batch_size=8,
    model=dict(dim=8),
    data=dict(source="fake:text", tokenizer="word", seq_len=16),
    **sections,
  )
  config.evals.val.update(source="fake:text?seed=1", split="validation")
  config.evals["words"].update(words=("ba", "ce"), analogies=("ba ce di fo",))


def labeled_texts() -> ConfigDict:
  """A classifier of labelled texts, without the source of its data.

  The settings were chosen on parts of the training sets of SST-2, TREC and the
  hotel reviews (benchmarks/language/text_classification.py).
  """
  config = ConfigDict()
  config.seed = 0
  config.total_steps = 1000
  config.batch_size = 64
  config.task = dict(name="text_classification")
  config.model = dict(
    name="fasttext",
    vocab_size=2**18,
    dim=16,
    ngrams=1,
    kinds=2,
    word_dropout=0.6,
  )
  # The average is what is evaluated; it wavers less from batch to batch.
  config.learner = dict(name="supervised", ema=0.98)
  # Adam takes steps of one length along frequent and rare n-grams alike, and so
  # learns the rare ones by heart. With this eps, near the size of the gradients
  # of a mean over hundreds, the steps of rare ones are shorter.
  config.optimizer = dict(name="adam", lr=1e-2, eps=1e-6, schedule="cosine")
  config.data = dict(
    source="jsonl:data/labeled.jsonl",
    split="train",
    seq_len=1024,
    rows=dict(name="bag_of_ngrams", buckets=2**18),
  )
  config.evals = dict(
    val=dict(name="classification", split="validation", every_steps=100),
  )
  config.early_stopping = dict(metric="val/accuracy", patience=5)
  config.checkpoint = dict(every_steps=500, keep=1, keep_best="val/accuracy")
  config.mesh = dict(data=-1)
  return config


def sst2(every_steps: int, pieces: int, seq_len: int) -> tuple[dict, dict]:
  """(data, evals) for SST-2's whole sentences.

  Args:
    every_steps: steps between two evaluations on the validation split.
    pieces: the size of the SentencePiece vocabulary.
    seq_len: pieces per sentence.
  """

  def evaluation(split: str, steps: int) -> dict:
    return dict(
      name="classification",
      source=f"jsonl:data/sst2/{split}.jsonl",
      split="all",
      every_steps=steps,
    )

  data = dict(
    source="jsonl:data/sst2/train.jsonl",
    split="all",
    tokenizer=f"sentencepiece?vocab_size={pieces}",
    seq_len=seq_len,
    rows=dict(name="labeled", labels=("negative", "positive")),
  )
  return data, dict(
    val=evaluation("validation", every_steps), test=evaluation("test", 0)
  )


def shrink(config: ConfigDict, **sections) -> None:
  """Makes `config` tiny: four steps, and the replacements in `sections`.

  A dict is merged into the section of its name; any other value replaces it.
  """
  config.total_steps = 4
  config.log_every_steps = 1
  config.checkpoint = {"every_steps": 2, "keep": 2}
  for key in config.get("evals", {}):
    config.evals[key].every_steps = 2
  for section, values in sections.items():
    if isinstance(values, dict) and section in config:
      config[section].update(values)
    else:
      config[section] = values


def shrink_text(config: ConfigDict, **model) -> None:
  """`shrink` for pre-training a decoder: rows of 16 bytes, two small layers.

  `model` replaces further settings of the model.
  """
  shrink(
    config,
    batch_size=8,
    task=dict(loss_chunk=8),
    model=dict(vocab_size=256, layers=2, dim=16, heads=2, **model),
    data=dict(source="fake:text", tokenizer="byte", seq_len=16),
  )
  # A laptop does not have as many devices as the full size needs.
  config.mesh = {"fsdp": -1}


def shrink_pairs(config: ConfigDict) -> None:
  """`shrink` for an encoder-decoder: fake pairs, two small layers."""
  keys = {k: config.data.rows[f"{k}_key"] for k in ("source", "target")}
  fake = "fake:pairs?" + "&".join(f"{k}_key={v}" for k, v in keys.items())
  shrink(
    config,
    batch_size=8,
    model=dict(layers=2, dim=16, heads=2, hidden=32),
    data=dict(source=fake, split="train", tokenizer="byte", seq_len=32),
  )
  for evaluation in config.evals.values():
    evaluation.update(source=fake, split="validation")
  if "target_len" in config.data.rows:
    config.data.rows.target_len = 24
  config.mesh = {"fsdp": -1}


def shrink_mixture(config: ConfigDict, **model) -> None:
  """`shrink_text`, with a fake text for each component of the mixture."""
  shrink_text(config, **model)
  del config.data.source
  config.data.mixture = tuple(
    {**part, "source": f"fake:text?seed={i}"}
    for i, part in enumerate(config.data.mixture)
  )
  config.learner.microbatches = 1


def shrink_labeled(config: ConfigDict, **model) -> None:
  """`shrink` for a text classifier: 16 bytes of fake labelled texts.

  `model` replaces further settings of the model.
  """
  classes = len(config.data.rows.get("labels", "ab"))
  data = dict(source=f"fake:labeled_text?classes={classes}", seq_len=16)
  if config.data.rows.name == "bag_of_ngrams":
    config.data.rows.buckets = 64
    model = dict(vocab_size=64, dim=4, **model)
  else:
    data["tokenizer"] = "byte"
  shrink(config, batch_size=8, model=model, data=data)
  for key in config.evals:
    if "source" in config.evals[key]:
      del config.evals[key].source
  if "checkpoint" in config and "early_stopping" in config:
    config.checkpoint.keep_best = config.early_stopping.metric
