"""Branches of any length in one forward of a Wan transformer: its own `forward`, blocks and weights.

A branch's tokens lie behind each other as a video of single patches, so that patch embedding, head
and unpatchify work as they are. The rotary embedding and the blocks stand in for themselves while it
runs: positions are gathered for the tokens that are there, and a block is called once a branch.
Everything but attention looks at one token at a time.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.embeddings import apply_rotary_emb
from torch import Tensor, nn

from kvlock.contract.backbone import Flow, PackedBranch

Rope = list[tuple[Tensor, Tensor]]
HEAD_GROUPS = 8
MANY_TOKENS = 2**24  # times their width


def packed_forward(
    transformer: nn.Module, branches: Sequence[PackedBranch], timestep: Tensor, flow: Flow
) -> list[Tensor]:
    """`Backbone.predict_packed` for the transformers of Wan, Wan-VACE and SkyReels-V2."""
    patch = transformer.config.patch_size
    inputs = {
        "hidden_states": torch.cat(
            [_patches(branch.latents, branch.tokens, patch) for branch in branches], dim=2
        )
    }
    if branches[0].condition is not None:
        controls = [_patches(branch.condition, branch.tokens, patch) for branch in branches]
        inputs["control_hidden_states"] = torch.cat(controls, dim=2).to(transformer.dtype)
    inputs["hidden_states"] = inputs["hidden_states"].to(transformer.dtype)
    with _branch_by_branch(transformer, branches, flow):
        packed = transformer(
            **inputs,
            timestep=timestep.to(branches[0].latents.device, non_blocking=True)[None],
            encoder_hidden_states=torch.cat(
                [branch.prompt.parts[0] for branch in branches], dim=1
            ).to(transformer.dtype),
            return_dict=False,
        )[0].float()
    outputs = packed.split([len(branch.tokens) * patch[0] for branch in branches], dim=2)
    return [_unpacked(output, branch, patch) for output, branch in zip(outputs, branches)]


def rotate(head_dim: int, tokens: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Wan's rotary embedding of queries or keys [B, S, inner], in place.

    cos and sin: [1, S, 1, head_dim]. Heads in groups where there are many tokens: the arithmetic is
    float32 and takes several times the tokens' memory.
    """
    heads = tokens.unflatten(-1, (-1, head_dim))
    for group in heads.chunk(HEAD_GROUPS, dim=2) if tokens.numel() > MANY_TOKENS else (heads,):
        group.copy_(apply_rotary_emb(group, (cos[0, :, 0], sin[0, :, 0]), sequence_dim=1))
    return tokens


@contextmanager
def _branch_by_branch(
    transformer: nn.Module, branches: Sequence[PackedBranch], flow: Flow
) -> Iterator[None]:
    """The transformer's rope, patch embeddings and blocks replaced by their packed forms."""
    embeddings = ("patch_embedding", "vace_patch_embedding")
    names = ("rope", *embeddings, "blocks", "vace_blocks")
    before = {name: getattr(transformer, name) for name in names if hasattr(transformer, name)}
    try:
        transformer.rope = _Rope(before["rope"], branches)
        for name in embeddings:
            if name in before and _is_plain(before[name]):
                setattr(transformer, name, _PatchEmbedding(before[name]))
        for name, packed in (("blocks", _Block), ("vace_blocks", _ControlBlock)):
            if name in before:
                _check_offloading(before[name])
                setattr(
                    transformer,
                    name,
                    nn.ModuleList(packed(block, branches, flow) for block in before[name]),
                )
        yield
    finally:
        for name, module in before.items():
            setattr(transformer, name, module)


def _check_offloading(blocks: nn.ModuleList) -> None:
    """A group is offloaded when its last block returns, here after the first branch already."""
    registries = [block._diffusers_hook for block in blocks if hasattr(block, "_diffusers_hook")]
    hooks = [registry.get_hook("group_offloading") for registry in registries]
    if any(hook and len(hook.group.modules) > 1 for hook in hooks):
        raise ValueError(
            "several blocks are offloaded as one group, but branches go through them one after the "
            "other; expected num_blocks_per_group=1 in apply_group_offloading"
        )


class _Rope(nn.Module):
    """Cosines and sines of each branch's own tokens, from the model's rotary embedding of whole
    latents."""

    def __init__(self, rope: nn.Module, branches: Sequence[PackedBranch]):
        super().__init__()
        self.rope, self.branches = rope, branches

    def forward(self, hidden_states: Tensor) -> Rope:
        cos, sin = self.rope(self.branches[0].latents)
        return [(cos[:, branch.tokens], sin[:, branch.tokens]) for branch in self.branches]


def _is_plain(embedding: nn.Module) -> bool:
    """Whether weight and bias are all there is to it: no adapter, no offloading, no other dtype."""
    hooked = hasattr(embedding, "_hf_hook") or hasattr(embedding, "_diffusers_hook")
    return type(embedding) is nn.Conv3d and not hooked


class _PatchEmbedding(nn.Module):
    """A convolution over single patches as what it is, a matrix: for many patches torch's Conv3d in
    bfloat16 is 10 to 20 times slower (pytorch#166643). Equal up to rounding."""

    def __init__(self, convolution: nn.Conv3d):
        super().__init__()
        self.convolution = convolution

    def forward(self, patches: Tensor) -> Tensor:
        """[1, C, n * p_t, p_h, p_w] -> [1, D, n, 1, 1]."""
        weight = self.convolution.weight.flatten(1)
        flat = patches.unflatten(2, (-1, self.convolution.kernel_size[0]))
        flat = flat.transpose(1, 2).flatten(2)
        embedded = F.linear(flat, weight, self.convolution.bias)
        return embedded.transpose(1, 2)[..., None, None]


class _Packed(nn.Module):
    """A block that is called once a branch; RoPE is left to the flow."""

    def __init__(self, block: nn.Module, branches: Sequence[PackedBranch], flow: Flow):
        super().__init__()
        self.block, self.flow = block, flow
        self.tokens = [len(branch.tokens) for branch in branches]
        self.texts = [branch.prompt.parts[0].shape[1] for branch in branches]


class _Block(_Packed):
    def forward(
        self, hidden_states: Tensor, prompts: Tensor, temb: Tensor, ropes: Rope, *more: None
    ) -> Tensor:
        """Writes in place; more: SkyReels' causal mask, which text-to-video has not."""
        packed = zip(
            hidden_states.split(self.tokens, dim=1), prompts.split(self.texts, dim=1), ropes
        )
        for number, (tokens, prompt, rope) in enumerate(packed):
            self.flow.enter(number, rope)
            tokens.copy_(self.block(tokens, prompt, temb, None, *more))
        self.flow.leave()
        return hidden_states


class _ControlBlock(_Packed):
    """Its hint for the trunk is computed when the trunk comes to it, so that few hints are held at once."""

    def forward(
        self, hidden_states: Tensor, prompts: Tensor, control: Tensor, temb: Tensor, ropes: Rope
    ) -> tuple[Any, Tensor]:
        """Writes the control in place."""
        run = partial(self._run, hidden_states, prompts, control, temb, ropes)
        first = (
            self.block.proj_in is not None
        )  # it reads the hidden states, which the trunk is about to overwrite
        return run() if first else _Late(run), control

    def _run(
        self, hidden_states: Tensor, prompts: Tensor, control: Tensor, temb: Tensor, ropes: Rope
    ) -> Tensor:
        hints = []
        splits = hidden_states.split(self.tokens, dim=1), control.split(self.tokens, dim=1)
        packed = zip(*splits, prompts.split(self.texts, dim=1), ropes)
        for number, (tokens, state, prompt, rope) in enumerate(packed):
            self.flow.enter(number, rope)
            hint, new = self.block(tokens, prompt, state, temb, None)
            state.copy_(new)
            hints.append(hint)
        self.flow.leave()
        return torch.cat(hints, dim=1)


class _Late:
    """A hint to come; all that the transformer does with it first is to ask for it on its own device."""

    def __init__(self, run: Callable[[], Tensor]):
        self.run = run

    def to(self, device: torch.device) -> Tensor:
        return self.run().to(device)


def _patches(latents: Tensor, tokens: Tensor, patch: tuple[int, int, int]) -> Tensor:
    """Latents [1, C, F, H, W] -> the tokens' patches one behind the other [1, C, n * p_t, p_h, p_w]."""
    grid = (
        latents.unflatten(4, (-1, patch[2]))
        .unflatten(3, (-1, patch[1]))
        .unflatten(2, (-1, patch[0]))
    )
    grid = grid.permute(0, 1, 2, 4, 6, 3, 5, 7)
    height, width = grid.shape[3:5]
    return grid[:, :, tokens // (height * width), tokens // width % height, tokens % width].flatten(
        2, 3
    )


def _unpacked(output: Tensor, branch: PackedBranch, patch: tuple[int, int, int]) -> Tensor:
    """The opposite, zero where there is no token."""
    p_t, p_h, p_w = patch
    channels, (frames, height, width) = output.shape[1], branch.latents.shape[2:]
    tokens = output.new_zeros(
        1, channels, frames * height * width // (p_t * p_h * p_w), p_t, p_h, p_w
    )
    tokens[:, :, branch.tokens] = output.unflatten(2, (-1, p_t))
    grid = tokens.unflatten(2, (frames // p_t, height // p_h, width // p_w))
    return grid.permute(0, 1, 2, 5, 3, 6, 4, 7).reshape(1, channels, frames, height, width)
