"""Makes variants/: tiny random models of the transformers library with their config.json, and their
outputs.

    python third_party/parity/make_variants.py OUT [--seed 0]

OUT/<name>/{model.safetensors, config.json, io.npz}. Their tensors alone do not say how they
compute: what a reader does not compute it must refuse from config.json. Needs: torch transformers.
"""

import argparse
import pathlib

import numpy as np
import torch
import transformers as t

parser = argparse.ArgumentParser()
parser.add_argument('out')
parser.add_argument('--seed', type=int, default=0)
flags = parser.parse_args()
OUT = pathlib.Path(flags.out)
torch.set_num_threads(1)
torch.manual_seed(flags.seed)
random = np.random.RandomState(flags.seed)
ids = torch.from_numpy(random.randint(3, 97, (3, 14)))
mask = torch.ones_like(ids)
mask[1, 9:] = 0
mask[2, 5:] = 0
image = torch.from_numpy(random.randn(2, 3, 32, 32).astype('f'))
TEXT, IDS, IMAGES = (
  {'input_ids': ids, 'attention_mask': mask},
  {'input_ids': ids},
  {'pixel_values': image},
)


def jitter(model):
  """The model with noise on every parameter and statistics that are not the initial ones."""
  with torch.no_grad():
    for parameter in model.parameters():
      parameter.add_(0.05 * torch.randn_like(parameter))
    for name, buffer in model.named_buffers():
      if name.endswith('running_mean'):
        buffer.normal_(0, 0.2)
      if name.endswith('running_var'):
        buffer.uniform_(0.5, 1.5)
  return model.eval()


def plain(output):
  """The tensors of an output as arrays."""
  arrays = {name: value.numpy() for name, value in output.items() if torch.is_tensor(value)}
  return arrays | {
    f'hidden_states{i}': hidden.numpy()
    for i, hidden in enumerate(output.get('hidden_states') or ())
  }


def keep(name, model, inputs):
  """Writes one model with its inputs and outputs."""
  model = jitter(model)
  with torch.no_grad():
    output = model(**inputs, output_hidden_states=True)
  folder = OUT / name
  folder.mkdir(parents=True, exist_ok=True)
  model.save_pretrained(folder)
  (folder / 'generation_config.json').unlink(missing_ok=True)
  arrays = {f'in_{key}': value.numpy() for key, value in inputs.items()} | plain(output)
  if hasattr(output, 'text_model_output'):
    arrays['text_last'] = output.text_model_output.last_hidden_state.numpy()
    arrays['vision_last'] = output.vision_model_output.last_hidden_state.numpy()
  np.savez_compressed(folder / 'io.npz', **arrays)


small = {
  'vocab_size': 97,
  'hidden_size': 48,
  'intermediate_size': 80,
  'num_hidden_layers': 3,
  'num_attention_heads': 6,
  'attn_implementation': 'eager',
}
lm = {
  **small,
  'num_key_value_heads': 2,
  'max_position_embeddings': 64,
  'pad_token_id': 0,
  'bos_token_id': 1,
  'eos_token_id': 2,
}
bert = {**small, 'num_attention_heads': 4, 'max_position_embeddings': 40}
llama3 = {
  'rope_type': 'llama3',
  'rope_theta': 10000.0,
  'factor': 8.0,
  'low_freq_factor': 1.0,
  'high_freq_factor': 4.0,
  'original_max_position_embeddings': 16,
}
linear = {'rope_type': 'linear', 'rope_theta': 10000.0, 'factor': 4.0}
keep(
  'llama3_rope',
  t.LlamaForCausalLM(t.LlamaConfig(**lm, rope_parameters=llama3, tie_word_embeddings=True)),
  IDS,
)
keep(
  'llama_linear_rope',
  t.LlamaForCausalLM(t.LlamaConfig(**lm, rope_parameters=linear, tie_word_embeddings=True)),
  IDS,
)
keep(
  'llama_biases',
  t.LlamaForCausalLM(
    t.LlamaConfig(**lm, attention_bias=True, mlp_bias=True, tie_word_embeddings=False)
  ),
  IDS,
)
keep('qwen2', t.Qwen2ForCausalLM(t.Qwen2Config(**lm, tie_word_embeddings=True)), IDS)
keep('qwen3', t.Qwen3ForCausalLM(t.Qwen3Config(**lm, head_dim=16, tie_word_embeddings=True)), IDS)
keep(
  'mistral_window', t.MistralForCausalLM(t.MistralConfig(**lm, sliding_window=4, head_dim=8)), IDS
)
keep(
  'granite',
  t.GraniteForCausalLM(
    t.GraniteConfig(
      **lm,
      embedding_multiplier=3.0,
      residual_multiplier=0.5,
      attention_multiplier=0.3,
      logits_scaling=2.0,
    )
  ),
  IDS,
)
keep('gemma', t.GemmaForCausalLM(t.GemmaConfig(**lm, head_dim=8)), IDS)
keep('smollm3', t.SmolLM3ForCausalLM(t.SmolLM3Config(**lm, no_rope_layer_interval=2)), IDS)

gpt2 = {
  'vocab_size': 97,
  'n_embd': 48,
  'n_layer': 3,
  'n_head': 4,
  'n_positions': 32,
  'attn_implementation': 'eager',
  'bos_token_id': 1,
  'eos_token_id': 2,
}
keep(
  'gpt2_scaled_relu',
  t.GPT2LMHeadModel(
    t.GPT2Config(**gpt2, scale_attn_by_inverse_layer_idx=True, activation_function='relu')
  ),
  IDS,
)
keep(
  'gpt2_classifier',
  t.GPT2ForSequenceClassification(t.GPT2Config(**gpt2, num_labels=5, pad_token_id=0)),
  TEXT,
)

keep('bert_relu', t.BertModel(t.BertConfig(**bert, hidden_act='relu')), TEXT)
keep('bert_classifier', t.BertForSequenceClassification(t.BertConfig(**bert, num_labels=5)), TEXT)
keep('bert_tagger', t.BertForTokenClassification(t.BertConfig(**bert, num_labels=7)), TEXT)
keep('roberta', t.RobertaModel(t.RobertaConfig(**bert, type_vocab_size=1, pad_token_id=1)), TEXT)
keep(
  'distilbert',
  t.DistilBertModel(
    t.DistilBertConfig(
      vocab_size=97,
      dim=48,
      hidden_dim=80,
      n_layers=3,
      n_heads=4,
      max_position_embeddings=40,
      attn_implementation='eager',
    )
  ),
  TEXT,
)
keep(
  'modernbert',
  t.ModernBertModel(
    t.ModernBertConfig(
      **bert,
      local_attention=4,
      global_attn_every_n_layers=2,
      pad_token_id=0,
      bos_token_id=1,
      eos_token_id=2,
      cls_token_id=1,
      sep_token_id=2,
    )
  ),
  TEXT,
)

vit = {
  'hidden_size': 48,
  'intermediate_size': 80,
  'num_hidden_layers': 3,
  'num_attention_heads': 4,
  'image_size': 32,
  'patch_size': 8,
  'attn_implementation': 'eager',
}
keep('vit_hf', t.ViTForImageClassification(t.ViTConfig(**vit, num_labels=6)), IMAGES)
keep('vit_quickgelu', t.ViTModel(t.ViTConfig(**vit, hidden_act='quick_gelu')), IMAGES)
keep('deit', t.DeiTForImageClassificationWithTeacher(t.DeiTConfig(**vit, num_labels=6)), IMAGES)
keep(
  'dinov2',
  t.Dinov2Model(
    t.Dinov2Config(
      hidden_size=48,
      num_hidden_layers=3,
      num_attention_heads=4,
      mlp_ratio=2,
      image_size=32,
      patch_size=8,
      attn_implementation='eager',
    )
  ),
  IMAGES,
)
keep(
  'resnet_hf',
  t.ResNetForImageClassification(
    t.ResNetConfig(
      embedding_size=16,
      hidden_sizes=[16, 24, 32, 40],
      depths=[2, 1, 1, 1],
      layer_type='basic',
      num_labels=6,
    )
  ),
  IMAGES,
)
keep(
  'convnext_hf',
  t.ConvNextForImageClassification(
    t.ConvNextConfig(hidden_sizes=[16, 24, 32, 40], depths=[1, 1, 2, 1], num_labels=6)
  ),
  IMAGES,
)

tower = {
  'hidden_size': 48,
  'intermediate_size': 80,
  'num_hidden_layers': 2,
  'num_attention_heads': 4,
}
of_text = {
  **tower,
  'vocab_size': 97,
  'max_position_embeddings': 20,
  'bos_token_id': 1,
  'eos_token_id': 2,
}
of_images = {**tower, 'image_size': 32, 'patch_size': 8}
ended = ids.clone()
ended[:, -1] = 2
keep(
  'clip',
  t.CLIPModel(
    t.CLIPConfig(
      text_config=of_text, vision_config=of_images, projection_dim=24, attn_implementation='eager'
    )
  ),
  {'input_ids': ended, **IMAGES},
)
keep(
  'siglip',
  t.SiglipModel(
    t.SiglipConfig(
      text_config={**of_text, 'pad_token_id': 0},
      vision_config=of_images,
      attn_implementation='eager',
    )
  ),
  {'input_ids': ids, **IMAGES},
)

# Classifiers, with padding that is pad_token_id as tokenizers have it.
few = {
  'vocab_size': 97,
  'hidden_size': 24,
  'intermediate_size': 40,
  'num_hidden_layers': 3,
  'num_attention_heads': 4,
  'max_position_embeddings': 40,
  'attn_implementation': 'eager',
  'num_labels': 5,
}
ended_by_pad = {'input_ids': torch.where(mask == 1, ids, 0), 'attention_mask': mask}
ended_by_one = {'input_ids': torch.where(mask == 1, ids, 1), 'attention_mask': mask}
keep(
  'llama_classifier',
  t.LlamaForSequenceClassification(t.LlamaConfig(**few, num_key_value_heads=2, pad_token_id=0)),
  ended_by_pad,
)
keep(
  'roberta_classifier',
  t.RobertaForSequenceClassification(t.RobertaConfig(**few, type_vocab_size=1, pad_token_id=1)),
  ended_by_one,
)
keep(
  'distilbert_classifier',
  t.DistilBertForSequenceClassification(
    t.DistilBertConfig(
      vocab_size=97,
      dim=24,
      hidden_dim=40,
      n_layers=3,
      n_heads=4,
      max_position_embeddings=40,
      attn_implementation='eager',
      num_labels=5,
    )
  ),
  ended_by_pad,
)
near = {**few, 'local_attention': 4, 'global_attn_every_n_layers': 2, 'pad_token_id': 0}
near |= {'bos_token_id': 1, 'eos_token_id': 2, 'cls_token_id': 1, 'sep_token_id': 2}
keep(
  'modernbert_classifier',
  t.ModernBertForSequenceClassification(
    t.ModernBertConfig(
      **near,
      classifier_pooling='mean',
      classifier_bias=True,
      norm_bias=True,
      attention_bias=True,
      mlp_bias=True,
    )
  ),
  ended_by_pad,
)
keep('modernbert_tagger', t.ModernBertForTokenClassification(t.ModernBertConfig(**near)), TEXT)
