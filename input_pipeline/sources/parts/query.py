"""Settings at the end of a source's URI: voc:DIR?outside=drop&empty=error."""

import re
from collections.abc import Mapping


def split(
  rest: str, scheme: str, settings: Mapping[str, tuple[str, ...]]
) -> tuple[str, dict[str, str]]:
  """Returns (the path, {setting: value}) of what follows the scheme in a URI.

  A setting that is not given has the first of its valid values. A "?" that no
  known setting follows is a part of the path.

  Args:
    rest: of the URI.
    scheme: for error messages.
    settings: {name: its valid values}; ("",) admits any value.

  Raises:
    ValueError: a value is not valid; one line that names it.
  """
  keys = "|".join(map(re.escape, settings))
  found = re.search(rf"(?:[?&](?:{keys})=[^?&]*)+$", rest)
  values = {key: valid[0] for key, valid in settings.items()}
  if not found:
    return rest, values
  for each in re.split("[?&]", found[0])[1:]:
    key, _, value = each.partition("=")
    valid = settings[key]
    if valid != ("",) and value not in valid:
      raise ValueError(
        f"{scheme}:{rest}: {key}={value!r}; valid: {', '.join(valid)}"
      )
    values[key] = value
  return rest[: found.start()], values
