"""Where the time went: the ledger's arithmetic, and a run that is killed."""

import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time
import types as std_types

import pytest

from train.measuring import goodput, timing

ROOT = pathlib.Path(__file__).parents[3]


def row(event, time, of=None, **seconds):
  return {"event": event, "time": time, "step": of, "seconds": seconds}


FIRST = [
  row("start", 100.0),
  row("resume", 103.0, start=3.0),
  row("beat", 110.0, compile=4.0, step=3.0),
  row("save", 115.0, 10, step=4.0, save=1.0),
  row("beat", 120.0, step=3.0, data=2.0),
]  # killed at about 120


def test_steps_after_the_last_save_are_good_until_they_are_lost():
  found = goodput.summary(FIRST)
  assert found["goodput"] == pytest.approx(10 / 20)
  assert found["badput_compile"] == pytest.approx(4 / 20)
  assert "badput_lost" not in found
  second = [
    row("start", 126.0),
    row("resume", 130.0, 10, start=3.0, restore=1.0),
    row("beat", 140.0, step=10.0),
  ]
  found = goodput.summary(FIRST + second)
  assert found == pytest.approx(
    {
      "goodput": 17 / 40,  # 3 + 4 before the save, 10 since
      "badput_start": 6 / 40,
      "badput_compile": 4 / 40,
      "badput_restore": 1 / 40,
      "badput_data": 2 / 40,
      "badput_save": 1 / 40,
      "badput_lost": 3 / 40,
      "badput_down": 6 / 40,
    }
  )


def test_what_is_lost_follows_the_step_that_is_resumed_from():
  again = [row("start", 120.0), row("resume", 121.0, None, start=1.0)]
  # Nothing was restored, so nothing was kept.
  spent = goodput.totals(FIRST + again).seconds
  assert (spent["step"], spent["lost"]) == (0.0, 10.0)
  # Saved at 20 too, but that save cannot be read: back to 10, twice.
  rows = FIRST + [row("save", 125.0, 20, step=5.0)]
  for _ in range(2):
    rows += [
      row("start", 125.0),
      row("resume", 126.0, 10, start=1.0),
      row("beat", 128.0, step=2.0),
    ]
  spent = goodput.totals(rows).seconds
  assert spent["step"] == pytest.approx(7 + 2)
  assert spent["lost"] == pytest.approx(3 + 5 + 2)
  # A save that has no row loses nothing.
  rows = FIRST + [row("start", 120.0), row("resume", 120.0, 15)]
  assert goodput.totals(rows).seconds["lost"] == 0


def test_a_pause_after_the_end_is_no_ones_loss():
  ended = FIRST + [row("save", 121.0, 20, save=1.0), row("end", 121.0)]
  longer = [row("start", 9000.0), row("resume", 9001.0, 20, start=1.0)]
  assert goodput.totals(ended + longer).seconds["down"] == 0
  stopped = ended[:-1] + [row("stop", 121.0)]
  assert goodput.totals(stopped + longer).seconds["down"] == 9000 - 121


def test_shares_sum_to_one_and_seconds_to_wall_time():
  rng = random.Random(1)
  rows, now, saved = [], 50.0, [None]
  for _ in range(40):
    now += rng.random() * 5
    rows += [row("start", now), row("resume", now, rng.choice(saved))]
    saved = [s for s in saved if s is None or s <= (rows[-1]["step"] or 0)]
    for _ in range(rng.randrange(10)):
      spent = {name: rng.random() for name in rng.sample(timing.PHASES, 3)}
      now += sum(spent.values())
      rows.append(row("beat", now, **spent))
      if rng.random() < 0.3:
        saved.append((saved[-1] or 0) + 10)
        rows.append(row("save", now, saved[-1]))
  spent = goodput.totals(rows).seconds
  assert min(spent.values()) >= 0
  assert sum(spent.values()) == pytest.approx(now - rows[0]["time"])
  assert sum(goodput.summary(rows).values()) == pytest.approx(1)


def test_energy_is_summed_over_all_starts():
  rows = [{**r, "energy_kwh": 0.25} for r in FIRST[1:]]
  rows.append({**row("beat", 121.0), "energy_kwh_estimated": 2.0})
  found = goodput.summary(rows)
  assert found["energy_kwh"] == pytest.approx(1.0)
  assert found["energy_kwh_estimated"] == pytest.approx(2.0)


def test_a_cut_row_is_skipped_and_the_next_one_is_whole(tmp_path):
  path = tmp_path / "goodput.jsonl"
  path.write_text("".join(json.dumps(r) + "\n" for r in FIRST) + '{"time": 12')
  clock = std_types.SimpleNamespace(
    started=123.0, seconds=lambda: dict.fromkeys(timing.PHASES, 0.0)
  )
  with goodput.Ledger(str(path), clock) as ledger:
    ledger.note("resume", 10)
    in_run = ledger.summary()
  rows = goodput.read(path)
  assert rows[: len(FIRST)] == FIRST
  events = [r["event"] for r in rows[len(FIRST) :] if r["event"] != "beat"]
  assert events == ["start", "resume", "end"]
  found = goodput.summary(rows)
  assert found["badput_lost"] == pytest.approx(3 / 23)
  assert found == pytest.approx(in_run)


def test_a_ledger_of_a_week_stays_small():
  now, rows = 0.0, 0
  while now < 7 * 86400:
    now += goodput.beat_seconds(now)
    rows += 1
  assert rows < 10_000
  assert goodput.beat_seconds(86400) < 90  # what a kill may cost its accuracy


def test_people_are_told_the_greatest_first(tmp_path):
  path = tmp_path / "goodput.jsonl"
  path.write_text("".join(json.dumps(r) + "\n" for r in FIRST))
  assert goodput.describe(path) == [
    "goodput 50.0 % of 0.3 min; compile 20.0 %, start 15.0 %, data 10.0 %,"
    " save 5.0 %"
  ]
  hour = [row("start", 0.0), row("beat", 3599.0, step=3599.0)]
  path.write_text("".join(json.dumps(r) + "\n" for r in hour))
  assert goodput.describe(path) == ["goodput 100.0 % of 1 h 0.0 min"]
  assert goodput.describe(tmp_path / "none") == []


def test_the_process_knows_when_it_began():
  before = time.time()
  code = (
    "import time; time.sleep(0.5); from train.measuring import goodput; print("
  )
  code += "goodput.process_start())"
  done = subprocess.run(
    [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True
  )
  assert float(done.stdout) == pytest.approx(before, abs=0.3)


# Sleeps at every phase of a run; each is written, as it was, into log.jsonl.
RUN = """
import json, sys, time
import jax, numpy as np, jax.numpy as jnp
from train.checkpointing import checkpoint
from train.measuring import goodput
from train import loop, types
from train.workdir import metrics

workdir = sys.argv[1]
log = open(workdir + "/log.jsonl", "a")

def timed(name, function, seconds):
  def call(*args, **options):
    start = time.time()
    time.sleep(seconds)
    result = function(*args, **options)
    log.write(json.dumps([name, start, time.time()]) + "\\n")
    log.flush()
    return result
  return call

def init(rng=None, batch=None):
  variables = types.Variables({"w": jnp.zeros(())}, {})
  return types.State(jnp.zeros((), jnp.int32), variables, (), {})

work = timed("step", lambda x: x, 0.1)

def step(state, batch, rng):
  like = jax.ShapeDtypeStruct((), np.float32)
  loss = jax.pure_callback(work, like, state.step.astype(jnp.float32))
  state = state._replace(step=state.step + 1)
  return state, {"loss": types.Mean(loss, jnp.float32(1))}

def batches(first):
  timed("begun", lambda: None, 0)()
  k = first
  while True:
    if k in (5, 35):
      timed("data", lambda: None, 0.6)()
    yield {}
    k += 1

evaluate = timed("evaluation", lambda variables, step: {"loss": 1.0}, 1.0)
place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
abstract = jax.tree.map(
  lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place),
  jax.eval_shape(init),
)
manager = checkpoint.open_manager(workdir + "/checkpoints")
manager.close = timed("save", manager.close, 0.2)
checkpoint.save = timed("save", checkpoint.save, 0.5)
checkpoint.restore_last = timed("restore", checkpoint.restore_last, 0.7)
run = loop.Run(
  learner=types.Learner(init, step, lambda state: state.variables),
  init=init,
  abstract_state=abstract,
  batches=batches,
  evaluations={"val": loop.Evaluation(evaluate, 20)},
  total_steps=44,
  units_per_step={"examples": 1},
  rng=jax.random.key(0),
  checkpoints=manager,
  checkpoint_every=20,
  log_every=1,
  writer=metrics.files(workdir),
  ledger=workdir + "/goodput.jsonl",
  evaluated=workdir + "/evaluated.json",
  started=goodput.process_start(),
)
for report in loop.fit(run):
  if "val/loss" in report.scalars:
    timed("report", lambda: None, 0.3)()
"""


def logged(workdir):
  """Rows of log.jsonl: (name, start, end)."""
  path = workdir / "log.jsonl"
  text = path.read_text() if path.exists() else ""
  return [json.loads(line) for line in text.split("\n")[:-1]]


@pytest.mark.slow
def test_every_injected_second_is_found(tmp_path):
  """A run killed 12 steps after its save, three seconds down, resumed."""
  env = {**os.environ, "XLA_FLAGS": "", "PYTHONPATH": str(ROOT)}
  command = [sys.executable, "-c", RUN, str(tmp_path)]
  began = time.time()
  process = subprocess.Popen(command, env=env)
  deadline = time.time() + 240
  while sum(name == "step" for name, *_ in logged(tmp_path)) < 32:
    assert time.time() < deadline and process.poll() is None
    time.sleep(0.005)
  process.send_signal(signal.SIGKILL)
  process.wait()
  killed = time.time()
  saved_at = max(end for name, _, end in logged(tmp_path) if name == "save")
  before = len(logged(tmp_path))
  time.sleep(3)
  again = time.time()
  subprocess.run(command, env=env, check=True, timeout=240)

  rows = goodput.read(tmp_path / "goodput.jsonl")
  wall = rows[-1]["time"] - began
  log = logged(tmp_path)
  begun = [start for name, start, _ in log if name == "begun"]
  wanted = dict.fromkeys(("evaluation", "save", "restore", "report"), 0.0)
  wanted.update(step=0.0, lost=0.0, data=0.0)
  for i, (name, start, end) in enumerate(log):
    lost = name == "step" and i < before and start > saved_at
    if name != "begun":
      wanted["lost" if lost else name] += end - start
  wanted["start"] = (begun[0] - began) + (begun[1] - again)
  wanted["start"] -= wanted["restore"]
  wanted["down"] = again - killed

  spent = goodput.totals(rows).seconds
  assert sum(spent.values()) == pytest.approx(wall, rel=0.02)
  assert wanted["lost"] > 1
  assert wanted["down"] > 3
  for name, seconds in wanted.items():
    # All that was injected, in its phase. What the machine takes besides, a
    # slow disk say, is bounded by the sum, which is that of wall time.
    share, found = seconds / wall, spent[name] / wall
    assert found > share - 0.02, (name, share, found)
  shares = goodput.summary(rows)
  assert shares["goodput"] == pytest.approx(spent["step"] / wall, abs=0.02)
  last = json.loads((tmp_path / "metrics.jsonl").read_text().split("\n")[-3])
  # Told while the last evaluation and save were still to come.
  told = [goodput.summary(rows[:n])["goodput"] for n in range(1, len(rows) + 1)]
  assert min(abs(last["goodput"] - x) for x in told) < 0.01
