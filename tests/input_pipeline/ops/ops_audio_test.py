"""Ops on sounds, against librosa's figures, scipy and files on disk."""

import pathlib

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")
signal = pytest.importorskip("scipy.signal")
soundfile = pytest.importorskip("soundfile")
pytest.importorskip("soxr")

from input_pipeline import ops  # noqa: E402
from input_pipeline.batching import pipeline  # noqa: E402
from input_pipeline.sources import open_source  # noqa: E402

SEED = tf.constant([3, 1], tf.int64)


def tone(seconds=0.25, rate=8000, hertz=440.0):
  time = np.arange(round(seconds * rate)) / rate
  return (0.5 * np.sin(2 * np.pi * hertz * time)).astype(np.float32)


def apply(string, sound, rate=8000, seed=SEED):
  """The op's fields, equal in eager mode and traced."""
  example = {
    "audio": tf.constant(sound, tf.float32),
    "rate": tf.constant(rate, tf.int32),
  }
  function = ops.compile(string)
  found = {k: v.numpy() for k, v in function(example, seed).items()}
  shape = [None] * np.ndim(sound)
  signature = {
    "audio": tf.TensorSpec(shape, tf.float32),
    "rate": tf.TensorSpec([], tf.int32),
  }
  traced = tf.function(
    lambda x: function(x, seed), input_signature=[signature], autograph=False
  )
  for name, leaf in traced(example).items():
    np.testing.assert_array_equal(leaf, found[name])
  return found


def test_channels_become_one():
  sound = np.stack([tone(), -0.5 * tone()], axis=1)
  mean = apply("mono", sound)["audio"]
  np.testing.assert_allclose(mean, 0.25 * tone(), atol=1e-7)
  first = apply('mono("first")|mono("error")', sound)["audio"]
  np.testing.assert_array_equal(first, tone())
  assert apply('mono("error")', tone()[:, None])["audio"].shape == (2000,)
  with pytest.raises(ValueError, match="op 'mono': 2 channels, not 1"):
    apply('mono("error")', sound)


@pytest.mark.parametrize("rate", [4000, 8000, 11025])
def test_a_tone_is_the_same_tone_at_another_rate(rate):
  found = apply(f"resample({rate})|expect_rate({rate})", tone())
  assert found["rate"] == rate
  wanted = tone(rate=rate)
  assert len(found["audio"]) == len(wanted)
  inner = slice(rate // 20, -rate // 20)  # The filter sees beyond the ends.
  np.testing.assert_allclose(found["audio"][inner], wanted[inner], atol=2e-4)
  both = apply(f"resample({rate})", np.stack([tone(), 0 * tone()], 1))["audio"]
  np.testing.assert_allclose(both[:, 0], found["audio"], atol=1e-6)
  assert not both[:, 1].any()


def test_what_is_beyond_the_new_rate_is_filtered():
  found = apply("resample(4000)", tone(hertz=3000.0))["audio"]
  assert np.abs(found[200:-200]).max() < 1e-3


def test_a_crop_is_a_part_and_padding_is_masked():
  sound = np.arange(1, 8, dtype=np.float32)[:, None]
  starts = set()
  function = ops.compile("crop_or_pad(4)")
  for index in range(40):
    seed = tf.constant([0, index], tf.int64)
    found = function({"audio": tf.constant(sound)}, seed)
    start = int(found["audio"][0, 0]) - 1
    np.testing.assert_array_equal(found["audio"], sound[start : start + 4])
    assert found["audio_mask"].numpy().tolist() == [1] * 4
    starts.add(start)
  assert starts == {0, 1, 2, 3}
  center = apply('crop_or_pad(4, "center")', sound)["audio"]
  np.testing.assert_array_equal(center, sound[1:5])
  found = apply("crop_or_pad(9, fill=-1)", sound)
  np.testing.assert_array_equal(found["audio"][:7], sound)
  assert (found["audio"][7:] == -1).all()
  assert found["audio_mask"].tolist() == [1] * 7 + [0, 0]


def test_log_mel_is_librosas():
  """librosa 0.11: htk=True, norm=None, center=False, a Hann window of 256."""
  time = np.arange(2000) / 8000
  sweep = 0.5 * np.sin(2 * np.pi * (200 * time + 5000 * time**2))
  string = "log_mel(8000, mels=20, window=0.032, low=50, high=3800)"
  found = apply(string, sweep)["audio"]
  assert found.shape == (22, 20)
  theirs = {(0, 2): 5.64939, (5, 0): -12.33749}
  theirs |= {(10, 19): -17.69085, (21, 13): -10.92329}
  for place, value in theirs.items():
    assert found[place] == pytest.approx(value, abs=1e-4)


def test_log_mel_is_its_formula():
  sound = np.random.default_rng(0).normal(size=900) * 0.1
  found = apply("log_mel(8000, mels=12)", sound)["audio"]
  _, _, spectra = signal.stft(
    sound.astype(np.float32).astype(float),
    window=signal.get_window("hann", 200),
    nperseg=200,
    noverlap=120,
    nfft=256,
    boundary=None,
    padded=False,
    scaling="spectrum",
  )
  power = np.abs(spectra * 100) ** 2  # The window's sum is 100.
  mel = np.linspace(0, 2595 * np.log10(1 + 4000 / 700), 14)
  corners = 700 * (10 ** (mel / 2595) - 1)
  bank = [
    np.interp(np.arange(129) * 8000 / 256, corners[i : i + 3], [0, 1, 0])
    for i in range(12)
  ]
  wanted = np.log(np.maximum(np.array(bank) @ power, 1e-10)).T
  np.testing.assert_allclose(found, wanted, atol=1e-4)
  # Shorter than a window: one frame; silence: the floor.
  assert apply("log_mel(8000, mels=12)", sound[:50])["audio"].shape == (1, 12)
  silent = apply("log_mel(8000, mels=12)", 0 * sound[:9])["audio"]
  np.testing.assert_allclose(silent, np.full((1, 12), np.log(1e-10)), rtol=1e-6)


@pytest.mark.parametrize(
  ("string", "line"),
  [
    (
      "expect_rate(16000)",
      r"is 8000 samples per second, not 16000; .*resample",
    ),
    ("log_mel(16000)", "its rate is 8000 samples per second, not 16000"),
    ("resample(0)", "rate=0 is not a positive integer"),
    ('resample(8000, "best")', "quality='best'; valid: QQ"),
    (
      "log_mel(8000, 150)",
      "mels=150: the band 0 is narrower than the 31.25 Hz",
    ),
    ("log_mel(8000, high=5000)", "high=5000 are not ascending .* 4000 Hz"),
    ("log_mel(8000, hop=0)", "hop=0 seconds are 200 and 0 samples"),
    ("crop_or_pad(0)", "size=0 is not a positive integer"),
    ('crop_or_pad(5, "left")', "crop='left'; valid: random, center, start"),
    ('mono("sum")', "how='sum'; valid: mean, first, error"),
    ('mono(inkey="sound")', "no field 'sound'"),
    ('mono(inkey="rate")', "'rate' is no array of real numbers"),
  ],
)
def test_what_is_wrong_is_one_line(string, line):
  with pytest.raises(ValueError, match=line):
    apply(string, tone())


@pytest.fixture
def folder(tmp_path):
  """Two classes; every third file has twice the rate."""
  for i in range(9):
    path = tmp_path / "ab"[i % 2] / f"{i}.flac"
    path.parent.mkdir(exist_ok=True)
    rate = 8000 * (1 + (i % 3 == 2))
    soundfile.write(path, tone(0.1 + 0.01 * i, rate), rate)
  return tmp_path


def test_channels_may_differ_between_files(tmp_path):
  (tmp_path / "a").mkdir()
  for channels in (1, 2, 3):
    sound = np.outer(tone(), np.arange(channels) + 1) / 4
    soundfile.write(tmp_path / "a" / f"{channels}.wav", sound, 8000)
  found = data(tmp_path, 'mono|crop_or_pad(300, "start")|keep("audio")')
  (batch,) = found.batches(0)
  assert sorted(batch["audio"][:, 5] / tone()[5]) == pytest.approx(
    [0.25, 0.375, 0.5], abs=1e-3
  )
  for string in ('mono("error")', "expect_channels(2)|mono"):
    with pytest.raises(ValueError, match=r"a/\d.wav: .* channels, not [12]"):
      list(data(tmp_path, f'{string}|crop_or_pad(9, "start")').batches(0))
  with pytest.raises(ValueError, match=r"'audio' with the shape \[9, \?\]"):
    data(tmp_path, 'crop_or_pad(9, "start")')


def test_a_sound_without_samples_is_a_bad_record(folder):
  """It is named, or counted; also where an op meets it first."""
  (folder / "b" / "3.flac").unlink()
  soundfile.write(folder / "b" / "3.wav", np.zeros(0), 8000)
  for string in ('resample(8000)|mono|crop_or_pad(300)|keep("audio")', ""):
    given = {"source": f"audio:{folder}", "split": "all", "batch_size": 9}
    given |= (
      {"ops": string}
      if string
      else {"buckets": 1, "ops": "resample(8000)|mono"}
    )
    with pytest.raises(ValueError, match="3.wav: holds no samples"):
      next(pipeline.train(**given).batches(0))
    skipping = pipeline.train(**given, on_bad_record="skip", max_bad_share=0.3)
    batch = next(skipping.batches(0))
    assert batch["mask"].sum() == 8 and skipping.skipped().count == 1
    assert "3.wav" in skipping.news()
  with pytest.raises(ValueError, match="is a sound without samples"):
    apply("crop_or_pad(9)", np.zeros((0, 1)))


def test_labels_come_from_folders_from_names_or_not_at_all(folder):
  for i, name in enumerate(("no_1.flac", "yes_1.flac", "yes_2_b.wav")):
    (folder / "ab"[i % 2] / f"{i}.flac").rename(folder / name)
  for path in folder.glob("[ab]/*"):
    path.unlink()
  named = open_source(f"audio:{folder}?label=stem", "all")
  assert named.class_names == ("no", "yes") and named.length == 3
  labels = named.read(np.arange(3))["label"]
  names = [pathlib.Path(named.name(i)).name for i in range(3)]
  assert [("no", "yes")[i] for i in labels] == [n.split("_")[0] for n in names]
  plain = open_source(f"audio:{folder}?label=none", "all")
  assert plain.num_classes is None and plain.length == 3
  assert set(plain.read(np.arange(3))) == {"audio", "rate"}
  with pytest.raises(ValueError, match="label=name; valid: none, stem"):
    open_source(f"audio:{folder}?label=name", "all")
  with pytest.raises(ValueError, match="no such files; valid: .wav"):
    open_source(f"audio:{folder / 'a'}?label=none", "all")


def data(folder, ops, **settings):
  return pipeline.evaluation(
    source=f"audio:{folder}", split="all", ops=ops, batch_size=3, **settings
  )


def test_rates_that_differ_are_an_error_or_are_converted(folder):
  cut = 'mono|crop_or_pad(500, "start")'
  lines = {
    cut: r"\d.flac: the field 'rate' is \d+, and \d+ in the first .*resample",
    f"expect_rate(8000)|{cut}": r"[258].flac: .*rate is 16000 .*, not 8000",
  }
  for string, line in lines.items():
    with pytest.raises(ValueError, match=line):
      list(data(folder, string).batches(0))
  for batch in data(folder, f"resample(8000)|{cut}").batches(0):
    for sound in batch["audio"]:
      np.testing.assert_allclose(sound[:400], tone(0.05), atol=0.05)
    assert (batch["rate"] == 8000).all()
  (skipped,) = {
    each.skipped().count
    for each in [data(folder, f"expect_rate(8000)|{cut}", on_bad_record="skip")]
    if list(each.batches(0))
  }
  assert skipped == 3


def test_a_data_service_runs_no_python(folder):
  with pytest.raises(ValueError, match="'resample' runs in Python"):
    pipeline.train(
      source=f"audio:{folder}",
      ops="resample(8000)|mono|crop_or_pad(9)",
      batch_size=3,
      service="grpc://localhost:1",
    )
