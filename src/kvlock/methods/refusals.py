"""What a method asks of a model, and why a model cannot run it."""

from kvlock.contract.backbone import Backbone
from kvlock.core.config import KVLockConfig
from kvlock.methods.options import MethodConfig

OTHERS = "take a method that does not, such as kv-lock or constant"
CANNOT_DROP = f"this model family cannot drop the background yet; {OTHERS}"


def check_runs(config: MethodConfig, backbone: Backbone) -> None:
    """Raise ValueError, with the reason, for a method that makes no sense on this model."""
    reason = refusal(config, backbone)
    if reason:
        raise ValueError(reason)


def refusal(config: MethodConfig, backbone: Backbone) -> str:
    """Why the model cannot run the method; empty where it can."""
    if not isinstance(config, KVLockConfig):
        if not backbone.flow_matching:
            return _no_velocities("FlowEdit")
        packs = hasattr(backbone, "predict_packed")
        return CANNOT_DROP if config.drop and not packs else ""
    if config.source.inversion and not backbone.flow_matching:
        return _no_velocities("the inversion")
    if config.guidance.zero_init_steps and not backbone.flow_matching:
        return _no_velocities(f"zero_init_steps={config.guidance.zero_init_steps}")
    if config.drop and not hasattr(backbone, "predict_packed"):
        return CANNOT_DROP
    if backbone.embedded_guidance and _is_guidance_alone(config):
        return (
            "this model family reads its guidance as a number, without an unconditional branch, so "
            "there is nothing for this method to act on; ask for that branch with a "
            "--guidance-scale above 1, or take a method that locks, such as kv-lock"
        )
    return ""


def _no_velocities(what: str) -> str:
    return (
        f"{what} goes by velocities of flow matching, and this model family predicts v on a "
        f"diffusion schedule; {OTHERS}"
    )


def _is_guidance_alone(config: KVLockConfig) -> bool:
    """Whether the method does nothing but guide, and guidance is off."""
    guidance, source = config.guidance, config.source
    does = config.lock or config.drop or source.inversion or source.strength < 1
    does = does or source.background_anchor == "latents"
    guides = guidance.adaptive or guidance.unconditional_scale or guidance.projection
    return bool(guides) and not does and guidance.guidance_scale == 1
