"""What keys and values pass through on their way into the attention (KV-Lock, KV fusion)."""

from typing import Any, Literal, Protocol

from torch import Tensor

Kind = Literal["key", "value"]


class Layer(Protocol):
    """One self-attention layer that a tap is attached to, and what the tap stores of it.

    control: of a control stream, which alpha leaves alone. passed: since the tap was attached.
    rotate (tokens, cos, sin): the rotary embedding, for packed forwards.
    """

    name: str
    control: bool
    rotate: Any
    key: Tensor | None
    value: Tensor | None
    key_passed: bool
    value_passed: bool

    def video(self, kind: Kind, tokens: Tensor, count: int) -> Tensor:
        """The view of keys or values that is the video's alone, tokens on axis 1."""
        ...


class Tap:
    """A tap that leaves everything as it is; the seam of a backbone attaches it (`tapped`)."""

    packed = False  # whether a packed forward is under way, which leaves positions to the tap

    def __init__(self) -> None:
        self.layers: list[Any] = []  # those it is attached to
        self.wrapped: dict[str, Any] = {}

    def through(self, layer: Layer, kind: Kind, tokens: Tensor) -> Tensor:
        """Keys or values between their projection and the attention."""
        return tokens

    def rotated(self, layer: Layer, tokens: Tensor) -> Tensor:
        """Queries at their positions, where they are not rotated later."""
        return tokens
