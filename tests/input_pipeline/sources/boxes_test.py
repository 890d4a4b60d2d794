"""Pictures with boxes and masks of objects: coco:, yolo:, labelme:, masks:."""

import base64
import io
import json
import warnings

import numpy as np
import pytest

Image = pytest.importorskip("PIL.Image", reason="Pillow comes with matplotlib")
coder = pytest.importorskip("pycocotools.mask", reason="extra vision")

from input_pipeline.bad_records import Policy  # noqa: E402
from input_pipeline.reading.annotations import outlines  # noqa: E402
from input_pipeline.sources import open_source  # noqa: E402
from input_pipeline.sources.parts import objects  # noqa: E402

W, H = 20, 10
SKIP = Policy(skip=True)
LOOSE = Policy(max_bad_share=1.0)


def png(array):
  file = io.BytesIO()
  Image.fromarray(array).save(file, "PNG")
  return file.getvalue()


PICTURE = png(np.zeros((H, W, 3), np.uint8))


def write(root, files):
  for name, content in files.items():
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, (dict, list)):
      content = json.dumps(content)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def rows(source):
  found = source.read(np.arange(source.length))
  return [
    {k: v[i].tolist() for k, v in found.items() if k not in ("image", "crowd")}
    for i in range(source.length)
  ]


# Rows 2 to 4 and columns 3 to 8, by each of COCO's forms.
MASK = np.zeros((H, W), np.uint8)
MASK[2:5, 3:9] = 1
POLYGON = [[3, 2, 9, 2, 9, 5, 3, 5]]
COUNTS = [3 * H + 2] + [3, 7] * 5 + [3, 5 + 11 * H]
CODED = coder.encode(np.asfortranarray(MASK))["counts"].decode()


def annotation(number, image=7, category=90, box=(3, 2, 6, 3), **more):
  given = {"id": number, "image_id": image, "category_id": category}
  return given | {"bbox": list(box), "segmentation": POLYGON, **more}


def coco(*annotations, **more):
  return {
    "images": [
      {"id": 7, "file_name": "a.png", "width": W, "height": H},
      {"id": 3, "file_name": "b.png", "width": W, "height": H},
    ],
    "categories": [{"id": 90, "name": "dog"}, {"id": 5, "name": "cat"}],
    "annotations": list(annotations),
    **more,
  }


@pytest.fixture
def street(tmp_path):
  """A picture with three objects and one without any."""
  forms = [
    annotation(1),
    annotation(2, 7, 5, segmentation={"size": [H, W], "counts": COUNTS}),
    annotation("x", iscrowd=1, segmentation={"size": [H, W], "counts": CODED}),
  ]
  write(
    tmp_path,
    {
      "annotations/instances_train2017.json": coco(*forms),
      "train2017/a.png": PICTURE,
      "train2017/b.png": PICTURE,
    },
  )
  return tmp_path


def test_every_form_of_a_mask_is_the_same(street):
  found = open_source(f"coco:{street}?masks=true", "all")
  assert found.class_names == ("cat", "dog") and found.length == 2
  first, empty = rows(found)
  assert first["classes"] == [1, 0, 1]
  assert first["boxes"] == [[3, 2, 9, 5]] * 3
  assert first["instances"] == [MASK.tolist()] * 3
  assert empty == {"boxes": [], "classes": [], "instances": []}
  read = found.read(np.array([0, 1]))
  assert read["crowd"][0].tolist() == [0, 0, 1]
  assert read["instances"][1].shape == (0, H, W)
  assert found.ragged == {"instances": 3} and "1 crowd" in found.note
  path = street / "annotations" / "instances_train2017.json"
  alone = open_source(f"coco:{path}?images={street}/train2017", "all")
  assert rows(alone) == [
    {k: v for k, v in r.items() if k != "instances"} for r in (first, empty)
  ]


def test_masks_are_those_of_pycocotools():
  random = np.random.default_rng(0)
  for _ in range(20):
    height, width = random.integers(1, 40, 2).tolist()
    mask = (random.random((height, width)) < 0.3).astype(np.uint8)
    code = coder.encode(np.asfortranarray(mask))
    runs = outlines.numbers_of(code["counts"])
    back = coder.frPyObjects(
      {"size": [height, width], "counts": runs.tolist()}, height, width
    )
    assert back["counts"] == code["counts"]
    far = max(height, width)  # no point is farther beyond the picture
    points = [random.uniform(-0.9 * far, far, 2 * k).tolist() for k in (3, 5)]
    shapes = [
      outlines.parsed(points),
      outlines.parsed(
        {"size": [height, width], "counts": code["counts"].decode()}
      ),
    ]
    drawn = coder.merge(coder.frPyObjects(points, height, width))
    with warnings.catch_warnings():  # of the way pycocotools calls NumPy
      warnings.simplefilter("ignore")
      expected = coder.decode(drawn)
    found = outlines.masks(shapes, (width, height), "x", Policy())
    np.testing.assert_array_equal(found, [expected, mask])


@pytest.mark.parametrize(
  ("settings", "boxes", "note"),
  [
    ("", [[0, 0, 20, 10], [3, 2, 9, 5]], "1 beyond their pictures clipped"),
    ("?outside=drop", [[3, 2, 9, 5]], "2 beyond their pictures left out"),
    ("?crowd=drop", [[0, 0, 20, 10]], "1 crowd left out"),
    ("?classes=cat", [], "2 of other classes left out"),
  ],
)
def test_what_coco_leaves_out_is_counted(street, settings, boxes, note):
  write(
    street,
    {
      "annotations/instances_train2017.json": coco(
        annotation(1, box=(-5, -5, 50, 50)),
        annotation(2, box=(30, 1, 5, 5)),
        annotation(3, box=(3, 2, 0, 3)),
        annotation(4, iscrowd=1),
        annotation(5, image=99),
        annotation(6, category=1),
      )
    },
  )
  with pytest.raises(ValueError, match="2 of 6 are left out: annotation 5 is"):
    open_source(f"coco:{street}", "all")
  (street / "train2017" / "b.png").unlink()
  found = open_source(f"coco:{street}{settings}", "all", LOOSE)
  assert rows(found)[0]["boxes"] == boxes and found.length == 1
  for line in (note, "b.png is missing", "without area left out"):
    assert line in found.note
  assert found.changed["without area left out"] >= 1


HOSTILE = [
  ("[]", "not a JSON object"),
  ("[" * 100_000, "not readable as JSON"),
  ("\x00", "not readable as JSON"),
  ({}, "has no list 'images'"),
  (coco(annotations={}), "has no list in 'annotations'"),
  (coco(annotations=[3]), "annotations has an element that is no JSON object"),
  (coco(categories=[{"id": 1}]), "a category has no id or no name"),
  (coco(images=[{"id": [1]}]), "a picture has no id"),
  (coco(annotation(1, box=(1, 2, 3))), "annotation 1 has no bbox"),
  (coco(annotation(1, box=(1, 2, "3", 4))), "annotation 1 has no bbox"),
  (coco(annotation(1, box=(1, 2, float("nan"), 4))), "are no pixels"),
  (coco(annotation(1, box=(10**400, 2, 3, 4))), "are no pixels"),
  (coco(annotation(1, iscrowd="no")), "iscrowd='no' is not 0 or 1"),
  (coco(annotation(1, segmentation="x")), "neither polygons nor"),
  (coco(annotation(1, segmentation=[[1, 2, "x"]])), "not a list of numbers"),
  (coco(annotation(1, segmentation=[[1, 2, 3]])), "3 numbers, which is odd"),
  (coco(annotation(1, segmentation=[[1e9] * 6])), "a number that is no pixel"),
  (coco(annotation(1, segmentation=[[9000] * 6])), "far beyond the picture"),
] + [
  (coco(annotation(1, segmentation={"size": size, "counts": counts})), line)
  for size, counts, line in [
    ([H, W], [3, 4], "not counts with the sum 200"),
    ([H, W], [300, -100], "not counts with the sum 200"),
    ([H, W], [2**63, 1], "counts"),
    ([H, W], [2**62] * 8, "not counts with the sum 200"),
    ([H, W], [], "not counts with the sum 200"),
    ([H, W], [1.5], "counts of a run-length code are not integers"),
    ([H, W], "zzzzzzzzz", "run-length code is malformed"),
    ([H, W], "é", "run-length code is malformed"),
    ([H, W], "34", "not counts with the sum 200"),
    ([W, H], COUNTS, "it is 10 x 20 and the picture 20 x 10"),
    ([H], COUNTS, r"is not \[height, width\]"),
  ]
]
for name, line in (
  ("../a.png", "'../a.png' leaves the folder"),
  ("/etc/passwd", "leaves the folder"),
  ("..\\a.png", "leaves the folder"),
  ("C:\\a.png", "leaves the folder"),
  (3, "expected the name of a file, not int"),
  ("", "is not the name of a file"),
):
  HOSTILE.append((coco(images=[{"id": 7, "file_name": name}]), line))
for size, line in (
  ((W, 0), "is not \\(width, height\\)"),
  ((2**40, 2**40), "is not \\(width, height\\)"),
  (("20", 10), "is not \\(width, height\\)"),
  ((2**20, 2**20), "20 x 10 and its annotation 1048576"),
):
  image = {"id": 7, "file_name": "a.png", "width": size[0], "height": size[1]}
  HOSTILE.append((coco(images=[image]), line))


@pytest.mark.parametrize(("content", "line"), HOSTILE)
def test_a_hostile_coco_file_is_one_line(street, content, line):
  write(street, {"annotations/instances_train2017.json": content})
  with pytest.raises(ValueError, match=line) as error:
    rows(open_source(f"coco:{street}?masks=true", "all"))
  assert "\n" not in str(error.value) and len(str(error.value)) < 400


def test_a_wrong_object_is_one_bad_record(street):
  path = "annotations/instances_train2017.json"
  write(street, {path: coco(annotation(1, 3, box=(1, 2)), annotation(2))})
  found = open_source(f"coco:{street}", "all", SKIP)
  assert len(found.read(np.array([0]))["boxes"][0]) == 1
  with pytest.raises(ValueError, match="annotation 1 has no bbox"):
    found.read(np.array([1]))


def test_pictures_are_upright_as_their_annotations(street):
  file, exif = io.BytesIO(), Image.Exif()
  exif[0x0112] = 6  # to be turned to the right
  Image.new("RGB", (H, W)).save(file, "JPEG", exif=exif)
  write(street, {"train2017/a.png": file.getvalue()})
  (first, _) = rows(open_source(f"coco:{street}?masks=true", "all"))
  assert first["boxes"][0] == [3, 2, 9, 5]  # 20 x 10, as it is decoded
  image = {"id": 7, "file_name": "a.png", "width": float(H), "height": W}
  path = "annotations/instances_train2017.json"
  write(street, {path: coco(annotation(1), images=[image])})
  with pytest.raises(ValueError, match="its annotation 10 x 20 pixels; its EX"):
    rows(open_source(f"coco:{street}", "all"))


def test_where_pictures_of_coco_are_looked_for(street):
  path = street / "annotations" / "instances_train2017.json"
  assert open_source(f"coco:{path}", "all").length == 2
  (street / "train2017").rename(street / "elsewhere")
  with pytest.raises(ValueError, match="'a.png' and others are not in"):
    open_source(f"coco:{street}", "all")
  found = open_source(f"coco:{street}?images={street}/elsewhere", "all")
  assert found.length == 2
  other = street / "other"
  for split in ("train", "valid"):
    write(
      other / split,
      {"_annotations.coco.json": coco(), "a.png": PICTURE, "b.png": PICTURE},
    )
  assert open_source(f"coco:{other}", "validation").length == 2
  with pytest.raises(ValueError, match="has no annotations/instances_"):
    open_source(f"coco:{street}/elsewhere", "all")


@pytest.fixture
def yolo(tmp_path):
  write(
    tmp_path,
    {
      "data.yaml": "train: ../train/images\nval: valid/images\n"
      "nc: 2\nnames: [cat, dog]\n",
      "train/images/a.png": PICTURE,
      "train/images/b.png": PICTURE,
      "train/labels/a.txt": "1 0.5 0.5 0.5 0.5\n\n"
      "0 0.15 0.2 0.45 0.2 0.45 0.5 0.15 0.5\n",
      "valid/images/c.png": PICTURE,
      "valid/labels/c.txt": "",
    },
  )
  return tmp_path


def test_yolo_rows_are_shares(yolo):
  found = open_source(f"yolo:{yolo}", "train")
  first, second = rows(found)
  np.testing.assert_allclose(first["boxes"], [[5, 2.5, 15, 7.5], [3, 2, 9, 5]])
  assert first["classes"] == [1, 0] and found.class_names == ("cat", "dog")
  assert second == {"boxes": [], "classes": []}
  assert "1 of 3 pictures have no file of labels" in found.note
  assert rows(open_source(f"yolo:{yolo}", "val"))[0]["boxes"] == []
  masked = open_source(f"yolo:{yolo}?masks=true", "train")
  assert rows(masked)[0]["instances"] == [MASK.tolist()]
  assert "1 without mask left out" in masked.note
  (yolo / "data.yaml").unlink()
  assert open_source(f"yolo:{yolo}", "validation").class_names == ("0", "1")
  write(yolo, {"classes.txt": "a\nb\nc\n"})
  assert open_source(f"yolo:{yolo}", "train").class_names == ("a", "b", "c")
  (yolo / "train").rename(yolo.parent / "flat")
  whole = open_source(f"yolo:{yolo.parent}/flat", "all")
  assert whole.length == 2


@pytest.mark.parametrize(
  ("labels", "line"),
  [
    ("x 1 1 1 1", "a.txt: row 1: 'x 1 1 1 1' is not numbers"),
    ("\n0 nan 0.5 0.5 0.5", "row 2: nan is not a share"),
    ("0 320 240 50 60", "row 1: 320 is not a share of the side"),
    ("0.5 0.5 0.5 0.5 0.5", "'0.5' is not the number of a class"),
    ("2 0.5 0.5 0.5 0.5", "class 2 is not one of the 2 classes"),
    ("0 0.5 0.5 0.5", "4 numbers are neither"),
    ("0 0.5 0.5 0.5 0.5 0.9", "6 numbers are neither"),
    ("0 " + "0.1 " * 7, "8 numbers are neither"),
    (b"\xff\xff", "is not UTF-8"),
  ],
)
def test_a_hostile_label_is_one_line(yolo, labels, line):
  write(yolo, {"train/labels/a.txt": labels})
  with pytest.raises(ValueError, match=line):
    open_source(f"yolo:{yolo}", "train")
  with pytest.raises(ValueError, match=line):
    open_source(f"yolo:{yolo}", "train", SKIP).read(np.array([0]))


@pytest.mark.parametrize(
  ("content", "line"),
  [
    ("train: /etc", "train: '/etc' is not in"),
    ("train: ../../x", "train: '../../x' is not in"),
    ("train: [3]", "train: expected a folder, not int"),
    (
      "a: &a [x, x]\nb: &b [*a, *a]\n"
      + "".join(
        f"{chr(99 + i)}: &{chr(99 + i)} [*{chr(98 + i)}, *{chr(98 + i)}]\n"
        for i in range(17)
      )
      + "train: *s\nnames: *s\n",
      "train: expected a folder, not list",
    ),
    ("[1", "not readable as YAML"),
    ("- 1", "not a mapping"),
    ("!!python/object:os.system {}", "not readable as YAML"),
    ("train: train/images\nnames: {1: a}", "keys of names are not 0, 1"),
    ("train: train/images\nnames: {x: a}", "keys of names are not 0, 1"),
    ("train: train/images\nnames: [[1]]", "names is not a list"),
    ("train: train/images\nnames: [a, a]", "repeated name"),
  ],
)
def test_a_hostile_data_yaml_is_one_line(yolo, content, line):
  write(yolo, {"data.yaml": content})
  with pytest.raises(ValueError, match=line) as error:
    open_source(f"yolo:{yolo}", "train")
  assert "\n" not in str(error.value)


def labelme(*shapes, **more):
  given = {"imagePath": "a.png", "imageWidth": W, "imageHeight": H}
  return given | {"imageData": None, "shapes": list(shapes), **more}


def shape(points, kind="polygon", label="dog", group=None):
  return {
    "label": label,
    "points": points,
    "shape_type": kind,
    "group_id": group,
  }


CORNERS = [[3, 2], [9, 2], [9, 5], [3, 5]]


def test_shapes_of_labelme(tmp_path):
  inner = {
    "imageData": base64.b64encode(PICTURE).decode(),
    "imagePath": "x.gif",
  }
  write(
    tmp_path,
    {
      "a.png": PICTURE,
      "a.json": labelme(
        shape(CORNERS),
        shape([[9, 5], [3, 2]], "rectangle", "cat"),
        shape([[1, 1]], "point"),
        shape([[0, 0], [2, 0], [2, 2]], group=4),
        shape([[4, 4], [6, 4], [6, 7]], group=4),
        shape([[10, 5], [13, 5]], "circle"),
      ),
      "c.json": labelme(**inner),
    },
  )
  found = open_source(f"labelme:{tmp_path}?masks=true", "all")
  first, embedded = rows(found)
  assert found.class_names == ("cat", "dog")
  assert first["classes"] == [1, 0, 1, 1]
  np.testing.assert_allclose(
    first["boxes"],
    [[3, 2, 9, 5], [3, 2, 9, 5], [0, 0, 6, 7], [7, 2, 13, 8]],
    atol=1e-5,
  )
  assert first["instances"][0] == first["instances"][1] == MASK.tolist()
  circle = np.sum(first["instances"][3])
  assert abs(circle - np.pi * 9) < 3
  assert embedded["boxes"] == [] and found.read(np.array([1]))["image"] == [
    PICTURE
  ]
  assert "1 points and lines left out" in found.note


@pytest.mark.parametrize(
  ("content", "line"),
  [
    ({"shapes": 3}, "has no list 'shapes'"),
    (labelme(3), "shape 0 is no JSON object"),
    (labelme(shape(CORNERS, label="")), "shape 0 has no label"),
    (labelme(shape([[1, "x"]] * 3)), "points of shape 0 are not"),
    (labelme(shape([[1, float("inf")]] * 3)), "a point that is no pixel"),
    (labelme(imagePath="../../a.png"), "imagePath: .* leaves the folder"),
    (labelme(imagePath="/a.png"), "imagePath: .* leaves the folder"),
    (labelme(imagePath="q.gif", imageData="!"), "imageData is not base 64"),
    (labelme(imagePath="q.gif", imageData=3), "imageData is no text"),
    (labelme(imageWidth=-1), "is not \\(width, height\\)"),
    (labelme(imageWidth=9), "20 x 10 and its annotation 9 x 10"),
    (labelme(imagePath="q.gif"), "1 of 1 are left out: .*b.json has no pict"),
  ],
)
def test_a_hostile_labelme_file_is_one_line(tmp_path, content, line):
  write(tmp_path, {"a.png": PICTURE, "b.json": content})
  with pytest.raises(ValueError, match=line) as error:
    rows(open_source(f"labelme:{tmp_path}?classes=dog", "all"))
  assert "\n" not in str(error.value)


def test_embedded_pictures_are_limited(tmp_path):
  data = base64.b64encode(bytes(3000)).decode()
  write(tmp_path, {"b.json": labelme(imagePath="", imageData=data)})
  small = Policy(max_record_bytes=100)
  with pytest.raises(ValueError, match="more than max_record_bytes=100"):
    open_source(f"labelme:{tmp_path}?classes=dog", "all", small)


NUMBERS = MASK.astype(np.uint16) * 700
NUMBERS[8:, 17:] = 255


@pytest.mark.parametrize(
  ("files", "expected"),
  [
    ({"images/a.png": PICTURE, "masks/a.png": png(NUMBERS)}, 2),
    (
      {
        "images/a.png": PICTURE,
        "masks/a.png": png((MASK + (NUMBERS == 255) * 255).astype(np.uint8)),
      },
      1,
    ),
    ({"images/a.png": PICTURE, "masks/a.png": png(MASK * 255)}, 1),
    (
      {
        "images/a.png": PICTURE,
        "masks/a/2.png": png(MASK * 255),
        "masks/a/1.png": png((NUMBERS == 255).astype(np.uint8)),
      },
      2,
    ),
    (
      {
        "train/a/images/a.png": PICTURE,
        "train/a/masks/1.png": png(MASK * 255),
        "train/a/masks/2.png": png((NUMBERS == 255).astype(np.uint8)),
      },
      2,
    ),
  ],
)
def test_masks_of_objects(tmp_path, files, expected):
  write(tmp_path, files)
  found = open_source(f"masks:{tmp_path}?instances=true&classes=cell", "all")
  (row,) = rows(found)
  assert found.class_names == ("cell",) and len(row["boxes"]) == expected
  assert sorted(row["boxes"])[-expected:][0] == [3, 2, 9, 5]
  assert MASK.tolist() in row["instances"]
  assert row["classes"] == [0] * expected
  if expected == 2:
    assert [17, 8, 20, 10] in row["boxes"]
  with pytest.raises(ValueError, match="instances=true has one class, not 2"):
    open_source(f"masks:{tmp_path}?instances=true&classes=a,b", "all")
  with pytest.raises(ValueError, match="ids=train is for the classes of City"):
    open_source(f"masks:{tmp_path}?ids=train", "all")


def test_masks_are_limited():
  shape = outlines.parsed(POLYGON)
  with pytest.raises(ValueError, match="10 masks of 20 x 10 pixels, 2,000 byt"):
    outlines.masks([shape] * 10, (W, H), "x", Policy(max_record_bytes=1000))
  many = outlines.parsed([[0, 0, 19, 9] * 9])
  with pytest.raises(ValueError, match="a polygon: 18 points, "):
    outlines.masks([many], (W, H), "x", Policy(max_record_bytes=9000))


def test_cityscapes(tmp_path):
  labels = np.full((H, W), 7, np.uint8)  # road
  labels[2:5, 3:9] = 26  # car
  labels[0] = 3  # out of roi
  ids = labels.astype(np.uint16)
  ids[2:5, 3:9] = 26001
  ids[6, :4] = 24  # a group of persons
  write(
    tmp_path,
    {
      "leftImg8bit/val/bonn/b_0_leftImg8bit.png": PICTURE,
      "gtFine/val/bonn/b_0_gtFine_labelIds.png": png(labels),
      "gtFine/val/bonn/b_0_gtFine_instanceIds.png": png(ids),
    },
  )
  found = open_source(f"masks:{tmp_path}?ids=train", "val")
  mask = found.read(np.zeros(1, int))["segmentation"][0]
  assert mask[0, 0] == 255 and mask[3, 4] == 13 and mask[9, 9] == 0
  assert found.class_names[13] == "car" and found.num_classes == 19
  plain = open_source(f"masks:{tmp_path}", "val")
  assert plain.class_names[26] == "car"
  things = open_source(f"masks:{tmp_path}?instances=true", "val")
  read = things.read(np.zeros(1, int))
  assert things.class_names[2] == "car" and things.num_classes == 8
  assert read["classes"][0].tolist() == [0, 2]
  assert read["crowd"][0].tolist() == [1, 0]
  assert read["boxes"][0].tolist() == [[0, 6, 4, 7], [3, 2, 9, 5]]


def test_without_pycocotools_masks_are_one_line(street, monkeypatch):
  monkeypatch.setitem(__import__("sys").modules, "pycocotools", None)
  with pytest.raises(ValueError, match=r"pip install -e '\.\[vision\]'"):
    open_source(f"coco:{street}?masks=true", "all")
  assert open_source(f"coco:{street}", "all").length == 2


def test_names_stay_within_the_folder():
  assert objects.inside("d", "x/./y.png") == "d/x/y.png"
  assert objects.inside("d", "x\\y.png") == "d/x/y.png"
  with pytest.raises(ValueError, match="leaves the folder"):
    objects.inside("d", "x/../../y")


@pytest.mark.shared_data
def test_real_objects(shared_data):
  from pycocotools.coco import COCO

  found = open_source(f"coco:{shared_data}/coco_mini?masks=true", "all")
  path = shared_data / "coco_mini" / "annotations" / "instances_train2017.json"
  known = COCO(str(path))
  assert "739 boxes; 8 crowd" in found.note and found.num_classes == 80
  read = found.read(np.arange(3))
  for i, number in enumerate(list(known.imgs)[:3]):
    own = known.imgToAnns[number]
    assert len(own) == len(read["boxes"][i])
    for j, each in enumerate(own):
      with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = known.annToMask(each)
      np.testing.assert_array_equal(read["instances"][i][j], expected)
      name = found.class_names[read["classes"][i][j]]
      assert name == known.cats[each["category_id"]]["name"]
