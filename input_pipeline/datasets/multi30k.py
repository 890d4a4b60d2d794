"""Multi30k: captions of photographs in German, English and French."""

from input_pipeline.datasets import Dataset, Files, Written
from input_pipeline.datasets.parts import github, text

_LANGUAGES = ("de", "en", "fr")
_STEMS = {"train": "train", "validation": "val", "test": "test_2016_flickr"}


def multi30k() -> Dataset:
  """The data set: task 1, whose test set is that of 2016."""
  return Dataset(
    what="31,014 captions in German, English and French (Elliott et al. 2016)",
    licence="none stated (research); commonly cited as CC BY-NC-SA 4.0",
    origin="https://github.com/multi30k/dataset",
    digests=github.DIGESTS,
    files=github.files(
      "multi30k/dataset",
      "a3d2e0d26b56f3846f66a952536ffed4e401d05a",
      "mt_multi30k",
      {f"data/task1/raw/{name}": entry for name, entry in _FILES.items()},
    ),
    holds=("test.jsonl", "train.jsonl", "validation.jsonl"),
    write=_write,
    configs=("translate_multi30k",),
  )


_FILES = {
  "train.de.gz": (
    637_044,
    "726e39b2fa9eb9ffb6dc763fb35a179f80fae06ffc5d28b6ace5faa883de28a6",
  ),
  "train.en.gz": (
    568_929,
    "d79cfa999dd4c51d2cb42499b6796d5a882c3a8a961923c25a898c90f8bbd56f",
  ),
  "train.fr.gz": (
    604_242,
    "622e75069e9f4c577425c4f277116ce66e63a2401c0a2312d90073cb12379a3c",
  ),
  "val.de.gz": (
    24_681,
    "f0cba2f995189cf5770f29a8a9a537a3ad3f51657ad873405082ff6863a5e75a",
  ),
  "val.en.gz": (
    21_650,
    "14f7d25ddd868909a9213e361768460edcacdd6ab9d1e77b92560dc10c10dc28",
  ),
  "val.fr.gz": (
    23_001,
    "ca3106f1a72390591d25f6c45cb4cd39dec4cd3f123e099748a3ce5256c160e9",
  ),
  "test_2016_flickr.de.gz": (
    22_890,
    "9204244e408ccb38d2a55cfcd344df15005fc42a07a6e55ca6c52b6ababb8cc8",
  ),
  "test_2016_flickr.en.gz": (
    21_077,
    "611d361c6334bc7246101d48097c13cf5c4413c5befc793cc629934359d532d9",
  ),
  "test_2016_flickr.fr.gz": (
    22_310,
    "6d326e188d259fb1d04ac19eae3af956559b3a0b93d7635e56c90987c40c8b90",
  ),
}


def _write(files: Files) -> Written:
  """{"de", "en", "fr"} of each caption."""
  for split, stem in _STEMS.items():
    sides = [
      text.inflated_lines(files[f"{stem}.{language}.gz"])
      for language in _LANGUAGES
    ]
    yield (
      f"{split}.jsonl",
      text.jsonl(
        dict(zip(_LANGUAGES, each, strict=True))
        for each in zip(*sides, strict=True)
      ),
    )
