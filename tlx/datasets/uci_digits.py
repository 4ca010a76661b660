"""UCI digits: 1,797 handwritten digits, 174 to 183 a class, 8 x 8, 17 greys; they ship in
scikit-learn, without a split.

They are the test part of the set (13 writers), each pixel a count 0..16 of ink in a 4 x 4 block,
here scaled to 0..255. Our split, by hash of the row number, tests on a third of each class (58 to
61) and trains on the rest (116 to 122). Alpaydin and Kaynak 1998, Cascading classifiers,
Kybernetika 34(4). Licence and digest: third_party/README.md.
"""

import gzip
import io

import numpy as np

from tlx.datasets import _package

VERSION = '1.0.0'  # raise it when images, ids or splits change: prepared copies carry it
CLASS_NAMES = tuple('0123456789')
IMAGE_SHAPE = (8, 8, 1)
NUM_EXAMPLES = {'train': 1198, 'test': 599}
TEST_FRACTION = 1 / 3


def read() -> tuple[np.ndarray, np.ndarray]:
  """(images uint8 [1797, 8, 8, 1], labels int32 [1797]) in the order of the file.

  Raises:
    ValueError: scikit-learn is missing, or its file is another one.
  """
  data = _package.read(
    'sklearn',
    'datasets/data/digits.csv.gz',
    install='scikit-learn==1.9.1',
    sha256='09f66e6debdee2cd2b5ae59e0d6abbb73fc2b0e0185d2e1957e9ebb51e23aa22',
  )
  # 64 counts, then the label
  rows = np.loadtxt(io.BytesIO(gzip.decompress(data)), dtype=np.uint8, delimiter=',')
  images = np.round(rows[:, :-1] * (255 / 16)).astype(np.uint8)
  return images.reshape(-1, *IMAGE_SHAPE), rows[:, -1].astype(np.int32)
