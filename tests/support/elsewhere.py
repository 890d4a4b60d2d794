"""A file system of Beam's that is a local folder: elsewhere://NAME/...."""

import os
import shutil

from apache_beam.io import filesystem
from apache_beam.io.localfilesystem import LocalFileSystem

SCHEME = "elsewhere://"
ROOT = "ELSEWHERE_ROOT"  # The environment says which folder it is.


def local(path: str) -> str:
  return os.path.join(os.environ[ROOT], path.removeprefix(SCHEME))


class Elsewhere(LocalFileSystem):
  """As a bucket: no folders have to be made, nothing is there half written."""

  @classmethod
  def scheme(cls):
    return "elsewhere"

  def match(self, patterns, limits=None):
    found = super().match([local(p) for p in patterns])
    for result in found:
      result.metadata_list = [
        filesystem.FileMetadata(
          SCHEME + os.path.relpath(each.path, os.environ[ROOT]),
          each.size_in_bytes,
        )
        for each in result.metadata_list
      ]
    return found

  def create(self, path, *arguments, **named):
    os.makedirs(os.path.dirname(local(path)), exist_ok=True)
    return super().create(local(path), *arguments, **named)

  def open(self, path, *arguments, **named):
    return super().open(local(path), *arguments, **named)

  def exists(self, path):
    return super().exists(local(path))

  def delete(self, paths):
    for path in map(local, paths):
      if path.endswith("/"):
        shutil.rmtree(path)
      else:
        os.remove(path)
