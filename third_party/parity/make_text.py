"""Makes gpt2_padded, llama_untied and qwen2: tiny random weights under the official names, official
inputs and outputs.

    python third_party/parity/make_text.py

Weights are large enough that greedy generations vary from token to token. Generations start from
the same ids with padding at the left (`left_mask`); `greedy_eos` ends at the fourth token of the
first row. Needs: torch transformers safetensors.
"""

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import (
  GPT2Config,
  GPT2LMHeadModel,
  LlamaConfig,
  LlamaForCausalLM,
  Qwen2Config,
  Qwen2ForCausalLM,
)

OUT = Path(__file__).parent
LENGTH, NEW = 13, 14


def main() -> None:
  torch.manual_seed(0)
  common = {'vocab_size': 89, 'attn_implementation': 'eager'}
  llama = {
    **common,
    'hidden_size': 32,
    'intermediate_size': 40,
    'num_hidden_layers': 2,
    'num_attention_heads': 4,
  }
  rope = {'rope_type': 'default'}
  keep(
    'gpt2_padded',
    GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=2, n_head=2, n_positions=40, **common)),
  )
  keep(
    'llama_untied',
    LlamaForCausalLM(
      LlamaConfig(
        head_dim=12,
        num_key_value_heads=1,
        tie_word_embeddings=False,
        rope_parameters={'rope_theta': 5e4, **rope},
        **llama,
      )
    ),
  )
  keep(
    'qwen2',
    Qwen2ForCausalLM(
      Qwen2Config(
        num_key_value_heads=2,
        tie_word_embeddings=True,
        rope_parameters={'rope_theta': 1e6, **rope},
        **llama,
      )
    ),
  )


@torch.no_grad()
def keep(name: str, model: torch.nn.Module) -> None:
  """Writes <name>.safetensors and <name>.npz."""
  for parameter in model.parameters():
    parameter.add_(0.3 * torch.randn_like(parameter))
  model.eval()
  ids, mask = torch.randint(1, 89, (3, LENGTH)), torch.ones(3, LENGTH, dtype=torch.long)
  mask[1, 9:] = mask[2, 3:] = 0
  outputs = model(input_ids=ids, attention_mask=mask, output_hidden_states=True)
  left = mask.flip(1)

  def greedy(eos: int | None) -> np.ndarray:
    return model.generate(
      ids,
      attention_mask=left,
      do_sample=False,
      max_new_tokens=NEW,
      pad_token_id=0,
      eos_token_id=eos,
    ).numpy()[:, LENGTH:]

  free = greedy(None)
  hidden = {f'hidden{i}': state.numpy() for i, state in enumerate(outputs.hidden_states)}
  np.savez_compressed(
    OUT / f'{name}.npz',
    ids=ids,
    mask=mask,
    left_mask=left,
    logits=outputs.logits,
    greedy=free,
    eos=free[0, 3],
    greedy_eos=greedy(int(free[0, 3])),
    **hidden,
  )
  save_file(
    {key: value.contiguous().clone() for key, value in model.state_dict().items()},
    OUT / f'{name}.safetensors',
  )


if __name__ == '__main__':
  main()
