"""Training the text encoder before the transformers: every word must say which object it is of.

Trained with a transformer instead, the encoder became a bag of words: from its embedding of a kind
or a colour no linear reader could say whether the first or the second object was meant, so that
no model could draw a red star and a blue circle for sure.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import UMT5EncoderModel

from kvlock.shapes.checkpoint import TEXT_DIM, TEXT_LENGTH, build_tokenizer
from kvlock.shapes.scene import COLOURS, KINDS, random_edit
from kvlock.shapes.training.loop import train
from kvlock.shapes.training.vae import TRAINING_SEEDS

PROMPTS = 4000
BATCH = 64
QUESTIONS = {"object": 2, "colour": len(COLOURS) + 1, "kind": len(KINDS) + 1}
NOT_ASKED = -100  # cross entropy passes over it


def word_answers(prompt: str) -> Tensor:
    """For each token of a prompt its object's number, colour and kind, int64 [TEXT_LENGTH, 3].

    Of an object that is not there ("an empty background"), colour and kind are the last classes.
    The words between objects, the end and the padding are not asked.
    """
    answers = torch.full((TEXT_LENGTH, len(QUESTIONS)), NOT_ASKED)
    first = 0
    for number, words in enumerate(part.split() for part in prompt.split(" and ")):
        colours = [i for i, colour in enumerate(COLOURS) if colour in words] or [len(COLOURS)]
        kinds = [i for i, kind in enumerate(KINDS) if kind in words] or [len(KINDS)]
        answers[first : first + len(words)] = torch.tensor([number, colours[0], kinds[0]])
        first += len(words) + 1
    return answers


def train_text_encoder(encoder: UMT5EncoderModel, folder: Path, steps: int, device: str) -> float:
    """Train `encoder` in place with a linear reader a question; afterwards it holds the average.

    Returns the share of right answers of the readers over prompts that were not trained on.
    """
    readers = {name: nn.Linear(TEXT_DIM, classes) for name, classes in QUESTIONS.items()}
    models = nn.ModuleDict({"text": encoder, **readers}).to(device).train()
    tokens, answers = _questions(TRAINING_SEEDS, PROMPTS)

    def loss_at(step: int) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(step)
        picks = torch.randint(PROMPTS, (BATCH,), generator=generator)
        read, asked = _read(models, tokens[picks].to(device)), answers[picks].to(device)
        losses = [F.cross_entropy(r.mT, asked[..., i]) for i, r in enumerate(read)]
        return {"loss": torch.stack(losses).sum()}

    models.load_state_dict(train(models, loss_at, folder, steps, 1e-3), strict=False)
    models.eval()
    tokens, answers = _questions(TRAINING_SEEDS + PROMPTS, 500)
    with torch.no_grad():
        found = torch.stack([r.argmax(-1) for r in _read(models, tokens.to(device))], dim=-1).cpu()
    asked = answers != NOT_ASKED
    return float((found == answers)[asked].float().mean())


def _read(models: nn.ModuleDict, tokens: Tensor) -> list[Tensor]:
    embeds = models["text"](tokens, (tokens != 0).long()).last_hidden_state
    return [models[name](embeds) for name in QUESTIONS]


def _questions(first_seed: int, count: int) -> tuple[Tensor, Tensor]:
    """Tokens [N, TEXT_LENGTH] and answers [N, TEXT_LENGTH, 3]."""
    prompts = [random_edit(seed).prompt for seed in range(first_seed, first_seed + count)]
    padding = dict(padding="max_length", max_length=TEXT_LENGTH, return_tensors="pt")
    tokens = build_tokenizer()(prompts, **padding).input_ids
    return tokens, torch.stack([word_answers(prompt) for prompt in prompts])
