"""Noise and rooms from a second source: purity, ratios, errors."""

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")
signal = pytest.importorskip("scipy.signal")

from input_pipeline import ops  # noqa: E402
from input_pipeline.batching import pipeline  # noqa: E402
from input_pipeline.sources import open_source  # noqa: E402

CLIPS = "fake:audio?n=20&shortest=50&longest=90"
NOISES = "fake:audio?n=4&shortest=30&longest=200&seed=7"
CUT = 'crop_or_pad(60, "start")'
SETTINGS = dict(
  source=CLIPS,
  split="all",
  second=dict(source=NOISES, split="all", ops="mono"),
  ops=f"mono|add_noise(5, 15)|{CUT}",
  batch_size=8,
)


def read(uri):
  source = open_source(uri, "all")
  rows = source.read(np.arange(source.length))
  return [each[:, 0] for each in rows["audio"]]


def audio(data, step=0, steps=4):
  found = zip(range(steps), data.batches(step), strict=False)
  return np.array([batch["audio"] for _, batch in found])


def mixed(string, sound, noise, index=0, **fields):
  example = {"audio": tf.constant(sound), "second/audio": tf.constant(noise)}
  seed = tf.constant([0, index], tf.int64)
  return ops.compile(string)(example | fields, seed)["audio"].numpy()


@pytest.mark.parametrize("hosts", [2, 4])
def test_batches_are_those_of_one_host_and_of_a_resumed_run(hosts):
  whole = audio(pipeline.train(**SETTINGS, seed=3))
  shares = [
    audio(pipeline.train(**SETTINGS, seed=3, host_index=h, host_count=hosts), 2)
    for h in range(hosts)
  ]
  np.testing.assert_array_equal(np.concatenate(shares, 1)[:2], whole[2:])
  assert not np.array_equal(audio(pipeline.train(**SETTINGS, seed=4)), whole)


def test_every_row_has_one_noise_at_its_ratio():
  clips, noises = read(CLIPS), read(NOISES)
  data = pipeline.train(**SETTINGS | {"ops": f"mono|add_noise(5, 15)|{CUT}"})
  drawn, ratios = {}, []
  for _, batch in zip(range(10), data.batches(0), strict=False):
    for row, index in zip(batch["audio"], batch["index"], strict=True):
      sound = clips[index][:60]
      noise = row[: len(sound)].astype(float) - sound
      fits = []
      for each in noises:
        shifts = np.stack([np.roll(each, -s) for s in range(len(each))])
        shifts = np.tile(shifts, (1, 3))[:, : len(sound)]
        norms = np.linalg.norm(shifts, axis=1) * np.linalg.norm(noise)
        fits.append((shifts @ noise / norms).max())
      assert max(fits) > 0.9999  # It is one of them, from some sample on.
      drawn.setdefault(int(index), set()).add(int(np.argmax(fits)))
      ratios.append(10 * np.log10(np.mean(sound**2) / np.mean(noise**2)))
  assert set().union(*drawn.values()) == set(range(4))
  assert max(map(len, drawn.values())) > 1  # Other epochs draw others.
  assert min(ratios) > 3 and max(ratios) < 17 and np.ptp(ratios) > 5


def test_the_ratio_is_the_one_asked_for():
  rng = np.random.default_rng(0)
  sound, noise = rng.normal(size=(2, 900)).astype(np.float32) * [[0.3], [2]]
  sound, noise = sound.astype(np.float32), noise.astype(np.float32)
  for snr in (-5.0, 0.0, 20.0):
    added = mixed(f"add_noise({snr}, {snr})", sound, noise) - sound
    measured = 10 * np.log10(np.mean(sound**2) / np.mean(added**2))
    assert measured == pytest.approx(snr, abs=0.01)
  drawn = []
  for index in range(60):
    added = mixed("add_noise(-10, 10)", sound, noise, index) - sound
    drawn.append(10 * np.log10(np.mean(sound**2) / np.mean(added**2)))
  assert min(drawn) == pytest.approx(-10, abs=2) and min(drawn) > -10.01
  assert max(drawn) == pytest.approx(10, abs=2) and max(drawn) < 10.01
  for pair in ((sound, 0 * noise), (0 * sound, noise)):
    np.testing.assert_array_equal(mixed("add_noise(5, 5)", *pair), pair[0])
  assert (mixed("add_noise(5, 5, p=0.0)", sound, noise) == sound).all()


def test_a_room_is_a_convolution():
  rng = np.random.default_rng(0)
  sound = rng.normal(size=300).astype(np.float32)
  room = (rng.normal(size=80) * 0.9 ** np.arange(80)).astype(np.float32)
  room = np.concatenate([[0.01, -0.02, 5], room]).astype(np.float32)
  found = mixed("reverberate", sound, room)
  wanted = signal.convolve(sound, room[2:])[:300]
  wanted *= np.sqrt(np.mean(sound**2) / np.mean(wanted**2))
  np.testing.assert_allclose(found, wanted, atol=1e-5)


@pytest.mark.parametrize(
  ("changes", "line"),
  [
    ({"second": None}, "'add_noise' mixes a second source.*: set data.second"),
    ({"ops": f"mono|{CUT}"}, "second is set, but none of the ops"),
    ({"second": dict(source=NOISES, splits="all")}, "second.splits: unknown"),
    ({"second": dict(source=NOISES, ops=5)}, "second.ops=5 is not a string"),
    ({"second": dict(source=[NOISES])}, "second.source=.* is not a string"),
    ({"second": dict(split="all")}, "is not a dict with a source"),
    ({"second": dict(source=NOISES)}, r"add mono\(…\) to both ops"),
    (
      {"second": dict(source=f"{NOISES}&rate=16000", ops="mono")},
      r"example \d+: .*its rate is not that of the second source",
    ),
    ({"ops": f"mono|add_noise(9, 5)|{CUT}"}, "snr_low=9 and snr_high=5 desc"),
    ({"service": "grpc://localhost:1"}, "reads no second source"),
  ],
)
def test_what_does_not_fit_is_one_line(changes, line):
  with pytest.raises(ValueError, match=line):
    audio(pipeline.train(**SETTINGS | changes))


def test_an_evaluation_reads_it_only_for_an_op():
  own = {**SETTINGS, "second": dict(source="npy:nowhere")}
  plain = pipeline.evaluation(**own | {"ops": f"mono|{CUT}"})
  noisy = pipeline.evaluation(**SETTINGS)
  assert plain.num_examples == noisy.num_examples == 20
  assert not np.array_equal(audio(plain), audio(noisy))
  np.testing.assert_array_equal(audio(noisy, 1, 1), audio(noisy)[1:2])
