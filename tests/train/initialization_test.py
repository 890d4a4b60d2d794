"""What begins with the arrays of another run: one network or several."""

import jax
import numpy as np
import pytest

from common.errors import UserError
from configs.vision.classification import vit_cifar10
from configs.vision.generation import gan_fashion_mnist
from models.vision.faster_rcnn import faster_rcnn
from models.vision.resnet import resnet
from train import assembly, build, initialization, trained, types
from train.optimization import parameter_rules

NETWORKS = ("generator", "discriminator")


@pytest.mark.parametrize(
  "given, known, line",
  [
    ({"genrator": "."}, NETWORKS, r"genrator: .*did you mean \"generator\""),
    ({"generator": {"pth": "."}}, NETWORKS, r"generator.*pth.*\"path\""),
    ({"generator": "no/such"}, NETWORKS, r"generator: no/such: there is no"),
    ({"generator": 3}, NETWORKS, r"generator=3: neither a path nor a section"),
    (5, NETWORKS, "init_from=5: neither a path nor a section"),
    ({"path": ".", "map": [["("]]}, (), r"map: \['\('\] is no pair"),
    ({"path": ".", "map": 5}, (), "init_from.map=5: not a list"),
    ({"teacher": "."}, (), r"init_from.*teacher"),
    ({"path": ".", "generator": "."}, NETWORKS, r"init_from.*generator"),
    ({"generator": {"path": ".", "skip": ["("]}}, NETWORKS, r"generator: .*\("),
  ],
)
def test_a_wrong_key_is_one_line(given, known, line):
  with pytest.raises(UserError, match=line) as error:
    initialization.settings(given, known)
  assert "\n" not in str(error.value)


def test_one_path_or_one_for_each_network():
  one = initialization.Settings(path=".")
  assert initialization.settings(".", NETWORKS) == dict.fromkeys(NETWORKS, one)
  assert initialization.settings(".") == {"": one}
  given = {"generator": ".", "discriminator": None}
  assert initialization.settings(given, NETWORKS) == {"generator": one}
  assert initialization.settings(None, NETWORKS) == {}


def _gan():
  config = gan_fashion_mnist.get_config("smoke")
  config.evals, config.writers, config.total_steps = {}, [], 0
  return config


@pytest.fixture(scope="module")
def gan(tmp_path_factory):
  """(the parts of a run of two networks, a function that begins it)."""
  parts = assembly.experiment(_gan())
  params = jax.jit(lambda rng: parts.task.init(rng, {}))(jax.random.key(7))
  origin = initialization.Origin(
    params.params, params.model_state, parts.config["model"], NETWORKS
  )

  def begun(init_from, other=origin):
    said = []
    made = parts._replace(config={**parts.config, "init_from": init_from})
    with pytest.MonkeyPatch.context() as patch:
      patch.setattr(build, "origin", lambda path, step: other)
      starts = build._start(made, said.append)
    init, _ = assembly.state_of(made, lambda: starts)
    return init().variables.params, said

  return origin, begun


def same(a, b) -> bool:
  a, b = (parameter_rules.flat(tree) for tree in (a, b))
  return all(np.array_equal(a[path], b[path]) for path in a)


def test_each_network_begins_with_its_own(gan):
  origin, begun = gan
  both, said = begun(".")
  assert same(both, origin.params) and len(said) == 2
  params, said = begun({"generator": {"path": "."}})
  assert same(params["generator"], origin.params["generator"])
  assert not same(params["discriminator"], origin.params["discriminator"])
  assert said[0].startswith("init_from.generator: ")
  single = origin._replace(
    params=origin.params["discriminator"], model_state={}, networks=()
  )
  params, _ = begun({"discriminator": "."}, single)
  assert same(params["discriminator"], origin.params["discriminator"])


@pytest.mark.parametrize(
  "given, line",
  [
    ({"generator": dict(path=".", network="gen")}, r"did you mean"),
    ({"generator": dict(path=".", network="discriminator")}, r"is \[.*\] here"),
  ],
)
def test_a_network_that_does_not_fit_is_one_line(gan, given, line):
  with pytest.raises(UserError, match=line) as error:
    gan[1](given)
  assert "config.init_from.generator" in str(error.value)
  assert "\n" not in str(error.value)


def test_a_classifier_begins_with_the_encoder_of_another_model():
  """The settings that are compared are those of the encoder."""
  config = vit_cifar10.get_config("smoke")
  config.evals, config.writers = {}, []
  config.model.patch = 2
  parts = assembly.experiment(config)
  other = {"name": "mae", "heads": 1, "layers": 1, "dim": 4}
  body = {"name": "vit", "activation": "gelu", "pool": "gap", "heads": 2}
  params, state = jax.jit(parts.network.init)(jax.random.key(7))
  section = config.model.to_dict()
  for encoder, fits in ((body, True), ({**body, "heads": 4}, False)):
    origin = initialization.Origin(
      {"encoder": params, "decoder": {}},
      {"encoder": state, "decoder": {}},
      {**other, "encoder": {**section, **encoder}},
      ("encoder", "decoder"),
    )
    wanted = initialization.Settings(".", network="encoder", skip=["^head/"])

    def begun(wanted=wanted, origin=origin):
      given = (wanted, parts.network, section, lambda path, step: origin)
      return initialization.read(*given, lambda line: None)

    if fits:
      found = begun().params
      assert "cls" not in found and "head/kernel" not in found
      assert "patch_embedding/last/kernel" in found
    else:
      with pytest.raises(UserError, match="heads .4 there, 2 here"):
        begun()


@pytest.mark.parametrize("backwards", [False, True])
def test_frozen_batch_norm_begins_with_what_another_run_trained(backwards):
  """A classifier's scales are the frozen ones of a detector's backbone."""
  sizes = dict(channels=3, depth=18, width=2)
  detector = dict(
    **sizes, num_classes=2, norm="frozen", backbone="resnet", features=4,
    hidden=4,
  )  # fmt: skip
  sections = [{"name": "resnet", "num_classes": 5, **sizes}]
  sections.append({"name": "faster_rcnn", **detector})
  models = [resnet(num_classes=5, **sizes), faster_rcnn(**detector)]
  shapes = [jax.eval_shape(m.init, jax.random.key(0)) for m in models]
  theirs, ours = (1, 0) if backwards else (0, 1)
  pair = ("^backbone/", "") if backwards else ("^", "backbone/")
  origin = initialization.Origin(*shapes[theirs], sections[theirs])
  found = initialization.read(
    initialization.Settings(".", map=[pair]),
    models[ours],
    sections[ours],
    lambda path, step: origin,
    lambda line: None,
  )
  params, state = map(parameter_rules.flat, shapes[ours])
  body = {path for path in params if "backbone/" in path or "blocks" in path}
  assert set(found.params) >= body and set(found.model_state) == set(state)


def test_the_run_of_several_networks_is_read(gan, monkeypatch):
  origin, _ = gan
  parts = assembly.experiment(_gan())
  found = trained.Trained(parts, types.Variables(*origin[:2]), 0)
  monkeypatch.setattr(trained, "load", lambda path, step: found)
  read = build.origin("runs/gan")
  assert read.networks == NETWORKS and same(read.params, origin.params)
