r"""TransE on UMLS: 135 medical concepts and 46 relations (Bordes et al. 2013).

The data are train.txt, valid.txt and test.txt of umls.tar.gz in
https://github.com/TimDettmers/ConvE, in the folder data/umls. Measured on one
CPU core, 34 s: test/mrr 0.821, test/hits_at_1 0.678, test/hits_at_10 0.993,
test/mean_rank 1.66. Published for TransE on the same files (KG-BERT,
arXiv:1909.03193, table 4): hits at 10 0.989, mean rank 1.84.

  mkdir -p data/umls
  curl -L https://github.com/TimDettmers/ConvE/raw/master/umls.tar.gz \
    | tar xz -C data/umls
  python -m train.main --config=configs/graphs/transe_umls.py \
    --workdir=runs/transe
"""

from ml_collections import ConfigDict

from configs import common

_FILES = "csv:data/umls/{}.txt?header=head,relation,tail"
_TRAIN, _VALID, _TEST = (_FILES.format(n) for n in ("train", "valid", "test"))


def get_config(arg: str = "") -> ConfigDict:
  """The experiment; "smoke" makes it tiny, on fake triples."""
  config = ConfigDict()
  config.seed = 0
  config.total_steps = 2000
  config.log_every_steps = 100
  config.batch_size = 512
  config.task = dict(name="triples", negatives=16, margin=4.0)
  config.model = dict(name="transe", dim=100, norm="l1")
  config.learner = dict(name="supervised")
  config.optimizer = dict(name="adam", lr=1e-2, schedule="cosine")
  config.planned = dict(sizes=dict(entities=135, relations=46))
  config.data = dict(source=_TRAIN, split="all", rows=dict(name="triples"))
  config.evals = dict(
    val=dict(
      name="link_prediction",
      source=_VALID,
      split="all",
      known=(_TRAIN, _TEST),
      every_steps=500,
    ),
    test=dict(
      name="link_prediction",
      source=_TEST,
      split="all",
      known=(_TRAIN, _VALID),
      every_steps=0,
    ),
  )
  config.checkpoint = dict(every_steps=500, keep=2)
  config.mesh = dict(data=-1)
  if common.is_smoke(arg):
    common.shrink(
      config,
      batch_size=8,
      task=dict(negatives=2),
      model=dict(dim=8),
      data=dict(source="fake:triples"),
    )
    for each in config.evals.values():
      each.update(source="fake:triples?n=8&seed=3", known=("fake:triples",))
  return config
