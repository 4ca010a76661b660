"""Writes tensors.pth and tensors_legacy.pth with torch 2.13, and tensors.npz with what torch reads
back from them.
"""

import collections
import pathlib

import numpy as np
import torch

here = pathlib.Path(__file__).parent
torch.manual_seed(0)
base = torch.randn(4, 6)
tree = {
  'state_dict': collections.OrderedDict(
    transposed=base.t(),
    strided=base[1::2, ::3],
    shared=base[2],
    whole=base,
    scalar=torch.tensor(2.5),
    empty=torch.zeros(0, 3),
    parameter=torch.nn.Parameter(torch.randn(3)),
    half=torch.randn(5).half(),
    bfloat16=torch.randn(5).bfloat16(),
    double=torch.randn(2).double(),
    expanded=torch.randn(3, 1).expand(3, 4),
    complex64=torch.randn(2, dtype=torch.complex64),
    **{
      str(kind).removeprefix('torch.'): torch.tensor([0, 1, 100]).to(kind)
      for kind in (torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64, torch.bool)
    },
  ),
  'optimizer': {
    'state': {0: {'exp_avg': torch.ones(2)}},
    'param_groups': [{'lr': 0.1, 'betas': (0.9, 0.999)}],
  },
  'epoch': 3,
  'note': 'trained',
  'size': torch.Size([2, 3]),
  'best': None,
}
tree['state_dict']._metadata = {'': {'version': 1}}
torch.save(
  {
    **tree,
    'state_dict': {
      **tree['state_dict'],
      'uint16': torch.tensor([1, 65535]).to(torch.uint16),
      'float8': torch.tensor([0.5, 2]).to(torch.float8_e4m3fn),
    },
  },
  here / 'tensors.pth',
)
torch.save(tree, here / 'tensors_legacy.pth', _use_new_zipfile_serialization=False)
wanted = {}
for name, tensor in torch.load(here / 'tensors.pth', weights_only=True)['state_dict'].items():
  raw = {'bfloat16': torch.uint16, 'float8': torch.uint8}.get(name)
  wanted[name] = (tensor.contiguous().view(raw) if raw else tensor.detach()).numpy()
np.savez(here / 'tensors.npz', **wanted)
