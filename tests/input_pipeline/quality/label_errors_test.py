"""Planted label errors are found, by models that have not seen the labels."""

import csv
import json
import zlib

import cleanlab.count
import cleanlab.filter
import numpy as np
import pytest

from input_pipeline.quality import label_models, label_noise, patches
from input_pipeline.quality.checks import label_errors
from input_pipeline.quality.out_of_fold import assign_folds, out_of_fold
from input_pipeline.sources import open_source, subset
from train import build, loop

C = 3


def silent(line):
  del line


def blobs(folder, n=480, classes=C, seed=0):
  """Points around corners ten deviations apart; their classes, a tenth wrong.

  Returns (uri, given [n], true [n]).
  """
  rng = np.random.default_rng(seed)
  true = np.arange(n) % classes
  x = 10 * np.eye(classes, 5)[true] + rng.standard_normal((n, 5))
  given = true.copy()
  flipped = rng.choice(n, n // 10, replace=False)
  given[flipped] = (true[flipped] + 1) % classes
  folder.mkdir(exist_ok=True)
  np.save(folder / "x.npy", x.astype(np.float32))
  np.save(folder / "label.npy", given)
  return f"npy:{folder}", given, true


def test_folds_partition_and_share_out_every_class():
  labels = np.random.default_rng(0).choice(4, 103, p=[0.6, 0.3, 0.07, 0.03])
  fold = assign_folds(labels, 5, seed=1)
  counts = np.zeros((4, 5), int)
  np.add.at(counts, (labels, fold), 1)
  assert counts.sum() == 103
  assert np.ptp(counts.sum(0)) <= 1
  assert (np.ptp(counts, axis=1) <= 1).all()
  assert (fold == assign_folds(labels, 5, seed=1)).all()
  assert (fold != assign_folds(labels, 5, seed=2)).any()
  with pytest.raises(ValueError, match="folds=104: 103 examples"):
    assign_folds(labels, 104, seed=0)


def test_no_probability_comes_from_a_model_that_has_seen_its_example(tmp_path):
  # Each example has a feature of its own, and a label that nothing else tells:
  # whoever has seen it knows the label, and nobody else can.
  n = 48
  np.save(tmp_path / "x.npy", 4 * np.eye(n, dtype=np.float32))
  labels = np.random.default_rng(0).permutation(np.arange(n) % 2)
  config = label_models.vector_config("linear")
  config |= dict(batch_size=16, total_steps=60)
  config["optimizer"] |= dict(lr=0.1, weight_decay=0.0)
  given = dict(config=config, num_classes=2, folds=2, say=silent)
  given |= dict(source=f"npy:{tmp_path}", split="all", workdir=str(tmp_path))
  unseen = out_of_fold(**given, labels=labels)
  assert unseen.shape == (n, 2)
  np.testing.assert_allclose(unseen.sum(1), 1, atol=1e-6)
  # A coin's throw: both classes are as frequent in either fold.
  believed = unseen[np.arange(n), labels]
  assert believed.min() > 0.3 and believed.max() < 0.7
  # The same examples twice over: where the other fold has them as well, the
  # very same models have seen them, and know.
  twice = np.arange(2 * n) % n
  folds = assign_folds(labels[twice], 2, 0)
  seen = folds[:n] != folds[n:]
  leaked = out_of_fold(**given, labels=labels[twice], indices=twice)
  believed = leaked[np.arange(2 * n), labels[twice]].reshape(2, n)
  assert 0 < seen.sum() < n
  assert believed[:, seen].min() > 0.8
  assert believed[:, ~seen].max() < 0.8


@pytest.mark.slow
def test_planted_errors_are_found_and_the_rest_can_be_trained_on(tmp_path):
  uri, given, true = blobs(tmp_path / "data")
  out = tmp_path / "out"
  settings = dict(uri=uri, split="all", label="label", output=str(out))
  settings |= dict(folds=2, epochs=20, fail_share=0.2, say=silent)
  (finding,) = label_errors.label_errors(**settings)
  wrong = given != true
  rows = read_rows(out)
  found = np.zeros(len(given), bool)
  for row in rows:
    i = int(row["index"])
    found[i] = row["wrong"] == "1"
    assert row["given"] == str(given[i])
    if wrong[i]:
      assert row["suggested"] == str(true[i])
  # Ten deviations apart nothing is ambiguous: all that is flipped is ranked
  # before all that is not, and how many are flipped is estimated from 50 of
  # each class: give or take 2.4 standard deviations of that share.
  ranked = [int(row["index"]) for row in rows]
  assert set(ranked[: wrong.sum()]) == set(np.flatnonzero(wrong))
  assert abs(found.sum() - wrong.sum()) <= 0.06 * len(given)
  assert found.sum() == finding.figures["suspects"]
  assert found[ranked[: found.sum()]].all()
  assert finding.verdict == "warn"
  noise = np.zeros((C, C))
  np.add.at(noise, (true, given), 1)
  noise /= noise.sum(1, keepdims=True)
  np.testing.assert_allclose(finding.figures["noise_matrix"], noise, atol=0.1)
  # Again, the same bytes.
  kept = {path.name: path.read_bytes() for path in out.iterdir()}
  label_errors.label_errors(**settings)
  assert kept == {path.name: path.read_bytes() for path in out.iterdir()}
  assert set(kept) == {"clean.json", "label_errors.csv", "probabilities.npy"}
  trains_on(f"subset:{out / 'clean.json'}", tmp_path, np.flatnonzero(~found))


def trains_on(uri, tmp_path, believed):
  """A run on the cleaned split sees the believed examples, and no other."""
  config = label_models.vector_config("linear")
  config |= dict(batch_size=16, total_steps=40, log_examples=True)
  config["data"] = dict(source=uri, split="all")
  config["evals"] = {}
  run = build.run(config, str(tmp_path / "run"), say=silent)
  list(loop.fit(run))
  source = open_source(uri, "all")
  assert source.length == len(believed)
  original = np.load(tmp_path / "data" / "x.npy")
  read = source.read(np.arange(source.length))["x"]
  np.testing.assert_array_equal(read, original[believed])
  batch = next(run.batches(0))
  x, index = np.asarray(batch["x"]), np.asarray(batch["index"])
  np.testing.assert_array_equal(x, original[believed][index])


def read_rows(out):
  with open(out / "label_errors.csv", encoding="utf-8", newline="") as file:
    return list(csv.DictReader(file))


@pytest.mark.slow
def test_texts_in_two_languages_with_labels_that_are_names(tmp_path):
  words = {
    "positiv": ["lovely clean room", "great staff", "房间很干净", "服务很好"],
    "negativ": ["dirty noisy room", "rude staff", "房间很脏", "服务太差"],
  }
  rng = np.random.default_rng(0)
  lines, true = [], []
  for i in range(160):
    kind = sorted(words)[i % 2]
    true.append(kind)
    text = " ".join(rng.choice(words[kind], 3))
    lines.append({"text": f"{text} {i}", "mood": kind})
  flipped = set(rng.choice(160, 12, replace=False).tolist())
  for i in flipped:
    lines[i]["mood"] = "positiv" if true[i] == "negativ" else "negativ"
  path = tmp_path / "reviews.jsonl"
  path.write_text("".join(json.dumps(line) + "\n" for line in lines))
  (finding,) = label_errors.label_errors(
    uri=f"jsonl:{path}",
    split="all",
    label="mood",
    output=str(tmp_path / "out"),
    folds=3,
    say=silent,
  )
  rows = [r for r in read_rows(tmp_path / "out") if r["wrong"] == "1"]
  found = {int(row["index"]) for row in rows}
  assert len(found & flipped) >= 11
  assert len(found - flipped) <= 1
  by_place = {int(row["index"]): row["suggested"] for row in rows}
  assert all(by_place[i] == true[i] for i in found & flipped)
  assert finding.figures["classes"] == ["negativ", "positiv"]
  shown = finding.parts[-1].items
  assert f"{path}:{min(found) + 1}" in "".join(shown)
  assert "given positiv\nsuggested negativ" in "".join(shown)


@pytest.mark.slow
def test_a_table_of_numbers_categories_and_gaps(tmp_path):
  rng = np.random.default_rng(0)
  rows, true = [], []
  for i in range(160):
    rich = i % 2
    true.append(rich)
    job = rng.choice(["chef", "judge"] if rich else ["clerk", "maid"])
    age = float(rng.normal(60 if rich else 20, 5)) if i % 7 else "?"
    rows.append({"job": str(job), "age": age, "class": rich})
  flipped = set(rng.choice(160, 12, replace=False).tolist())
  for i in flipped:
    rows[i]["class"] = 1 - true[i]
  path = tmp_path / "table.jsonl"
  path.write_text("".join(json.dumps(row) + "\n" for row in rows))
  label_errors.label_errors(
    uri=f"jsonl:{path}",
    split="all",
    label="class",
    output=str(tmp_path / "out"),
    folds=3,
    model="linear",
    say=silent,
  )
  found = {
    int(r["index"]) for r in read_rows(tmp_path / "out") if r["wrong"] == "1"
  }
  assert len(found & flipped) >= 11
  assert len(found - flipped) <= 1


@pytest.mark.slow
def test_images_are_judged_and_shown(tmp_path):
  uri = "fake:image?n=96&size=8&channels=1&classes=2"
  true = open_source(uri, "all").read(np.arange(96))["label"]
  given = true.copy()
  flipped = np.array([3, 20, 41, 66, 90])
  given[flipped] = 1 - given[flipped]
  path = tmp_path / "noisy.json"
  parts = {"train": subset.Part("all", np.arange(96), given)}
  subset.write(str(path), uri, parts)
  (finding,) = label_errors.label_errors(
    uri=f"subset:{path}",
    split="all",
    label="label",
    output=str(tmp_path / "out"),
    folds=2,
    say=silent,
  )
  rows = [r for r in read_rows(tmp_path / "out") if r["wrong"] == "1"]
  found = {int(row["index"]) for row in rows}
  assert found <= set(flipped.tolist()) and len(found) >= 4
  assert finding.parts[-1].picture.startswith(b"\x89PNG")
  # The cleaned split of a subset is a subset of it, labels and all.
  clean = open_source(f"subset:{tmp_path / 'out' / 'clean.json'}", "all")
  assert clean.length == 96 - len(found) and clean.num_classes == 2
  labels = clean.read(np.arange(clean.length))["label"]
  np.testing.assert_array_equal(labels, np.delete(given, sorted(found)))


def png(image):
  """The bytes of a PNG of uint8 [h, w, 3]."""

  def chunk(kind, data):
    check = zlib.crc32(kind + data).to_bytes(4, "big")
    return len(data).to_bytes(4, "big") + kind + data + check

  height, width, _ = image.shape
  lines = b"".join(b"\0" + row.tobytes() for row in image)
  size = width.to_bytes(4, "big") + height.to_bytes(4, "big")
  return (
    b"\x89PNG\r\n\x1a\n"
    + chunk(b"IHDR", size + bytes([8, 2, 0, 0, 0]))
    + chunk(b"IDAT", zlib.compress(lines))
    + chunk(b"IEND", b"")
  )


@pytest.mark.slow
def test_pictures_in_folders_one_of_them_broken(tmp_path):
  # Stripes lie down in one class and stand in the other.
  rng = np.random.default_rng(0)
  flipped, broken = {4, 31, 62}, 17
  for i in range(100):
    image = rng.integers(0, 60, (16, 16, 3))
    stripes = np.arange(16) // 2 % 2 * 150
    image += stripes[:, None, None] if i % 2 else stripes[:, None]
    kind = ["standing", "lying"][(i % 2) ^ (i in flipped)]
    path = tmp_path / "data" / kind / f"{i}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    data = png(image.astype(np.uint8))
    path.write_bytes(data[:40] if i == broken else data)
  uri, out = f"folder:{tmp_path / 'data'}", tmp_path / "out"
  (finding,) = label_errors.label_errors(
    uri=uri,
    split="all",
    label="label",
    output=str(out),
    folds=2,
    image_size=16,
    say=silent,
  )
  assert finding.figures["left_out"] == 1
  found = {
    int(row["name"].rpartition("/")[2].removesuffix(".png"))
    for row in read_rows(out)
    if row["wrong"] == "1"
  }
  assert found == flipped
  assert finding.parts[-1].picture.startswith(b"\x89PNG")
  clean = open_source(f"subset:{out / 'clean.json'}", "all")
  names = [clean.name(i).rpartition("/")[2] for i in range(clean.length)]
  gone = {f"{i}.png" for i in flipped | {broken}}
  assert len(names) == 96 and not gone & set(names)


def test_an_image_and_its_mirror_image_have_the_same_features(tmp_path):
  images = np.random.default_rng(0).integers(0, 256, (6, 9, 11, 3), np.uint8)
  images = np.concatenate([images, images[:, :, ::-1]])
  np.save(tmp_path / "image.npy", images)
  known = patches.write_patches(
    source=f"npy:{tmp_path}",
    split="all",
    indices=np.arange(12),
    ops="decode(3)",
    filters=8,
    folder=str(tmp_path / "features"),
  )
  x = np.load(tmp_path / "features" / "x.npy").astype(np.float64)
  assert known.all() and x.shape == (12, 32)
  np.testing.assert_allclose(x[:6], x[6:], atol=5e-3)
  assert abs(x[0] - x[1]).max() > 0.5
  np.testing.assert_allclose(x.mean(0), 0, atol=1e-2)
  np.testing.assert_allclose(x.std(0), 1, atol=2e-2)


def test_noise_is_told_from_the_mistakes_of_a_weak_model():
  # Seven of ten opinions of a classifier are right, and it knows how sure it
  # is; then a tenth of the labels of class 0 become 1, and a fifth of 1 are 2.
  rng = np.random.default_rng(0)
  n, classes = 20_000, 4
  clean = rng.dirichlet(np.full(classes, 0.35), n)
  true = (rng.random((n, 1)) > clean.cumsum(1)).sum(1)
  noise = np.eye(classes)
  noise[0, :2], noise[1, 1:3] = (0.9, 0.1), (0.8, 0.2)
  given = (rng.random((n, 1)) > noise[true].cumsum(1)).sum(1)
  p = clean @ noise  # what a model learns of the given labels, at its best
  assert 0.6 < (p.argmax(1) == true).mean() < 0.8
  found = label_noise.find_errors(given, p)
  wrong = given != true
  # It is read off where the model is most sure of a class, in some 750 places:
  # as many of them are of another class as are taken for noise.
  impure = 1 - np.sort(clean, axis=0)[-800:].mean(0).min()
  assert impure < 0.1
  np.testing.assert_allclose(found.noise, noise, atol=impure + 0.03)
  assert 0 < found.share() - wrong.mean() < impure
  counts = cleanlab.count.compute_confident_joint(given, p)
  joint = cleanlab.count.estimate_joint(given, p, confident_joint=counts)
  assert 1 - np.trace(joint) > 3 * wrong.mean()
  # Bayes' own posterior, from what nobody knows, is the best there is to rank
  # by; the model's probability of the label, cleanlab's default, is worse.
  rows = np.arange(n)
  best = (noise[:, given].T * clean)[rows, given] / p[rows, given]
  most, ours, theirs = (
    wrong[np.argsort(quality)[: wrong.sum()]].mean()
    for quality in (best, found.quality, p[rows, given])
  )
  assert theirs + 0.05 < ours <= most
  assert found.wrong.sum() <= round(found.share() * n)


def test_find_errors_knows_cleanlabs_suspects_and_absent_classes():
  rng = np.random.default_rng(0)
  given = rng.choice([0, 2, 3], 300)
  p = rng.dirichlet([1] * 5, 300) + 0.4 * np.eye(5)[given]
  p /= p.sum(1, keepdims=True)
  found = label_noise.find_errors(given, p)
  inside = p[:, [0, 2, 3]] / p[:, [0, 2, 3]].sum(1, keepdims=True)
  dense = np.searchsorted([0, 2, 3], given)
  np.testing.assert_array_equal(
    found.confident,
    cleanlab.filter.find_label_issues(dense, inside, n_jobs=1),
  )
  assert found.joint.sum() == pytest.approx(1)
  assert found.joint[[1, 4]].sum() == 0
  # The joint's rows are the shares of the given labels.
  shares = np.bincount(given, minlength=5) / 300
  np.testing.assert_allclose(found.joint.sum(1), shares, atol=1e-9)
  np.testing.assert_allclose(found.noise.sum(1), 1, atol=1e-9)
  assert set(found.suggested) <= {0, 2, 3}
  assert (found.suggested != given).all()


def test_a_subset_reads_the_chosen_examples_under_their_new_labels(tmp_path):
  uri, given, _ = blobs(tmp_path / "data", n=40)
  whole = open_source(uri, "all")
  path = str(tmp_path / "some.json")
  chosen, labels = np.array([30, 2, 2, 7]), np.array([0, 3, 1, 2])
  parts = {
    "train": subset.Part("all", chosen, labels),
    "test": subset.Part("test"),
  }
  names = ("a", "b", "c", "d")
  subset.write(path, uri, parts, names)
  found = open_source(f"subset:{path}", "train")
  assert (found.length, found.num_classes, found.class_names) == (4, 4, names)
  rows, wanted = found.read(np.array([3, 0])), whole.read(np.array([7, 30]))
  np.testing.assert_array_equal(rows["x"], wanted["x"])
  assert rows["label"].tolist() == [2, 0]
  assert found.name(1) == whole.name(2)
  test = open_source(f"subset:{path}", "test")
  want = open_source(uri, "test").read(np.arange(4))
  np.testing.assert_array_equal(test.read(np.arange(4))["x"], want["x"])
  np.testing.assert_array_equal(test.read(np.arange(4))["label"], want["label"])
  # A subset of a subset counts within it.
  again = str(tmp_path / "again.json")
  inner = {"train": subset.Part("train", np.array([3, 0]))}
  subset.write(again, f"subset:{path}", inner)
  nested = open_source(f"subset:{again}", "all").read(np.arange(2))
  np.testing.assert_array_equal(nested["x"], wanted["x"])
  assert nested["label"].tolist() == [2, 0]
  changed = open_source(f"subset:{path}", "train").fingerprint
  subset.write(path, uri, parts, ("e", "f", "g", "h"))
  assert open_source(f"subset:{path}", "train").fingerprint != changed


def spelled(**given):
  part = {"split": "all", "indices": [0, 1], "labels": [0, 1]}
  part |= given.pop("part", {})
  return {"source": "fake:image?n=9", "splits": {"train": part}, **given}


@pytest.mark.parametrize(
  "content, told",
  [
    (b"\xff\x00", "not JSON"),
    (b"[" * 100_000, "nested too deeply"),
    (b"[]", "not a JSON object"),
    (b"{}", "'source' is missing"),
    (spelled(source=3), "source is not a URI"),
    (spelled(source="fake:imag"), "unknown kind 'imag'"),
    (spelled(splits=[]), "splits is not an object"),
    (spelled(splits={"train": 3}), "split 'train': not a JSON object"),
    (spelled(extra=1), "unknown 'extra'; valid: source, splits, classes"),
    (spelled(part={"indexes": []}), "unknown 'indexes'"),
    (spelled(part={"indices": [0, -1]}), "'-1' in indices"),
    (spelled(part={"indices": [0, 1.5]}), "'1.5' in indices"),
    (spelled(part={"indices": [0, True]}), "'True' in indices"),
    (spelled(part={"indices": [0, 9]}), "index 9, but"),
    (spelled(part={"indices": [0, 2**70]}), "in indices is not"),
    (spelled(part={"indices": "01"}), "indices is not a list"),
    (spelled(part={"labels": [0]}), "1 labels for 2 examples"),
    (spelled(part={"labels": [0, 2**31]}), "in labels is not"),
    (spelled(part={"split": "tarin"}), "unknown split 'tarin'"),
    (spelled(part={"split": None}), "split is not a string"),
    (spelled(classes=["a"]), "label 1, but there are 1 classes"),
    (spelled(classes=[1]), "classes is not a list of names"),
    (spelled(part={"indices": [], "labels": []}), "holds 0 of 0 records"),
  ],
)
def test_a_hostile_subset_ends_in_one_line(tmp_path, content, told):
  path = tmp_path / "subset.json"
  if not isinstance(content, bytes):
    content = json.dumps(content).encode()
  path.write_bytes(content)
  with pytest.raises(ValueError) as error:
    open_source(f"subset:{path}", "all")
  assert told in str(error.value)
  assert str(path) in str(error.value)
  assert "\n" not in str(error.value)


def test_a_subset_of_itself_and_one_that_is_gone(tmp_path):
  a, b = tmp_path / "a.json", tmp_path / "b.json"
  a.write_text(json.dumps(spelled(source=f"subset:{b}")))
  b.write_text(
    json.dumps(spelled(source=f"subset:{tmp_path}/../{tmp_path.name}/a.json"))
  )
  with pytest.raises(ValueError, match="a subset of itself"):
    open_source(f"subset:{a}", "all")
  b.unlink()
  with pytest.raises(ValueError, match="b.json: No such file"):
    open_source(f"subset:{a}", "all")


def test_arrays_that_are_none_end_in_one_line(tmp_path):
  with pytest.raises(ValueError, match="holds no .npy file"):
    open_source(f"npy:{tmp_path}")
  x = tmp_path / "x.npy"
  np.save(x, np.zeros((8, 2)))
  np.save(tmp_path / "label.npy", np.arange(7))
  with pytest.raises(ValueError, match=r"x.npy: 8 examples, but .* has 7"):
    open_source(f"npy:{tmp_path}")
  (tmp_path / "label.npy").unlink()
  x.write_bytes(x.read_bytes()[:-8])
  with pytest.raises(ValueError, match=r"x.npy: not an array of numbers"):
    open_source(f"npy:{tmp_path}")
  np.save(x, np.array([{"a": 1}, None]), allow_pickle=True)
  with pytest.raises(ValueError, match=r"x.npy: not an array of numbers"):
    open_source(f"npy:{tmp_path}")
  np.save(x, np.array(["a", "b"]))
  with pytest.raises(ValueError, match=r"x.npy: holds <U1, not numbers"):
    open_source(f"npy:{tmp_path}")


def test_labels_that_are_none_end_in_one_line(tmp_path):
  path = tmp_path / "rows.jsonl"
  rows = [{"x": i, "kind": str(i), "y": 1, "z": 0.5} for i in range(9)]
  path.write_text("".join(json.dumps(row) + "\n" for row in rows))
  uri = f"jsonl:{path}"
  source = open_source(uri, "all")

  def told(label):
    with pytest.raises(ValueError) as error:
      label_errors.read_labels(source, label, uri)
    return str(error.value)

  assert "no field 'k'; there are: kind, x, y, z" in told("k")
  assert "'y' has 1 values in 9 examples" in told("y")
  assert "'z' is float64" in told("z")
  rows[4]["kind"] = None
  path.write_text("".join(json.dumps(row) + "\n" for row in rows))
  source = open_source(uri, "all")
  assert told("kind") == f"{path}:5: kind=None is not a label"
