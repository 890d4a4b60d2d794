"""Errors of the storage libraries: what else they log is left out."""

import asyncio
import gc

import pytest

from train.checkpointing import storage_errors


@pytest.mark.parametrize("folder, logged", [("orbax", False), ("mine", True)])
def test_tasks_that_fail_beside_the_raised_error(folder, logged, caplog):
  storage_errors.hush()
  found = {}
  source = "async def write(): raise ValueError('full')"
  exec(compile(source, f"/site/{folder}/write.py", "exec"), found)

  async def save():
    task = asyncio.create_task(found["write"]())
    await asyncio.wait([task])

  asyncio.run(save())
  gc.collect()
  lines = [r.getMessage() for r in caplog.records if r.name == "asyncio"]
  assert bool(lines) == logged
  assert all("never retrieved" in line for line in lines)
