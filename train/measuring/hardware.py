"""Published peak rates of accelerators, for rooflines and MFU.

TPUs: cloud.google.com/tpu/docs/v4, /v5e, /v5p and /v6e, "System architecture".
The interconnect bandwidth there is the sum of both directions, or in Gbps; here
it is one way, summed over all links of a chip. The v4's links and its power of
192 W, the maximum measured, are from arXiv:2304.01433, table 4. No power is
published for later TPUs: their `watts` are estimates (`watts_published`).

GPUs: NVIDIA's data sheets of the A100, H100, H200 and DGX B200, SXM modules,
dense matrix products. float32 is TF32, JAX's default. The network is one
adapter per GPU as in NVIDIA's DGX machines: 200 Gbit/s for the A100 and 400
Gbit/s for the others.
"""

import re
from typing import NamedTuple


class Chip(NamedTuple):
  """One accelerator, which is one JAX device.

  peak_flops: FLOP/s by dtype name; TPUs multiply float32 in bfloat16.
  hbm_bytes: bytes of device memory.
  hbm_bandwidth: bytes/s of device memory.
  ici_bandwidth: bytes/s one way, summed over a chip's links: the TPU's torus,
    or NVLink between the GPUs of a host.
  dcn_bandwidth: bytes/s per chip between slices or hosts.
  watts: the maximum power of the chip without its host.
  watts_published: False where `watts` is an estimate.
  torus: the number of dimensions of the interconnect, each with two links per
    chip; 0 for a switch, which gives every pair all of ici_bandwidth.
  """

  name: str
  peak_flops: dict[str, float]
  hbm_bytes: float
  hbm_bandwidth: float
  ici_bandwidth: float
  dcn_bandwidth: float
  watts: float
  watts_published: bool = True
  torus: int = 0


def _peaks(bfloat16, float32=None, int8=None, fp8=None) -> dict[str, float]:
  """FLOP/s by dtype name, from teraflops; bfloat16's where not given."""
  names = {
    "bfloat16": bfloat16,
    "float16": bfloat16,
    "float32": float32 or bfloat16,
    "int8": int8 or bfloat16,
    "fp8": fp8 or bfloat16,
  }
  return {name: 1e12 * teraflops for name, teraflops in names.items()}


_GIB = 2.0**30
CHIPS = {
  chip.name: chip
  for chip in (
    Chip(
      name="v4",
      peak_flops=_peaks(275),
      hbm_bytes=32 * _GIB,
      hbm_bandwidth=1.2e12,
      ici_bandwidth=300e9,
      dcn_bandwidth=6.25e9,
      watts=192,
      torus=3,
    ),
    Chip(
      name="v5e",
      peak_flops=_peaks(197, int8=393),
      hbm_bytes=16 * _GIB,
      hbm_bandwidth=819e9,
      ici_bandwidth=200e9,
      dcn_bandwidth=3.125e9,
      watts=200,
      watts_published=False,
      torus=2,
    ),
    Chip(
      name="v5p",
      peak_flops=_peaks(459, int8=918),
      hbm_bytes=95 * _GIB,
      hbm_bandwidth=2.765e12,
      ici_bandwidth=600e9,
      dcn_bandwidth=6.25e9,
      watts=450,
      watts_published=False,
      torus=3,
    ),
    Chip(
      name="v6e",
      peak_flops=_peaks(918, int8=1836),
      hbm_bytes=32 * _GIB,
      hbm_bandwidth=1.6e12,
      ici_bandwidth=400e9,
      dcn_bandwidth=12.5e9,
      watts=350,
      watts_published=False,
      torus=2,
    ),
    Chip(
      name="a100",
      peak_flops=_peaks(312, float32=156, int8=624),
      hbm_bytes=80e9,
      hbm_bandwidth=2.039e12,
      ici_bandwidth=300e9,
      dcn_bandwidth=25e9,
      watts=400,
    ),
    Chip(
      name="h100",
      peak_flops=_peaks(989.4, float32=494.7, int8=1978.9, fp8=1978.9),
      hbm_bytes=80e9,
      hbm_bandwidth=3.35e12,
      ici_bandwidth=450e9,
      dcn_bandwidth=50e9,
      watts=700,
    ),
    Chip(
      name="h200",
      peak_flops=_peaks(989.4, float32=494.7, int8=1978.9, fp8=1978.9),
      hbm_bytes=141e9,
      hbm_bandwidth=4.8e12,
      ici_bandwidth=450e9,
      dcn_bandwidth=50e9,
      watts=700,
    ),
    Chip(
      name="b200",
      peak_flops=_peaks(2250, float32=1125, int8=4500, fp8=4500),
      hbm_bytes=180e9,
      hbm_bandwidth=8e12,
      ici_bandwidth=900e9,
      dcn_bandwidth=50e9,
      watts=1000,
    ),
  )
}
# Patterns of Device.device_kind. PCIe cards of the same name have other peaks.
_KINDS = (
  (r"TPU v4$", "v4"),
  (r"TPU v5 ?(lite|e)$", "v5e"),
  (r"TPU v5p?$", "v5p"),
  (r"TPU v6 ?(lite|e)$", "v6e"),
  (r"A100", "a100"),
  (r"H100(?!.*(PCIe|NVL))", "h100"),
  (r"(?<!G)H200(?!.*NVL)", "h200"),
  (r"(?<!G)B200", "b200"),
)


def chip(device_kind: str) -> Chip | None:
  """The Chip of a JAX device's `device_kind`, or of a name in CHIPS.

  None for CPUs and for devices that are not in the table.
  """
  if device_kind in CHIPS:
    return CHIPS[device_kind]
  for pattern, name in _KINDS:
    if re.search(pattern, device_kind):
      return CHIPS[name]
  return None
