"""mixup and CutMix, by their formulas and through the pipeline."""

import numpy as np
import pytest
from tiers import slow_but

tf = pytest.importorskip("tensorflow")
stats = pytest.importorskip("scipy.stats")

from configs.vision.classification import conv_fashion_mnist  # noqa: E402
from input_pipeline import ops, order  # noqa: E402
from input_pipeline.batching import mixture, partners, pipeline  # noqa: E402
from train import build, loop  # noqa: E402

_CONTEXT = ops.Context(num_classes=4)
_BEFORE = "random_crop(8, pad=2)|flip|noise(5)|scale(-1, 1)"
_SOURCE = "fake:image?n=100&size=8&channels=3&dtype=uint8"
_MIXING = ["mixup(0.4)", "cutmix", "mixup_or_cutmix(p=0.9)"]


def seed(epoch, index):
  return tf.constant([epoch, index], tf.int64)


def pair(own=0.0, other=1.0, shape=(8, 6, 1), labels=(1, 3)):
  return [
    {
      "image": tf.fill(shape, tf.constant(value, tf.float32)),
      "label": tf.constant(label),
    }
    for value, label in zip((own, other), labels, strict=True)
  ]


def mixed(string, index=0, **kwargs):
  function = ops.compile(string, _CONTEXT)
  own, other = pair(**kwargs)
  found = function(own, seed(0, index), other, seed(0, 50))
  return {name: leaf.numpy() for name, leaf in found.items()}


def take(data, first_step, count):
  batches = data.batches(first_step)
  return [next(batches) for _ in range(count)]


def test_mixup_is_its_formula():
  for index in range(20):
    found = mixed("mixup(1.0)", index, own=10.0, other=20.0)
    lam = found["label"][1]
    np.testing.assert_allclose(found["label"], [0, lam, 0, 1 - lam])
    expected = lam * 10 + (1 - lam) * 20
    np.testing.assert_allclose(found["image"], expected, rtol=1e-6)
  alike = mixed("mixup(1.0)", labels=(2, 2))
  np.testing.assert_allclose(alike["label"], [0, 0, 1, 0])


@pytest.mark.parametrize("alpha", [0.1, 0.4, 1.0, 5.0])
def test_lam_is_of_the_beta_distribution(alpha):
  function = ops.compile(f"mixup({alpha})", _CONTEXT)
  own, other = pair(shape=(1, 1, 1))
  lams = tf.data.Dataset.range(2000).map(
    lambda i: function(own, tf.stack([7, i]), other, seed(0, 0))["label"][1]
  )
  lams = np.array(list(lams.as_numpy_iterator()), float)
  assert ((lams >= 0) & (lams <= 1)).all()
  # float32 rounds to 0 and 1 what lies within 1e-7 of them.
  test = stats.kstest(np.clip(lams, 1e-9, 1 - 1e-9), "beta", (alpha, alpha))
  assert test.statistic < (0.05 if alpha > 0.1 else 0.12)


def test_p_is_the_share_that_is_mixed():
  kept = sum(mixed("mixup(1.0, p=0.3)", i)["label"][1] == 1 for i in range(200))
  assert abs(kept - 140) < 5 * np.sqrt(200 * 0.3 * 0.7)


def test_cutmix_pastes_a_box_and_counts_its_area():
  boxes, areas = [], []
  for index in range(300):
    found = mixed("cutmix", index, shape=(20, 30, 2))
    image = found["image"]
    assert (image == image[..., :1]).all()
    box = image[..., 0] == 1
    np.testing.assert_array_equal(image[~box], 0)
    rows, columns = box.any(1), box.any(0)
    assert box.sum() == rows.sum() * columns.sum()  # a rectangle
    share = box.mean()
    np.testing.assert_allclose(
      found["label"], [0, 1 - share, 0, share], atol=1e-6
    )
    areas.append(share)
    if (
      box.any()
      and not (box[0] | box[-1]).any() | (box[:, 0] | box[:, -1]).any()
    ):
      # Away from the border its sides are in the image's own ratio.
      assert abs(rows.sum() / 20 - columns.sum() / 30) < 1 / 20
    boxes.append(box)
  # lam is uniform: boxes of all sizes, anywhere.
  assert min(areas) < 0.02 and max(areas) > 0.8
  often = np.mean(boxes, 0)
  assert often.min() > 0.1


def test_cutmix_boxes_have_the_papers_size():
  """Boxes that lie within the image have sides sqrt(1 - lam), lam uniform."""
  inner = []
  for index in range(400):
    box = mixed("cutmix", index, shape=(40, 40, 1))["image"][..., 0] == 1
    rows = np.flatnonzero(box.any(1))
    columns = np.flatnonzero(box.any(0))
    if len(rows) and rows[0] > 0 and rows[-1] < 39:
      inner.append((len(rows), len(columns)))
      if columns[0] > 0 and columns[-1] < 39:
        assert len(rows) == len(columns)
  # P(side < s) = s^2, and a box of that side lies within with 1 - s.
  sides = np.array([rows for rows, _ in inner]) / 40
  expected = (1 / 3 - 1 / 4) * 2 / ((1 / 2 - 1 / 3) * 2)
  assert abs(sides.mean() - expected) < 5 * 0.25 / np.sqrt(len(sides))


def test_mixup_or_cutmix_takes_turns():
  pasted = 0
  for index in range(200):
    found = mixed("mixup_or_cutmix(1.0, 1.0, switch=0.25)", index)
    image = found["image"]
    is_box = np.isin(image, (0, 1)).all()
    pasted += is_box
    np.testing.assert_allclose(image.mean(), found["label"][3], atol=1e-5)
  assert abs(pasted - 50) < 5 * np.sqrt(200 * 0.25 * 0.75)


@pytest.mark.parametrize("string", _MIXING)
def test_eager_and_tf_data_agree_to_the_bit(string):
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, (2, 16, 12, 12, 3), np.uint8)
  labels = rng.integers(0, 4, (2, 16), np.int32)
  function = ops.compile(f"{_BEFORE}|{string}", _CONTEXT)

  def of(i, own, other, first, second):
    return function(
      {"image": own, "label": first},
      tf.stack([3, i]),
      {"image": other, "label": second},
      tf.stack([3, i + 1]),
    )

  rows = tf.data.Dataset.from_tensor_slices((*images, *labels)).enumerate()
  mapped = rows.map(lambda i, row: of(i, *row), num_parallel_calls=2)
  eager = [of(i, *map(tf.constant, row)) for i, row in rows]
  for a, b in zip(eager, mapped.as_numpy_iterator(), strict=True):
    for name in a:
      np.testing.assert_array_equal(a[name], b[name])
  assert mapped.element_spec["label"].shape == (4,)


@pytest.mark.parametrize("string", slow_but(_MIXING[-1:], _MIXING))
def test_batches_depend_on_the_step_alone(string):
  settings = dict(source=_SOURCE, ops=f"{_BEFORE}|{string}", batch_size=12)
  data = pipeline.train(**settings, seed=3)
  assert data.spec["label"][:2] == ((10,), np.float32)
  whole = take(data, 0, 12)  # past the first epoch
  np.testing.assert_allclose(whole[5]["label"].sum(1), 1, rtol=1e-6)
  for step, again in enumerate(take(data, 7, 3), 7):
    for name, leaf in again.items():
      np.testing.assert_array_equal(leaf, whole[step][name])
  for hosts in (2, 4):
    parts = [
      take(
        pipeline.train(**settings, seed=3, host_index=h, host_count=hosts), 5, 3
      )
      for h in range(hosts)
    ]
    for step, shares in enumerate(zip(*parts, strict=True), 5):
      for name, leaf in whole[step].items():
        found = np.concatenate([share[name] for share in shares])
        np.testing.assert_array_equal(found, leaf)


def test_a_mixed_row_is_a_mixture_of_two_rows_of_its_epoch():
  """What the run without mixup shows, blended by hand."""
  plain = pipeline.train(source=_SOURCE, ops=_BEFORE, batch_size=90, seed=3)
  data = pipeline.train(
    source=_SOURCE, ops=f"{_BEFORE}|mixup(1.0)", batch_size=90, seed=3
  )
  n = data.num_examples
  assert n == 90  # of the train split: each batch is an epoch
  draw = partners.drawer([n], np.array([1]))
  for step in (0, 1):
    before, after = take(plain, step, 1)[0], take(data, step, 1)[0]
    index = before["index"]
    np.testing.assert_array_equal(index, after["index"])
    key = order.epoch_key(3, np.full(n, step))
    row_of = np.argsort(index)
    partner = row_of[draw(index.astype(np.int64), key)]
    assert len(set(partner.tolist())) > n / 2
    classes = np.eye(10, dtype=np.float32)[before["label"]]
    for i in range(n):
      j = partner[i]
      # lam from the image; the labels must have the same.
      a, b = before["image"][i], before["image"][j]
      span = ((a - b) ** 2).sum()
      lam = ((after["image"][i] - b) * (a - b)).sum() / span if span else 1
      np.testing.assert_allclose(
        after["image"][i], lam * a + (1 - lam) * b, atol=1e-5
      )
      np.testing.assert_allclose(
        after["label"][i], lam * classes[i] + (1 - lam) * classes[j], atol=1e-4
      )


def test_partners_come_by_the_weights_of_the_mixture():
  lengths, weights = [10, 1000, 50], np.array([3, 1, 4])
  draw = partners.drawer(lengths, weights)
  n = 20_000
  own = np.arange(n, dtype=np.int64) % sum(lengths)
  keys = order.epoch_key(0, np.arange(n))
  found = draw(own, keys)
  bounds = np.cumsum([0, *lengths])
  for i, share in enumerate(weights / weights.sum()):
    inside = found[(found >= bounds[i]) & (found < bounds[i + 1])]
    assert abs(len(inside) - n * share) < 5 * np.sqrt(n * share * (1 - share))
    counts = np.bincount(inside - bounds[i], minlength=lengths[i])
    assert stats.chisquare(counts).pvalue > 1e-4
  # A function of the row alone, and another one in another epoch.
  np.testing.assert_array_equal(draw(own[5:9], keys[5:9]), found[5:9])
  again = draw(own[:1000], order.epoch_key(0, np.arange(1000) + n))
  assert (again != found[:1000]).mean() > 0.8


def test_the_partners_of_a_mosaic_are_pure():
  """Each is drawn apart, and hosts and later starts draw the same."""
  settings = dict(
    source="fake:boxes?n=40&size=24", ops='mosaic|keep("image")', seed=3
  )
  data = pipeline.train(**settings, batch_size=8)
  whole = take(data, 0, 3)
  shares = [
    pipeline.train(**settings, batch_size=8, host_index=i, host_count=2)
    for i in (0, 1)
  ]
  found = [take(share, 2, 1)[0]["image"] for share in shares]
  np.testing.assert_array_equal(np.concatenate(found), whole[2]["image"])
  draw = partners.drawer([1000], np.array([1]))
  rows, keys = np.arange(500), order.epoch_key(3, np.zeros(500, np.int64))
  three = np.stack([draw(rows, keys, nth) for nth in range(3)])
  np.testing.assert_array_equal(three[0], draw(rows, keys))
  for i, j in ((0, 1), (0, 2), (1, 2)):
    assert (three[i] == three[j]).mean() < 0.02
    assert abs(np.corrcoef(three[i], three[j])[0, 1]) < 0.15


def test_a_mixture_of_data_sets_is_mixed_across_them():
  parts = [
    dict(source=f"{_SOURCE}&seed={s}", weight=w) for s, w in ((0, 1), (1, 3))
  ]
  data = pipeline.train(mixture=parts, ops="scale|mixup(1.0)", batch_size=16)
  first, second = take(data, 0, 1)[0], take(data, 0, 1)[0]
  np.testing.assert_array_equal(first["image"], second["image"])
  weights = mixture.whole_weights([1, 3], [80, 80])
  np.testing.assert_array_equal(weights, [1, 3])


def test_a_bad_partner_is_told(tmp_path):
  from PIL import Image

  for name in ("a", "b"):
    (tmp_path / name).mkdir()
    for i in range(6):
      Image.new("RGB", (4, 4)).save(tmp_path / name / f"{i}.png")
  (tmp_path / "a" / "3.png").write_bytes(b"no image")
  settings = dict(
    source=f"folder:{tmp_path}", split="all", ops="decode|resize(4)|scale|mixup"
  )
  data = pipeline.train(**settings, batch_size=12, seed=1)
  with pytest.raises(ValueError, match="3.png"):
    take(data, 0, 3)
  data = pipeline.train(
    **settings, batch_size=12, seed=1, on_bad_record="skip", max_bad_share=0.9
  )
  batch = take(data, 0, 1)[0]
  draw = partners.drawer([12], np.array([1]))
  whole = np.arange(12)
  partner = draw(whole, order.epoch_key(1, np.zeros(12, np.int64)))
  good = whole[(whole != 3) & (partner != 3)]
  np.testing.assert_array_equal(
    np.sort(batch["index"][batch["mask"] > 0]), good
  )


@pytest.mark.parametrize(
  ("string", "named"),
  [
    ("mixup|cutmix", "position 7: cutmix: mixup already mixes"),
    ("scale|mixup(0)", "'mixup': alpha=0 is not positive"),
    ("mixup(label='y')", "'mixup': no field 'y'"),
    ("cutmix(inkey='x')", "'cutmix': no field 'x'"),
  ],
)
def test_a_wrong_use_is_named(string, named):
  with pytest.raises(ValueError, match=named) as error:
    pipeline.train(source=_SOURCE, ops=string, batch_size=4)
  assert "\n" not in str(error.value)


def test_an_evaluation_does_not_mix():
  with pytest.raises(ValueError, match="set other ops for the evaluation"):
    pipeline.evaluation(source=_SOURCE, ops="scale|mixup", batch_size=4)


@pytest.mark.slow
def test_a_run_trains_on_mixed_labels():
  config = conv_fashion_mnist.get_config("smoke")
  config.data.source += "&dtype=uint8"
  config.data.ops = "scale|mixup_or_cutmix"
  config.evals.test.ops = "scale"
  reports = list(loop.fit(build.run(config, None, say=lambda line: None)))
  scalars = {k: v for report in reports for k, v in report.scalars.items()}
  assert np.isfinite(scalars["train/loss"])
  assert 0 <= scalars["test/accuracy"] <= 1
  del config.evals.test.ops
  with pytest.raises(ValueError, match="config.evals.test: .*set other ops"):
    build.run(config, None, say=lambda line: None)


def test_labels_of_an_unknown_number_of_classes():
  function = ops.compile("mixup")
  own, other = pair()
  with pytest.raises(ValueError, match="is unknown; set classes="):
    function(own, seed(0, 0), other, seed(0, 1))
  found = ops.compile("mixup(classes=5)")(own, seed(0, 0), other, seed(0, 1))
  assert found["label"].shape == (5,)
