"""Pictures with boxes (voc:) and with masks (masks:)."""

import io
import re

import numpy as np
import pytest

Image = pytest.importorskip("PIL.Image", reason="Pillow comes with matplotlib")

from input_pipeline.bad_records import Policy  # noqa: E402
from input_pipeline.quality import columns  # noqa: E402
from input_pipeline.reading import masks  # noqa: E402
from input_pipeline.reading.annotations import voc_xml  # noqa: E402
from input_pipeline.sources import open_source  # noqa: E402

SKIP = Policy(skip=True)


def png(array, mode=None, **more):
  file = io.BytesIO()
  Image.fromarray(array, mode).save(file, "PNG", **more)
  return file.getvalue()


def xml(*objects, size=(20, 10)):
  found = "".join(
    f"<object><name>{name}</name><difficult>{int(hard)}</difficult>"
    f"<part><name>hand</name><bndbox><xmin>1</xmin></bndbox></part>"
    f"<bndbox><xmin>{a}</xmin><ymin>{b}</ymin><xmax>{c}</xmax><ymax>{d}</ymax>"
    f"</bndbox></object>"
    for name, (a, b, c, d), hard in objects
  )
  w, h = size
  size = f"<size><width>{w}</width><height>{h}</height></size>"
  return f"<annotation>{size}{found}</annotation>".encode()


@pytest.fixture
def dataset(tmp_path):
  """Three pictures of 20 x 10; the second has no object."""
  for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
    (tmp_path / folder).mkdir(parents=True)
  files = {
    "a": xml(
      ("dog", (1, 1, 20, 10), False),
      ("cat", (3, 2, 25, 4.5), True),  # beyond the right side
      ("cat", (5, 5, 5, 5), False),  # a click
      ("dog", (21, 1, 30, 5), False),  # outside
    ),
    "b": xml(size=(0, 0)),
    "c": xml(("cat", (2, 3, 4, 6), False)),
  }
  for stem, content in files.items():
    (tmp_path / "Annotations" / f"{stem}.xml").write_bytes(content)
    picture = png(np.zeros((10, 20, 3), np.uint8))
    (tmp_path / "JPEGImages" / f"{stem}.png").write_bytes(picture)
  lists = tmp_path / "ImageSets" / "Main"
  (lists / "train.txt").write_text("c 1\na -1\n")
  (lists / "test.txt").write_text("b\n")
  (lists / "dog_train.txt").write_text("nothing here is read")
  return tmp_path


def boxes(source):
  rows = source.read(np.arange(source.length))
  return [
    {k: v[i].tolist() for k, v in rows.items() if k != "image"}
    for i in range(source.length)
  ]


def test_boxes_are_pixels_from_zero(dataset):
  found = open_source(f"voc:{dataset}", "train")
  assert found.class_names == ("cat", "dog") and found.num_classes == 2
  assert boxes(found) == [
    {"boxes": [[1, 2, 4, 6]], "classes": [0], "difficult": [0]},
    {
      "boxes": [[0, 0, 20, 10], [2, 1, 20, 4.5]],
      "classes": [1, 0],
      "difficult": [0, 1],
    },
  ]
  assert "3 boxes; 1 beyond their pictures clipped, 1 difficult" in found.note
  assert "2 without area left out" in found.note
  (empty,) = boxes(open_source(f"voc:{dataset}", "test"))
  assert empty == {"boxes": [], "classes": [], "difficult": []}
  rows = open_source(f"voc:{dataset}", "test").read(np.zeros(1, int))
  assert rows["boxes"][0].shape == (0, 4)
  assert open_source(f"voc:{dataset}", "all").length == 3


@pytest.mark.parametrize(
  ("settings", "left", "note"),
  [
    ("outside=drop", [[0, 0, 20, 10]], "2 beyond their pictures left out"),
    ("difficult=drop", [[0, 0, 20, 10]], "1 difficult left out"),
    ("classes=cat", [[2, 1, 20, 4.5]], "1 of other classes left out"),
  ],
)
def test_what_is_left_out_is_counted(dataset, settings, left, note):
  found = open_source(f"voc:{dataset}?{settings}", "train")
  assert boxes(found)[1]["boxes"] == left
  assert note in found.note


BOMB = b'<!DOCTYPE a [<!ENTITY b "bb">]><annotation>&b;</annotation>'


@pytest.mark.parametrize(
  ("content", "line"),
  [
    (BOMB, "has a document type"),
    (b'<?xml version="1.0" encoding="foo"?><a/>', "unknown encoding: foo"),
    (b'<?xml version="1.0" encoding="big5"?><a/>', "not readable as XML"),
    (b"<annotation>", "not readable as XML"),
    (b"<a>" * 99, "more than 32 deep"),
    (xml(("", (1, 1, 2, 2), 0)), "an object has no name"),
    (xml(("dog", ("nan", 1, 2, 2), 0)), "xmin is 'nan'"),
    (xml(("dog", (1, 1, 2, 2), 0), size=(9, 9)), "20 x 10 and its annotation"),
  ],
)
def test_a_wrong_annotation_is_one_line_or_one_record(dataset, content, line):
  (dataset / "Annotations" / "c.xml").write_bytes(content)
  with pytest.raises(ValueError, match=line) as error:
    boxes(open_source(f"voc:{dataset}", "train"))
  assert "\n" not in str(error.value) and re.search(r"c\.", str(error.value))
  found = open_source(f"voc:{dataset}", "train", SKIP)
  with pytest.raises(ValueError, match=line):
    found.read(np.array([0]))
  assert len(found.read(np.array([1]))["boxes"][0]) == 2


@pytest.mark.parametrize(
  ("settings", "line"),
  [
    ("empty=error", "'cat' at 5, 5, 5, 5 has no area"),
    ("outside=error", "'cat' at 3, 2, 25, 4.5 reaches beyond"),
    ("outside=crop", "outside='crop'; valid: clip, drop, error"),
    ("classes=cow", r"no box of classes='cow' \(there are: cat, dog\)"),
    ("classes=cat,cat", "repeated name"),
  ],
)
def test_settings_that_refuse(dataset, settings, line):
  with pytest.raises(ValueError, match=line):
    open_source(f"voc:{dataset}?{settings}", "train")


def test_pictures_without_annotation(dataset):
  (dataset / "Annotations" / "b.xml").unlink()
  with pytest.raises(ValueError, match="1 of 3 are left out: b has no annot"):
    open_source(f"voc:{dataset}", "train")
  found = open_source(f"voc:{dataset}", "train", Policy(max_bad_share=0.5))
  assert "ImageSets: 1 of 3 are left out: b of test" in found.note
  with pytest.raises(ValueError, match="no folder Annotations"):
    open_source(f"voc:{dataset}/JPEGImages")


def test_the_parts_of_an_object_are_not_objects():
  found = voc_xml.parse(xml(("man", (1, 2, 3, 4), 0)), "x").objects
  assert found == (voc_xml.Object("man", (1, 2, 3, 4), False),)


LAYOUTS = [
  ("train", "trainannot", "all"),
  ("val", "val_masks", "val"),
  ("images", "labels", "all"),
  ("train/images", "train/instances", "all"),
  ("images/test", "masks/test", "test"),
]


@pytest.mark.parametrize(("one", "other", "split"), LAYOUTS)
def test_masks_lie_beside_pictures(tmp_path, one, other, split):
  values = np.array([[0, 1, 255], [11, 3, 2]], np.uint8)
  for folder, name, data in (
    (one, "7.png", png(np.zeros((2, 3, 3), np.uint8))),
    (other, "7.png", png(values)),
  ):
    (tmp_path / folder).mkdir(parents=True)
    (tmp_path / folder / name).write_bytes(data)
  found = open_source(f"masks:{tmp_path}?classes=sky,road", split)
  assert found.class_names == ("sky", "road") and found.length == 1
  mask = found.read(np.zeros(1, int))["segmentation"][0]
  np.testing.assert_array_equal(masks.decode(mask), values)
  (tmp_path / other / "7.png").write_bytes(png(values[:1]))
  with pytest.raises(ValueError, match="the mask is 3 x 1 and the picture 3 x"):
    found.read(np.zeros(1, int))
  (tmp_path / one / "8.png").write_bytes(b"")
  with pytest.raises(ValueError, match="1 of 2 are left out: .*8.png has no m"):
    open_source(f"masks:{tmp_path}", split)


def test_masks_need_two_folders(tmp_path):
  (tmp_path / "images").mkdir()
  with pytest.raises(ValueError, match="no folder of pictures beside one of"):
    open_source(f"masks:{tmp_path}")
  with pytest.raises(ValueError, match="classes=0 is not a number of classes"):
    (tmp_path / "masks").mkdir()
    open_source(f"masks:{tmp_path}?classes=0")


def test_the_values_of_masks_are_kept():
  values = np.array([[0, 1, 255], [2, 3, 254]])
  indexed = Image.fromarray(values.astype(np.uint8), "L")
  indexed.putpalette([i % 7 for i in range(768)])
  file = io.BytesIO()
  indexed.save(file, "PNG")
  for data in (
    file.getvalue(),
    png(values.astype(np.uint8)),
    png(values.astype(np.uint16)),
  ):
    found = masks.decode(data)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, values)
  many = np.array([[0, 700, 65535]], np.uint16)
  np.testing.assert_array_equal(masks.decode(png(many)), many)
  for data, line in (
    (png(np.zeros((2, 2, 3), np.uint8)), "has RGB colours"),
    (file.getvalue()[:-30], "not a readable mask"),
    (b"GIF89a", "is a PNG image"),
  ):
    with pytest.raises(ValueError, match=line):
      masks.decode(data)


def test_fake_pictures_show_what_they_are():
  found = open_source("fake:boxes?n=20&size=32", "all")
  rows = found.read(np.arange(20))
  assert rows["image"].shape == (20, 32, 32, 3) and found.num_classes == 3
  counts = [len(boxes) for boxes in rows["boxes"]]
  assert 0 in counts and max(counts) <= 4
  for i in np.flatnonzero(counts):  # the last one lies above the others
    x0, y0, x1, y1 = rows["boxes"][i][-1].astype(int)
    inner = rows["image"][i, y0:y1, x0:x1]
    assert (inner == inner[0, 0]).all() and inner.min() >= 120
  rows = open_source("fake:masks?n=9&size=16&classes=3", "all").read(
    np.arange(9)
  )
  values, shares = np.unique(rows["segmentation"], return_counts=True)
  assert values.tolist() == [0, 1, 2, 3]
  assert 0.05 < shares[-1] / shares.sum() < 0.15
  means = [rows["image"][rows["segmentation"] == c].mean(0) for c in range(3)]
  assert (
    min(np.abs(means[a] - means[b]).max() for a, b in ((0, 1), (1, 2))) > 30
  )


def test_boxes_are_no_pictures_to_judge(dataset):
  rows = open_source(f"voc:{dataset}", "all").read(np.arange(3))
  kinds = {name: columns.kind_of(name, leaf) for name, leaf in rows.items()}
  assert kinds.pop("image") == "image" and set(kinds.values()) == {"other"}


@pytest.mark.shared_data
def test_real_boxes_and_masks(shared_data):
  found = open_source(f"voc:{shared_data}/det_bccd", "test")
  assert found.length == 72
  assert "4,886 boxes; 2 without area left out" in found.note
  camvid = open_source(f"masks:{shared_data}/seg_camvid", "train")
  assert camvid.length == 367
