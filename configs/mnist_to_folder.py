"""MNIST to your own images: PATH/<class>/<image> or PATH/{train,val,test}/<class>/<image>.

  python -m experiments.study --config=configs/mnist_to_folder.py:PATH --workdir=runs/my_images

The source and the methods are those of configs/mnist_to_digits.py.
"""

from configs import mnist_to_digits


def get_config(path: str = 'images'):
  """Four methods at 5 and 20 examples a class."""
  config = mnist_to_digits.get_config()
  config.name = f'MNIST to {path}'
  config.claim = ''
  config.targets = {'images': {'dataset': f'folder:{path}'}}
  config.methods = {
    name: config.methods[name] for name in ('scratch', 'linear_probe', 'full', 'lp_ft')
  }
  config.shots = (5, 20)
  return config
