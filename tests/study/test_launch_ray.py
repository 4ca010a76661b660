"""Tasks on two nodes of a cluster, of which one dies."""

import os
import subprocess

import pytest

from tests.study.conftest import ROOT
from tests.study.test_run import numbers, wait_for


def test_a_study_on_two_nodes_outlives_one_of_them(command, finished, tmp_path):
  """The numbers of one process."""
  pytest.importorskip('ray', reason="needs it: pip install 'tlx-jax[ray]'")
  from ray.cluster_utils import Cluster

  workdir = tmp_path / 'two'
  cluster = Cluster(initialize_head=True, head_node_args={'num_cpus': 1})
  try:
    other = cluster.add_node(num_cpus=1)
    process = subprocess.Popen(
      command(workdir, '--workers=2', '--launcher=ray'),
      cwd=ROOT,
      env=os.environ | {'RAY_ADDRESS': cluster.address},
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )
    wait_for(lambda: any(workdir.glob('cohorts/*/checkpoints/*/meta.json')), process, 300)
    cluster.remove_node(other, allow_graceful=False)
    said, errors = process.communicate(timeout=600)
  finally:
    cluster.shutdown()
  assert process.returncode == 0 and 'Report:' in said, errors
  assert numbers(workdir) == numbers(finished[0])
