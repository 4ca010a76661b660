"""Cores and GPUs are dealt to the processes of this machine."""

import os

import pytest

from tlx.launchers import local


def test_cores_and_gpus_are_dealt(monkeypatch):
  monkeypatch.setattr(os, 'sched_getaffinity', lambda process: {0, 1, 2, 5}, raising=False)
  monkeypatch.setenv('JAX_PLATFORMS', '')
  monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '3,4,7')
  found = local.shares_of(2)
  assert found == [
    ({0, 2}, {'CUDA_VISIBLE_DEVICES': '3,7'}),
    ({1, 5}, {'CUDA_VISIBLE_DEVICES': '4'}),
  ]
  with pytest.raises(ValueError, match='--workers=4 on 3 GPUs: take at most 3'):
    local.shares_of(4)
