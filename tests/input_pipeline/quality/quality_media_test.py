"""Faults planted among images and pieces of audio."""

import importlib.util
import io
import struct
import wave

import numpy as np
import pytest
import soundfile
from PIL import Image

from input_pipeline.bad_records import Policy
from input_pipeline.quality import dataset, media, near
from input_pipeline.quality.checks import (
  broken,
  conflicts,
  drift,
  duplicates,
  leakage,
  outliers,
)
from input_pipeline.quality.finding import Settings
from input_pipeline.sources import open_source


def run(check, data, **settings):
  (found,) = getattr(check, check.__name__.rpartition(".")[2])(
    data, Settings(**settings)
  )
  return found


def photo(seed, side=48):
  """Smooth blobs of colour, as a photograph is."""
  random = np.random.default_rng(seed)
  small = random.integers(0, 256, (6, 6, 3)).astype(np.uint8)
  return Image.fromarray(small).resize((side, side), Image.BICUBIC)


def save(image, path, **options):
  path.parent.mkdir(parents=True, exist_ok=True)
  image.save(path, **options)


def photos(root, seeds, split="train"):
  for seed in seeds:
    save(photo(seed), root / split / f"c{seed % 2}" / f"{seed:03}.png")


def opened(root, split="all", **options):
  return dataset.open_dataset(f"folder:{root}", split, "label", **options)


def test_clean_images_raise_nothing(tmp_path):
  photos(tmp_path, range(40))
  photos(tmp_path, range(40, 80), "test")
  data = opened(tmp_path, "train")
  assert data.columns["image"].kind == "image"
  assert sorted(data.columns["label"].words) == ["c0", "c1"]
  data = data._replace(against=opened(tmp_path, "test", like=data))
  for check in (broken, duplicates, conflicts, leakage, drift, outliers):
    assert run(check, data).verdict == "ok", run(check, data).line


def test_broken_images_are_counted_by_kind(tmp_path):
  photos(tmp_path, range(40))
  folder = tmp_path / "train" / "c0"
  whole = (folder / "000.png").read_bytes()
  (folder / "000.png").write_bytes(b"")
  (folder / "002.png").write_bytes(whole[: len(whole) // 2])
  (folder / "004.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"garbage" * 9)
  save(Image.new("RGB", (48, 48), (9, 9, 9)), folder / "006.png")
  found = run(broken, opened(tmp_path))
  assert found.verdict == "fail"
  # A header that claims too large an image is told by the source.
  assert found.figures["unreadable"] == 1
  assert found.figures["undecodable"] == 2
  assert found.figures["odd"] == {"image: of one colour": 1}
  told = "\n".join(found.parts[0].items)
  for name in ("000.png", "002.png", "004.png"):
    assert name in told
  assert "0 bytes" in told


def test_an_image_that_would_fill_the_memory_is_broken(tmp_path):
  photos(tmp_path, range(12))
  out = io.BytesIO()
  Image.new("1", (10, 10)).save(out, "BMP")
  data = bytearray(out.getvalue())
  data[18:26] = (60_000).to_bytes(4, "little") * 2
  (tmp_path / "train" / "c0" / "000.bmp").write_bytes(bytes(data))
  found = run(broken, opened(tmp_path))
  assert found.figures["unreadable"] + found.figures["undecodable"] == 1


def test_duplicates_and_conflicts_of_images(tmp_path):
  photos(tmp_path, range(20))
  save(photo(2), tmp_path / "train" / "c0" / "copy.png")
  save(photo(4), tmp_path / "train" / "c1" / "other.png")
  data = opened(tmp_path)
  assert run(duplicates, data).figures["repeats"] == 1
  assert run(conflicts, data).figures == {"inputs": 1, "records": 2}


def test_images_encoded_anew_or_scaled_are_near(tmp_path):
  photos(tmp_path, range(40))
  photos(tmp_path, range(40, 60), "test")
  test = tmp_path / "test" / "c0"
  save(photo(1), test / "exact.png")
  save(photo(2), test / "jpeg.jpg", quality=60)
  save(photo(3).resize((30, 36)), test / "small.png")
  data = opened(tmp_path, "train")
  data = data._replace(against=opened(tmp_path, "test", like=data))
  found = run(leakage, data)
  assert found.verdict == "fail"
  assert found.figures == {"exact": 1, "near": 2}
  pairs = {(a[-7:], b.rpartition("/")[2]) for a, b, _ in found.parts[-1].rows}
  assert pairs == {("002.png", "jpeg.jpg"), ("003.png", "small.png")}


def test_a_copy_stands_out_where_images_differ():
  random = np.random.default_rng(0)
  photos = [np.asarray(photo(seed)) for seed in range(30)]
  moved = [photos[7][1:, 1:], *(np.asarray(photo(s)) for s in (50, 51))]
  prints = [
    np.stack([media.print_of_image(image) for image in images])
    for images in (moved, photos)
  ]
  ((row, match, alike),) = near.near_prints(*prints)
  assert (row, match) == (0, 7)
  assert 0.95 < alike < 0.998
  # Among its own kind the same likeness is nothing.
  ground = random.normal(size=256)
  kin = ground + 0.15 * random.normal(size=(30, 256))
  kin = np.round(kin * 30 + 128).clip(0, 255).astype(np.uint8)
  best = np.corrcoef(kin)[0, 1:].max()
  assert 0.95 < best < 0.998
  assert near.near_prints(kin[:1], kin[1:]) == []


def test_the_correlations_are_numpys():
  random = np.random.default_rng(1)
  a = random.integers(0, 256, (3, 256)).astype(np.uint8)
  b = np.concatenate([a[::-1] // 2, 255 - a])
  found = near.near_prints(a, b)
  assert [(row, match) for row, match, _ in found] == [(0, 2), (1, 1), (2, 0)]
  expected = [np.corrcoef(a[i], b[2 - i])[0, 1] for i in range(3)]
  assert [alike for *_, alike in found] == pytest.approx(expected, abs=1e-5)


def test_a_dark_image_is_an_outlier_and_dark_ones_drift(tmp_path):
  photos(tmp_path, range(60))
  dark = Image.fromarray(np.asarray(photo(99)) // 30)
  save(dark, tmp_path / "train" / "c0" / "dark.png")
  found = run(outliers, opened(tmp_path))
  assert found.verdict == "warn"
  assert found.figures["features"]["image: brightness"] == 1
  for seed in range(60):
    dark = Image.fromarray(np.asarray(photo(seed + 99)) // 3)
    save(dark, tmp_path / "test" / "c0" / f"{seed}.png")
  data = opened(tmp_path, "train")
  data = data._replace(against=opened(tmp_path, "test", like=data))
  found = run(drift, data)
  assert found.verdict == "fail"
  assert "image: brightness" in found.figures["drifted"]


def test_features_of_an_image_by_hand():
  image = np.zeros((2, 4, 3), np.uint8)
  image[0] = (255, 0, 0)
  found = media.image_features(image)
  assert found["height"] == 2 and found["width"] == 4
  assert found["brightness"] == pytest.approx(255 / 6)
  assert found["contrast"] == pytest.approx(255 / 6)
  assert found["saturation"] == pytest.approx(255 / 2)


@pytest.mark.parametrize("side", [1, 5, 16, 28, 333])
def test_a_thumbnail_keeps_the_mean(side):
  image = np.random.default_rng(side).integers(0, 256, (side, side, 1))
  small = media.print_of_image(image.astype(np.uint8))
  assert small.shape == (256,)
  assert small.mean() == pytest.approx(image.mean(), abs=0.5)


def test_features_of_a_text_by_hand():
  found = media.text_features("Ab 9，中文\ufffd")
  assert found == {
    "characters": 8,
    "Latin letters": 2 / 8,
    "upper case": 1 / 8,
    "Han characters": 2 / 8,
    "digits": 1 / 8,
    "punctuation": 1 / 8,
    "white space": 1 / 8,
    "broken characters": 1 / 8,
  }


def test_flat_prints_are_near_nothing():
  flat = np.full((3, 256), 7, np.uint8)
  assert near.near_prints(flat, flat) == []


RATE = 8000


def tune(seed, seconds=0.5):
  """Notes of random pitch."""
  random = np.random.default_rng(seed)
  t = np.arange(int(RATE * seconds / 4)) / RATE
  notes = [
    np.sin(2 * np.pi * f * t) * np.exp(-3 * t)
    for f in random.uniform(200, 3000, 4)
  ]
  return 0.5 * np.concatenate(notes)


def write(path, samples, width=2, channels=1, rate=RATE):
  path.parent.mkdir(parents=True, exist_ok=True)
  whole = np.round(np.clip(samples, -1, 1) * (2 ** (8 * width - 1) - 1))
  if width == 1:
    data = (whole + 128).astype(np.uint8).tobytes()
  else:
    each = whole.astype("<i4").reshape(-1, 1).view(np.uint8)
    data = each.reshape(-1, 4)[:, :width].tobytes()
  with wave.open(str(path), "wb") as file:
    file.setparams((channels, width, rate, 0, "NONE", ""))
    file.writeframes(data)


def tunes(root, seeds, split="train"):
  for seed in seeds:
    write(root / split / f"c{seed % 2}" / f"{seed:03}.wav", tune(seed))


def heard(root, split="all", **options):
  return dataset.open_dataset(f"audio:{root}", split, "label", **options)


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_a_wave_file_is_read_back(tmp_path, width):
  samples = tune(1)
  write(tmp_path / "a" / "x.wav", samples, width, rate=16000)
  read = open_source(f"audio:{tmp_path}", "all").read(np.array([0]))
  assert read["audio"][0].dtype == np.float32
  step = 1 / 2 ** (8 * width - 1)
  found = read["audio"][0][:, 0]
  assert np.abs(found - samples).max() <= 1.6 * max(step, 1e-7)
  assert (read["rate"][0], read["label"][0]) == (16000, 0)


def test_channels_are_kept(tmp_path):
  both = np.stack([np.full(100, 0.5), np.full(100, -0.25)], 1)
  write(tmp_path / "a" / "x.wav", both.reshape(-1), channels=2)
  read = open_source(f"audio:{tmp_path}", "all").read(np.array([0]))
  assert read["audio"][0] == pytest.approx(both, abs=1e-3)
  # Of the judge, they are averaged.
  data = dataset.open_dataset(f"audio:{tmp_path}", "all", "label")
  assert data.columns["audio"].kind == "audio"
  found = data.columns["audio"].features["peak"]
  assert found == pytest.approx(0.125, abs=1e-3)


def test_what_is_no_wave_file_is_named(tmp_path):
  write(tmp_path / "a" / "x.wav", tune(1))
  (tmp_path / "a" / "x.wav").write_bytes(b"RIFF nothing")
  with pytest.raises(ValueError, match="x.wav: not a readable audio file"):
    open_source(f"audio:{tmp_path}", "all").read(np.array([0]))
  with pytest.raises(ValueError, match="no folders of audio .*; valid: .wav"):
    open_source(f"audio:{tmp_path / 'a'}", "all")


@pytest.mark.parametrize(
  "name, format, subtype, error",
  [
    ("x.wav", "WAV", "PCM_24", 2**-22),
    ("x.wav", "WAV", "FLOAT", 1e-7),
    ("x.wav", "WAV", "DOUBLE", 1e-7),
    ("x.wav", "WAVEX", "PCM_16", 2**-14),
    ("x.WAV", "WAVEX", "PCM_24", 2**-22),
    ("x.flac", "FLAC", "PCM_24", 2**-22),
    ("x.ogg", "OGG", "VORBIS", 0.1),
    ("x.mp3", "MP3", "MPEG_LAYER_III", 0.2),
  ],
)
def test_other_encodings_are_read(tmp_path, name, format, subtype, error):
  samples = tune(1)
  path = tmp_path / "a" / name
  path.parent.mkdir()
  soundfile.write(path, samples, RATE, format=format, subtype=subtype)
  read = open_source(f"audio:{tmp_path}", "all").read(np.array([0]))
  found = read["audio"][0][:, 0]
  assert found.dtype == np.float32 and read["rate"][0] == RATE
  assert len(found) == pytest.approx(len(samples), abs=2_000)
  if len(found) == len(samples):
    assert np.abs(found - samples).max() <= error


def test_wave_format_extensible_is_read(tmp_path):
  # By hand: soundfile is not asked to read only what it wrote itself.
  whole = np.round(tune(1) * 32767).astype("<i2")
  guid = bytes.fromhex("0100000000001000800000aa00389b71")
  form = struct.pack("<HHIIHHHHI", 0xFFFE, 1, RATE, 2 * RATE, 2, 16, 22, 16, 0)
  chunks = b"fmt " + struct.pack("<I", 40) + form + guid
  chunks += b"data" + struct.pack("<I", whole.nbytes) + whole.tobytes()
  (tmp_path / "a").mkdir()
  size = struct.pack("<I", 4 + len(chunks))
  (tmp_path / "a" / "x.wav").write_bytes(b"RIFF" + size + b"WAVE" + chunks)
  read = open_source(f"audio:{tmp_path}", "all").read(np.array([0]))
  np.testing.assert_array_equal(
    read["audio"][0][:, 0], whole.astype(np.float32) / 32768
  )


def test_audio_that_cannot_be_used_is_one_line(tmp_path, monkeypatch):
  path = tmp_path / "a" / "x.wav"
  path.parent.mkdir()
  soundfile.write(path, np.array([0, np.nan]), RATE, subtype="FLOAT")
  with pytest.raises(ValueError, match="x.wav: holds samples that are not fin"):
    open_source(f"audio:{tmp_path}", "all").read(np.array([0]))
  # A minute of silence takes few bytes as FLAC.
  path.unlink()
  soundfile.write(path.with_name("x.flac"), np.zeros(60 * RATE), RATE)
  policy = Policy(max_record_bytes=100_000)
  assert path.with_name("x.flac").stat().st_size < policy.max_record_bytes
  with pytest.raises(ValueError, match="x.flac: decoded samples of .* more th"):
    open_source(f"audio:{tmp_path}", "all", policy).read(np.array([0]))
  monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
  with pytest.raises(ValueError, match=r"soundfile.*-e '\.\[audio\]'"):
    open_source(f"audio:{tmp_path}", "all")


def test_clean_audio_raises_nothing(tmp_path):
  tunes(tmp_path, range(40))
  tunes(tmp_path, range(40, 70), "test")
  data = heard(tmp_path, "train")
  assert data.columns["audio"].kind == "audio"
  data = data._replace(against=heard(tmp_path, "test", like=data))
  for check in (broken, duplicates, leakage, drift, outliers):
    assert run(check, data).verdict == "ok", run(check, data).line


def test_sounds_that_are_all_empty_are_counted(tmp_path):
  for i in range(3):
    write(tmp_path / "train" / "c0" / f"{i}.wav", np.zeros(0))
  found = run(broken, heard(tmp_path))
  assert found.verdict == "fail" and found.figures["undecodable"] == 3


def test_broken_audio_is_counted_by_kind(tmp_path):
  tunes(tmp_path, range(40))
  folder = tmp_path / "train" / "c0"
  (folder / "000.wav").write_bytes(b"")
  write(folder / "002.wav", np.zeros(0))
  write(folder / "004.wav", np.zeros(4000))
  write(folder / "006.wav", tune(6) * 9)
  found = run(broken, heard(tmp_path))
  assert found.verdict == "fail"
  assert found.figures == {
    "unreadable": 1,
    "undecodable": 1,
    "not_unicode": 0,
    "odd": {"audio: silent": 1, "audio: clipped": 1},
  }


def test_leakage_of_audio(tmp_path):
  tunes(tmp_path, range(30))
  tunes(tmp_path, range(30, 50), "test")
  write(tmp_path / "test" / "c0" / "exact.wav", tune(3))
  write(tmp_path / "test" / "c0" / "quiet.wav", tune(4) * 0.3)
  data = heard(tmp_path, "train")
  data = data._replace(against=heard(tmp_path, "test", like=data))
  found = run(leakage, data)
  assert found.figures == {"exact": 1, "near": 1}
  assert found.parts[-1].rows[0][0].endswith("004.wav")


def test_loudness_and_length_by_hand():
  wave_of = np.sin(2 * np.pi * 1000 * np.arange(8000) / 8000)
  found = media.audio_features(wave_of, 8000)
  assert found["seconds"] == 1
  assert found["loudness"] == pytest.approx(-3.0103, abs=0.01)
  assert found["centroid"] == pytest.approx(1000, rel=0.01)
