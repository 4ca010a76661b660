"""The peers of step.py: timm's and transformers' models in torch, and their steps as one writes
them with care.

Frozen modules are in eval mode and ask for no gradients, a probe's trunk runs under no_grad,
convolutional networks are channels_last, AdamW is the fused one.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import transformers  # before the stand-in for torchvision that peer_journey makes
from torch import nn

from benchmarks.peer_journey import timm, torch


class Peer(nn.Module):
  """A trunk and its head: logits of images [B, C, H, W] or of token ids [B, T]."""

  def __init__(self, trunk: nn.Module, head: nn.Module, last: nn.Module):
    super().__init__()
    self.trunk, self.head = trunk, head
    self.last = [last]  # in a list, so that it is not registered twice

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    return self.head(self.trunk(x))


class Hidden(nn.Module):
  """The hidden states of a transformers model, pooled to their mean or their last."""

  def __init__(self, model: nn.Module, pool: str):
    super().__init__()
    self.model, self.pool = model, pool

  def forward(self, ids: torch.Tensor) -> torch.Tensor:
    if self.pool == 'mean':
      return self.model(ids).last_hidden_state.mean(1)
    hidden = self.model(input_ids=ids, use_cache=False).last_hidden_state
    return hidden[:, -1] if self.pool == 'last' else hidden


def image_peer(name: str, image_size: int, num_classes: int) -> Peer:
  """A timm model."""
  sized = {'img_size': image_size} if name.startswith('vit') else {}
  trunk = timm.create_model(name, num_classes=0, **sized)
  blocks = trunk.layer4 if name.startswith('resnet') else trunk.blocks
  last = blocks[-1][-1] if isinstance(blocks[-1], nn.Sequential) else blocks[-1]
  peer = Peer(trunk, nn.Linear(trunk.num_features, num_classes), last)
  return peer if sized else peer.to(memory_format=torch.channels_last)


def bert_peer(options: dict[str, int], num_classes: int) -> Peer:
  """A BERT whose tokens are averaged."""
  config = transformers.BertConfig(
    hidden_size=options['dim'],
    num_hidden_layers=options['depth'],
    num_attention_heads=options['heads'],
    intermediate_size=options['mlp_dim'],
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
  )
  bert = transformers.BertModel(config, add_pooling_layer=False)
  return Peer(Hidden(bert, 'mean'), nn.Linear(options['dim'], num_classes), bert.encoder.layer[-1])


def gpt2_peer(options: dict[str, int], num_classes: int | None) -> Peer:
  """A GPT-2: a language model that ties its embeddings, or classes read from the last token."""
  config = transformers.GPT2Config(
    n_embd=options['dim'],
    n_layer=options['depth'],
    n_head=options['heads'],
    resid_pdrop=0.0,
    embd_pdrop=0.0,
    attn_pdrop=0.0,
  )
  model = transformers.GPT2LMHeadModel(config)
  head = nn.Linear(options['dim'], num_classes) if num_classes else model.lm_head
  return Peer(
    Hidden(model.transformer, 'last' if num_classes else 'none'), head, model.transformer.h[-1]
  )


def llama_peer(options: dict[str, int], num_classes: None) -> Peer:
  """A Llama language model that ties its embeddings."""
  config = transformers.LlamaConfig(
    vocab_size=options['vocab_size'],
    hidden_size=options['dim'],
    num_hidden_layers=options['depth'],
    num_attention_heads=options['heads'],
    num_key_value_heads=options['kv_heads'],
    intermediate_size=options['mlp_dim'],
    tie_word_embeddings=True,
  )
  model = transformers.LlamaForCausalLM(config)
  return Peer(Hidden(model.model, 'none'), model.lm_head, model.model.layers[-1])


def add_lora(peer: Peer) -> None:
  """Adapters of rank 8 at queries and values; a 'full' step of it trains them alone."""
  import peft

  targets = ['q_proj', 'v_proj']
  peft.inject_adapter_in_model(peft.LoraConfig(r=8, lora_alpha=16, target_modules=targets), peer)


class OnCard:
  """What is waited for where torch's work is on a card."""

  def block_until_ready(self) -> None:
    torch.cuda.synchronize()


def stepper(
  peer: Peer,
  kind: str,
  inputs: np.ndarray,
  targets: np.ndarray,
  compiled: bool,
  dtype: torch.dtype | None = None,
) -> Callable[[], Any]:
  """What does one 'forward', 'probe', 'last' (the last block and all after it), 'added' (adapters)
  or 'full' step, on a card where there is one, and gives what to wait for; uint8 images are scaled
  in it. With a `dtype`, under autocast.
  """
  device = 'cuda' if torch.cuda.is_available() else 'cpu'
  done = OnCard() if device == 'cuda' else None
  peer = peer.to(device)
  x, y = torch.from_numpy(inputs).to(device), torch.from_numpy(targets).long().to(device)
  if x.dtype == torch.uint8:
    x = x.permute(0, 3, 1, 2)  # of [B, H, W, C] memory: channels_last

  def enter() -> torch.Tensor:
    return x.float() / 255 if x.dtype == torch.uint8 else x

  make = torch.compile if compiled else lambda function: function
  if kind == 'forward':
    peer.eval()
    model = make(peer)

    def forward() -> OnCard | None:
      with torch.inference_mode(), torch.autocast(device, dtype, enabled=dtype is not None):
        model(enter())
      return done

    return forward

  freeze(peer, kind)
  optimizer = torch.optim.AdamW(
    [p for p in peer.parameters() if p.requires_grad], lr=1e-3, weight_decay=1e-2, fused=True
  )
  trunk, head, model = make(peer.trunk), peer.head, make(peer)

  def step() -> OnCard | None:
    with torch.autocast(device, dtype, enabled=dtype is not None):
      if kind == 'probe':
        with torch.no_grad():
          features = trunk(enter())
        logits = head(features)
      else:
        logits = model(enter())
      loss = nn.functional.cross_entropy(logits.flatten(0, -2), y.flatten())
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return done

  return step


def freeze(peer: Peer, kind: str) -> None:
  """Leaves gradients and training mode to the head, the last block and all after it, the adapters,
  or all.
  """
  if kind == 'added':
    for name, parameter in peer.named_parameters():
      parameter.requires_grad_('lora_' in name)
    return
  first = {'probe': peer.head, 'last': peer.last[0], 'full': peer}[kind]
  of_first, trained = {id(parameter) for parameter in first.parameters()}, False
  for parameter in peer.parameters():
    trained = trained or id(parameter) in of_first
    parameter.requires_grad_(trained)
  for module in peer.modules():
    module.training = any(parameter.requires_grad for parameter in module.parameters(recurse=False))
