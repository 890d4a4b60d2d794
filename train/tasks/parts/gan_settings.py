"""How the players of an adversarial task are used."""

from typing import NamedTuple

from models.vision.gan import Gan


class Styles(NamedTuple):
  """How a generator of styles is used.

  mixing: share of the examples in training with the styles of two z.
  truncation: psi of samples.
  path: weight of the path lengths; 0 for none.
  path_every: steps between two of its computations.
  """

  mixing: float = 0.9
  truncation: float = 1.0
  path: float = 0.0
  path_every: int = 8


class Augment(NamedTuple):
  """Adaptive augmentation; see train/objectives/adversarial.py.

  target: of E[sign(D(real))]; 0 for no augmentation.
  images: in which its probability can go from 0 to 1.
  """

  target: float = 0.0
  images: int = 500_000


def check(model: Gan, styles: Styles, augment: Augment, r1_every: int) -> None:
  """Checks the settings of a task.

  Raises:
    ValueError: a number is out of range, or the generator has no styles.
  """
  if r1_every < 1:
    raise ValueError(f"r1_every={r1_every} < 1")
  if styles.path and not model.styles:
    raise ValueError("path_length needs a generator of styles (stylegan2)")
  if styles.path_every < 1 or styles.path < 0:
    raise ValueError(
      f"path_length={styles.path} < 0 or path_every={styles.path_every} < 1"
    )
  if not 0 <= styles.mixing <= 1 or not 0 <= styles.truncation <= 1:
    raise ValueError(
      f"mixing={styles.mixing} or truncation={styles.truncation} not in 0…1"
    )
  if not 0 <= augment.target < 1 or augment.images < 1:
    raise ValueError(
      f"augment={augment.target} not in 0…1 or augment_images="
      f"{augment.images} < 1"
    )
