"""Adapters are within a point of full fine-tuning at a few percent of its parameters.

Houlsby et al. 2019 (arXiv:1902.00751, table 1 and figure 1): on GLUE 80.0 against 80.4 with 3.6% of
the parameters a task. Here a vision transformer of digits; adapters of 2 numbers have 2.5% of
its weights before the head, of 8 numbers 8.5%.

  python -m experiments.study --config=configs/findings/adapters.py --workdir=runs/adapters
  ... --confirm

`:paper` is ViT-B/16 on three sets of VTAB, for a GPU.
"""

from configs.findings import _digits

PAPER = 'Houlsby 2019'


def get_config(scale: str = 'here'):
  """3 source networks x 2 targets x 4 methods x 5 seeds x 4 rates."""
  config, near, far = _digits.of_added(
    'Adapters',
    'Adapters with a few percent of the parameters are as good as full fine-tuning.',
    {f'adapter_{size}': {'name': 'adapter', 'size': size} for size in (2, 8)},
    rates=(1e-3, 3e-3, 1e-2, 3e-2),
    scale=scale,
  )
  claim = _digits.difference
  config.claims = (
    claim('Adapters of 2 are within a point of full, near', PAPER, ('adapter_2', 'full'), -0.01,
          **near),
    claim('and far from the source', PAPER, ('adapter_2', 'full'), -0.01, **far),
    claim('Adapters of 8 are, far from it', PAPER, ('adapter_8', 'full'), -0.01, **far),
    claim('Adapters of 2 beat a probe', PAPER, ('adapter_2', 'probe')),
  )  # fmt: skip
  return config
