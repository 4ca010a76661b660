"""Coloured rectangles on grey: images with boxes that a small network finds in seconds."""

import numpy as np

SIDE = 48
MOST = 3  # objects of an image


def drawn(num_images, seed=0, crowds=False):
  """(images uint8 [N, 48, 48, 3], their boxes as the form `boxes` publishes them): red ones are of
  class 0, green ones of class 1; some images have none.
  """
  random = np.random.default_rng(seed)
  images = random.integers(90, 130, (num_images, SIDE, SIDE, 3)).astype(np.uint8)
  targets = {
    'boxes': np.zeros((num_images, MOST, 4), np.float32),
    'labels': np.zeros((num_images, MOST), np.int32),
    'valid': np.zeros((num_images, MOST), np.float32),
    'crowd': np.zeros((num_images, MOST), np.float32),
    'area': np.zeros((num_images, MOST), np.float32),
    'frame': np.tile(np.float32([1, 0, 0, SIDE, SIDE]), (num_images, 1)),
    'image_id': np.arange(num_images, dtype=np.int32),
  }
  for image in range(num_images):
    for number in range(random.integers(0, MOST + 1)):
      width, height = random.integers(10, 22, 2)
      x, y = random.integers(0, SIDE - width), random.integers(0, SIDE - height)
      label = random.integers(2)
      images[image, y : y + height, x : x + width] = (0, 0, 0)
      images[image, y : y + height, x : x + width, label] = 220
      targets['boxes'][image, number] = x, y, x + width, y + height
      targets['labels'][image, number] = label
      targets['valid'][image, number] = 1
      targets['area'][image, number] = width * height
      targets['crowd'][image, number] = crowds and random.random() < 0.2
  return images, targets
