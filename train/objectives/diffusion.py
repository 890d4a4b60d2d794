"""Diffusion and flow matching: what is learned, and how it is sampled.

x_t = a_t x_0 + s_t noise, from the data x_0 at t = 0 to noise. A diffusion has
steps t = 0…T-1 with a_t^2 + s_t^2 = 1; a flow has times from 0 to 1 with
a_t = 1 - t and s_t = t. A network sees the time t of a diffusion, and 1000 t of
a flow. Arrays x are [B, ...]; times are [B].
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

SCHEDULES = ("linear", "cosine")
PREDICTIONS = ("eps", "x0", "v")
FLOW_SCALE = 1000.0
# (x, time_B) -> the network's output, of the shape of x.
Denoise = Callable[[jax.Array, jax.Array], jax.Array]


def signal_shares(schedule: str, timesteps: int) -> np.ndarray:
  """a_t^2 of each step, float64 [T]; s_t^2 is the rest to 1.

  "linear": variances of noise from 1e-4 to 0.02 (Ho et al., 2020,
  arXiv:2006.11239, section 4). "cosine": Nichol and Dhariwal, 2021,
  arXiv:2102.09672, equation 17, with variances of at most 0.999.

  Raises:
    ValueError: the schedule is unknown.
  """
  if schedule == "linear":
    beta_T = np.linspace(1e-4, 0.02, timesteps)
  elif schedule == "cosine":
    time = np.arange(timesteps + 1) / timesteps
    level = np.cos((time + 0.008) / 1.008 * math.pi / 2) ** 2
    beta_T = np.minimum(1 - level[1:] / level[:-1], 0.999)
  else:
    there = ", ".join(SCHEDULES)
    raise ValueError(f"schedule={schedule!r} is none of: {there}")
  return np.cumprod(1 - beta_T)


class Noising(NamedTuple):
  """What is learned.

  shares: a_t^2 of each step; None for a flow.
  prediction: one of PREDICTIONS, or "flow", the velocity noise - x_0.
  """

  shares: np.ndarray | None
  prediction: str


def noising(
  kind: str, schedule: str, prediction: str, timesteps: int
) -> Noising:
  """The Noising of a "diffusion" or of a "flow", which has no schedule.

  Raises:
    ValueError: a choice is unknown, or there are no steps.
  """
  if kind not in ("diffusion", "flow"):
    raise ValueError(f"kind={kind!r} is neither diffusion nor flow")
  if prediction not in PREDICTIONS:
    there = ", ".join(PREDICTIONS)
    raise ValueError(f"prediction={prediction!r} is none of: {there}")
  if timesteps < 1:
    raise ValueError(f"timesteps={timesteps} is not positive")
  shares_T = signal_shares(schedule, timesteps)
  return Noising(shares_T, prediction) if kind == "diffusion" else FLOW


FLOW = Noising(None, "flow")


def noised(
  how: Noising, x0: jax.Array, noise: jax.Array, time_B: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """(x_t, what a network predicts of it, the times that it is given)."""
  axes = (-1, *(1,) * (x0.ndim - 1))
  if how.shares is None:
    a, s = (1 - time_B).reshape(axes), time_B.reshape(axes)
    seen_B = FLOW_SCALE * time_B
  else:
    a_T = jnp.asarray(np.sqrt(how.shares), jnp.float32)
    s_T = jnp.asarray(np.sqrt(1 - how.shares), jnp.float32)
    a, s = a_T[time_B].reshape(axes), s_T[time_B].reshape(axes)
    seen_B = time_B
  return a * x0 + s * noise, target(x0, noise, a, s, how.prediction), seen_B


def drawn(
  how: Noising, rng: jax.Array, shape: tuple[int, ...], index_B=None
) -> tuple[jax.Array, jax.Array]:
  """(time_B, normal noise of `shape`); given indices, each by its index alone.

  Times are uniform integers of 0…T-1. Those of a flow are logit-normal, dense
  in the middle (Esser et al., 2024, arXiv:2403.03206, section 3.1).
  """
  number_B = jnp.arange(shape[0]) if index_B is None else index_B

  def one(number):
    time_rng, noise_rng = jax.random.split(jax.random.fold_in(rng, number))
    if how.shares is None:
      time = jax.nn.sigmoid(jax.random.normal(time_rng))
    else:
      time = jax.random.randint(time_rng, (), 0, len(how.shares))
    return time, jax.random.normal(noise_rng, shape[1:])

  return jax.vmap(one)(number_B)


def target(x0, noise, a, s, prediction: str) -> jax.Array:
  """What a network learns to predict; "flow" is the velocity noise - x_0.

  "v" is a_t noise - s_t x_0 (Salimans and Ho, 2022, arXiv:2202.00512).
  """
  return {
    "eps": lambda: noise,
    "x0": lambda: x0,
    "v": lambda: a * noise - s * x0,
    "flow": lambda: noise - x0,
  }[prediction]()


def parts(output, x, a, s, prediction: str) -> tuple[jax.Array, jax.Array]:
  """(x_0, noise) that a network's output for x_t stands for."""
  if prediction == "eps":
    return (x - s * output) / a, output
  if prediction == "x0":
    return output, (x - a * output) / s
  return a * x - s * output, a * output + s * x


class Diffusion(NamedTuple):
  """How a diffusion is sampled.

  shares: a_t^2 of each step, from `signal_shares`.
  prediction: one of PREDICTIONS.
  steps: number of network evaluations, at most T.
  spacing: "trailing" begins at the step T - 1 (Lin et al., 2024,
    arXiv:2305.08891), "leading" ends at the step 0.
  clip: x_0 is clipped to [-clip, clip]; 0 leaves it as it is.
  """

  shares: np.ndarray
  prediction: str = "eps"
  steps: int = 50
  spacing: str = "trailing"
  clip: float = 1.0


def times_of(how: Diffusion) -> tuple[np.ndarray, np.ndarray]:
  """(t, the step that follows t in sampling or -1), int [steps] each.

  Raises:
    ValueError: there are more evaluations than steps, or `spacing` is unknown.
  """
  total = len(how.shares)
  if not 1 <= how.steps <= total:
    raise ValueError(f"steps={how.steps} is not within 1…{total}")
  if how.spacing == "trailing":
    time = np.round(np.arange(total, 0, -total / how.steps)) - 1
  elif how.spacing == "leading":
    time = np.arange(how.steps)[::-1] * (total // how.steps)
  else:
    raise ValueError(f"spacing={how.spacing!r} is not trailing or leading")
  time = time[: how.steps].astype(np.int64)
  return time, np.append(time[1:], -1)


def _shares_at(how: Diffusion):
  """(t, a_t^2, a^2 of the following step) of each evaluation."""
  time, after = times_of(how)
  following = np.where(after < 0, 1.0, how.shares[after])
  return time, how.shares[time], following


def _scan(update, x, rng, table, begin: int, end: int | None):
  """Runs update(x, key of the step, row of the table) for steps begin…end."""
  rows = [np.asarray(column, np.float32)[begin:end] for column in table]
  number = np.arange(len(table[0]), dtype=np.int32)[begin:end]

  def step(x, row):
    number, *values = row
    return update(x, jax.random.fold_in(rng, number), *values), None

  return jax.lax.scan(step, x, (number, *rows))[0]


def _estimate(denoise: Denoise, how: Diffusion, x, time, a, s):
  """(x_0, noise) at one step; x_0 is clipped."""
  output = denoise(x, jnp.full(x.shape[:1], time)).astype(jnp.float32)
  x0, noise = parts(output, x, a, s, how.prediction)
  return (jnp.clip(x0, -how.clip, how.clip) if how.clip else x0), noise


def ddpm(
  denoise: Denoise,
  x: jax.Array,
  rng: jax.Array,
  how: Diffusion,
  begin: int = 0,
  end: int | None = None,
) -> jax.Array:
  """Ancestral sampling, with the smaller variance (arXiv:2006.11239).

  The noise of a step depends on (rng, its number) alone: sampling up to a step
  and then on from it gives what sampling at once gives.

  Args:
    denoise: the network.
    x: normal noise, or the result of the steps before `begin`.
    rng: the same for all steps.
    how: see Diffusion.
    begin: the first step, from 0.
    end: the step before which to stop; None is the end.
  """
  time, now, after = _shares_at(how)
  kept = now / after  # a^2 of the step itself
  to_x0 = np.sqrt(after) * (1 - kept) / (1 - now)
  to_x = np.sqrt(kept) * (1 - after) / (1 - now)
  spread = np.sqrt(np.maximum((1 - after) / (1 - now) * (1 - kept), 1e-20))
  spread = np.where(time > 0, spread, 0)

  def update(x, key, time, a, s, to_x0, to_x, spread):
    x0, _ = _estimate(denoise, how, x, time, a, s)
    return to_x0 * x0 + to_x * x + spread * jax.random.normal(key, x.shape)

  table = (time, np.sqrt(now), np.sqrt(1 - now), to_x0, to_x, spread)
  return _scan(update, x, rng, table, begin, end)


def ddim(
  denoise: Denoise,
  x: jax.Array,
  rng: jax.Array,
  how: Diffusion,
  eta: float = 0.0,
  begin: int = 0,
  end: int | None = None,
) -> jax.Array:
  """Denoising diffusion implicit models (Song et al., 2021, arXiv:2010.02502).

  `eta` from 0, without noise, to 1, as much as `ddpm` adds (equation 16). The
  other arguments are those of `ddpm`.
  """
  time, now, after = _shares_at(how)
  spread = eta * np.sqrt((1 - after) / (1 - now) * (1 - now / after))
  to_noise = np.sqrt(np.maximum(1 - after - spread**2, 0))

  def update(x, key, time, a, s, to_x0, to_noise, spread):
    x0, noise = _estimate(denoise, how, x, time, a, s)
    x = to_x0 * x0 + to_noise * noise
    return x + spread * jax.random.normal(key, x.shape) if eta else x

  table = (time, np.sqrt(now), np.sqrt(1 - now))
  table += (np.sqrt(after), to_noise, spread)
  return _scan(update, x, rng, table, begin, end)


def flow(
  denoise: Denoise,
  x: jax.Array,
  rng: jax.Array,
  steps: int = 50,
  method: str = "euler",
  begin: int = 0,
  end: int | None = None,
) -> jax.Array:
  """Follows the velocity from noise at t = 1 to data at t = 0.

  Lipman et al., 2023, arXiv:2210.02747. "euler" evaluates the network once a
  step, "heun" twice, except that the last step, to t = 0, is Euler's (Karras et
  al., 2022, arXiv:2206.00364, algorithm 1). `rng` is not used: nothing is
  random. The other arguments are those of `ddpm`.
  """
  time = np.linspace(1, 0, steps + 1)

  def velocity(x, time):
    times = jnp.full(x.shape[:1], FLOW_SCALE * time)
    return denoise(x, times).astype(jnp.float32)

  def update(x, key, time, after):
    del key
    slope = velocity(x, time)
    there = x + (after - time) * slope
    if method == "euler":
      return there

    def corrected():
      mean = 0.5 * (slope + velocity(there, after))
      return x + (after - time) * mean

    return jax.lax.cond(after > 0, corrected, lambda: there)

  return _scan(update, x, rng, (time[:-1], time[1:]), begin, end)


def without(rng: jax.Array, label_B, share: float, none: int) -> jax.Array:
  """Labels [B], or rows of tokens [B, S], of which a share becomes `none`."""
  dropped_B = jax.random.bernoulli(rng, share, label_B.shape[:1])
  axes = (-1, *(1,) * (label_B.ndim - 1))
  return jnp.where(dropped_B.reshape(axes), none, label_B)


def guided(denoise, label_B: jax.Array, none: int, weight: float) -> Denoise:
  """Classifier-free guidance (Ho and Salimans, 2022, arXiv:2207.12598).

  The output is o(none) + weight * (o(label) - o(none)); 1 evaluates the network
  with the labels alone, and 0 with none alone.

  Args:
    denoise: (x, time_B, label_B) -> the output.
    label_B: int32, or tokens_BS of a text.
    none: the label that stands for no class, or the token of no text.
    weight: of the guidance.
  """
  none_B = jnp.full_like(label_B, none)
  if weight in (0, 1):
    return lambda x, time_B: denoise(x, time_B, label_B if weight else none_B)

  def both(x, time_B):
    x, time_B = jnp.concatenate([x, x]), jnp.concatenate([time_B, time_B])
    found = denoise(x, time_B, jnp.concatenate([label_B, none_B]))
    with_label, without = jnp.split(found, 2)
    return without + weight * (with_label - without)

  return both


SAMPLERS = {"diffusion": ("ddim", "ddpm"), "flow": ("euler", "heun")}


def sampler_of(
  how: Noising, name: str | None, steps: int, eta: float, clip: float
) -> Callable[[Denoise, jax.Array, jax.Array], jax.Array]:
  """(denoise, noise, rng) -> samples; see `ddim`, `ddpm` and `flow`.

  Args:
    how: what was learned.
    name: one of SAMPLERS; None is the first one.
    steps: evaluations of the network; heun needs two for a step.
    eta: of ddim.
    clip: of Diffusion.

  Raises:
    ValueError: `name` does not sample what was learned, or a number is out of
      range.
  """
  names = SAMPLERS["flow" if how.shares is None else "diffusion"]
  name = name or names[0]
  if name not in names:
    raise ValueError(f"sampler={name!r} is none of: {', '.join(names)}")
  if not 0 <= eta <= 1 or clip < 0 or steps < 1:
    raise ValueError(f"steps={steps}, eta={eta}, clip={clip}: out of range")
  if how.shares is None:
    return lambda denoise, x, rng: flow(denoise, x, rng, steps, name)
  plan = Diffusion(how.shares, how.prediction, steps, clip=clip)
  times_of(plan)  # raises here rather than while it is traced
  if name == "ddpm":
    return lambda denoise, x, rng: ddpm(denoise, x, rng, plan)
  return lambda denoise, x, rng: ddim(denoise, x, rng, plan, eta)
