"""prepare: the same bytes for any workers, killed or not; nothing lost."""

import collections
import gzip
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from input_pipeline.document import Document
from input_pipeline.preparation import (
  output,
  plan,
  report_page,
  run,
  stages,
  store,
  tally,
  workers,
)
from input_pipeline.reading import files
from input_pipeline.sources import open_source

ROOT = pathlib.Path(__file__).parents[3]
WORDS = (
  "the quick brown fox jumps over a lazy dog and 天地玄黄 宇宙洪荒".split()
)


def write_records(folder: pathlib.Path, number: int = 4, each: int = 25):
  """Files of records, every fifth text of which was there before."""
  folder.mkdir(parents=True, exist_ok=True)
  texts = []
  for f in range(number):
    lines = []
    for i in range(each):
      n = f * each + i
      n = n if n % 5 else n // 2
      text = (
        " ".join(WORDS[(n * k) % len(WORDS)] for k in range(1, 9)) + f" {n}"
      )
      texts.append(text)
      url = f"https://site{n % 3}.org/{n}"
      record = {"text": text.title(), "url": url, "number": n}
      lines.append(json.dumps(record, ensure_ascii=False))
    lines.insert(3, '{"text": broken')
    (folder / f"{f}.jsonl").write_text("\n".join(lines) + "\n")
  return texts


def config_of(folder: pathlib.Path, **sections):
  config = {
    "data": {
      "source": f"jsonl:{folder}/*.jsonl",
      "shard_bytes": 1,
      "max_bad_share": 0.1,
    },
    "stages": [
      {"name": "lowercase"},
      {"name": "exact_duplicates", "partitions": 2},
      {"name": "split", "fractions": {"validation": 0.3}},
      {"name": "near_duplicates", "num_perm": 16, "bands": 2},
    ],
    "output": {"shard_bytes": 1000, "tokenizer": "byte"},
  }
  for section, values in sections.items():
    if isinstance(values, dict):
      config[section] = {**config.get(section, {}), **values}
    else:
      config[section] = values
  return config


def contents(folder) -> dict[str, bytes]:
  folder = pathlib.Path(folder)
  return {
    str(path.relative_to(folder)): path.read_bytes()
    for path in sorted(folder.rglob("*"))
    if path.is_file()
  }


def prepared(config, folder, **arguments):
  return run.prepare(config, str(folder), say=lambda line: None, **arguments)


def records_of(folder, split="train"):
  return [
    json.loads(line)
    for path in sorted(pathlib.Path(folder).glob(f"{split}-*.jsonl"))
    for line in path.read_text().splitlines()
  ]


def test_what_goes_out_is_what_came_in_once(tmp_path):
  texts = write_records(tmp_path / "in")
  config = config_of(
    tmp_path / "in",
    stages=[{"name": "lowercase"}, {"name": "exact_duplicates"}],
  )
  report = prepared(config, tmp_path / "out", documents=True)

  expected = list(dict.fromkeys(texts))
  found = records_of(tmp_path / "out")
  assert [record["text"] for record in found] == expected
  assert all(record["url"].startswith("https://site") for record in found)
  documents = (tmp_path / "out" / "documents.jsonl").read_text().splitlines()
  assert [json.loads(line)["text"] for line in documents] == expected
  assert [json.loads(line)["id"] for line in documents] == [
    record["id"] for record in found
  ]

  lowercase, duplicates, empty = report["stages"]
  assert (lowercase["seen"], lowercase["changed"]) == (100, 100)
  assert duplicates["dropped"] == {"exact_duplicate": 100 - len(expected)}
  assert empty["seen"] == empty["kept"] == len(expected)
  assert report["records"]["records"] == 104
  assert report["records"]["bad"] == 4
  assert report["in"]["documents"] == 100
  assert report["in"]["domains"].keys() == {f"site{i}.org" for i in range(3)}
  assert report["out"]["characters"] == sum(map(len, expected))
  assert report["tokens"]["languages"]["unknown"]["tokens"] == sum(
    len(text.encode()) for text in expected
  )


def test_files_are_cut_at_the_stated_size_and_tokens_go_with_them(tmp_path):
  write_records(tmp_path / "in")
  prepared(config_of(tmp_path / "in"), tmp_path / "out")
  index = json.loads((tmp_path / "out" / "index.json").read_text())
  assert set(index["splits"]) == {"train", "validation"}
  for split, own in index["splits"].items():
    count = len(own["records"])
    assert count > 1
    seen = 0
    for number, (name, tokens) in enumerate(
      zip(own["records"], own["tokens"], strict=True)
    ):
      assert name == f"{split}-{number:05}-of-{count:05}.jsonl"
      lines = (tmp_path / "out" / name).read_bytes().splitlines(keepends=True)
      before = sum(map(len, lines[:-1]))
      # It ends with the line that makes it full, and not before.
      assert before < 1000
      assert number == count - 1 or before + len(lines[-1]) >= 1000
      texts = [json.loads(line)["text"] for line in lines]
      seen += len(texts)
      # The byte tokenizer has no id of its own between documents' bytes.
      ends = memoryview(
        (tmp_path / "out" / f"{tokens.partition('.')[0]}.ends").read_bytes()
      )
      ends = ends.cast("q").tolist()
      assert len(ends) == len(texts)
      stored = (tmp_path / "out" / tokens).read_bytes()
      for text, end in zip(texts, ends, strict=True):
        encoded = text.encode()
        size = len(stored) // ends[-1]
        piece = stored[(end - len(encoded)) * size : end * size]
        assert piece[::size] == encoded
    assert seen == own["documents"]


@pytest.mark.slow
def test_killed_at_any_write_it_goes_on_to_the_same_bytes(
  tmp_path, monkeypatch
):
  write_records(tmp_path / "in", 2, 15)
  config = config_of(tmp_path / "in")
  prepared(config, tmp_path / "whole", documents=True)
  expected = contents(tmp_path / "whole")

  class Killed(BaseException):
    pass

  genuine = files.os.replace
  kill = 0
  while True:
    left = [kill]

    def replace(source, target, left=left):
      if left[0] == 0:
        left[0] -= 1
        raise Killed
      left[0] -= 1
      genuine(source, target)

    folder = tmp_path / f"killed{kill}"
    monkeypatch.setattr(files.os, "replace", replace)
    try:
      prepared(config, folder, documents=True)
      break
    except Killed:
      monkeypatch.setattr(files.os, "replace", genuine)
    prepared(config, folder, documents=True)
    assert contents(folder) == expected, f"killed at write {kill}"
    kill += 2
  assert kill > 20


@pytest.mark.slow
def test_two_workers_write_the_bytes_of_one(tmp_path):
  write_records(tmp_path / "in")
  config = config_of(tmp_path / "in")
  prepared(config, tmp_path / "one")
  prepared(config, tmp_path / "two", by=workers.Workers(2))
  assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_input_and_output_may_be_where_beam_reaches_them(tmp_path, monkeypatch):
  import elsewhere

  monkeypatch.setenv(elsewhere.ROOT, str(tmp_path))
  write_records(tmp_path / "in", 2, 15)
  config = config_of(tmp_path / "in")
  prepared(config, tmp_path / "here")
  config["data"]["source"] = f"jsonl:{elsewhere.SCHEME}in/*.jsonl"
  run.prepare(config, f"{elsewhere.SCHEME}there", say=lambda line: None)
  # All but where the input was said to be.
  here, there = (contents(tmp_path / name) for name in ("here", "there"))
  assert here.keys() == there.keys()
  different = {name for name in here if here[name] != there[name]}
  assert different == {"index.json", "report.html", "report.json"}
  with pytest.raises(ValueError, match="matches no file"):
    config["data"]["source"] = f"jsonl:{elsewhere.SCHEME}in/*.none"
    prepared(config, tmp_path / "none")
  with pytest.raises(ValueError, match="nowhere://in/x: "):
    config["data"]["source"] = "jsonl:nowhere://in/x"
    prepared(config, tmp_path / "none")


def test_done_is_done_and_another_config_is_refused(tmp_path):
  write_records(tmp_path / "in", 1, 5)
  config = config_of(tmp_path / "in")
  first = prepared(config, tmp_path / "out")
  before = contents(tmp_path / "out")
  said = []
  again = run.prepare(config, str(tmp_path / "out"), say=said.append)
  assert said == [f"{tmp_path}/out is already prepared; nothing to do"]
  assert again == json.loads(json.dumps(first))
  assert contents(tmp_path / "out") == before
  other = config_of(tmp_path / "in", output={"shard_bytes": 5})
  with pytest.raises(ValueError, match="was prepared with another config"):
    prepared(other, tmp_path / "out")
  (tmp_path / "in" / "0.jsonl").write_text('{"text": "new"}\n')
  with pytest.raises(ValueError, match="or from other input"):
    prepared(config, tmp_path / "out")
  assert contents(tmp_path / "out") == before


def test_another_way_to_cut_and_tokenize_keeps_the_long_work(tmp_path):
  write_records(tmp_path / "in", 2, 15)
  wrong = config_of(tmp_path / "in", output={"tokenizer": "nonesuch"})
  with pytest.raises(ValueError, match="tokenizer 'nonesuch' is unknown"):
    prepared(wrong, tmp_path / "out")
  tallies = sorted((tmp_path / "out" / "work").rglob("*.tally"))
  assert len(tallies) == 6  # two shards in three passes
  before = [path.stat().st_mtime_ns for path in tallies]
  # They lie there still when the records are written.
  seen = []
  genuine = output.write_records

  def write(*arguments):
    seen.append([path.stat().st_mtime_ns for path in tallies])
    genuine(*arguments)

  right = config_of(tmp_path / "in", output={"shard_bytes": 500})
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(output, "write_records", write)
    prepared(right, tmp_path / "out")
  assert seen and all(each == before for each in seen)
  prepared(right, tmp_path / "fresh")
  assert contents(tmp_path / "out") == contents(tmp_path / "fresh")


def test_a_data_set_of_tfds_holds_the_same_records(tmp_path):
  lines = [
    {"text": "a b", "label": 1, "score": 1, "title": "t"},
    {"text": "c", "label": 0, "score": 0.5, "tags": ["x"]},
    {"text": "d", "label": 2, "score": None, "split": "validation"},
  ]
  (tmp_path / "a.jsonl").write_text(
    "".join(json.dumps(x) + "\n" for x in lines)
  )
  config = config_of(tmp_path, stages=[], output={"tfds": True, "name": "tiny"})
  prepared(config, tmp_path / "out")
  train = open_source(f"tfds:tiny?data_dir={tmp_path}/out", "train")
  found = train.read(np.arange(2))
  assert [bytes(text).decode() for text in found["text"]] == ["a b", "c"]
  assert found["label"].tolist() == [1, 0]
  # A field that a record lacks is an empty text, or null as JSON.
  assert [bytes(each).decode() for each in found["title"]] == ["t", ""]
  assert [bytes(each).decode() for each in found["score"]] == ["1", "0.5"]
  assert [bytes(each).decode() for each in found["tags"]] == ["null", '["x"]']
  other = open_source(f"tfds:tiny?data_dir={tmp_path}/out", "validation")
  assert other.length == 1


def test_a_strangers_split_stays_in_the_folder(tmp_path):
  lines = [{"text": "a b", "split": "../../x"}, {"text": "c", "split": "dev"}]
  text = "".join(json.dumps(line) + "\n" for line in lines)
  (tmp_path / "a.jsonl").write_text(text)
  config = config_of(tmp_path, stages=[])
  prepared(config, tmp_path / "out")
  index = json.loads((tmp_path / "out" / "index.json").read_text())
  assert set(index["splits"]) == {"dev", "______x"}
  assert {path.name for path in tmp_path.iterdir()} == {"a.jsonl", "out"}


def test_other_peoples_files_are_left_alone(tmp_path):
  write_records(tmp_path / "in", 1, 5)
  with pytest.raises(ValueError, match="contains other files"):
    prepared(config_of(tmp_path / "in"), tmp_path / "in")


@pytest.mark.parametrize(
  ("name", "content", "said"),
  [
    ("a.jsonl", b"", r"a\.jsonl: holds no record$"),
    ("a.jsonl", b"{\n", r"no record of 1 can be read: a\.jsonl:1: not JSON"),
    ("a.jsonl.xz", b"\xfd7zXZ", r"^a\.jsonl\.xz: \.xz files are not read; "),
  ],
)
def test_a_source_without_a_record_is_refused(tmp_path, name, content, said):
  (tmp_path / name).write_bytes(content)
  config = config_of(tmp_path, data={"source": f"jsonl:{tmp_path}/{name}"})
  with pytest.raises(ValueError, match=said):
    prepared(config, tmp_path / "out")


def test_too_many_bad_records_end_it_with_one_line(tmp_path):
  (tmp_path / "a.jsonl").write_text('{"text": "x"}\n' * 10 + "oops\n" * 9)
  with pytest.raises(ValueError) as caught:
    prepared(config_of(tmp_path), tmp_path / "out")
  line = str(caught.value)
  assert line.startswith("9 of 19 records are bad, more than")
  assert "a.jsonl:11" in line or "a.jsonl:1" in line
  assert "\n" not in line


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_the_rest_of_a_file_is_not_lost_unasked(tmp_path, suffix):
  lines = [json.dumps({"text": os.urandom(1000).hex()}) for _ in range(400)]
  zstandard = pytest.importorskip("zstandard")
  pack = {".gz": gzip.compress, ".zst": zstandard.compress}[suffix]
  packed = pack("\n".join(lines).encode())
  path = tmp_path / f"b.jsonl{suffix}"
  path.write_bytes(packed[: len(packed) // 2])
  data = {"source": f"jsonl:{path}"}
  config = config_of(
    tmp_path, stages=[], data=data, output={"shard_bytes": 2**20}
  )
  with pytest.raises(ValueError, match="it ends too early: the rest of") as no:
    prepared(config, tmp_path / "out")
  assert str(no.value).startswith(f"b.jsonl{suffix}: broken ")
  config["data"]["on_bad_record"] = "skip"
  report = prepared(config, tmp_path / "out")
  assert 0 < report["out"]["documents"] < 400
  (said,) = [line for line in report_page.lines(report) if "lost" in line]
  assert said.startswith(f"the rest of 1 file is lost: b.jsonl{suffix}: broken")


@pytest.mark.parametrize(
  ("sections", "line"),
  [
    ({"data": {"on_bad_record": "go"}}, "on_bad_record 'go' is not"),
    ({"dta": {}}, 'config.dta is unknown; did you mean "data"'),
    ({"data": {"sorce": "x:"}}, "config.data.sorce is unknown; did you mean"),
    ({"data": {"source": None}}, "config.data.source is required"),
    ({"output": {"tfds": "yes"}}, "config.output.tfds='yes' is neither"),
    ({"output": {"shard_bytes": 0}}, "config.output.shard_bytes=0"),
    ({"stages": [{"name": "lowercse"}]}, 'did you mean "lowercase"'),
    ({"stages": [{"name": "../x"}]}, "there is no stage"),
    (
      {"stages": [{"name": "split", "fraction": 1}]},
      'did you mean "fractions"',
    ),
  ],
)
def test_a_wrong_config_is_one_line(tmp_path, sections, line):
  with pytest.raises(ValueError) as caught:
    prepared(config_of(tmp_path, **sections), tmp_path / "out")
  assert line in str(caught.value)
  assert "\n" not in str(caught.value)
  assert not (tmp_path / "out").exists()


def test_a_stage_that_fails_on_a_document_does_not_end_the_run(
  tmp_path, monkeypatch
):
  def stage(document):
    if "3" in document.text:
      raise KeyError("a library's own")
    return document

  write_records(tmp_path / "in", 1, 30)
  named = [stages.Named("fragile", stage)]
  monkeypatch.setattr(
    plan.Plan, "passes", lambda self: [stages.Pass(None, named, None)]
  )
  config = config_of(tmp_path / "in", data={"max_bad_share": 0.9})
  report = prepared({**config, "stages": []}, tmp_path / "out")
  texts = [record["text"] for record in records_of(tmp_path / "out")]
  assert texts and not any("3" in text for text in texts)
  failed = report["stages"][0]["dropped"]["failed"]
  assert failed == 30 - len(texts)
  assert report["records"]["bad"] == failed + 1
  assert "fragile: KeyError" in report["records"]["samples"][0][
    "reason"
  ] or any(
    "fragile: KeyError" in sample["reason"]
    for sample in report["records"]["samples"]
  )


def test_tallies_add_up_in_any_order():
  def tally_of(numbers):
    found = tally.stage()
    for n in numbers:
      before = Document(f"d{n}", "x" * n, {"lang": "zh" if n % 2 else "en"})
      if n % 3 == 0:
        tally.add(found, before, None, "short", {"seen_too": 1})
      else:
        tally.add(found, before, before._replace(text="y" * (n + 1)))
    return found

  parts = [tally_of(range(i, 40, 4)) for i in range(4)]
  whole = tally_of(range(40))
  merged = tally.merge(
    tally.merge(parts[2], parts[0]), tally.merge(parts[3], parts[1])
  )
  assert merged == whole
  assert whole["dropped"] == {"short": 14}
  assert whole["languages"] == {"en": [20, 7], "zh": [20, 7]}
  assert len(whole["samples"]["changed"]) == 3


def test_the_report_knows_the_language_of_what_was_dropped(tmp_path):
  """By the stage `language` itself, and by the passes before it."""
  pytest.importorskip("py3langid")
  english = "The tides of the harbour rise and fall twice a day."
  german = "Das Wetter am Hafen ist heute schön und warm gewesen."
  texts = ["潮汐表记录了港口的水位", german, english, english]
  lines = [json.dumps({"text": text}) + "\n" for text in texts]
  (tmp_path / "a.jsonl").write_text("".join(lines))
  stages = [
    dict(name="exact_duplicates", partitions=1),
    dict(name="language", keep=["zh", "en"]),
  ]
  prepared(config_of(tmp_path, stages=stages), tmp_path / "out")
  report = json.loads((tmp_path / "out" / "report.json").read_text())
  found = {each["name"]: each["languages"] for each in report["stages"]}
  assert found["exact_duplicates"] == {"zh": [1, 0], "de": [1, 0], "en": [2, 1]}
  assert found["language"]["de"] == [1, 1]
  assert "unknown" not in json.dumps(found)


def test_a_sample_shows_where_the_texts_part():
  found = tally.stage()
  before = Document("a", "same " * 1000 + "left" + " tail" * 1000)
  tally.add(found, before, before._replace(text="same " * 1000 + "right"))
  (sample,) = found["samples"]["changed"]
  assert "left" in sample["before"]
  assert sample["after"].endswith("right")
  assert len(sample["before"]) <= 400


def test_stored_documents_come_back(tmp_path):
  odd = [
    store.Stored(Document("a", "half \ud83d of a pair", {"x": [1, None]}), {}),
    store.Stored(Document("b", "", {}, b"\x00\xff<html>"), {"n": 2}),
    store.Stored(Document("c", "行\u2028行"), {}),
  ]
  path = str(tmp_path / "documents")
  with store.writing(path) as write:
    for each in odd:
      write(each)
  assert list(store.read(path)) == odd


def test_the_layout_is_that_of_a_plain_loop(tmp_path, monkeypatch):
  sizes = [
    {"train": [5, 400, 7], "test": [3]},
    {},
    {"train": [90, 10, 1, 1000, 2]},
    {"test": [1], "train": [99]},
  ]
  found = plan.Plan({}, [[]] * 4, str(tmp_path), False)
  found = found._replace(config={"output": {"shard_bytes": 100}, "stages": []})
  for shard, own in enumerate(sizes):
    files.write(
      f"{found.work}/pass-0/{shard:06}.tally",
      json.dumps({"sizes": own}).encode(),
    )
  expected = collections.defaultdict(list)
  for split in ("test", "train"):
    current, size = [], 0
    for shard, own in enumerate(sizes):
      for place, each in enumerate(own.get(split, [])):
        current.append((shard, place))
        size += each
        if size >= 100:
          expected[split].append(current)
          current, size = [], 0
    if current:
      expected[split].append(current)
  cut = output.layout(found)
  assert [file.split for file in cut] == ["test"] + ["train"] * (len(cut) - 1)
  for file in cut:
    own = expected[file.split][file.number]
    assert file.begin == own[0]
    assert file.end == (own[-1][0], own[-1][1] + 1)
    assert file.count == len(expected[file.split])


@pytest.mark.slow
def test_the_command_says_what_was_done(tmp_path):
  write_records(tmp_path / "in", 2, 10)
  config = ROOT / "configs" / "data" / "classification_text.py"
  command = [
    sys.executable,
    "-m",
    "input_pipeline.prepare",
    f"--config={config}",
    f"--config.data.source=jsonl:{tmp_path}/in/*.jsonl",
    "--config.data.max_bad_share=0.2",
    "--config.stages[4].skip=False",
    f"--output={tmp_path}/out",
  ]
  done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  assert "22 records read, 2 of them bad" in done.stdout
  texts = [record["text"] for record in records_of(tmp_path / "out")]
  assert texts == [text.lower() for text in texts]
  missing = [*command[:4], "--config.data.source=jsonl:none", "--output=x"]
  done = subprocess.run(missing, cwd=ROOT, capture_output=True, text=True)
  assert done.returncode == 2
  assert done.stderr == "error: jsonl:none matches no file\n"


@pytest.mark.slow
def test_a_worker_that_dies_is_one_line_and_loses_nothing(tmp_path):
  write_records(tmp_path / "in", 2, 15)
  recipe = tmp_path / "recipe.py"
  recipe.write_text(
    "from ml_collections import ConfigDict\n"
    "def get_config():\n"
    f"  return ConfigDict({config_of(tmp_path / 'in')!r})\n"
  )
  # A worker dies when it writes what is left of a shard.
  (tmp_path / "sitecustomize.py").write_text(
    "import os, sys\n"
    "def hook(event, arguments):\n"
    "  if event == 'open' and '/pass-0/' in str(arguments[0]):\n"
    "    os._exit(9)\n"
    "if 'sdk_worker' in ' '.join(sys.orig_argv):\n"
    "  sys.addaudithook(hook)\n"
  )
  command = [
    sys.executable,
    "-m",
    "input_pipeline.prepare",
    f"--config={recipe}",
    f"--output={tmp_path}/out",
    "--workers=2",
  ]
  environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"}
  done = subprocess.run(
    command, cwd=ROOT, env=environment, capture_output=True, text=True
  )
  assert done.returncode == 75
  (line,) = (x for x in done.stderr.splitlines() if x.startswith("error: "))
  assert "The same command resumes the run" in line
  assert "Traceback" not in done.stderr
