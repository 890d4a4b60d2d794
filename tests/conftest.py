"""Eight simulated devices, strict ranks, one cache of compiled programs.

The controller makes a folder for compiled programs, which all workers and all
child processes of the session read and fill. A program that one test compiled
is loaded by the next; tests about compiling itself use a folder of their own.
"""

import contextlib
import os
import pathlib
import shutil
import signal
import tempfile

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
flags = os.environ.get("XLA_FLAGS", "")
if "device_count" not in flags:
  os.environ["XLA_FLAGS"] = (
    flags + " --xla_force_host_platform_device_count=8"
  ).strip()

WORKER = os.environ.get("PYTEST_XDIST_WORKER")
if not WORKER:
  PROGRAMS = tempfile.mkdtemp(prefix="tessera-programs-")
  os.environ["JAX_COMPILATION_CACHE_DIR"] = PROGRAMS
  os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"

import jax  # noqa: E402  (the flags above must come first)
import memory  # noqa: E402
import peers  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")

ROOT = pathlib.Path(__file__).parent.parent
# They come first, lest one worker ends long before the other.
LONGEST = (
  "smoke_test.py",
  "resume_test.py",
  "parallelism_test.py",
  "tasks_test.py",
  "convert_test.py",
  "checkpoint_test.py",
  "save_faults_test.py",
)
SHARED_DATA = ROOT.parent / "shared" / "data"


def pytest_configure(config):
  # Triton 3.8 crashes where it is loaded after TensorFlow.
  if "parity" in config.option.markexpr:
    with contextlib.suppress(pytest.skip.Exception):
      peers.torchvision()


def pytest_make_parametrize_id(val, argname):
  """Names parameters of bytes by their argument.

  All workers must collect the same names, and a gzip file holds its time.
  """
  return argname if isinstance(val, bytes) else None


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
  """Token files and tokenizers of the tests go nowhere else."""
  os.environ["TESSERA_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module", autouse=True)
def forgotten():
  """The programs of a file are of no use to the next one."""
  yield
  memory.forget()


@pytest.fixture(autouse=True)
def bounded():
  """A file of many programs must not hold all of them at once."""
  yield
  memory.forget_if_large()


@pytest.fixture(scope="session", autouse=True)
def interruptible():
  """A suite in a shell's background ignores Ctrl-C; what it runs must not."""
  signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="module", autouse=True)
def compiled_soon(request):
  """Compiles without most of XLA's optimizations, also in child processes.

  Compiling takes most of the time of small tests. Files that are marked
  `optimized` (recorded figures, plans, kills and resumes as users see them) are
  compiled as users compile.
  """
  optimized = request.node.get_closest_marker("optimized")
  value = "0" if optimized else "1"
  before = os.environ.get("JAX_DISABLE_MOST_OPTIMIZATIONS", "0")
  os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = value
  jax.config.update("jax_disable_most_optimizations", not optimized)
  yield
  os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = before
  jax.config.update("jax_disable_most_optimizations", before == "1")


@pytest.fixture(scope="session")
def chat_run(tmp_path_factory) -> str:
  """The workdir of a tiny model that has learned to answer, and to end."""
  from configs.text import sft_chat
  from train import build, loop

  config = sft_chat.get_config("smoke")
  config.total_steps = 50
  config.model.layers = 1
  config.data.update(source="fake:conversations?turns=2", seq_len=128)
  config.optimizer.update(lr=1e-2, warmup_steps=5)
  config.checkpoint = dict(every_steps=50, keep=1)
  config.evals = {}
  workdir = str(tmp_path_factory.mktemp("chat") / "run")
  run = build.run(config, workdir, say=lambda line: None)
  assert list(loop.fit(run))[-1].scalars["train/loss"] < 2.5
  return workdir


@pytest.fixture(scope="session")
def speaker(chat_run):
  """That model, to speak with."""
  from train import trained
  from train.generation import replies

  return replies.speaker(trained.load(chat_run, say=lambda line: None))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
  """Marks the parity tests, and those of data that is not there; sorts."""
  items.sort(key=lambda item: item.path.name not in LONGEST)
  skip = pytest.mark.skip(reason="no real data beside the project")
  for item in items:
    if item.path.name.endswith("_parity_test.py"):
      item.add_marker("parity")
    if "shared_data" in item.keywords and not SHARED_DATA.is_dir():
      item.add_marker(skip)


def _peak_megabytes() -> int:
  """The most memory that this process has held; 0 where it is not known."""
  with contextlib.suppress(OSError):
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
      if line.startswith("VmHWM"):
        return int(line.split()[1]) // 1024
  return 0


def pytest_sessionfinish(session):
  """A worker reports its peak memory; the controller removes the cache."""
  if WORKER:
    session.config.workeroutput["peak_megabytes"] = _peak_megabytes()
  else:
    shutil.rmtree(PROGRAMS, ignore_errors=True)


PEAKS: list[int] = []


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node, error):
  """Collects the peak memory of the workers."""
  del error
  PEAKS.append(getattr(node, "workeroutput", {}).get("peak_megabytes", 0))


def pytest_terminal_summary(terminalreporter):
  peak = max(PEAKS, default=0) or _peak_megabytes()
  terminalreporter.write_line(f"peak memory of a worker: {peak:,} MB")


@pytest.fixture
def shared_data() -> pathlib.Path:
  return SHARED_DATA
