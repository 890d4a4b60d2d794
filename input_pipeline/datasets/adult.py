"""Adult: 32,561 people of a census, and whether they earn above $50,000."""

from input_pipeline.datasets import Dataset, Files, Written
from input_pipeline.datasets.parts import github


def adult() -> Dataset:
  """UCI's adult.data, with a line of column names before it."""
  return Dataset(
    what="32,561 people, 14 columns and their income (Kohavi 1996)",
    licence="CC BY 4.0",
    origin="https://archive.ics.uci.edu/dataset/2/adult",
    digests=github.DIGESTS,
    files=github.files(
      "vrizawahyu22/adult-dataset",
      "177cebb7401e583c4b6be6e0d060d8035c63b065",
      "tab_adult",
      {
        "adult.data": (
          3_974_475,
          "7974b56173c9e296a971a3881558f1cf56f19bd7faa18d226136f319339efcaa",
        ),
      },
    ),
    holds=("adult.data",),
    write=_write,
    configs=("adult", "adaptive_rates"),
  )


def _write(files: Files) -> Written:
  yield "adult.data", files["adult.data"].read_bytes()
