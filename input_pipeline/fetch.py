"""Fetches small public data sets: `python -m input_pipeline.fetch NAME`.

  python -m input_pipeline.fetch --list
  python -m input_pipeline.fetch sst2 trec
  python -m input_pipeline.fetch tang --from=DIR

downloads the files of a data set, checks their SHA-256, and writes the folder
data/NAME, which the configs read. A download that was interrupted continues
with the same command; a folder is there complete or not at all. The files
downloaded are kept in the cache ($TESSERA_CACHE, else ~/.cache/tessera).

--from=DIR takes the files from a local folder instead: from DIR itself, or
from the folder below it that the messages name. Where their SHA-256 is not
that of the published files this is printed, and they are used as they are. A
folder of pictures that has the layout of data/NAME is copied.
"""

import csv
import errno
import gzip
import json
import os
import pathlib
import shutil
import sys
import textwrap
import uuid
import zlib
from collections.abc import Callable

from absl import flags

from common import cli, names
from common.files import cache_folder
from input_pipeline.datasets import Dataset, File, Files, Written
from input_pipeline.datasets.parts import download

# What a path of the user's may be in the way of a folder.
_PATHS = (
  errno.EEXIST,
  errno.EISDIR,
  errno.ELOOP,
  errno.ENAMETOOLONG,
  errno.ENOENT,
  errno.ENOTDIR,
  errno.ENOTEMPTY,
)
_PACKAGE = "input_pipeline.datasets"
# What a damaged file raises while it is read.
_DAMAGED = (
  ValueError,
  LookupError,
  TypeError,
  AttributeError,
  EOFError,
  RecursionError,
  csv.Error,
  gzip.BadGzipFile,
  json.JSONDecodeError,
  zlib.error,
)


def define_flags() -> None:
  """Not on import: other verbs have flags of the same names."""
  flags.DEFINE_bool("list", False, "Print a table of the data sets and exit.")
  flags.DEFINE_string(
    "output",
    "data",
    "The folder below which NAME/ is written. The configs expect it to be "
    "data, in the current folder.",
  )
  flags.DEFINE_string(
    "from",
    None,
    "A local folder that holds the data sets' files; nothing is downloaded "
    "then. By default they are downloaded.",
  )


def main(argv) -> None:
  """Fetches the data sets that are named, in their order."""
  values = flags.FLAGS
  if values.list:
    print("\n".join(table()))
    return
  wanted = argv[1:]
  if not wanted:
    known = ", ".join(sorted(names.discover(_PACKAGE)))
    raise cli.UserError(f"name a data set, or give --list: {known}")
  datasets = {name: find(name) for name in wanted}
  try:
    for name, dataset in datasets.items():
      fetch(name, dataset, values["output"].value, values["from"].value)
  except OSError as error:
    if error.errno not in _PATHS:
      raise
    raise cli.UserError(f"{error.filename}: {error.strerror}") from error
  except KeyboardInterrupt:
    print(
      "interrupted; the same command continues from what was downloaded",
      file=sys.stderr,
    )
    sys.exit(130)


def find(name: str) -> Dataset:
  """The data set of a name.

  Raises:
    UserError: there is none; names the nearest.
  """
  return names.find(_PACKAGE, name, "fetch")()


def table() -> list[str]:
  """Lines that describe each data set, its name and its size in front."""
  lines = []
  for name in sorted(names.discover(_PACKAGE)):
    found = find(name)
    lines += [
      f"{name:15} {size(found.files):>8}  {found.what}",
      f"{'':24}  licence: {found.licence}",
      f"{'':24}  origin: {found.origin}",
      f"{'':24}  SHA-256: {found.digests}",
      *textwrap.wrap(
        f"configs: {', '.join(found.configs) or 'none by default'}",
        width=100,
        initial_indent=" " * 26,
        subsequent_indent=" " * 26,
      ),
    ]
  return lines


def size(files: tuple[File, ...]) -> str:
  """The size of all files together, for people."""
  total = sum(file.size or 0 for file in files)
  return f"{total / 1e6:.1f} MB"


def fetch(
  name: str,
  dataset: Dataset,
  output: str,
  source: str | None = None,
  say: Callable[[str], None] = print,
) -> None:
  """Writes OUTPUT/NAME, unless it is there.

  Args:
    name: of the data set, and of its folder.
    dataset: where its files are, and what is made of them.
    output: the folder above it.
    source: a local folder with the files, or None to download them.
    say: takes each line for the user.

  Raises:
    UserError: a file cannot be had or is not what it should be, or OUTPUT/NAME
      is something else; one line.
    OSError: a file cannot be written.
  """
  folder = pathlib.Path(output) / name
  if os.path.lexists(folder):
    _check(folder, dataset)
    say(f"{folder} is there already; remove it to have it written again")
    return
  say(f"{name}: {dataset.what}")
  say(f"  licence: {dataset.licence}")
  say(f"  origin: {dataset.origin}")
  try:
    if source is None:
      say(f"  {len(dataset.files)} files, {size(dataset.files)}")
      written = dataset.write(_downloaded(name, dataset, say))
    else:
      written = _local(name, dataset, pathlib.Path(source), say)
    _write(folder, dataset, written, say)
  except cli.UserError:
    raise
  except _DAMAGED as error:
    said = f"{error}" if isinstance(error, ValueError) else repr(error)
    raise cli.UserError(f"{name}: {said}") from error


def _check(folder: pathlib.Path, dataset: Dataset) -> None:
  """Raises UserError where a folder does not hold what the data set does."""
  for entry in dataset.holds:
    if not (folder / entry).exists():
      raise cli.UserError(
        f"{folder} exists and has no {entry}: move it away, or give another"
        " --output"
      )


def _downloaded(name: str, dataset: Dataset, say) -> Files:
  folder = pathlib.Path(cache_folder()) / "downloads" / name
  files = {file.name: folder / file.name for file in dataset.files}
  for file in dataset.files:
    try:
      download.download(file, files[file.name], say)
    except ValueError as error:
      raise cli.UserError(
        f"{error}; --from=DIR takes files that you have"
      ) from error
  return files


def _local(name: str, dataset: Dataset, source: pathlib.Path, say) -> Written:
  """What is made of files below a folder of the user's; prints their digests.

  Raises:
    UserError: they are not there.
  """
  if not source.is_dir():
    raise cli.UserError(f"--from={source}: there is no such folder")
  missing = ""
  for choice in (dataset.files, dataset.copies):
    found = {}
    for file in choice:
      paths = (source / file.local, source / file.name)
      path = next((each for each in paths if each.is_file()), None)
      if path is None:
        missing = missing or file.local
        break
      found[file.name] = path
    if choice and len(found) == len(choice):
      _compare(choice, found, say)
      return dataset.write(found)
  if dataset.folder:
    for folder in (source / dataset.folder, source):
      if all((folder / entry).exists() for entry in dataset.holds):
        say(f"  {folder}: a copy of the data set, used as it is")
        return _copied(folder, dataset.holds)
  raise cli.UserError(
    f"--from={source}: {name} needs {missing}, which is neither there nor in"
    " the folder itself"
  )


def _copied(folder: pathlib.Path, holds: tuple[str, ...]) -> Written:
  """Yields the files of the entries `holds` of a folder."""
  for entry in holds:
    path = folder / entry
    for each in [path] if path.is_file() else sorted(path.rglob("*")):
      if each.is_file():
        yield each.relative_to(folder).as_posix(), each.read_bytes()


def _compare(
  files: tuple[File, ...], found: dict[str, pathlib.Path], say
) -> None:
  """Prints which local files are the published ones."""
  verified = 0
  for file in files:
    path, digest = found[file.name], download.sha256_of(found[file.name])
    verified += digest == file.sha256
    if file.sha256 is None:
      say(f"  {path}: SHA-256 {digest}, not verified: none is on record")
    elif digest != file.sha256:
      say(f"  {path}: SHA-256 {digest}, not the published file; used as it is")
  if verified:
    say(f"  the SHA-256 of {verified} of {len(files)} files is verified")


def _write(
  folder: pathlib.Path, dataset: Dataset, written: Written, say
) -> None:
  """Writes a temporary folder, and moves it into place when it is complete."""
  folder.parent.mkdir(parents=True, exist_ok=True)
  partial = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.part")
  counts: dict[str, int] = {}
  try:
    for relative, content in written:
      path = partial / relative
      path.parent.mkdir(parents=True, exist_ok=True)
      _write_file(path, content)
      top = relative.partition("/")[0]
      lines = content.count(b"\n") if relative.endswith(".jsonl") else 1
      counts[top] = counts.get(top, 0) + lines
    if set(counts) != set(dataset.holds):
      raise ValueError(f"the files hold {', '.join(counts) or 'nothing'} only")
    os.rename(partial, folder)
  finally:
    shutil.rmtree(partial, ignore_errors=True)
  for top, count in counts.items():
    kind = "records" if top.endswith(".jsonl") else "files"
    is_file = (folder / top).is_file() and kind == "files"
    say(f"{folder / top}" + ("" if is_file else f": {count:,} {kind}"))


def _write_file(path: pathlib.Path, content: bytes) -> None:
  try:
    path.write_bytes(content)
  except OSError as error:
    raise OSError(error.errno, error.strerror, str(path)) from None


if __name__ == "__main__":
  define_flags()
  sys.exit(cli.run(main, positional=True))
