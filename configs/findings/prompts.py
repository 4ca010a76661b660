"""Deep prompts beat full fine-tuning where the target is far.

Jia et al. 2022 (VPT, arXiv:2203.12119, table 1): ViT-B/16 with learned tokens in every block has
55.0% on the structured tasks of VTAB, full fine-tuning 47.6%; at the input alone 47.0%. Here digits
turned by 90 degrees are what is far.

  python -m experiments.study --config=configs/findings/prompts.py --workdir=runs/prompts
  ... --confirm

`:paper` is ViT-B/16 on three sets of VTAB, for a GPU.
"""

from configs.findings import _digits

PAPER = 'Jia 2022'


def get_config(scale: str = 'here'):
  """3 source networks x 2 targets x 4 methods x 5 seeds x 4 rates."""
  config, near, far = _digits.of_added(
    'Deep prompts',
    'Deep prompts beat shallow ones, and full fine-tuning far from the source.',
    {name: {'name': 'prompt', 'tokens': 8, 'deep': name == 'deep'} for name in ('shallow', 'deep')},
    rates=(1e-3, 1e-2, 3e-2, 1e-1),
    scale=scale,
  )
  claim = _digits.difference
  config.claims = (
    claim('Deep prompts beat full fine-tuning far from the source', PAPER, ('deep', 'full'), **far),
    claim('and are within a point of it near', PAPER, ('deep', 'full'), -0.01, **near),
    claim('Deep prompts beat shallow ones', PAPER, ('deep', 'shallow')),
    claim('Shallow prompts beat a probe', PAPER, ('shallow', 'probe')),
  )
  return config
