"""Child processes that need not import JAX: forked from one that has.

`run` and `Popen` have the signatures of `subprocess`. A command of this very
Python (`-m MODULE`, `-c CODE`) becomes a real process with its own arguments,
environment, folder, standard streams and process group, forked from a server
that has imported what the verbs import but has started no JAX backend. Whatever
cannot be right that way (other programs, a changed interpreter setting, a
limit set before the start) starts cold.
"""

import array
import atexit
import contextlib
import gc
import json
import os
import pathlib
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import warnings

ROOT = pathlib.Path(__file__).parents[2]
# What a run imports on its way. No verb: each defines flags of its own.
IMPORTED = (
  "tensorflow",
  "flax.nnx",
  "optax",
  "orbax.checkpoint",
  "matplotlib.pyplot",
  "rich.progress",
  "tensorboard.compat.proto.event_pb2",
  "train.build",
  "train.loop",
  "train.trained",
  "train.hosts.preemption",
  "train.workdir.writer",
)
# Read by JAX when it is imported, and set again in the child.
_JAX = (
  "JAX_PLATFORMS",
  "JAX_COMPILATION_CACHE_DIR",
  "JAX_DISABLE_MOST_OPTIMIZATIONS",
  "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS",
)
_SERVER_KEY = "TESSERA_TESTS_FORKED"
_server = None
_lock = threading.Lock()


def run(command, **settings) -> subprocess.CompletedProcess:
  """subprocess.run by a fork."""
  timeout, check = settings.pop("timeout", None), settings.pop("check", False)
  text = settings.pop("input", None)
  if text is not None:
    settings["stdin"] = subprocess.PIPE
  if settings.pop("capture_output", False):
    settings.update(stdout=subprocess.PIPE, stderr=subprocess.PIPE)
  with Popen(command, **settings) as process:
    try:
      stdout, stderr = process.communicate(text, timeout=timeout)
    except BaseException:
      process.kill()
      raise
  done = subprocess.CompletedProcess(
    command, process.returncode, stdout, stderr
  )
  if check:
    done.check_returncode()
  return done


def can_fork(command, settings) -> bool:
  """Whether a fork is as good as a cold start for subprocess.Popen(…)."""
  usual = {"args", "cwd", "env", "stdin", "stdout", "stderr", "text"}
  usual |= {"encoding", "bufsize", "start_new_session", "process_group"}
  if os.name != "posix" or set(settings) - usual or isinstance(command, str):
    return False
  command = [os.fspath(part) for part in command]
  if command[0] != sys.executable or command[1:2] not in (["-m"], ["-c"]):
    return False
  env = settings.get("env") or os.environ
  for key in set(env) | set(os.environ):
    special = key.startswith(("PYTHON", "JAX_", "LD_", "OMP_", "TF_"))
    if not special or key in (*_JAX, "PYTHONPATH", "PYTHONUNBUFFERED"):
      continue
    if env.get(key) != os.environ.get(key):
      return False
  return True


class Popen(subprocess.Popen):
  """subprocess.Popen by a fork, where `can_fork`."""

  def __init__(self, args, **settings):
    self._forked = can_fork(args, settings)
    self._channel = None
    self._new_session = settings.get("start_new_session", False)
    self._process_group = settings.get("process_group")
    super().__init__(args, **settings)

  def _execute_child(self, args, executable, preexec_fn, close_fds, *rest):
    if not self._forked:
      return super()._execute_child(
        args, executable, preexec_fn, close_fds, *rest
      )
    # pass_fds, cwd, env, startupinfo, creationflags, shell, then the pipes.
    _, cwd, env, _, _, _, *pipes = rest[:12]
    p2cread, _, _, c2pwrite, _, errwrite = pipes
    request = {
      "argv": [os.fspath(part) for part in args],
      "cwd": os.fspath(cwd or os.getcwd()),
      "env": dict(env or os.environ),
      "session": self._new_session,
      "group": self._process_group,
    }
    fds = [p2cread, c2pwrite, errwrite]
    fds = [own if fd == -1 else fd for own, fd in enumerate(fds)]
    self._channel, self.pid = _ask(request, fds)
    self._child_created = True
    self._close_pipe_fds(*pipes)
    return None

  def _internal_poll(self, *args, **named):
    if not self._forked:
      return super()._internal_poll(*args, **named)
    if self.returncode is None and self._waitpid_lock.acquire(False):
      try:
        pid, status = self._try_wait(os.WNOHANG)
        if self.returncode is None and pid == self.pid:
          self._handle_exitstatus(status)
      finally:
        self._waitpid_lock.release()
    return self.returncode

  def _try_wait(self, flags):
    if not self._forked:
      return super()._try_wait(flags)
    self._channel.settimeout(0 if flags & os.WNOHANG else None)
    try:
      status = self._channel.recv(16)
    except BlockingIOError:
      return 0, 0
    self._channel.close()
    if not status:
      raise RuntimeError("the fork server is gone")
    return self.pid, int(status)


def _ask(request, fds) -> tuple[socket.socket, int]:
  """Sends a request; (the socket that the exit status comes by, pid)."""
  channel = socket.socket(socket.AF_UNIX)
  channel.connect(_address())
  data = json.dumps(request).encode()
  rights = array.array("i", fds)
  channel.sendmsg(
    [len(data).to_bytes(8, "little")],
    [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)],
  )
  channel.sendall(data)
  return channel, int(channel.recv(16))


def _address() -> str:
  """Where the server listens; starts it at the first call."""
  global _server
  with _lock:
    if _server is None:
      folder = tempfile.TemporaryDirectory(prefix="fork-")
      path = os.path.join(folder.name, "socket")
      listening, ready = os.pipe()
      process = subprocess.Popen(
        [sys.executable, __file__, path, str(ready)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        pass_fds=[ready],
      )
      os.close(ready)
      assert os.read(listening, 1), "the fork server did not start"
      os.close(listening)
      _server = (path, process, folder)
      atexit.register(_stop)
  return _server[0]


def _stop() -> None:
  path, process, folder = _server
  process.terminate()
  process.wait()
  with contextlib.suppress(OSError):
    folder.cleanup()


def serve(path: str, ready: int) -> dict:
  """Forks a child for each request; returns in each child, with its request."""
  listener = socket.socket(socket.AF_UNIX)
  listener.bind(path)
  listener.listen(64)
  wake, woken = os.pipe()
  os.set_blocking(woken, False)
  signal.set_wakeup_fd(woken)
  signal.signal(signal.SIGCHLD, lambda *args: None)
  # A Ctrl-C in the terminal is for the tests and for the children.
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  selector = selectors.DefaultSelector()
  selector.register(listener, selectors.EVENT_READ)
  selector.register(wake, selectors.EVENT_READ)
  channels = {}
  gc.collect()
  gc.freeze()
  os.write(ready, b"1")
  os.close(ready)
  while True:
    for key, _ in selector.select():
      if key.fd == wake:
        os.read(wake, 4096)
        _reap(channels)
        continue
      channel, _ = listener.accept()
      request, fds = _received(channel)
      pid = os.fork()
      if pid:
        channel.sendall(str(pid).encode())
        channels[pid] = channel
        for fd in fds:
          os.close(fd)
        _reap(channels)
        continue
      signal.set_wakeup_fd(-1)
      signal.signal(signal.SIGCHLD, signal.SIG_DFL)
      signal.signal(signal.SIGINT, signal.default_int_handler)
      for each in (selector, listener, channel, *channels.values()):
        each.close()
      os.close(wake)
      os.close(woken)
      return {**request, "fds": fds}


def _received(channel) -> tuple[dict, list[int]]:
  """A request, and its three standard streams."""
  head, rights, _, _ = channel.recvmsg(8, socket.CMSG_SPACE(3 * 4))
  fds = array.array("i")
  fds.frombytes(rights[0][2])
  size, data = int.from_bytes(head, "little"), b""
  while len(data) < size:
    data += channel.recv(size - len(data))
  return json.loads(data), list(fds)


def _reap(channels) -> None:
  """Sends the exit status of each child that has ended."""
  while channels:
    pid, status = os.waitpid(-1, os.WNOHANG)
    if not pid:
      return
    channel = channels.pop(pid)
    with contextlib.suppress(OSError):
      channel.sendall(str(status).encode())
    channel.close()


def become(request: dict) -> None:
  """Makes this process what the request asks for, and runs its module."""
  if request["session"]:
    os.setsid()
  elif request["group"] is not None:
    os.setpgid(0, request["group"])
  for own, fd in enumerate(request["fds"]):
    os.dup2(fd, own)
  for fd in request["fds"]:
    os.close(fd)
  os.chdir(request["cwd"])
  os.environ.clear()
  os.environ.update(request["env"])
  unbuffered = bool(os.environ.get("PYTHONUNBUFFERED"))
  sys.stdin = os.fdopen(0, closefd=False)
  sys.stdout = sys.__stdout__ = os.fdopen(1, "w", closefd=False)
  sys.stdout.reconfigure(write_through=unbuffered, line_buffering=os.isatty(1))
  sys.stderr = sys.__stderr__ = os.fdopen(
    2, "w", buffering=1, errors="backslashreplace", closefd=False
  )
  _configure_jax()
  flag, what, *arguments = request["argv"][1:]
  extra = os.environ.get("PYTHONPATH", "").split(os.pathsep)
  sys.path[:0] = [p for p in extra if p and p not in sys.path]
  sys.path.insert(0, request["cwd"] if flag == "-m" else "")
  sys.argv = [what if flag == "-m" else "-c", *arguments]
  warnings.resetwarnings()
  warnings.filters[:] = _FILTERS
  if flag == "-m":
    runpy.run_module(what, run_name="__main__", alter_sys=True)
  else:
    space = {"__name__": "__main__", "__builtins__": __builtins__}
    exec(compile(what, "<string>", "exec"), space)


def _configure_jax() -> None:
  """What JAX read from the environment when the server imported it."""
  import jax

  env = os.environ
  jax.config.update("jax_platforms", env.get("JAX_PLATFORMS"))
  jax.config.update(
    "jax_compilation_cache_dir", env.get("JAX_COMPILATION_CACHE_DIR")
  )
  jax.config.update(
    "jax_disable_most_optimizations",
    env.get("JAX_DISABLE_MOST_OPTIMIZATIONS", "0") == "1",
  )
  jax.config.update(
    "jax_persistent_cache_min_compile_time_secs",
    float(env.get("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", 1.0)),
  )


if __name__ == "__main__":
  _FILTERS = list(warnings.filters)
  sys.path[0] = str(ROOT)
  for _module in IMPORTED:
    with contextlib.suppress(ModuleNotFoundError):
      __import__(_module)
  become(serve(sys.argv[1], int(sys.argv[2])))
