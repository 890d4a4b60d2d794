"""What `convert --to` writes of a run of ours, loaded by transformers."""

import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

from configs.text import bert_small, t5_small  # noqa: E402
from train import build, loop, trained  # noqa: E402
from train.conversions.parts import runs  # noqa: E402

RNG = np.random.default_rng(0)
TOKENS, TARGETS = RNG.integers(3, 200, (2, 9)), RNG.integers(3, 200, (2, 5))


def silent(line):
  pass


@pytest.mark.parametrize(
  ("config", "kind", "inputs"),
  [
    (bert_small, "AutoModelForMaskedLM", {"input_ids": TOKENS}),
    (
      t5_small,
      "AutoModelForSeq2SeqLM",
      {"input_ids": TOKENS, "decoder_input_ids": TARGETS},
    ),
  ],
)
def test_an_exported_run_has_our_logits(config, kind, inputs, tmp_path):
  config = config.get_config("smoke")
  config.total_steps, config.evals = 0, {}
  config.model.dtype = "float32"
  run, folder = str(tmp_path / "run"), str(tmp_path / "hf")
  list(loop.fit(build.run(config, run, say=silent)))
  runs.write(run, folder, say=silent)
  found = trained.load(run, say=silent)

  @jax.jit
  def ours(variables):
    model, arrays = found.parts.model, inputs.values()
    return model.apply(variables.params, variables.model_state, *arrays)[0]

  theirs, report = getattr(transformers, kind).from_pretrained(
    folder, output_loading_info=True
  )
  assert not any(report.values()), report  # no array is missing or left over
  with torch.no_grad():
    given = {name: torch.tensor(x) for name, x in inputs.items()}
    want = theirs.eval()(**given).logits.numpy()
  assert want.std() > 0.02
  got = np.asarray(ours(found.variables))
  np.testing.assert_allclose(got, want, atol=1e-4)
