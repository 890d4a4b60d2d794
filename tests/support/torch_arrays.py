"""Random modules of PyTorch, and their parameters as our trees."""

import jax
import jax.numpy as jnp
import pytest


def array(tensor):
  return jnp.asarray(tensor.detach().numpy())


def randomize(module, seed=0):
  """Every parameter and buffer random, so that no two could be swapped."""
  torch = pytest.importorskip("torch")
  torch.manual_seed(seed)
  with torch.no_grad():
    for parameter in module.parameters():
      parameter.add_(0.1 * torch.randn_like(parameter))
    for name, buffer in module.named_buffers():
      if name.endswith("running_mean"):
        buffer.copy_(0.3 * torch.randn_like(buffer))
      if name.endswith("running_var"):
        buffer.copy_(0.5 + torch.rand_like(buffer))
  return module.eval()


def stack(modules, get):
  return jnp.stack([array(get(module)) for module in modules])


def dense(modules, get, split=None, transpose=True):
  """Stacked kernel and bias of linear layers; a third of each with `split`."""

  def part(tensor, axis):
    return tensor if split is None else tensor.chunk(3, axis)[split]

  first = get(modules[0])
  axis = 0 if transpose else 1
  weights = stack(modules, lambda m: part(get(m).weight, axis))
  out = {"kernel": weights.swapaxes(1, 2) if transpose else weights}
  if first.bias is not None:
    out["bias"] = stack(modules, lambda m: part(get(m).bias, 0))
  return out


def norms(modules, get):
  out = {"scale": stack(modules, lambda m: get(m).weight)}
  if getattr(get(modules[0]), "bias", None) is not None:
    out["bias"] = stack(modules, lambda m: get(m).bias)
  return out


def one(tree):
  return jax.tree.map(lambda leaf: leaf[0], tree)
