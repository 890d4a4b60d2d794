"""Environments: `config.data.source="environment:NAME?KEY=VALUE"`.

A name is a file of this folder, and the keys are arguments of its function,
which returns a types.Environment. An environment is stepped inside the jitted
update, so it is written in JAX, without side effects. `config.batch_size` is
the number of environments that a run plays at once.
"""
