import subprocess
import sys

import numpy as np
import pytest
from specs import shapes

from input_pipeline.batching import pipeline

_IMAGES = "fake:image?n=100&size=8&channels=3&dtype=uint8"
_OPS = "random_crop(8, pad=2)|flip|noise(5)|scale(-1, 1)"


def take(data, first_step, count):
  batches = data.batches(first_step)
  return [next(batches) for _ in range(count)]


def assert_same(first, second):
  assert len(first) == len(second)
  for a, b in zip(first, second, strict=True):
    assert a.keys() == b.keys()
    for name in a:
      np.testing.assert_array_equal(a[name], b[name])


def assert_spec(data, batch, rows):
  assert set(batch) == set(data.spec)
  for name, (shape, dtype) in shapes(data.spec).items():
    assert batch[name].shape == (rows, *shape), name
    assert batch[name].dtype == dtype, name


def joined(batches):
  return {k: np.concatenate([b[k] for b in batches]) for k in batches[0]}


@pytest.fixture
def text(tmp_path):
  path = tmp_path / "text.txt"
  path.write_text("".join(chr(0xE0 + i % 23) + "ab"[i % 2] for i in range(503)))
  return f"text:{path}"


def settings(kind):
  if kind == "windows":
    source = "fake:text?documents=8&length=200"
    return dict(source=source, tokenizer="byte", seq_len=16)
  if kind == "ops":
    pytest.importorskip("tensorflow")
    return dict(source=_IMAGES, ops=_OPS)
  return dict(source="fake:linear?n=50")


_KINDS = ["plain", "windows", "ops"]


@pytest.mark.parametrize("kind", _KINDS)
def test_a_batch_is_a_function_of_its_step(kind):
  data = pipeline.train(**settings(kind), batch_size=12, seed=3)
  whole = take(data, 0, 12)
  for batch in whole:
    assert_spec(data, batch, 12)
  assert_same(take(data, 7, 5), whole[7:])
  again = pipeline.train(**settings(kind), batch_size=12, seed=3)
  assert_same(take(again, 0, 3), whole[:3])
  other = pipeline.train(**settings(kind), batch_size=12, seed=4)
  assert (
    joined(take(other, 0, 3))["index"] != joined(whole[:3])["index"]
  ).any()


@pytest.mark.parametrize("kind", _KINDS)
@pytest.mark.parametrize("hosts", [2, 4])
def test_hosts_share_the_global_batch(kind, hosts):
  whole = take(pipeline.train(**settings(kind), batch_size=12), 5, 4)
  parts = [
    take(
      pipeline.train(
        **settings(kind), batch_size=12, host_index=h, host_count=hosts
      ),
      5,
      4,
    )
    for h in range(hosts)
  ]
  assert_same([joined(step) for step in zip(*parts, strict=True)], whole)


@pytest.mark.parametrize("kind", _KINDS)
def test_each_example_once_an_epoch(kind):
  data = pipeline.train(**settings(kind), batch_size=1)
  n = data.num_examples
  first, second = (joined(take(data, start, n))["index"] for start in (0, n))
  np.testing.assert_array_equal(np.sort(first), np.arange(n))
  np.testing.assert_array_equal(np.sort(second), np.arange(n))
  assert (first != second).any()


def test_ops_see_another_draw_each_epoch():
  data = pipeline.train(**settings("ops"), batch_size=90, shuffle=False)
  first, second = take(data, 0, 2)
  np.testing.assert_array_equal(first["index"], second["index"])
  assert (first["image"] != second["image"]).any(axis=(1, 2, 3)).all()


@pytest.mark.parametrize("kind", _KINDS)
@pytest.mark.parametrize("hosts", [1, 2, 4])
def test_evaluation_loses_and_repeats_nothing(kind, hosts):
  kwargs = dict(**settings(kind), split="train", batch_size=8)
  parts = []
  for host in range(hosts):
    data = pipeline.evaluation(**kwargs, host_index=host, host_count=hosts)
    parts.append(list(data.batches(0)))
    for batch in parts[-1]:
      assert_spec(data, batch, 8 // hosts)
  assert len({len(part) for part in parts}) == 1
  batches = [joined(step) for step in zip(*parts, strict=True)]
  whole = joined(batches)
  n = data.num_examples
  assert len(batches) == -(-n // 8)
  np.testing.assert_array_equal(whole["index"][:n], np.arange(n))
  assert (whole["index"][n:] == -1).all()
  for name, leaf in whole.items():
    if name != "index":
      assert (leaf[n:] == 0).all(), name
  if kind != "windows":
    np.testing.assert_array_equal(
      whole["mask"], np.arange(len(whole["mask"])) < n
    )
  # A second pass is the same pass.
  assert_same(list(data.batches(0)), parts[-1])


def test_evaluation_of_a_split_smaller_than_one_hosts_rows():
  pytest.importorskip("tensorflow")
  for host, real in ((0, 2), (1, 1), (2, 0)):
    data = pipeline.evaluation(
      source="fake:image?n=30&size=4&dtype=uint8",
      ops="scale",
      batch_size=6,
      host_index=host,
      host_count=3,
    )
    (batch,) = data.batches(0)
    assert_spec(data, batch, 2)
    assert batch["mask"].sum() == real


@pytest.mark.parametrize("tokenizer", ["byte", "char"])
@pytest.mark.parametrize("seq_len", [7, 16])
def test_evaluation_predicts_each_token_but_the_first_once(
  text, tokenizer, seq_len
):
  data = pipeline.evaluation(
    source=text,
    split="all",
    tokenizer=tokenizer,
    seq_len=seq_len,
    batch_size=4,
  )
  whole = joined(list(data.batches(0)))
  with open(text.removeprefix("text:"), encoding="utf-8") as file:
    document = file.read()
  ids = data.tokenizer.encode(document)
  real = whole["mask"] > 0
  np.testing.assert_array_equal(whole["targets"][real], ids[1:])
  np.testing.assert_array_equal(whole["inputs"][real], ids[:-1])
  first = data.tokenizer.decode(ids[:1]) if tokenizer == "char" else "x"
  assert whole["bytes"].sum() == len(document.encode()) - len(first.encode())


def test_training_windows_are_whole_and_apart(text):
  data = pipeline.train(
    source=text,
    split="all",
    tokenizer="byte",
    seq_len=16,
    batch_size=1,
    shuffle=False,
  )
  with open(text.removeprefix("text:"), "rb") as file:
    ids = np.frombuffer(file.read(), np.uint8)
  n = (len(ids) - 1) // 16
  assert data.num_examples == n
  whole = joined(take(data, 0, n))
  np.testing.assert_array_equal(whole["inputs"].ravel(), ids[: n * 16])
  np.testing.assert_array_equal(whole["targets"].ravel(), ids[1 : n * 16 + 1])
  assert whole["mask"].min() == 1
  np.testing.assert_array_equal(whole["bytes"], np.full(n, 16))


@pytest.mark.parametrize("ops", ["", "noise(1)|scale"])
def test_all_is_the_whole_split_padded(ops):
  if ops:
    pytest.importorskip("tensorflow")
  parts = []
  for host in range(2):
    data = pipeline.train(
      source="fake:image?n=11&size=4&dtype=uint8",
      split="all",
      ops=ops,
      batch_size="all",
      multiple_of=8,
      host_index=host,
      host_count=2,
    )
    assert data.batch_size == 16
    parts.append(take(data, 3, 2))
  for step in zip(*parts, strict=True):
    batch = joined(step)
    np.testing.assert_array_equal(batch["index"][:11], np.arange(11))
    np.testing.assert_array_equal(batch["mask"], np.arange(16) < 11)


def test_without_ops_the_examples_are_the_sources():
  data = pipeline.train(
    source="fake:linear?n=50&slope=3", split="all", batch_size=10
  )
  for batch in take(data, 0, 3):
    np.testing.assert_allclose(batch["y"], 3 * batch["x"], rtol=1e-6)


@pytest.mark.parametrize(
  "arguments",
  [
    "source='fake:image'",
    "source='fake:linear'",
    "source='fake:text', tokenizer='byte', seq_len=16",
  ],
)
def test_without_ops_tensorflow_is_not_imported(arguments):
  script = (
    "import sys\n"
    "from input_pipeline.batching import pipeline\n"
    f"data = pipeline.train({arguments}, batch_size=4)\n"
    "next(data.batches(2))\n"
    f"data = pipeline.evaluation({arguments}, batch_size=4)\n"
    "list(data.batches(0))\n"
    "heavy = {'tensorflow', 'tensorflow_datasets', 'jax', 'sentencepiece'}\n"
    "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
  )
  done = subprocess.run([sys.executable, "-c", script], capture_output=True)
  assert done.returncode == 0, done.stderr.decode()


def test_an_image_that_does_not_decode_is_named(tmp_path):
  tf = pytest.importorskip("tensorflow")
  for i in range(20):
    path = tmp_path / "cat" / f"{i:02}.png"
    path.parent.mkdir(exist_ok=True)
    image = np.full((6, 6, 3), i, np.uint8)
    path.write_bytes(tf.io.encode_png(image).numpy())
  kwargs = dict(source=f"folder:{tmp_path}", split="all", batch_size=4)
  path.write_bytes(path.read_bytes()[:-20])
  data = pipeline.train(**kwargs, ops="decode|resize(4)|scale")
  with pytest.raises(ValueError, match=r"/cat/19\.png: \w+") as error:
    take(data, 0, 5)
  assert "\n" not in str(error.value)
  path.write_bytes(b"not an image")
  with pytest.raises(ValueError, match=r"/cat/19\.png: .*image"):
    list(pipeline.evaluation(**kwargs, ops="decode|resize(4)").batches(0))
  data = pipeline.evaluation(**kwargs, ops="decode|resize(4)")
  path.unlink()
  with pytest.raises(ValueError, match=r"/cat/19\.png: No such file"):
    list(data.batches(0))
  path.write_bytes(b"not an image")
  with pytest.raises(ValueError, match="add the op 'decode'"):
    pipeline.train(**kwargs)
  with pytest.raises(ValueError, match="add the op 'decode'"):
    pipeline.train(**kwargs, ops="keep('image', 'label')")
  with pytest.raises(ValueError, match=r"the op resize\(…\) gives images"):
    pipeline.train(**kwargs, ops="decode|flip")


def test_label_of_ops_is_int32(tmp_path):
  pytest.importorskip("tensorflow")
  path = tmp_path / "a.jsonl"
  path.write_text(
    "\n".join(f'{{"label": {i}, "v": {i}.5, "s": "x"}}' for i in range(9))
  )
  for ops in ("", "keep('label', 'v', 's')"):
    data = pipeline.train(
      source=f"jsonl:{path}", split="all", ops=ops, batch_size=3
    )
    (batch,) = take(data, 0, 1)
    assert_spec(data, batch, 3)
    assert batch["label"].dtype == np.int32
    assert batch["v"].dtype == np.float32
    assert "s" not in batch


@pytest.mark.parametrize(
  ("arguments", "named"),
  [
    (dict(source="fake:text", batch_size=4), "set a tokenizer or ops"),
    (dict(source="fake:linear", batch_size=0), "batch_size 0"),
    (
      dict(source="fake:linear", batch_size=6, host_count=4),
      "batch_size 6 .* 4 hosts",
    ),
    (
      dict(source="fake:text", batch_size=4, tokenizer="byte"),
      "seq_len None",
    ),
    (
      dict(
        source="fake:text?documents=1&length=100",
        batch_size=4,
        tokenizer="byte",
        seq_len=200,
      ),
      "has 90 tokens; seq_len 200 needs 201",
    ),
    (
      dict(source="fake:linear", batch_size=4, tokenizer="byte", seq_len=2),
      "has no field 'text'; valid: x, y",
    ),
  ],
)
def test_wrong_arguments_are_named(arguments, named):
  with pytest.raises(ValueError, match=named) as error:
    pipeline.train(**arguments)
  assert "\n" not in str(error.value)


@pytest.mark.shared_data
def test_tinyshakespeare_splits_as_nanogpt_does(shared_data):
  uri = f"text:{shared_data}/lm_tinyshakespeare/input.txt"
  folder = shared_data / "lm_tinyshakespeare"
  for split, name in (("train", "train.txt"), ("validation", "val.txt")):
    data = pipeline.evaluation(
      source=uri, split=split, tokenizer="char", seq_len=256, batch_size=64
    )
    assert data.tokenizer.vocab_size == 65
    whole = joined(list(data.batches(0)))
    targets = whole["targets"][whole["mask"] > 0]
    expected = (folder / name).read_text(encoding="utf-8")
    assert data.tokenizer.decode(targets) == expected[1:]


@pytest.mark.shared_data
def test_fashion_mnist_has_ten_even_classes(shared_data):
  uri = f"idx:{shared_data}/img_fashion_mnist"
  data = pipeline.evaluation(source=uri, split="test", batch_size=1000)
  whole = joined(list(data.batches(0)))
  assert whole["image"].shape == (10_000, 28, 28, 1)
  np.testing.assert_array_equal(np.bincount(whole["label"]), [1000] * 10)
