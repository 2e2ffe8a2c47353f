"""What is counted as it passes on the meta device."""

import torch
import torch.nn.functional as F

from kvlock.cost.counting import Counter, peak_of


def test_memory_is_what_is_alive_at_once():
    weight = torch.empty(8, 8, device="meta")

    def two_then_one():
        first = torch.empty(4, 8, device="meta")  # 128 bytes
        both = (first @ weight.t()) + first  # two of them more while the sum is made
        del first
        return both[:, :4].contiguous()  # half of one

    assert peak_of(two_then_one) == 3 * 128


def test_views_and_what_is_written_in_place_take_nothing():
    given = torch.empty(4, 8, device="meta")

    def views():
        given.view(8, 4).transpose(0, 1)[1:].add_(1.0)
        return given.unflatten(1, (2, 4)).unbind(1)

    assert peak_of(views) == 0


def test_operations_are_those_of_products_and_of_attention():
    left, right = torch.empty(4, 8, device="meta"), torch.empty(8, 6, device="meta")
    query, key = torch.empty(1, 2, 5, 3, device="meta"), torch.empty(1, 2, 7, 3, device="meta")
    with Counter() as counter:
        for _ in range(3):
            _ = left @ right
        result = F.scaled_dot_product_attention(query, key, key)
    assert counter.linear_flops == 3 * 2 * 4 * 8 * 6
    assert counter.attention_flops == 2 * (2 * 2 * 5 * 7 * 3)
    assert result.shape == query.shape and result.is_contiguous()


def test_forms_that_are_remembered_are_those_that_torch_gives():
    """The second time an operation comes with the same form, its result has the first one's."""
    for dtype in (torch.float32, torch.bfloat16):
        x = torch.empty(3, 4, 6, device="meta", dtype=dtype).transpose(0, 1)
        operations = (
            lambda x=x: x + 1,
            lambda x=x: x.float(),
            lambda x=x: x.sum(1),
            lambda x=x: torch.cat([x, x], 2),
            lambda x=x: x * torch.empty(4, 3, 1, device="meta"),
            lambda x=x: x.argmax(2),
            lambda x=x: F.layer_norm(x, (6,)),
            lambda x=x: x[:, torch.tensor([0, 2])],
            lambda x=x: x.split(2, dim=2)[1] * 2,
        )
        for operation in operations:
            expected = operation()
            with Counter():
                for _ in range(2):
                    result = operation()
                    assert result.shape == expected.shape and result.dtype == expected.dtype
                    assert result.stride() == expected.stride()


def test_what_is_kept_counts_on_after_a_reset():
    with Counter() as counter:
        kept = torch.empty(10, device="meta")
        torch.empty(100, device="meta")
        counter.reset()
        assert counter.peak_bytes == 40
        torch.empty(5, device="meta")
        assert counter.peak_bytes == 60
    assert kept.numel() == 10
