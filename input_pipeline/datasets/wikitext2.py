"""WikiText-2's validation and test texts, which the word vectors learn from."""

from input_pipeline.datasets import Dataset, Files, Written
from input_pipeline.datasets.parts import github


def wikitext2() -> Dataset:
  """The data set, without its training text."""
  return Dataset(
    what="validation and test texts of WikiText-2 (Merity et al. 2016)",
    licence="CC BY-SA 3.0 (Wikipedia)",
    origin="https://github.com/pytorch/examples",
    digests=github.DIGESTS,
    files=github.files(
      "pytorch/examples",
      "77f55b912142e11fcfdf5b530231fb9c52f181e8",
      "lm_wikitext2_valid_test",
      {
        "word_language_model/data/wikitext-2/valid.txt": (
          1_121_681,
          "f0737ed31fc1329026e95cb8b98e19c2a182c39c240ab909dc31abf2f8af58e8",
        ),
        "word_language_model/data/wikitext-2/test.txt": (
          1_256_449,
          "d790b833ef8cf03a90db7bf1271b7520b83c45ce07ba3c1a9699df81e239eca0",
        ),
      },
    ),
    holds=("test.txt", "valid.txt"),
    write=_write,
    configs=("glove", "lm_wikitext2", "word2vec_cbow", "word2vec_skipgram"),
  )


def _write(files: Files) -> Written:
  for name in ("valid.txt", "test.txt"):
    yield name, files[name].read_bytes()
