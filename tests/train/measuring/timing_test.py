"""The clock's arithmetic, and what it learns from JAX."""

import itertools
import random
import resource
import statistics
import threading
import time
import types as std_types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache
from tiers import slow_but

from train.measuring import costs, energy, timing


@pytest.fixture
def wait(monkeypatch):
  """(seconds) -> None; the only thing that moves the clock's time."""
  now = [100.0]

  def wait(seconds):
    now[0] += seconds

  fake = std_types.SimpleNamespace(
    perf_counter=lambda: now[0], time=lambda: 5000 + now[0]
  )
  monkeypatch.setattr(timing, "time", fake)
  return wait


def spend(clock, wait, data, step):
  with clock.waiting():
    wait(data)
  with clock.step(0):
    wait(step)


def test_the_clock_counts_steps_and_what_they_wait_for(wait, monkeypatch):
  monkeypatch.setattr(timing, "peak_memory", dict)
  clock = timing.Clock({"examples": 12, "tokens": 768})
  with clock.phase("evaluation"):
    wait(30)  # before the first step
  spend(clock, wait, data=2, step=5)  # the first step compiles
  spend(clock, wait, data=0.5, step=1)
  with clock.phase("save"):
    wait(10)
  spend(clock, wait, data=1, step=1.5)
  # 4 seconds of two steps, of which 1.5 waiting.
  assert clock.read() == pytest.approx(
    {
      "examples_per_second": 6,
      "tokens_per_second": 384,
      "step_seconds": 2,
      "data_wait": 1.5 / 4,
      "compile_seconds": 5,
      "cache_hits": 0,
      "cache_misses": 0,
    }
  )
  spend(clock, wait, data=0, step=2)
  with clock.phase("report"):
    wait(1)  # whoever takes the figures holds up the next step
  found = clock.read()
  assert found == pytest.approx(
    {
      "examples_per_second": 4,
      "tokens_per_second": 256,
      "step_seconds": 3,
      "data_wait": 0,
    }
  )
  assert clock.seconds() == {
    "step": 4.5,
    "start": 0,
    "compile": 5,
    "restore": 0,
    "data": 3.5,
    "evaluation": 30,
    "save": 10,
    "report": 1,
  }


def test_the_clock_says_nothing_of_no_step(wait):
  clock = timing.Clock({"examples": 1})
  assert clock.read() == {}
  spend(clock, wait, data=1, step=1)  # compiles: no speed is known yet
  assert clock.read() == {}
  spend(clock, wait, data=0, step=2)
  assert clock.read()["step_seconds"] == 2
  wait(1)
  assert clock.read() == {}


def test_time_before_the_clock_is_of_the_start(wait):
  clock = timing.Clock({}, started=5000 + 100 - 7)
  wait(2)
  assert clock.seconds()["start"] == pytest.approx(9)


def test_phases_sum_to_all_time_however_they_nest(wait):
  """Whatever else asks, and when: no second is lost or counted twice."""
  rng = random.Random(0)
  clock = timing.Clock({"examples": 1})
  wanted = dict.fromkeys(timing.PHASES, 0.0)

  def nest(depth, name):
    for _ in range(rng.randrange(1, 4)):
      seconds = rng.random()
      wait(seconds)
      wanted[name] += seconds
      if rng.random() < 0.5:
        clock.seconds()  # as a beat does, from its thread
      if depth:
        inner = rng.choice(timing.PHASES)
        with clock.phase(inner):
          nest(depth - 1, inner)

  nest(5, "start")
  assert clock.seconds() == pytest.approx(wanted)
  with pytest.raises(KeyError), clock.phase("save"):
    wait(1)
    raise KeyError
  wait(2)
  assert clock.seconds()["save"] == pytest.approx(wanted["save"] + 1)
  assert clock.seconds()["start"] == pytest.approx(wanted["start"] + 2)


def test_every_figure_is_a_key_of_the_clock(wait, monkeypatch):
  stats = [{"peak_bytes_in_use": 7}, {"peak_bytes_in_use": 9}, None, {}]
  devices = [
    std_types.SimpleNamespace(memory_stats=lambda s=s: s) for s in stats
  ]
  monkeypatch.setattr(jax, "local_devices", lambda: devices)
  price = costs.Costs(flops=lambda: 3e12, devices=4, peak_flops=2e12)
  clock = timing.Clock({"examples": 1, "tokens": 2}, price)
  spend(clock, wait, data=1, step=1)
  spend(clock, wait, data=0, step=2)
  found = clock.read()
  assert found["mfu"] == pytest.approx(3e12 / (2 * 4 * 2e12))
  assert found["device_memory_bytes"] == 9
  used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  assert 0 < found["host_memory_bytes"] <= 1024 * used
  assert timing.describe_memory().endswith("GiB, device 0.00 GiB")
  told = {*found, "goodput", *energy.KEYS, "badput_lost", "badput_down"}
  told |= {f"badput_{name}" for name in timing.PHASES if name != "step"}
  assert told == set(timing.CLOCK_KEYS)


def slow_program(seconds):
  """(x) -> x, after so many seconds on the device."""

  def sleep(x):
    time.sleep(seconds)
    return x

  return jax.jit(
    lambda x: jax.pure_callback(sleep, jax.ShapeDtypeStruct((), np.int32), x)
  )


@pytest.mark.parametrize(
  ("data_seconds", "idle"),
  slow_but(
    [(0.06, 0.0), (0.15, 0.05)],
    [(0.0, 0.0), (0.06, 0.0), (0.15, 0.05), (0.3, 0.2)],
  ),
)
def test_waiting_counts_only_while_the_device_is_idle(data_seconds, idle):
  """Steps of 0.1 s: data that is faster costs nothing, slower the rest."""
  program = slow_program(0.1)
  program(0).block_until_ready()
  clock = timing.Clock({"examples": 1})
  update, taken, waited = None, time.perf_counter(), []
  for step in range(11):
    before = clock.seconds()["data"]
    with clock.waiting(update):
      # A prefetching thread has made it since it gave the one before.
      time.sleep(max(0.0, taken + data_seconds - time.perf_counter()))
      taken = time.perf_counter()
    with clock.step(step):
      previous, update = update, program(step)
    jax.block_until_ready(previous)
    waited.append(clock.seconds()["data"] - before)
  # The first waits tell whether data is slow; the median leaves out those
  # during which the machine was at something else.
  assert statistics.median(waited[2:]) == pytest.approx(idle, abs=0.02)


def test_compiling_is_told_apart_wherever_it_happens(tmp_path):
  """By JAX's own events: seconds, and programs of the persistent cache."""
  saved = {
    name: getattr(jax.config, name)
    for name in (
      "jax_compilation_cache_dir",
      "jax_persistent_cache_min_compile_time_secs",
    )
  }

  def program(x):
    for _ in range(240):  # a fraction of a second of compiling
      x = jnp.sin(x @ x)
    return x

  def compile_it():
    before = time.perf_counter()
    clock = timing.Clock({"examples": 1})
    start = time.perf_counter()
    with clock.phase("evaluation"):
      jax.jit(program)(jnp.ones((8, 8)))
    with clock.step(0):
      pass
    with clock.step(1):
      time.sleep(0.001)
    found = clock.read()
    end = time.perf_counter()
    spent = clock.seconds()
    assert end - start <= sum(spent.values()) <= time.perf_counter() - before
    return found, spent

  jax.config.update("jax_compilation_cache_dir", str(tmp_path))
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
  compilation_cache.reset_cache()  # of the session's folder
  try:
    jax.clear_caches()
    cold, spent = compile_it()
    assert cold["cache_misses"] >= 1
    assert cold["cache_hits"] == 0
    assert cold["compile_seconds"] == pytest.approx(spent["compile"], abs=1e-3)
    assert spent["compile"] > 0.1
    jax.clear_caches()
    warm, _ = compile_it()
    assert warm["cache_hits"] == cold["cache_misses"]
    assert warm["cache_misses"] == 0
    assert warm["compile_seconds"] < cold["compile_seconds"]
    again, _ = compile_it()
    assert again.get("cache_hits", 0) == 0  # in memory still
  finally:
    for name, value in saved.items():
      jax.config.update(name, value)
    compilation_cache.reset_cache()
    jax.clear_caches()


def test_what_other_threads_compile_is_not_the_clocks_time():
  clock = timing.Clock({"examples": 1})
  size = next(itertools.count(3))
  work = threading.Thread(
    target=lambda: jax.jit(lambda x: jnp.cos(x) * 31)(jnp.ones(size))
  )
  work.start()
  work.join()
  assert clock.seconds()["compile"] == 0


def test_energy_is_estimated_from_power_and_marked_so(monkeypatch):
  now = [50.0]
  clock = std_types.SimpleNamespace(monotonic=lambda: now[0])
  monkeypatch.setattr(energy, "time", clock)
  assert energy.meter(None) is None
  price = costs.Costs(flops=lambda: 1.0, devices=8)
  assert energy.meter(price) is None
  meter = energy.meter(price._replace(watts=250.0))
  now[0] += 1800  # half an hour of 2 kW
  assert meter.key == "energy_kwh_estimated"
  assert meter.kwh() == pytest.approx(1.0)


@pytest.mark.parametrize("hosts", [1, 2])
@pytest.mark.parametrize("visible", [None, "3,1", "GPU-b,GPU-a"])
def test_energy_is_read_where_nvidia_counts_it(monkeypatch, hosts, visible):
  """A stand-in for NVML; the counters are of the GPUs that JAX sees."""
  counters = {0: 1e6, 1: 2e6, 3: 4e6, "GPU-a": 8e6, "GPU-b": 16e6}
  nvml = std_types.SimpleNamespace(
    NVMLError=RuntimeError,
    nvmlInit=lambda: None,
    nvmlDeviceGetCount=lambda: 2,
    nvmlDeviceGetHandleByIndex=lambda index: index,
    nvmlDeviceGetHandleByUUID=lambda name: name,
    nvmlDeviceGetTotalEnergyConsumption=lambda handle: counters[handle],
  )
  monkeypatch.setitem(__import__("sys").modules, "pynvml", nvml)
  gpus = [
    std_types.SimpleNamespace(platform="gpu", local_hardware_id=i)
    for i in range(2)
  ]
  monkeypatch.setattr(jax, "local_devices", lambda: gpus)
  monkeypatch.setattr(jax, "local_device_count", lambda: 2)
  monkeypatch.setattr(jax, "device_count", lambda: 2 * hosts)
  monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
  if visible:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
  seen = {None: (0, 1), "3,1": (3, 1), "GPU-b,GPU-a": ("GPU-a", "GPU-b")}
  meter = energy.meter(None)
  for handle in seen[visible]:
    counters[handle] += 1.8e9  # millijoules: half a kWh
  assert meter.kwh() == pytest.approx(hosts)
  assert meter.key == energy.KEYS[hosts > 1]
