"""The text encoder is trained to bind words: whose colour, whose kind, which object."""

import torch

from kvlock.shapes import checkpoint
from kvlock.shapes.scene import COLOURS, KINDS, random_edit
from kvlock.shapes.training.text import NOT_ASKED, train_text_encoder, word_answers


def test_every_word_of_an_object_is_asked_for_its_number_colour_and_kind():
    answers = word_answers("a red star and a blue circle").tolist()
    first = [0, list(COLOURS).index("red"), KINDS.index("star")]
    second = [1, list(COLOURS).index("blue"), KINDS.index("circle")]
    unasked = [NOT_ASKED] * 3
    assert answers[:7] == [first] * 3 + [unasked] + [second] * 3
    assert answers[7:] == [unasked] * (checkpoint.TEXT_LENGTH - 7)
    assert word_answers("an empty background").tolist()[:3] == [[0, len(COLOURS), len(KINDS)]] * 3


def test_a_word_is_a_token_so_that_answers_and_tokens_are_in_line():
    tokenizer = checkpoint.build_tokenizer()
    for seed in range(100):
        prompt = random_edit(seed).prompt
        assert len(tokenizer(prompt).input_ids) == len(prompt.split()) + 1


def test_training_makes_the_order_of_the_objects_readable(tmp_path):
    torch.manual_seed(0)
    encoder = checkpoint.build_text_encoder()
    before = train_text_encoder(encoder, tmp_path / "none", 0, "cpu")
    assert before < 0.5 < 0.75 < train_text_encoder(encoder, tmp_path / "some", 150, "cpu")
