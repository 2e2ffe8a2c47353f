"""For every option another value, with which a short edit at toy size comes out differently."""

from typing import Any

from kvlock.methods.options import flat

OTHER_VALUES: dict[str, list[Any]] = {  # the first that is not the config's own
    "num_inference_steps": [5],
    "lock_steps": [0.25],
    "fusion_ratio": [0.3],
    "inject_steps": [0.5],
    "fade_curve": ["linear", "none"],
    "foreground_ratio": [0.3],
    "window": [2, 3],
    "threshold": [0.0125],
    "detection": ["global", "local"],
    "prediction": ["conditional", "guided"],
    "usual": [((0.0, 0.7), (1.0, 0.7))],
    "lock_width": [0.8],
    "guidance_scale": [3.0],
    "guidance_scale_2": [2.0],
    "lock_guidance": [0.5],
    "unconditional_scale": [False, True],
    "zero_init_steps": [2],
    "guidance_interval": [(0.3, 0.8)],
    "guidance_minimum": [20.0],
    "guidance_response": ["lower", "raise"],
    "apg_momentum": [-0.2],
    "apg_parallel": [0.5],
    "strength": [0.5],
    "background_anchor": ["none", "latents"],
    "latents_shift": [0.6],
    "drop_steps": ["locked", "all"],
    "drop_margin": [0],
    "source_refresh": [3],
    "background_context": [0.5],
    "target_boost": [1.5],
    "num_noises": [2],
    "masked": [True, False],
}
CLAMPS = {"raise": dict(guidance_floor=1.9, guidance_boost=1.01)}
CLAMPS["lower"] = dict(guidance_floor=0.9, guidance_boost=0.5)
NAMES = (*OTHER_VALUES, *CLAMPS["raise"])


def other_value(config: Any, name: str) -> Any:
    """Of the config's option, or of one that it does not have."""
    own = flat(config)
    if name in CLAMPS["raise"]:
        return CLAMPS[own.get("guidance_response", "raise")][name]
    values = OTHER_VALUES[name]
    short = name == "window" and own.get(name, 10) < 2  # two steps already
    if short or (name == "background_anchor" and own.get(name) == "none"):
        values = values[::-1]
    return next(value for value in values if value != own.get(name))
