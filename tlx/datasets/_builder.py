"""TFDS builders of the data that ships in packages: one class for each file of this room,
ArrayRecord without TensorFlow.
"""

import functools
import io
import types
from typing import Any

import tensorflow_datasets as tfds
from PIL import Image

from tlx.datasets import _splits
from tlx.plug import plug


class PackageBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
  """Publishes 'train' and 'test' of what `module.read()` gives. An example's id is its row in the
  package's file.
  """

  module: types.ModuleType
  code_path = None  # nothing is downloaded, so there are no checksums to look up beside the code

  def _info(self) -> tfds.core.DatasetInfo:
    features = tfds.features.FeaturesDict(
      {
        'id': tfds.features.Text(),
        'image': tfds.features.Image(shape=self.module.IMAGE_SHAPE, encoding_format='png'),
        'label': tfds.features.ClassLabel(names=self.module.CLASS_NAMES),
      }
    )
    return tfds.core.DatasetInfo(
      builder=self,
      description=self.module.__doc__,
      features=features,
      supervised_keys=('image', 'label'),
    )

  def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
    del dl_manager
    images, labels = self.module.read()
    ids = [f'{i:04d}' for i in range(len(labels))]
    test = _splits.hold_out(labels, ids, self.module.TEST_FRACTION)
    rows = [*zip(ids, images, labels, test)]
    return {
      'train': self._generate_examples([row[:3] for row in rows if not row[3]]),
      'test': self._generate_examples([row[:3] for row in rows if row[3]]),
    }

  def _generate_examples(self, rows):
    for name, image, label in rows:
      png = io.BytesIO()
      # TFDS asks TensorFlow to encode arrays; encoded bytes it takes as they are
      Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).save(png, 'png')
      yield name, {'id': name, 'image': png.getvalue(), 'label': int(label)}


@functools.cache  # TFDS registers a class by name, once
def builder_class(name: str) -> type[PackageBuilder]:
  """The builder class of tlx/datasets/<name>.py; from then on TFDS knows `name` too."""
  module = plug('datasets', name)
  return type(
    name,
    (PackageBuilder,),
    {
      '__module__': module.__name__,
      '__doc__': module.__doc__,
      'name': name,
      'module': module,
      'VERSION': tfds.core.Version(module.VERSION),
    },
  )
