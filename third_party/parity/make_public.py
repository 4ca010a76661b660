"""Makes efficientnet_lite1, efficientnet_lite2 and face_recognition: official outputs for public
weights, which are not copied here.

    python third_party/parity/make_public.py LITE1.pth LITE2.pth

Images are coloured blocks. Run it in a folder where the packages that face_api.cjs names are
installed. Needs: torch efficientnet-lite-pytorch, node.
"""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from efficientnet_lite_pytorch import EfficientNet

OUT = Path(__file__).parent
RANDOM = np.random.RandomState(0)


@torch.no_grad()
def main() -> None:
  for name, size, path in (('lite1', 240, sys.argv[1]), ('lite2', 260, sys.argv[2])):
    model = EfficientNet.from_pretrained(f'efficientnet-{name}', weights_path=path).eval()
    image = np.concatenate([blocks(size, 10), blocks(size, 20)])
    x = torch.from_numpy((image.astype('float32') - 127) / 128).permute(0, 3, 1, 2)
    np.savez_compressed(
      OUT / f'efficientnet_{name}.npz',
      image=image,
      pooled=model.extract_features(x).mean((2, 3)),
      logits=model(x),
    )

  image = np.concatenate([blocks(150, 10), blocks(150, 25)])
  Path('images.json').write_text(json.dumps(image.tolist()))
  subprocess.run(['node', str(OUT / 'face_api.cjs'), 'images.json', 'descriptors.json'], check=True)
  descriptors = np.array(json.loads(Path('descriptors.json').read_text()), np.float32)
  np.savez_compressed(OUT / 'face_recognition.npz', image=image, descriptors=descriptors)


def blocks(size: int, width: int) -> np.ndarray:
  """A random image [1, size, size, 3] of squares `width` pixels wide."""
  colours = RANDOM.randint(0, 256, (1, size // width, size // width, 3))
  return colours.repeat(width, 1).repeat(width, 2).astype('uint8')


if __name__ == '__main__':
  main()
