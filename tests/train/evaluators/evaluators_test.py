"""Evaluators on hand-made tasks, whose predictions are known.

Such a task predicts what stands in the batch, so that the figures of
scikit-learn, SciPy and NumPy on all the rows at once are the truth.
"""

import csv
import hashlib
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from input_pipeline.batching import pipeline
from input_pipeline.cleaning.parts import ngram
from train import build, types
from train.evaluators.classification import classification
from train.evaluators.frechet import frechet
from train.evaluators.interpolation import interpolation
from train.evaluators.mean import mean
from train.evaluators.samples import samples
from train.objectives import losses

NOTHING = types.Variables({}, {})


def context(task, batches, **fields):
  """An EvalContext of what an evaluator needs, and no more."""
  given = {
    "decode": None,
    "encode": None,
    "num_classes": None,
    "workdir": None,
    "key": "val",
    "rng": jax.random.key(0),
    "load": None,
    "say": lambda line: None,
    **fields,
  }
  return types.EvalContext(task=task, batches=lambda: iter(batches), **given)


def task_of(loss=None, **predict):
  return types.Task(None, {"loss": loss} if loss else {}, predict)


def padded(rows, size, fill):
  """Batches of `size` rows; the last is filled up, its mask 0 there."""
  count = len(next(iter(rows.values())))
  batches = []
  for start in range(0, count, size):
    part = {k: v[start : start + size] for k, v in rows.items()}
    real = min(size, count - start)
    part["mask"] = np.ones(real, np.float32)
    batch = {
      k: np.concatenate([v, np.full((size - real, *v.shape[1:]), f, v.dtype)])
      for (k, v), f in zip(part.items(), [*fill, 0], strict=True)
    }
    batches.append(jax.tree.map(jnp.asarray, batch))
  return batches


def classified(classes):
  """23 rows: (logits, label); the last class never occurs."""
  rng = np.random.default_rng(0)
  label = rng.integers(classes - 1, size=23).astype(np.int32)
  logits = rng.normal(size=(23, classes)).astype(np.float32)
  logits[np.arange(23), label] += 1
  return logits, label


def nats(variables, batch, at):
  assert not at.train
  nats_B = losses.cross_entropy(batch["logits"], batch["label"])
  return types.mean_of(nats_B, batch["mask"]), types.Aux({}, {})


@pytest.mark.parametrize("classes", [7, 5])
def test_classification_is_scikit_learns(classes, tmp_path):
  sklearn = pytest.importorskip("sklearn.metrics")
  logits, label = classified(classes)
  # Padding would count as right, were it counted; its loss is NaN.
  batches = padded({"logits": logits, "label": label}, 8, (np.nan, 0))
  batches[-1]["logits"] = batches[-1]["logits"].at[-1].set(0)
  task = task_of(nats, logits=lambda variables, batch, rng: batch["logits"])
  shown = []
  evaluate = classification(
    context(
      task,
      batches,
      num_classes=classes,
      workdir=str(tmp_path),
      show=lambda *sent: shown.append(sent),
      class_names=("a", "b,", "c", "d", "e"),
    )
  )
  found = evaluate(NOTHING, 3)

  best = logits.argmax(-1)
  wanted = {
    "loss": sklearn.log_loss(label, softmax(logits), labels=np.arange(classes)),
    "accuracy": sklearn.accuracy_score(label, best),
    "macro_f1": sklearn.f1_score(label, best, average="macro"),
  }
  if classes > 5:
    wanted["top5_accuracy"] = sklearn.top_k_accuracy_score(
      label, logits, k=5, labels=np.arange(classes)
    )
  assert found == pytest.approx(wanted, rel=1e-6)
  with open(tmp_path / "val_confusion.csv", newline="") as file:
    written = list(csv.reader(file))
  if classes == 5:  # only then does every class have a name
    assert written.pop(0) == ["", "a", "b,", "c", "d", "e"]
    assert [row.pop(0) for row in written] == ["a", "b,", "c", "d", "e"]
  written = np.array(written, int)
  np.testing.assert_array_equal(
    written, sklearn.confusion_matrix(label, best, labels=np.arange(classes))
  )
  # The image: squares, the gray of which is the share of their row.
  ((*sent, image_HWC),) = shown
  assert sent == [3, "val/confusion", "image"]
  side = 256 // classes
  assert image_HWC.shape == (side * classes, side * classes, 3)
  shares = np.nan_to_num(
    sklearn.confusion_matrix(
      label, best, labels=np.arange(classes), normalize="true"
    )
  )
  middle = image_HWC[side // 2 :: side, side // 2 :: side]
  np.testing.assert_allclose(
    middle, 255 * shares[..., None].repeat(3, 2), atol=1
  )
  assert evaluate(NOTHING, 4) == found


def test_classification_of_an_image_and_its_mirror_image():
  """Their probabilities are averaged, not their logits."""
  image = np.random.default_rng(1).normal(size=(90, 2, 4, 3)).astype("f4")
  label = np.arange(90, dtype=np.int32) % 3

  def logits(variables, batch, rng):
    return 9 * batch["image"][:, :, 0].mean(1)  # of the first column

  def loss(variables, batch, at):
    nats_B = losses.cross_entropy(logits(None, batch, None), batch["label"])
    return types.mean_of(nats_B, batch["mask"]), types.Aux({}, {})

  batches = padded({"image": image, "label": label}, 8, (0, 0))
  task = task_of(loss, logits=logits)
  measured = context(task, batches, num_classes=3)
  once, both = (
    classification(measured, flips=flips)(NOTHING, 1) for flips in (False, True)
  )
  left, right = (9 * image[:, :, i].mean(1) for i in (0, -1))
  wanted = (softmax(left) + softmax(right)).argmax(-1) == label
  assert both["accuracy"] == pytest.approx(wanted.mean())
  # Two programs may sum in another order.
  assert both["loss"] == pytest.approx(once["loss"], rel=1e-6)
  assert both["accuracy"] != once["accuracy"]
  assert wanted.mean() != ((left + right).argmax(-1) == label).mean()


def softmax(logits):
  e = np.exp(np.asarray(logits, float))
  return e / e.sum(-1, keepdims=True)


@pytest.mark.parametrize("predict", [{}, {"logits": None}])
def test_classification_without_logits_or_classes_is_refused(predict):
  with pytest.raises(ValueError, match="labelled data and predicted logits"):
    classification(context(task_of(nats, **predict), []))


def ragged():
  """Values of [3, 4] whose masks hold 12, 1 and 0 of them, and 5."""
  rng = np.random.default_rng(1)
  batches = []
  for count in (12, 1, 0, 5):
    value = rng.normal(loc=count, size=(3, 4)).astype(np.float32)
    mask = (np.arange(12) < count).reshape(3, 4).astype(np.float32)
    value[mask == 0] = np.nan
    batches.append({"value": jnp.asarray(value), "mask": jnp.asarray(mask)})
  return batches


def noted(variables, batch, at):
  assert not at.train
  found = types.mean_of(batch["value"] * variables.params, batch["mask"])
  metrics = {
    "square": types.mean_of(batch["value"] ** 2, batch["mask"]),
    "rows": types.mean_of(jnp.max(batch["mask"], axis=1)),
  }
  return found, types.Aux({}, metrics)


def test_mean_merges_sums_of_ragged_batches():
  batches = ragged()
  evaluate = mean(context(task_of(noted), batches))
  found = evaluate(types.Variables(2.0, {}), 0)
  value, mask = (
    np.concatenate([np.asarray(b[k], float) for b in batches])
    for k in ("value", "mask")
  )
  wanted = {
    "loss": 2 * np.average(value[mask > 0]),
    "square": np.average(value[mask > 0] ** 2),
    "rows": mask.any(1).mean(),
  }
  assert found == pytest.approx(wanted, rel=1e-6)
  assert all(type(v) is float for v in found.values())
  # Not the mean over batches of their means.
  means = [np.nanmean(b["value"]) for b in batches if b["mask"].any()]
  assert abs(2 * np.mean(means) - found["loss"]) > 0.5


def test_mean_names_the_losses_of_several_players():
  def other(variables, batch, at):
    return types.mean_of(jnp.full(3, 4.0)), types.Aux({}, {})

  task = types.Task(None, {"generator": other, "discriminator": noted}, {})
  found = mean(context(task, ragged()))(types.Variables(1.0, {}), 0)
  assert set(found) == {
    "generator_loss",
    "discriminator_loss",
    "square",
    "rows",
  }
  assert found["generator_loss"] == 4


def test_mean_gives_each_batch_a_key_of_its_own_and_always_the_same():
  def drawn(variables, batch, at):
    return types.mean_of(at.step + jax.random.uniform(at.rng, (1,))), types.Aux(
      {}, {}
    )

  rng = jax.random.key(7)
  evaluate = mean(context(task_of(drawn), ragged(), rng=rng))
  keys = [jax.random.fold_in(rng, i) for i in range(4)]
  wanted = np.mean([jax.random.uniform(key, (1,)) for key in keys])
  for step in (0, 5):
    found = evaluate(NOTHING, step)["loss"]
    assert found == pytest.approx(step + wanted, rel=1e-6)


def pictures(count=22):
  """Batches of 8 images of 2 x 2, the last one padded."""
  rng = np.random.default_rng(2)
  image = rng.uniform(-1, 1, (count, 2, 2, 1)).astype(np.float32)
  return padded({"image": image}, 8, (np.nan,))


def scaled(variables, batch, rng):
  """Generated images: noise of a size that is a parameter."""
  shape = batch["image"].shape
  return variables.params * jax.random.uniform(rng, shape, minval=-1)


def rows_of(images, batches):
  """Features of what is real, at once: [N, 4] in float64."""
  rows = np.concatenate([np.asarray(i, float).reshape(8, -1) for i in images])
  kept = np.concatenate([np.asarray(b["mask"]) for b in batches]) > 0
  return rows[kept]


def scipys_distance(a, b):
  linalg = pytest.importorskip("scipy.linalg")
  sigma_a, sigma_b = (np.cov(x, rowvar=False) for x in (a, b))
  root = linalg.sqrtm(sigma_a @ sigma_b).real
  return np.sum((a.mean(0) - b.mean(0)) ** 2) + np.trace(
    sigma_a + sigma_b - 2 * root
  )


@pytest.mark.parametrize("num_samples", [10000, 22, 16, 9])
def test_frechet_is_scipys_on_all_pixels_at_once(num_samples):
  rng, batches = jax.random.key(3), pictures()
  evaluate = frechet(
    context(task_of(samples=scaled), batches, rng=rng), num_samples=num_samples
  )
  # Of 16, or of 9 in whole batches, the third batch is not needed.
  used = batches if num_samples > 16 else batches[:2]
  for size in (0.5, 1.0):  # the second call reuses what is real
    variables = types.Variables(size, {})
    fakes = [
      scaled(variables, b, jax.random.fold_in(rng, i))
      for i, b in enumerate(used)
    ]
    wanted = scipys_distance(
      rows_of([b["image"] for b in used], used), rows_of(fakes, used)
    )
    found = evaluate(variables, 0)
    # Images are of float32; all that follows is of float64.
    assert found == pytest.approx({"frechet_distance": wanted}, rel=1e-5)


def test_frechet_distance_to_the_same_images_is_zero():
  def copied(variables, batch, rng):
    return batch["image"]

  evaluate = frechet(context(task_of(samples=copied), pictures()))
  # Roots of eigenvalues that ought to be 0 are up to sqrt(1e-16).
  assert 0 <= evaluate(NOTHING, 0)["frechet_distance"] < 1e-6


def test_frechet_takes_the_features_of_a_classifier(tmp_path):
  weight = np.random.default_rng(4).normal(size=(4, 3)).astype(np.float32)
  rng, batches, loaded = jax.random.key(3), pictures(), []

  def features(variables, batch, rng):
    flat = batch["image"].reshape(-1, 4)
    return jnp.sin(flat @ variables.params)

  def load(workdir):
    loaded.append(workdir)
    return task_of(features=features), types.Variables(jnp.asarray(weight), {})

  said = []
  given = context(
    task_of(samples=scaled),
    batches,
    rng=rng,
    load=load,
    say=said.append,
    workdir=str(tmp_path),
  )
  evaluate = frechet(given, classifier="runs/judge", metric="frechet")
  assert loaded == ["runs/judge"]
  variables = types.Variables(0.5, {})
  fakes = [
    scaled(variables, b, jax.random.fold_in(rng, i))
    for i, b in enumerate(batches)
  ]
  wanted = scipys_distance(
    *(
      np.sin(rows_of(images, batches) @ weight.astype(float))
      for images in ([b["image"] for b in batches], fakes)
    )
  )
  found = evaluate(variables, 0)["frechet"]
  assert found == pytest.approx(wanted, rel=1e-5)
  # What it was measured with is written down.
  stated = json.loads((tmp_path / "val_frechet.json").read_text())
  digest = hashlib.sha256(
    b".params float32 (4, 3)\n" + weight.tobytes()
  ).hexdigest()
  assert stated["digest"] == digest and digest[:12] in said[-1]
  count = sum(int(b["mask"].sum()) for b in batches)
  assert stated["generated_images"] == stated["real_images"] == count
  assert stated["distance"] == found and stated["resize"] == "none"


@pytest.mark.parametrize("make", [frechet, samples])
def test_a_task_that_draws_nothing_is_refused(make):
  with pytest.raises(ValueError, match="a task that predicts samples"):
    make(context(task_of(), []))


@pytest.mark.parametrize(
  ("channels", "count", "rows", "columns"),
  [(1, 5, 2, 3), (3, 4, 2, 2), (3, 2, 1, 2), (1, 1, 1, 1)],
)
def test_samples_are_a_grid_of_pixels(channels, count, rows, columns, tmp_path):
  from matplotlib import image

  rng = np.random.default_rng(5)
  # A pass has six images of 2 x 3; beyond [-1, 1] is cut off.
  made = 1.3 * rng.uniform(-1, 1, (6, 2, 3, channels)).astype(np.float32)
  task = task_of(
    samples=lambda variables, batch, rng: batch["image"] * variables.params
  )
  batches = [{"image": jnp.asarray(made[i : i + 3])} for i in (0, 3)]
  said, shown = [], []
  given = context(
    task,
    batches,
    workdir=str(tmp_path),
    key="grid",
    say=said.append,
    show=lambda *sent: shown.append(sent),
  )
  evaluate = samples(given, count=count)
  assert evaluate(types.Variables(1.0, {}), 120) == {}
  path = tmp_path / "samples" / "grid_0000120.png"
  assert said == [f"samples  {path}"]
  found = np.rint(image.imread(path)[..., :3] * 255)

  wanted = np.zeros((2 * rows, 3 * columns, 3))
  for index in range(count):
    row, column = divmod(index, columns)
    for y in range(2):
      for x in range(3):
        for c in range(3):
          value = made[index, y, x, min(c, channels - 1)]
          value = min(max(float(value), -1), 1)
          wanted[2 * row + y, 3 * column + x, c] = round((value + 1) * 127.5)
  np.testing.assert_array_equal(found, wanted)
  ((*sent, image_HWC),) = shown
  assert sent == [120, "grid/samples", "image"]
  np.testing.assert_array_equal(image_HWC, wanted)


def test_samples_beyond_one_pass_go_on_with_other_keys(tmp_path):
  drawn = []

  def noise(variables, batch, rng):
    jax.debug.callback(lambda: drawn.append(1), ordered=True)
    return jax.random.uniform(rng, (3, 2, 2, 1), minval=-1)

  batches = [{"image": jnp.zeros((3, 2, 2, 1))}]
  evaluate = samples(
    context(task_of(samples=noise), batches, workdir=str(tmp_path)), count=7
  )
  evaluate(NOTHING, 1)
  jax.effects_barrier()
  assert len(drawn) == math.ceil(7 / 3)
  from matplotlib import image

  found = image.imread(tmp_path / "samples" / "val_0000001.png")[..., 0]
  cells = found.reshape(3, 2, 3, 2).transpose(0, 2, 1, 3).reshape(9, 4)
  assert len({tuple(cell) for cell in cells[:7]}) == 7


def test_samples_of_text_are_written_one_after_another(tmp_path):
  def count_on(variables, batch, rng):
    """Each token after the prompt is one more, and one row more."""
    rows, length = batch["tokens"].shape
    start = batch["tokens"][:, :1] + jnp.arange(rows)[:, None]
    more = start + jnp.arange(length)[None]
    hot = jnp.where(batch["temperature"] > 0.4, 1, 0)
    return jnp.where(batch["mask"] > 0, batch["tokens"], more + hot)

  said, shown = [], []
  given = context(
    task_of(samples=count_on),
    [],
    encode=lambda text: np.asarray([ord(c) for c in text]),
    decode=lambda ids: "".join(chr(i) for i in ids),
    workdir=str(tmp_path),
    key="text",
    say=said.append,
    show=lambda *sent: shown.append(sent),
  )
  evaluate = samples(given, count=3, prompt="ax", length=4, temperature=0.5)
  assert evaluate(NOTHING, 20) == {}
  path = tmp_path / "samples" / "text_0000020.txt"
  wanted = "\n\n---\n\n".join(["axdefg", "axefgh", "axfghi"])
  assert path.read_text() == wanted + "\n"
  assert said == [f"samples  {path}\n{wanted}"]
  assert shown == [(20, "text/samples", "text", wanted)]


def test_samples_without_a_workdir_write_nothing(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  task = task_of(samples=lambda variables, batch, rng: batch["image"])
  batches = [{"image": jnp.zeros((4, 2, 2, 1))}]
  assert samples(context(task, batches), count=4)(NOTHING, 0) == {}
  assert list(tmp_path.iterdir()) == []


def test_interpolation_mixes_probabilities_with_a_weight_of_other_rows():
  rng = np.random.default_rng(0)
  rows, T, V = 6, 5, 4
  targets = rng.integers(0, V, (rows, T)).astype(np.int32)
  batch = {
    "targets": targets,
    "a": rng.normal(size=(rows, T, V)).astype(np.float32),
    "b": rng.normal(size=(rows, T, V)).astype(np.float32),
    "mask": (rng.random((rows, T)) < 0.8).astype(np.float32),
    "index": np.array([0, 1, 2, 3, 4, -1], np.int32),
    "bytes": np.full(rows, 7, np.float32),
  }
  batch["mask"][-1] = batch["bytes"][-1] = 0  # padding
  parts = [
    {k: jnp.asarray(v[i : i + 2]) for k, v in batch.items()}
    for i in range(0, rows, 2)
  ]
  other = task_of(logits=lambda variables, batch, rng: batch["b"])
  ours = task_of(logits=lambda variables, batch, rng: batch["a"])
  told = context(ours, parts, load=lambda path: (other, NOTHING))
  found = interpolation(told, other="runs/ngram")(NOTHING, 3)

  def of_targets(logits):
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    return np.take_along_axis(p, targets[..., None], -1)[..., 0]

  p, q = of_targets(batch["a"]), of_targets(batch["b"])
  grid = np.linspace(0, 1, 41)

  def nats(w, fold):
    mask = batch["mask"] * (batch["index"] % 2 == fold)[:, None]
    return -(mask * np.log((1 - w) * p + w * q)).sum()

  best = [min(grid, key=lambda w: nats(w, fold)) for fold in (1, 0)]
  total, count = (
    sum(nats(w, f) for f, w in enumerate(best)),
    batch["mask"].sum(),
  )
  assert found["loss"] == pytest.approx(total / count, rel=1e-5)
  assert found["weight"] == pytest.approx(np.mean(best))
  alone = sum(nats(0, f) for f in (0, 1)) / count
  assert found["loss_alone"] == pytest.approx(alone, rel=1e-5)
  assert found["bits_per_byte"] == pytest.approx(total / np.log(2) / 35)
  with pytest.raises(ValueError, match="both need the same tokenizer"):
    fewer = task_of(logits=lambda variables, batch, rng: batch["b"][..., :2])
    told = context(ours, parts, load=lambda path: (fewer, NOTHING))
    interpolation(told, other="runs/ngram")(NOTHING, 3)


@pytest.mark.parametrize("packed", [False, True])
def test_interpolation_counts_ngrams_of_the_training_text(tmp_path, packed):
  text = "abracadabra abba cab dab "
  (tmp_path / "a.txt").write_text(text)
  names = sorted(set(text))
  held = np.array([names.index(c) for c in "cabadab abr"])
  inputs, targets = held[:-1].reshape(2, 5), held[1:].reshape(2, 5)
  segments = np.array([[1, 1, 1, 2, 2], [1, 1, 2, 2, 2]])
  batch = {
    "inputs": inputs,
    "targets": targets,
    "mask": np.ones((2, 5), np.float32),
    "index": np.arange(2),
    **({"segments": segments} if packed else {}),
  }
  flat = task_of(logits=lambda variables, b, rng: jnp.zeros((2, 5, len(names))))
  told = context(flat, [batch], encode=lambda t: [names.index(c) for c in t])
  given = dict(counted=f"text:{tmp_path}/a.txt", counted_split="all", order=3)
  found = interpolation(told, **given)(NOTHING, 0)

  model = ngram.fit([told.encode(text)], 3, len(names))
  starts = [0, 3, 5, 7] if packed else [0]
  nats = []
  for i, token in enumerate(held[1:], start=1):
    start = max(s for s in starts if s < i)
    nats.append(-np.log(ngram.distribution(model, held[start:i])[token]))
  assert found["loss_other"] == pytest.approx(np.mean(nats))
  assert found["loss_alone"] == pytest.approx(np.log(len(names)))
  with pytest.raises(ValueError, match='takes counted="URI"'):
    interpolation(told)


@pytest.mark.parametrize(
  ("count", "settings", "tokenizer", "rough"),
  [
    (29, {"source": "csv:a.csv"}, None, True),
    (30, {"source": "csv:a.csv"}, None, False),
    (0, {"source": "environment:a"}, None, False),
    (1, {"source": "fake:linear"}, None, False),
    (5, {"source": "text:a.txt"}, "byte", False),  # windows of tokens
    (5, {"source": "csv:a.csv", "rows": {"name": "labeled"}}, "byte", True),
  ],
)
def test_figures_on_few_records_are_called_rough(
  count, settings, tokenizer, rough
):
  data = pipeline.Data({}, count, None, tokenizer, None, 8)
  note = build.few_records(settings, data)
  assert (f"on {count} records are rough" in note) == rough
