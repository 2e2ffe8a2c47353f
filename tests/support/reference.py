"""Every equation again in slow loops, written from the papers; imports nothing from kvlock."""

import math

import torch


def latent_mask(mask, stride):
    """Pixel mask [F, H, W] -> latent mask: frame 0 alone, then groups; any edited pixel counts."""
    frames, height, width = mask.shape
    st, sh, sw = stride
    out = torch.zeros((frames - 1) // st + 1, height // sh, width // sw, dtype=torch.bool)
    for f in range(frames):
        latent = 0 if f == 0 else (f - 1) // st + 1
        for y in range(height):
            for x in range(width):
                if mask[f, y, x]:
                    out[latent, y // sh, x // sw] = True
    return out


def token_mask(latent, patch):
    """Latent mask [f, h, w] -> token mask [L], row-major."""
    pt, ph, pw = patch
    frames, height, width = (s // p for s, p in zip(latent.shape, patch))
    out = []
    for f in range(frames):
        for y in range(height):
            for x in range(width):
                out.append(
                    bool(
                        latent[
                            f * pt : (f + 1) * pt, y * ph : (y + 1) * ph, x * pw : (x + 1) * pw
                        ].any()
                    )
                )
    return torch.tensor(out)


def fuse(new, source, foreground, alpha):
    """K = K_new on the foreground, alpha K_src + (1 - alpha) K_new on the background; [L, D]."""
    out = torch.empty_like(new)
    for token in range(len(new)):
        for channel in range(new.shape[1]):
            if foreground[token]:
                out[token, channel] = new[token, channel]
            else:
                out[token, channel] = (
                    alpha * source[token, channel] + (1 - alpha) * new[token, channel]
                )
    return out


def variance(predictions, region):
    """Unbiased variance by element of predictions [C, F, H, W], its mean over the region."""
    count = len(predictions)
    if count < 2:
        return None
    total, elements = 0.0, 0
    channels, frames, height, width = predictions[0].shape
    for c in range(channels):
        for f in range(frames):
            for y in range(height):
                for x in range(width):
                    if region[f, y, x]:
                        values = [float(p[c, f, y, x]) for p in predictions]
                        mean = sum(values) / count
                        total += sum((v - mean) ** 2 for v in values) / (count - 1)
                        elements += 1
    return total / elements


def control(variance, step, steps, kappa, tau, omega, lower, boost):
    """alpha and omega as printed; at rest before the last kappa steps and without a variance."""
    if step < steps - kappa or variance is None:
        return 0.0, omega
    ratio = variance / tau
    return min(max(ratio, 0.0), 1.0), omega * min(max(ratio, lower), boost)


def optimal_scale(conditional, unconditional, kept=None):
    """s* of CFG-Zero*, one clip [C, F, H, W]; of the latents that are kept, bool [F, H, W]."""
    if kept is not None:
        conditional, unconditional = conditional[:, kept], unconditional[:, kept]
    dot = sum(float(a) * float(b) for a, b in zip(conditional.flatten(), unconditional.flatten()))
    norm = sum(float(b) ** 2 for b in unconditional.flatten())
    return dot / (norm + 1e-8)


def guided(conditional, unconditional, omega, scale):
    """(1 - omega) s v_uncond + omega v_cond, as KV-Lock prints it."""
    out = torch.empty_like(conditional)
    flat, c, u = out.view(-1), conditional.flatten(), unconditional.flatten()
    for i in range(len(flat)):
        flat[i] = (1 - omega) * scale * u[i] + omega * c[i]
    return out


def projected(conditional, unconditional, omega, average, momentum=-0.5, eta=0.0, kept=None):
    """APG on denoised predictions of one clip; `average` is a list or None.

    kept: bool [F, H, W]; what is not kept stays the conditional's and counts nowhere.
    """
    if kept is not None:
        chosen, result = (conditional[:, kept], unconditional[:, kept]), conditional.clone()
        result[:, kept], average = projected(*chosen, omega, average, momentum, eta)
        return result, average
    c, u = (x.double().flatten().tolist() for x in (conditional, unconditional))
    delta = [a - b for a, b in zip(c, u)]
    if average is not None:
        delta = [d + momentum * m for d, m in zip(delta, average)]
    kept = list(delta)
    cap = 15 * math.sqrt(len(c) / 65536)
    length = math.sqrt(sum(d * d for d in delta))
    if length > cap:
        delta = [d * cap / length for d in delta]
    share = sum(d * a for d, a in zip(delta, c)) / sum(a * a for a in c)
    out = []
    for d, a in zip(delta, c):
        parallel = share * a
        out.append(a + (omega - 1) * ((d - parallel) + eta * parallel))
    return torch.tensor(out).view_as(conditional), kept


def fading(kind, steps, inject):
    """AdaEdit's injection weights, one a step; its code leaves a weight of 0.05 or less out."""
    weights = []
    for i in range(steps):
        ratio = i / max(inject - 1, 1)
        if kind == "cosine":
            weight = 0.5 * (1 + math.cos(math.pi * min(ratio, 1)))
        elif kind == "sigmoid":
            weight = 1 / (1 + math.exp(5 * (ratio - 0.7)))
        else:
            weight = max(1 - ratio, 0)
        weights.append(weight if weight > 0.05 else 0)
    return weights


def shifted(start, noise, foreground, beta):
    """ProEdit's latents-shift: start and noise [C, F, H, W], foreground bool [F, H, W]."""
    out = start.clone()
    for c in range(len(start)):
        z, r = start[c][foreground].double(), noise[c][foreground].double()
        std_z = math.sqrt(float(((z - z.mean()) ** 2).mean()) + 1e-5)
        std_r = math.sqrt(float(((r - r.mean()) ** 2).mean()) + 1e-5)
        new = [(float(v) - float(z.mean())) / std_z * std_r + float(r.mean()) for v in z]
        out[c][foreground] = torch.tensor(
            [beta * n + (1 - beta) * float(v) for n, v in zip(new, z)]
        ).to(out.dtype)
    return out


def uni_inv(velocity, clean, sigmas):
    """UniEdit-Flow's inversion; velocity(z, sigma), sigmas from noise to 0. The latents at each."""
    levels = list(sigmas)[::-1]
    z, path = clean, [clean]
    held = velocity(z, levels[0])
    for here, there in zip(levels[:-1], levels[1:]):
        guess = z + (there - here) * held
        held = velocity(guess, there)
        z = z + (there - here) * held
        path.append(z)
    return path[::-1]


def flowedit(v_source, v_target, clean, noises, sigmas, inside=None):
    """FlowEdit with one noise a step; v_*(z, step). `inside` multiplies the update."""
    edit = clean
    for step, noise in noises.items():
        sigma, following = sigmas[step], sigmas[step + 1]
        z_src = (1 - sigma) * clean + sigma * noise
        z_tar = edit + z_src - clean
        change = (following - sigma) * (v_target(z_tar, step) - v_source(z_src, step))
        edit = edit + (change if inside is None else change * inside)
    return edit


def rope_rotate(x, cos, sin):
    """Wan's rotary embedding on pairs of channels; x [B, S, heads, D]."""
    out = torch.empty_like(x)
    for i in range(0, x.shape[-1], 2):
        a, b = x[..., i], x[..., i + 1]
        out[..., i] = a * cos[..., i] - b * sin[..., i + 1]
        out[..., i + 1] = a * sin[..., i + 1] + b * cos[..., i]
    return out


def attention(query, key, value):
    """softmax(q k^T / sqrt(d)) v; all [B, S, heads, D]."""
    scores = torch.einsum("bshd,bthd->bhst", query, key) / math.sqrt(query.shape[-1])
    return torch.einsum("bhst,bthd->bshd", scores.softmax(-1), value)


def usual_variance(table, sigma):
    """Between two levels a geometric mean weighted by nearness; the ends hold beyond them."""
    below = [p for p in table if p[0] <= sigma]
    above = [p for p in table if p[0] >= sigma]
    if not below or not above:
        return (max(below) if below else min(above))[1]
    left, right = max(below), min(above)
    if left == right:
        return left[1]
    share = (sigma - left[0]) / (right[0] - left[0])
    return left[1] ** (1 - share) * right[1] ** share


def nearby_variance(predictions, region, width, patch):
    """Per token [L]: variances around it weighed by a Gaussian per frame, the region's nearness."""
    count, reach = len(predictions), math.ceil(3 * width)
    frames, height, single = region.shape
    kernel = {d: math.exp(-((d / width) ** 2) / 2) for d in range(-reach, reach + 1)}
    total = sum(kernel.values())
    maps = torch.zeros(2, frames, height, single, dtype=torch.double)
    for f, y, x in torch.ones(frames, height, single).nonzero().tolist():
        weight, sum_ = 0.0, 0.0
        for dy in kernel:
            for dx in kernel:
                v, u = y + dy, x + dx
                if 0 <= v < height and 0 <= u < single and region[f, v, u]:
                    w = kernel[dy] * kernel[dx] / total**2
                    values = [p[:, f, v, u].double() for p in predictions]
                    mean = sum(values) / count
                    sum_ += w * float(sum((a - mean) ** 2 for a in values).mean()) / (count - 1)
                    weight += w
        maps[0, f, y, x] = sum_ / weight if weight else 0.0
        maps[1, f, y, x] = min(1.0, 2 * weight)
    (pf, ph, pw), out = patch, []
    for f in range(0, frames, pf):
        for y in range(0, height, ph):
            for x in range(0, single, pw):
                out.append(maps[:, f : f + pf, y : y + ph, x : x + pw].mean(dim=(1, 2, 3)))
    return torch.stack(out, dim=1)
