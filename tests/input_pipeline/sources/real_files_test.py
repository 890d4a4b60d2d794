"""Files and folders as people have them."""

import io
import json

import numpy as np
import pytest

from input_pipeline.bad_records import Policy
from input_pipeline.batching import pipeline
from input_pipeline.quality import dataset, media
from input_pipeline.quality.checks.broken import broken
from input_pipeline.quality.finding import Settings
from input_pipeline.reading import encoding_guess, pictures
from input_pipeline.reading import open as reading
from input_pipeline.reading.image_size import image_size
from input_pipeline.sources import open_source

Image = pytest.importorskip("PIL.Image")


def encoded(kind="PNG", orientation=0, image=None) -> bytes:
  exif = Image.Exif()
  if orientation:
    exif[0x0112] = orientation
  image = Image.new("RGB", (8, 6), (200, 9, 9)) if image is None else image
  content = io.BytesIO()
  image.save(content, kind, exif=exif)
  return content.getvalue()


def write(root, **files) -> str:
  """Makes PNGs: write(root, cat=3) has three in the folder cat."""
  for name, count in files.items():
    for i in range(count):
      path = root / name.replace("__", "/") / f"{i}.png"
      path.parent.mkdir(parents=True, exist_ok=True)
      path.write_bytes(encoded())
  return f"folder:{root}"


@pytest.mark.parametrize(
  ("files", "classes", "lengths"),
  [
    (dict(bus=2, car=2, train=2), 3, {"all": 6}),
    (dict(bus=2, car=2, train__steam=2), 3, {"all": 6}),
    (dict(train__a=2, val__a=1, test__b=1), 2, {"train": 2, "test": 1}),
    (dict(Training__a=2, Testing__a=1), 1, {"train": 2, "test": 1}),
    (dict(test__a=2, extra__b=1), 2, {"all": 3}),
  ],
)
def test_a_folder_is_a_split_among_splits_only(
  tmp_path, files, classes, lengths
):
  uri = write(tmp_path, **files)
  (tmp_path / "annotations").mkdir(exist_ok=True)
  (tmp_path / "annotations" / "boxes.json").write_text("{}")
  for split, length in lengths.items():
    source = open_source(uri, split)
    assert source.length == length
    named = [name for name in source.class_names if name != "annotations"]
    assert len(named) == classes


def test_what_is_not_read_is_counted_or_refused(tmp_path):
  uri = write(tmp_path, cat=150)
  (tmp_path / "README").write_text("cats")
  (tmp_path / "cat" / ".DS_Store").write_text("")
  (tmp_path / "cat" / "0.json").write_text("{}")
  assert open_source(uri, "all").note == ""
  (tmp_path / "cat" / "0.heic").write_text("")
  source = open_source(uri, "all")
  assert source.note == f"{uri}: 1 of 151 files are not read: 1 .heic"
  (tmp_path / "1.PSD").write_text("")
  with pytest.raises(ValueError, match=r"2 of 152 .* 1 \.psd outside of the"):
    open_source(uri, "all")
  source = open_source(uri, "all", Policy(max_bad_share=0.5))
  assert source.length == 150 and len(source.unread) == 2
  judged = broken(dataset.open_dataset(uri, label="label", most=2), Settings())
  assert judged[0].verdict == "fail"
  assert "2 of 152 files are not read: 1 .heic, 1 .psd" in judged[0].line


@pytest.mark.parametrize("kind", ["webp", "tif", "AVIF", "bmp", "gif", "JPEG"])
def test_formats_of_images(tmp_path, kind):
  name = {"tif": "TIFF"}.get(kind, kind.upper())
  if name not in pictures.formats():
    pytest.skip(f"this Pillow has no {name}")
  (tmp_path / "a").mkdir()
  (tmp_path / "a" / f"0.{kind}").write_bytes(encoded(name))
  found = open_source(f"folder:{tmp_path}", "all").read(np.arange(1))
  assert image_size(found["image"][0])[:2] == (8, 6)
  image = pictures.decode(found["image"][0])
  assert image.shape == (6, 8, 3)
  assert np.abs(image.astype(int) - [200, 9, 9]).max() < 9


def test_images_are_upright():
  """In the op, the size and the judge, as Pillow turns them."""
  tf = pytest.importorskip("tensorflow")
  from PIL import ImageOps

  from input_pipeline import ops

  decode = ops.compile("decode")
  x = np.zeros((24, 32, 3), np.uint8)
  x[:8, :16], x[16:, :8, 1] = 250, 120
  cases = [("JPEG", o) for o in range(9)]
  cases += [(kind, 6) for kind in ("PNG", "WEBP", "TIFF")]
  for kind, orientation in cases:
    data = encoded(kind, orientation, Image.fromarray(x))
    want = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    want = np.asarray(want.convert("RGB")).astype(int)
    seed = tf.constant([0, 0], tf.int64)
    image = decode({"image": tf.constant(data)}, seed)["image"].numpy()
    judged = media.decode_image(data, "x", Policy())
    for found in (image, judged):
      assert found.shape == want.shape, (kind, orientation)
      assert np.abs(found - want).mean() < 2, (kind, orientation)
    assert image_size(data)[:2] == want.shape[1::-1], (kind, orientation)


def table(tmp_path, kind, columns) -> str:
  path = tmp_path / f"a.{kind}"
  rows = list(zip(*columns.values(), strict=True))
  if kind == "csv":
    lines = [",".join("" if v is None else str(v) for v in row) for row in rows]
    path.write_text("\n".join([",".join(columns), *lines]))
  elif kind == "jsonl":
    dicts = [dict(zip(columns, row, strict=True)) for row in rows]
    path.write_text("\n".join(map(json.dumps, dicts)))
  elif kind == "npy":
    for name, values in columns.items():
      np.save(tmp_path / f"{name}.npy", np.array(values))
    return f"npy:{tmp_path}"
  else:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pa.table(columns), path)
  return f"{kind}:{path}"


@pytest.mark.parametrize("ops", ["", "keep('x')"])
@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet", "npy"])
@pytest.mark.parametrize("big", [3_000_000_000, 1e39])
def test_a_value_that_a_batch_cannot_hold(tmp_path, kind, ops, big):
  x = [big if i == 5 else type(big)(i) for i in range(12)]
  uri = table(tmp_path, kind, {"x": x, "z": [2**40] * 12 if ops else x})
  said = "'x' (holds 3000000000, which int32|is not finite in float32)"
  given = dict(source=uri, split="all", batch_size=6, ops=ops)
  with pytest.raises(ValueError, match=said) as error:
    next(pipeline.evaluation(**given).batches(0))
  at = {"csv": ":7", "jsonl": ":6", "parquet": ":5", "npy": " example 5"}
  assert at[kind] in str(error.value) and "\n" not in str(error.value)
  data = pipeline.evaluation(**given, on_bad_record="skip")
  found = np.concatenate([batch["x"] for batch in data.batches(0)])
  np.testing.assert_array_equal(found, [0 if v == big else v for v in x])
  assert data.skipped().count == 1


@pytest.mark.parametrize("bad", [0, 5])
@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_a_missing_value_is_a_bad_record(tmp_path, kind, bad):
  labels = [None if i == bad else i % 2 for i in range(12)]
  x = [float(i) for i in range(12)]
  uri = table(tmp_path, kind, {"x": x, "label": labels, "other": labels})
  given = dict(source=uri, split="all", batch_size=6)
  with pytest.raises(ValueError, match=r"no field 'label' \(missing, null"):
    list(pipeline.evaluation(**given).batches(0))
  data = pipeline.evaluation(**given, on_bad_record="skip")
  found = list(data.batches(0))
  label = np.concatenate([batch["label"] for batch in found])
  assert label.dtype == np.int32
  np.testing.assert_array_equal(label, [v or 0 for v in labels])
  assert np.concatenate([b["mask"] for b in found]).sum() == 11


def test_fields_that_are_not_used_may_be_missing(tmp_path):
  lines = [
    {"text": f"line {i}"} | ({"n": i} if i % 3 else {}) for i in range(9)
  ]
  (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, lines)))
  data = pipeline.train(
    source=f"jsonl:{tmp_path}/a.jsonl",
    split="all",
    tokenizer="byte",
    seq_len=8,
    batch_size=2,
  )
  assert next(data.batches(0))["mask"].all()


@pytest.mark.parametrize("names", [None, ["no", "yes", "perhaps"]])
def test_images_and_classes_of_parquet(tmp_path, names):
  pa = pytest.importorskip("pyarrow")
  from pyarrow import parquet

  content = [encoded(), b""]
  cells = [{"bytes": each, "path": "a.png"} for each in content]
  found = pa.table({"image": cells, "raw": content, "label": [1, 0]})
  if names:
    label = {"names": names, "_type": "ClassLabel"}
    known = {"info": {"features": {"label": label}}}
    found = found.replace_schema_metadata({"huggingface": json.dumps(known)})
  parquet.write_table(found, tmp_path / "a.parquet")
  source = open_source(f"parquet:{tmp_path}/a.parquet", "all")
  rows = source.read(np.arange(2))
  assert list(rows["image"]) == list(rows["raw"]) == content
  assert source.num_classes == (3 if names else 2)
  assert source.class_names == (tuple(names) if names else None)


TEXTS = {
  "gb18030": "中文的文本，这是一个例子",
  "big5": "中文的文本，這是一個例子",
  "cp932": "これは日本語の文章です",
  "euc_jp": "これは日本語の文章です",
  "cp949": "이것은 한국어 문장입니다",
  "cp1251": "это русский текст",
  "koi8_r": "это русский текст",
  "cp1252": "un été le garçon a mangé – größer",
  "cp1250": "zażółć gęślą jaźń",
  "utf-16": "L'été",
}


@pytest.mark.parametrize("encoding", TEXTS)
def test_encodings_are_guessed_and_read(tmp_path, encoding):
  text = TEXTS[encoding]
  assert encoding_guess.guess(text.encode(encoding)) == encoding
  kinds = {
    "text": text,
    "csv": f"text,n\n{text},1\n",
    "jsonl": json.dumps({"text": text}, ensure_ascii=False),
    "conll": "\n".join(f"{word} O" for word in text.split()),
  }
  for kind, content in kinds.items():
    path = tmp_path / f"a.{kind}"
    path.write_bytes(content.encode(encoding))
    uri = f"{kind}:{path}?encoding={encoding}"
    if encoding == "utf-16" and kind != "text":
      with pytest.raises(ValueError, match="encoding=utf-16 has no random"):
        open_source(uri, "all")
      continue
    rows = open_source(uri, "all").read(np.arange(1))
    found = " ".join(rows["words"][0]) if kind == "conll" else rows["text"][0]
    assert found == text
    if kind != "conll":
      (document,) = reading.reader(uri, "text")(reading.files(uri)[0])
      assert document.text == text
  with pytest.raises(ValueError, match=f"it looks like {encoding}: add "):
    open_source(f"text:{tmp_path}/a.text", "all").read(np.arange(1))


@pytest.mark.parametrize(
  ("content", "note"),
  [
    ("39,State,yes\n50,Local,no\n", "its first row (39, …) was read"),
    ("a film,pos\nb,neg\nc,pos\nd,pos\n", "its first row (pos, …) was read"),
    ("age,label\n39,1\n", ""),
  ],
)
def test_a_table_without_a_header_is_noticed(tmp_path, content, note):
  path = tmp_path / "a.csv"
  path.write_text(content)
  source = open_source(f"csv:{path}", "all")
  assert (note in source.note) if note else not source.note
  lines = content.splitlines()
  source = open_source(f"csv:{path}?header=no", "all")
  assert source.length == len(lines) and not source.note
  assert str(source.read(np.arange(1))["column_1"][0]) == lines[0].split(",")[0]
  names = ["a", "b", "c"][: lines[0].count(",") + 1]
  source = open_source(f"csv:{path}?header={','.join(names)}", "all")
  assert list(source.read(np.arange(1))) == names
