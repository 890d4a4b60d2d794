"""A bucket on the local disk, for tests across processes: emulated://NAME/KEY.

Objects are whole or not there; there is no appending, no renaming and no empty
folder. One object is one file, named by the escaped key, so that a "folder" is
nothing but a common beginning of keys, as in real buckets. It is served
below the folder that $EMULATED_BUCKET names.

  python -c "import emulated_bucket; emulated_bucket.run('train.main')" FLAGS
"""

import datetime
import io
import os
import pathlib
import runpy
import time
import urllib.parse
import uuid

import fsspec
from fsspec.spec import AbstractFileSystem


class Emulated(AbstractFileSystem):
  protocol = "emulated"
  cachable = False

  def _file(self, path: str) -> pathlib.Path:
    key = self._strip_protocol(path).strip("/")
    root = pathlib.Path(os.environ["EMULATED_BUCKET"])
    return root / urllib.parse.quote(key, safe="")

  def _keys(self) -> dict[str, os.stat_result]:
    found = {}
    for entry in os.scandir(os.environ["EMULATED_BUCKET"]):
      if not entry.name.endswith(".passing"):
        found[urllib.parse.unquote(entry.name)] = entry.stat()
    return found

  def ls(self, path, detail=True, **_):
    start = self._strip_protocol(path).strip("/")
    found = {}
    for key, stat in self._keys().items():
      if key == start:
        found[key] = {"name": key, "size": stat.st_size, "type": "file"}
      elif key.startswith(f"{start}/"):
        head, slash, _ = key[len(start) + 1 :].partition("/")
        kind = "directory" if slash else "file"
        size = 0 if slash else stat.st_size
        name = f"{start}/{head}"
        found[name] = {"name": name, "size": size, "type": kind}
    if not found:
      raise FileNotFoundError(path)
    return [*found.values()] if detail else [*found]

  def modified(self, path):
    seconds = self._file(path).stat().st_mtime
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC)

  def _open(self, path, mode="rb", **_):
    if mode == "rb":
      return io.BytesIO(self._file(path).read_bytes())
    assert mode in ("wb", "xb"), mode
    return _Object(self._file(path), exclusive=mode == "xb")

  def rm_file(self, path):
    self._file(path).unlink()

  def _rm(self, path):
    self._file(path).unlink()

  def makedirs(self, path, exist_ok=False):
    pass

  def mkdir(self, path, create_parents=True, **_):
    pass

  def mv(self, *_, **__):
    raise NotImplementedError("a bucket renames nothing")


class _Object(io.BytesIO):
  """What is written appears when it is closed; slowly, if so asked."""

  def __init__(self, file: pathlib.Path, exclusive: bool):
    super().__init__()
    self._object, self._exclusive = file, exclusive

  def close(self):
    if self.closed:
      return
    content = self.getvalue()
    super().close()
    time.sleep(float(os.environ.get("EMULATED_SECONDS", 0)))
    passing = self._object.with_name(f"{uuid.uuid4().hex}.passing")
    passing.write_bytes(content)
    try:
      if self._exclusive:
        os.link(passing, self._object)
        passing.unlink()
      else:
        os.replace(passing, self._object)
    finally:
      passing.unlink(missing_ok=True)


def register() -> None:
  fsspec.register_implementation("emulated", Emulated, clobber=True)


def run(module: str) -> None:
  """Runs a verb in whose process the bucket is served."""
  register()
  runpy.run_module(module, run_name="__main__", alter_sys=True)
