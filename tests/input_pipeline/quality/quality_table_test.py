"""Faults planted in tables and texts are found, each of them and no more."""

import json
import random

import numpy as np
import pytest

from input_pipeline.quality import dataset, near, values
from input_pipeline.quality.checks import (
  balance,
  broken,
  conflicts,
  distribution,
  drift,
  duplicates,
  leakage,
  missing,
  outliers,
  ranges,
  schema,
)
from input_pipeline.quality.finding import Settings
from input_pipeline.reporting import page

NAMES = ["ash", "beech", "cedar", "elm"]
WORDS = [f"w{chr(97 + i // 26)}{chr(97 + i % 26)}" for i in range(400)]


def rows(n=600, seed=0):
  draw = random.Random(seed)
  return [
    {
      "age": draw.randint(18, 80),
      "weight": round(draw.gauss(70, 10), 6),
      "tree": draw.choice(NAMES),
      "label": draw.choice(["yes", "no"]),
    }
    for _ in range(n)
  ]


def texts(n=300, seed=0, most=40):
  draw = random.Random(seed)
  return [
    {
      "text": " ".join(draw.choices(WORDS, k=draw.randint(30, most))),
      "label": i % 2,
    }
    for i in range(n)
  ]


def opened(tmp_path, records, name="a", **options):
  path = tmp_path / f"{name}.jsonl"
  path.write_text("".join(json.dumps(r) + "\n" for r in records))
  options.setdefault("label", "label")
  return dataset.open_dataset(f"jsonl:{path}", "all", **options)


def run(check, data, **settings):
  (found,) = getattr(check, check.__name__.rpartition(".")[2])(
    data, Settings(**settings)
  )
  return found


ALONE = (schema, missing, ranges, broken, duplicates, conflicts, balance)
ALONE += (distribution, outliers)


@pytest.mark.parametrize("kind", [rows, texts])
def test_clean_data_raises_nothing(tmp_path, kind):
  data = opened(tmp_path, kind())
  other = opened(tmp_path, kind(seed=1), "b", like=data)
  for check in ALONE:
    found = run(check, data)
    assert (found.check, found.verdict) == (found.check, "ok"), found.line
  for check in (leakage, drift):
    found = run(check, data._replace(against=other))
    assert found.verdict == "ok", found.line


def test_kinds_of_fields(tmp_path):
  data = opened(tmp_path, rows())
  kinds = {field: column.kind for field, column in data.columns.items()}
  assert kinds == {
    "age": "number",
    "weight": "number",
    "tree": "category",
    "label": "category",
  }
  assert opened(tmp_path, texts()).columns["text"].kind == "text"


def test_mixed_types_are_counted(tmp_path):
  records = rows()
  for i in range(5):
    records[i * 100]["age"] = "old"
  found = run(schema, opened(tmp_path, records))
  assert found.verdict == "fail"
  assert found.figures["mixed"] == {"age": {"text": 5}}
  assert "'age' mixes integer (595), text (5)" in found.line


def test_two_splits_have_the_same_fields(tmp_path):
  data = opened(tmp_path, rows())
  other = opened(tmp_path, [{**r, "id": 1} for r in rows()], "b", like=data)
  found = run(schema, data._replace(against=other))
  assert found.verdict == "fail"
  assert found.figures["not_in_both"] == ["id"]


@pytest.mark.parametrize(
  ("a", "b", "same"),
  [
    (1, np.float32(1), True),
    (True, np.True_, True),
    (10**400, 10**400 + 1, False),
    (1, True, False),
    ("1", 1, True),
    (" 1.50", 1.5, True),
    ("1", True, False),
    ("True", True, True),
    ("a", b"a", True),
    ("n/a", float("nan"), True),
    ("a", "A", False),
    (2**53 + 1, str(2**53 + 1), True),
    (2**53 + 1, str(2**53), False),
    ([1, 2], np.array([1.0, 2.0]), True),
    (np.zeros(4), np.zeros((2, 2)), False),
    ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True),
    (float("nan"), float("nan"), True),
    ("\ud800", "\ud800", True),
  ],
)
def test_what_counts_as_the_same_value(a, b, same):
  assert (values.encoded(a) == values.encoded(b)) is same


def test_the_parts_of_a_record_are_kept_apart():
  assert values.digest([b"ab", b"c"]) != values.digest([b"a", b"bc"])


def test_dates_are_put_in_order():
  told = ["2024-01-02", "2024/01/03", "2024-01-03T01:00:00+00:00"]
  found = [values.date(each) for each in told]
  assert found == sorted(found)
  assert found[0] == 1704153600  # by `date -u -d 2024-01-02 +%s`
  assert values.date("soon") != values.date("soon")
  assert values.date(1999) == 1999


def test_numbers_as_text_warn(tmp_path):
  records = [{**r, "age": str(r["age"])} for r in rows()]
  data = opened(tmp_path, records)
  found = run(schema, data)
  assert found.verdict == "warn"
  assert found.figures["numbers_as_text"] == ["age"]
  # They are numbers all the same.
  assert data.columns["age"].numbers[0] == int(records[0]["age"])


def test_each_marker_of_a_missing_value_is_counted(tmp_path):
  records = rows()
  for i, value in enumerate([None, "", "?", "?", "NA", " "]):
    records[i]["tree"] = value
  records[7]["weight"] = float("nan")
  found = run(missing, opened(tmp_path, records))
  assert found.verdict == "warn"
  assert found.figures["total"] == 7
  assert found.figures["fields"] == {"tree": 6, "weight": 1}
  assert found.figures["markers"] == {
    "None": 1,
    '""': 2,
    "?": 2,
    "NA": 1,
    "NaN": 1,
  }


def test_a_missing_label_fails(tmp_path):
  records = rows()
  records[3]["label"] = ""
  assert run(missing, opened(tmp_path, records)).verdict == "fail"


def test_a_question_mark_is_a_text(tmp_path):
  records = texts()
  records[0]["text"] = "NA"
  records[1]["text"] = "  "
  found = run(missing, opened(tmp_path, records))
  assert found.figures["markers"] == {'""': 1}


def test_values_out_of_range(tmp_path):
  records = rows()
  records[0]["age"] = -1
  records[1]["age"] = 121
  data = opened(tmp_path, records)
  assert run(ranges, data).verdict == "ok"
  found = run(ranges, data, ranges={"age": (0, 120)})
  assert found.verdict == "fail"
  assert found.figures["problems"] == [
    {"field": "age", "what": "not from 0 to 120", "records": 2}
  ]
  with pytest.raises(ValueError, match="'tree' is not a field of numbers"):
    run(ranges, data, ranges={"tree": (0, 1)})


def test_incredible_values_warn_and_infinity_fails(tmp_path):
  records = rows()
  records[0]["age"] = 3000
  for i in range(6):
    records[i]["weight"] = 9999
  found = run(ranges, opened(tmp_path, records))
  problems = {
    (p["field"], p["what"][:12]): p["records"]
    for p in found.figures["problems"]
  }
  assert found.verdict == "warn"
  assert problems == {
    ("age", "implausibly "): 1,
    ("weight", "times 9999, "): 6,
    ("weight", "implausibly "): 6,
  }
  records[0]["weight"] = float("inf")
  assert run(ranges, opened(tmp_path, records)).verdict == "fail"


def test_duplicates_and_conflicts_are_counted(tmp_path):
  records = rows()
  turned = {"yes": "no", "no": "yes"}
  records += [records[0], records[0], records[5]]
  records += [{**records[9], "label": turned[records[9]["label"]]}]
  data = opened(tmp_path, records)
  found = run(duplicates, data)
  assert found.verdict == "warn"
  assert found.figures == {"repeats": 3, "groups": 2, "largest_group": 3}
  found = run(conflicts, data)
  assert found.verdict == "warn"
  assert found.figures == {"inputs": 1, "records": 2}
  assert conflicts.conflicts(data._replace(label=""), Settings()) == []


def test_a_field_that_is_ignored_tells_nothing_apart(tmp_path):
  records = [{"id": i, **r} for i, r in enumerate(rows() + rows()[:4])]
  assert run(duplicates, opened(tmp_path, records)).figures["repeats"] == 0
  data = opened(tmp_path, records, ignore=["id"])
  assert "id" not in data.columns
  assert run(duplicates, data).figures["repeats"] == 4
  with pytest.raises(ValueError, match="--ignore=key: "):
    opened(tmp_path, records, ignore=["key"])


def test_one_and_one_point_zero_are_one_value(tmp_path):
  records = [{"a": i, "b": "x"} for i in range(30)]
  data = opened(tmp_path, [*records, {"a": 3.0, "b": "x"}], label="")
  assert run(duplicates, data).figures["repeats"] == 1


def test_unreadable_lines_are_counted_and_left_out(tmp_path):
  path = tmp_path / "a.jsonl"
  lines = [json.dumps(r) for r in rows()]
  lines[3], lines[90] = "{", '{"age": 3}'
  path.write_text("\n".join(lines))
  data = dataset.open_dataset(f"jsonl:{path}", "all", "label")
  found = run(broken, data)
  assert found.verdict == "fail"
  assert found.figures["unreadable"] == 1
  assert len(data.indices) == 599
  told = "\n".join(found.parts[0].items)
  assert "a.jsonl:4: not JSON" in told
  # A record that lacks fields is read: its values are missing.
  assert data.columns["label"].blank.sum() == 1


def test_broken_characters_in_texts_warn(tmp_path):
  records = texts()
  records[4]["text"] += " \ufffd"
  records[8]["text"] += " \x00"
  found = run(broken, opened(tmp_path, records))
  assert found.verdict == "warn"
  assert found.figures["odd"] == {"text: broken characters": 2}


def test_the_line_names_the_encoding_of_a_table(tmp_path):
  names = ["café crème", "déjà vu", "plain"] * 9
  text = "name,label\n" + "".join(f"{name},1\n" for name in names)
  (tmp_path / "a.csv").write_bytes(text.encode("latin-1"))
  found = run(broken, dataset.open_dataset(f"csv:{tmp_path}/a.csv", "all"))
  assert found.line.startswith("18 records cannot be read, the first: ")
  assert "add ?encoding=cp1252 to the source" in found.line


def test_a_lone_surrogate_is_broken(tmp_path):
  records = texts(20)
  records[3]["text"] = "\ud800 abc"
  found = run(broken, opened(tmp_path, records))
  assert found.verdict == "fail"
  assert found.line == "the text of 1 record is not Unicode"
  assert found.parts[0].items == [
    f"{tmp_path}/a.jsonl:4: the field 'text' is not Unicode text"
  ]


def test_balance(tmp_path):
  records = rows(400)
  for i, record in enumerate(records):
    record["label"] = "rare" if i < 40 else "common"
  data = opened(tmp_path, records)
  found = run(balance, data)
  assert found.verdict == "warn"
  assert found.figures["classes"] == {"common": 360, "rare": 40}
  assert found.figures["ratio"] == 9
  entropy = -(0.9 * np.log2(0.9) + 0.1 * np.log2(0.1))
  assert found.figures["evenness"] == pytest.approx(entropy)
  assert run(balance, data, imbalance=10).verdict == "ok"
  for record in records[1:40]:
    record["label"] = "common"
  assert run(balance, opened(tmp_path, records)).verdict == "fail"


def test_moments_are_numpys(tmp_path):
  data = opened(tmp_path, rows())
  weight = data.columns["weight"].numbers
  found = run(distribution, data).figures["moments"]["weight"]
  assert found["mean"] == pytest.approx(weight.mean())
  assert found["deviation"] == pytest.approx(weight.std())
  third = (((weight - weight.mean()) / weight.std()) ** 3).mean()
  assert found["skewness"] == pytest.approx(third)
  assert found["median"] == np.median(weight)


def test_a_field_that_never_changes_warns(tmp_path):
  data = opened(tmp_path, [{**r, "unit": "kg", "one": 1} for r in rows()])
  found = run(distribution, data)
  assert found.verdict == "warn"
  assert sorted(found.figures["constant"]) == ["one", "unit"]


def test_large_integers_are_compared_exactly(tmp_path):
  records = [{"id": 2**60 + i, "same": 2**60, "label": i % 2} for i in range(9)]
  found = run(distribution, opened(tmp_path, records))
  assert found.figures["constant"] == ["same"]
  a, b = (values.encoded([2**60 + i]) for i in range(2))
  assert a != b


def test_histograms_lose_no_record():
  values = np.array([*np.arange(5000.0), 1e9, np.nan])
  counts, edges = distribution.histogram(values)
  assert counts.sum() == 5001
  assert len(edges) == len(counts) + 1
  counts, edges = distribution.histogram(np.array([1.0, 2, 2, 5]))
  assert counts.tolist() == [1, 2, 0, 0, 1]


def test_outliers_are_the_planted_ones(tmp_path):
  records = rows()
  records[10]["weight"] = 200
  records[20]["weight"] = -100
  found = run(outliers, opened(tmp_path, records))
  assert found.verdict == "warn"
  assert found.figures["features"] == {"weight": 2}


def test_a_long_text_is_an_outlier(tmp_path):
  records = texts()
  records[10]["text"] = "long " * 5000
  found = run(outliers, opened(tmp_path, records))
  assert found.figures["features"]["text: characters"] == 1


def test_a_short_sentence_with_one_capital_is_no_outlier(tmp_path):
  records = texts()
  for record in records:
    record["text"] = record["text"].capitalize()
  short = {"text": "So.", "label": 0}
  found = run(outliers, opened(tmp_path, [*records, short]))
  assert "text: upper case" not in found.figures["features"]
  loud = {"text": records[0]["text"].upper(), "label": 0}
  found = run(outliers, opened(tmp_path, [*records, loud]))
  assert found.figures["features"] == {"text: upper case": 1}
  assert "a.jsonl" in found.line
  assert "301" in found.line


def test_drift_is_told_of_what_drifts(tmp_path):
  data = opened(tmp_path, rows())
  moved = rows(seed=1)
  for record in moved:
    record["age"] += 15
    record["tree"] = "elm" if record["tree"] == "ash" else record["tree"]
  other = opened(tmp_path, moved, "b", like=data)
  found = run(drift, other._replace(against=data))
  assert found.verdict == "fail"
  assert sorted(found.figures["drifted"]) == ["age", "tree"]
  assert "none of" not in found.line


def test_words_that_come_up_drift(tmp_path):
  data = opened(tmp_path, texts())
  moved = texts(seed=1)
  for record in moved[:120]:
    record["text"] = record["text"][:-3] + "zzz"
  found = run(
    drift, opened(tmp_path, moved, "b", like=data)._replace(against=data)
  )
  assert found.figures["drifted"] == ["text: contains 'zzz'"]


def test_drift_over_time(tmp_path):
  records = rows(800)
  order = random.Random(3)
  for i, record in enumerate(records):
    record["day"] = f"2024-{1 + i // 80:02d}-{1 + i % 28:02d}"
    record["age"] += 30 if i >= 400 else 0
  order.shuffle(records)
  found = run(drift, opened(tmp_path, records, date="day"))
  assert found.verdict == "fail"
  assert found.figures["drifted"] == ["age"]
  for record in records:
    record["age"] = order.randint(18, 80)
  found = run(drift, opened(tmp_path, records, date="day"))
  assert found.verdict == "ok"


def test_no_alarm_for_a_random_half(tmp_path):
  data = opened(tmp_path, rows(2000))
  alarms = 0
  for seed in range(10):
    order = np.random.default_rng(seed).permutation(2000)
    half, rest = (dataset.take(data, np.sort(p)) for p in np.split(order, 2))
    found = drift.differences(rest, half)
    verdicts = drift.verdicts(found, Settings())
    alarms += set(verdicts) != {"ok"}
  assert alarms == 0


def test_exact_leakage_fails(tmp_path):
  data = opened(tmp_path, rows())
  # The label may be another one: the answer is still in the other split.
  shared = [{**r, "label": "no"} for r in rows()[:30]]
  other = opened(tmp_path, [*rows(seed=1), *shared], "b", like=data)
  found = run(leakage, data._replace(against=other))
  assert found.verdict == "fail"
  assert found.figures == {"exact": 30, "near": 0}


def table(tmp_path, name, records, like=None, **options):
  path = tmp_path / f"{name}.csv"
  fields = list(records[0])
  lines = [",".join(fields)]
  lines += [",".join(str(record[f]) for f in fields) for record in records]
  path.write_text("\n".join(lines))
  return dataset.open_dataset(
    f"csv:{path}", "all", "label", like=like, **options
  )


@pytest.mark.parametrize(
  ("change", "exact", "near", "said"),
  [
    # One odd cell elsewhere makes the column text.
    (lambda r, i: r, 30, 0, "30 records"),
    (lambda r, i: {**r, "weight": f"{r['weight']:.3f}"}, 0, 30, "rounding"),
    (lambda r, i: {**r, "weight": f"{r['weight']:.3g}"}, 0, 30, "rounding"),
    (lambda r, i: {**r, "weight": int(r["weight"])}, 0, 30, "rounding"),
    (
      lambda r, i: {**r, "weight": float(np.float32(r["weight"]))},
      *(0, 30, "rounding"),
    ),
    (lambda r, i: {**r, "tree": r["tree"].upper()}, 0, 30, "case"),
    (lambda r, i: {**r, "tree": f"  {r['tree']} "}, 0, 30, "white space"),
    (lambda r, i: dict(reversed(r.items())), 30, 0, "30 records"),
    (lambda r, i: {**r, "number": i}, 30, 0, "compared without number"),
    (lambda r, i: {**r, "weight": r["weight"] + 1}, 0, 0, "none of"),
  ],
)
def test_leaks_are_found_whatever_the_types(
  tmp_path, change, exact, near, said
):
  first = [{**r, "age": r["age"] * 1000 + i} for i, r in enumerate(rows())]
  leaked = [change(r, i) for i, r in enumerate(first[:30])]
  # Those of the other file have the precision of the leaked ones.
  others = [{**r, "age": -i} for i, r in enumerate(rows(300, seed=1))]
  others = [change(r, i) for i, r in enumerate(others)]
  odd = {**first[-1], "age": "n/a", "weight": "n/a"}
  data = table(tmp_path, "a", [*first, odd])
  other = table(tmp_path, "b", [*leaked, *others], like=data)
  found = run(leakage, data._replace(against=other))
  assert found.figures == {"exact": exact, "near": near}, found.line
  assert said in found.line
  assert found.verdict == ("fail" if exact else "warn" if near else "ok")


def test_few_distinct_numbers_are_no_leak_by_rounding(tmp_path):
  few = [{"a": round(i % 37 / 7, 4), "label": "x"} for i in range(300)]
  most = [{"a": f"{i % 53 / 10:.1f}", "label": "x"} for i in range(300)]
  data = table(tmp_path, "a", few)
  other = table(tmp_path, "b", most, like=data)
  found = run(leakage, data._replace(against=other))
  assert found.verdict != "fail"
  assert "no more often than within the split" in found.line


def test_repeats_that_were_dealt_to_both_splits_warn(tmp_path):
  few = [{"age": i % 300, "label": "yes"} for i in range(600)]
  data = opened(tmp_path, few)
  other = opened(tmp_path, few[:50], "b", like=data)
  found = run(leakage, data._replace(against=other))
  assert found.verdict == "warn"
  assert found.figures["exact"] == 100


def test_near_leakage_of_texts(tmp_path):
  data = opened(tmp_path, texts(most=30))
  edited = []
  for record in texts(most=30)[:20]:
    words = record["text"].split()
    edited.append({**record, "text": " ".join([*words[:-1], "Changed!"])})
  other = opened(tmp_path, [*texts(seed=1), *edited], "b", like=data)
  found = run(leakage, data._replace(against=other))
  assert found.verdict == "warn"
  # 26 grams each, one changed: 25 / 27.
  assert found.figures == {"exact": 0, "near": 20}
  told = [row[2] for row in found.parts[-1].rows]
  assert told == [pytest.approx(25 / 27)] * 20
  assert (
    run(leakage, data._replace(against=other), similarity=0.95).verdict == "ok"
  )


def test_grams_are_of_words_or_of_han_characters():
  gram = near.hashes("a b c d e").tolist()
  assert len(gram) == 1
  both = near.hashes("A b, c d E f").tolist()
  assert sorted(gram + near.hashes("b c d e f").tolist()) == both
  chinese = (
    near.hashes("今天天气很").tolist() + near.hashes("天天气很好").tolist()
  )
  assert near.hashes("今天天气很好。").tolist() == sorted(chinese)
  assert len(near.hashes("short one")) == 1
  assert len(near.hashes(" ...")) == 0


def test_empty_texts_are_not_near_each_other(tmp_path):
  data = opened(tmp_path, [*texts(), {"text": "!", "label": 0}])
  other = opened(
    tmp_path, [*texts(seed=1), {"text": "?!", "label": 0}], "b", like=data
  )
  found = run(leakage, data._replace(against=other))
  assert found.figures == {"exact": 0, "near": 0}


def test_a_sample_is_the_same_each_time(tmp_path):
  first = opened(tmp_path, rows(), most=100)
  again = opened(tmp_path, rows(), most=100)
  assert len(np.unique(first.indices)) == 100
  assert first.indices.tolist() == again.indices.tolist()
  assert first.indices.max() > 300


def test_a_field_that_is_not_there(tmp_path):
  with pytest.raises(ValueError, match="--label=answer: .* age, weight"):
    opened(tmp_path, rows(), label="answer")


ODD = [None, "", "?", -1, 0, 1.5, float("nan"), float("inf"), 1e308, 10**400]
ODD += [True, "abc", "价格", "\ud800", "\x00\u202e", [1, 2], [], {}, {"a": [1]}]
ODD += ["1e5", "9" * 70, "x" * 5000, "2024-01-01", 99999, 1e-320]


@pytest.mark.parametrize("seed", range(8))
def test_any_records_can_be_judged(tmp_path, seed):
  draw = random.Random(seed)
  fields = draw.sample(["a", "text", "audio", "image", "价 格", "<b>"], 4)
  pools = {f: draw.choices(ODD, k=draw.randint(1, 6)) for f in fields}
  pools["label"] = draw.choices(ODD, k=2)

  def records(n):
    return [{f: draw.choice(p) for f, p in pools.items()} for _ in range(n)]

  data = opened(tmp_path, records(draw.choice([2, 40, 300])), date=fields[0])
  other = opened(tmp_path, records(draw.choice([2, 9])), "b", like=data)
  for check in (*ALONE, leakage, drift):
    function = getattr(check, check.__name__.rpartition(".")[2])
    for found in function(data._replace(against=other), Settings()):
      assert found.verdict in ("ok", "warn", "fail")
      sections = [page.Section("s", found.parts)]
      page.render("t", [found.line], sections).encode()


@pytest.mark.slow
@pytest.mark.shared_data
def test_adult(shared_data):
  uri = f"csv:{shared_data / 'tab_adult' / 'adult.data'}"
  data = dataset.open_dataset(uri, "all", "Salary")
  assert len(data.indices) == 32561
  assert data.columns["age"].kind == "number"
  assert run(schema, data).verdict == "ok"
  assert run(duplicates, data).figures["repeats"] == 24
  found = run(missing, data)
  assert found.figures["markers"] == {"?": 4262}
  assert found.verdict == "warn"
  assert run(balance, data).verdict == "warn"
  assert run(balance, data).figures["classes"]["<=50K"] == 24720
  found = run(ranges, data)
  assert found.figures["problems"] == [
    {
      "field": "capital-gain",
      "what": "times 99999, which may be a placeholder",
      "records": 159,
    }
  ]


@pytest.mark.slow
@pytest.mark.shared_data
def test_no_alarm_for_halves_of_adult(shared_data):
  uri = f"csv:{shared_data / 'tab_adult' / 'adult.data'}"
  data = dataset.open_dataset(uri, "all", "Salary", most=6000)
  for seed in range(20):
    order = np.random.default_rng(seed).permutation(6000)
    half, rest = (dataset.take(data, np.sort(p)) for p in np.split(order, 2))
    for other in (rest, data):
      found = drift.differences(other, half)
      assert set(drift.verdicts(found, Settings())) == {"ok"}
