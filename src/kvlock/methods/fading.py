"""AdaEdit's progressive injection: alpha by the step alone."""

import math

FADED = 0.05  # AdaEdit injects nothing at or below this weight


def fading_weight(kind: str, step: int, inject_steps: int) -> float:
    """From 1 towards 0 over T_inj steps, by AdaEdit's code, where r = k / (T_inj - 1).

    sigmoid: 1 / (1 + exp(5 (r - 0.7))), which fades on beyond T_inj; cosine: (1 + cos(pi r)) / 2;
    linear: 1 - r. Weights of 0.05 and less are nothing.
    """
    if inject_steps == 0:
        return 0.0
    r = step / max(inject_steps - 1, 1)
    if kind == "sigmoid":
        weight = 1 / (1 + math.exp(min(5 * (r - 0.7), 700.0)))
    elif kind == "cosine":
        weight = 0.5 * (1 + math.cos(math.pi * min(r, 1.0)))
    else:
        weight = 1 - r
    return weight if weight > FADED else 0.0
