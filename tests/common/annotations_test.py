"""Values of a wrong type, found by a function's annotations."""

from collections.abc import Mapping, Sequence

import pytest

from common import annotations, names
from common.errors import UserError


def example(
  text: str = "",
  count: int = 0,
  rate: float | None = 0.0,
  on: bool = False,
  paths: Sequence[str] = (),
  part: Mapping | None = None,
  either: int | Sequence[int] = 0,
  widths: tuple[int, ...] = (),
  anything=None,
):
  """Fails as code does that expects the annotated types."""
  return text.strip(), [path.strip() for path in paths]


@pytest.mark.parametrize(
  ("settings", "wanted"),
  [
    ({"text": 5}, "config.a.text=5: not a string"),
    ({"text": [1]}, "config.a.text=[1]: not a string"),
    ({"count": "x"}, "config.a.count='x': not a whole number"),
    ({"count": True}, "config.a.count=True: not a whole number"),
    ({"rate": "x"}, "config.a.rate='x': not a number or None"),
    ({"on": "x"}, "config.a.on='x': not True or False"),
    ({"paths": 5}, "config.a.paths=5: not a list of strings"),
    ({"paths": [5]}, "config.a.paths=[5]: not a list of strings"),
    ({"part": 5}, "config.a.part=5: not a section or None"),
    (
      {"either": ["x"]},
      "config.a.either=['x']: not a whole number or a list of whole numbers",
    ),
    ({"widths": "x"}, "config.a.widths='x': not a list of whole numbers"),
    ({"widths": [1.5]}, "config.a.widths=[1.5]: not a list of whole numbers"),
  ],
)
def test_a_wrong_type_is_one_line_that_names_the_key(settings, wanted):
  with pytest.raises(UserError) as caught:
    names.call(example, where="config.a", settings=settings)
  assert str(caught.value) == wanted


def test_right_types_pass():
  settings = {
    "text": "x",
    "count": 2,
    "rate": 1,
    "on": True,
    "paths": ["x"],
    "part": {},
    "either": [1],
    "widths": [1, 2],
    "anything": "x",
  }
  assert annotations.mistyped(example, settings) is None
  assert annotations.mistyped(example, dict.fromkeys(settings)) is None


def test_a_fault_of_the_function_itself_is_not_hidden():
  def broken(count: int):
    return count.strip()

  with pytest.raises(AttributeError):
    names.call(broken, where="config.a", settings={"count": 1})
