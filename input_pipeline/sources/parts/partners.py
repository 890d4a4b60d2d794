"""Files that belong together by their names: a picture and its annotation."""

import os
from collections.abc import Iterable

from input_pipeline.bad_records import Policy
from input_pipeline.reading import bounded, endings

# The names that a note lists.
_FEW = 3


def stems(folder: str, suffixes: tuple[str, ...]) -> dict[str, str]:
  """Returns {name without its ending: path} of a folder's files, sorted.

  Of two files that differ in their endings only, the first is returned.

  Args:
    folder: is read without the folders within it.
    suffixes: of the files, in lower case.

  Raises:
    ValueError: the folder cannot be read.
  """
  try:
    with os.scandir(folder) as entries:
      names = sorted(e.name for e in entries if not e.is_dir())
  except OSError as error:
    raise bounded.failure(folder, error) from None
  found: dict[str, str] = {}
  for name in names:
    if name.lower().endswith(suffixes) and not endings.hidden(name):
      found.setdefault(os.path.splitext(name)[0], os.path.join(folder, name))
  return found


def unmatched(
  uri: str, matched: int, missing: Iterable[str], policy: Policy
) -> str:
  """Returns a line that counts names without a partner, or "".

  Args:
    uri: of the data.
    matched: the number of names with a partner.
    missing: lines that name each of the others, such as "7.jpg has no mask".
    policy: how large a share may be without one.

  Raises:
    ValueError: more than `max_bad_share` of the names have no partner.
  """
  missing = list(missing)
  if not missing:
    return ""
  named = ", ".join(missing[:_FEW]) + (", …" if len(missing) > _FEW else "")
  whole = matched + len(missing)
  line = f"{uri}: {len(missing):,} of {whole:,} are left out: {named}"
  if len(missing) > policy.max_bad_share * whole:
    raise ValueError(
      f"{line}; add the missing files, or raise"
      f" max_bad_share={policy.max_bad_share:g}"
    )
  return line
