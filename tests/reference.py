"""Reference implementation of the method in float64 NumPy, one utterance and frame at a time, without batches."""

import numpy as np


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def cosine(a, b):
    return a @ b / (np.linalg.norm(a) * np.linalg.norm(b))


def eal(cls_outputs, frames, lengths, margin):
    """cls_outputs (B, D), frames (B, T, D), lengths (B,)."""
    per_utterance = []
    for c, f, n in zip(cls_outputs, frames, lengths):
        per_utterance.append(np.mean([np.log1p(np.exp(margin - cosine(c, f[t]))) for t in range(n)]))
    return np.mean(per_utterance)


def fual(logits, frame_logits, weights, lengths, direction="utterance_to_frames"):
    """logits (B, C), frame_logits (B, T, C), weights (B, T) that sum to 1 over the first n frames."""
    per_utterance = []
    for utterance, frames, a, n in zip(logits, frame_logits, weights, lengths):
        q = softmax(utterance)
        p = sum(a[t] * softmax(frames[t]) for t in range(n))
        first, second = (q, p) if direction == "utterance_to_frames" else (p, q)
        per_utterance.append(np.sum(first * np.log(first / second)))
    return np.mean(per_utterance)


def cross_entropy(logits, labels):
    return np.mean([-np.log(softmax(row)[label]) for row, label in zip(logits, labels)])


def weighted_cross_entropy(logits, labels, weights, smoothing=0.0):
    """Labels are class indices or distributions; divided by the number of utterances."""
    each = []
    for row, label in zip(logits, labels):
        target = np.eye(len(row))[label] if np.ndim(label) == 0 else np.array(label)
        target = (1 - smoothing) * target + smoothing / len(row)
        each.append(-np.sum(np.array(weights) * target * np.log(softmax(row))))
    return np.mean(each)


def gradient(function, x, step=1e-6):
    """Central differences of a scalar function at x, in x's shape."""
    x = np.array(x, dtype=np.float64)
    result = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        kept = x[index]
        x[index] = kept + step
        high = function(x)
        x[index] = kept - step
        low = function(x)
        x[index] = kept
        result[index] = (high - low) / (2 * step)
    return result


def linear(x, weights, name):
    return x @ weights[f"{name}.weight"].T + weights.get(f"{name}.bias", 0.0)


def layer_norm(x, weights, name, eps=1e-5):
    centred = x - x.mean(-1, keepdims=True)
    normed = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + eps)
    return normed * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def attend(x, weights, name, num_heads, context=None):
    """Multi-head attention of x (tokens, D) to itself or to a context (others, D), all of them valid."""
    context = x if context is None else context
    query = linear(x, weights, f"{name}.query")
    key, value = (linear(context, weights, f"{name}.{part}") for part in ("key", "value"))
    size = x.shape[1] // num_heads
    heads = []
    for head in range(num_heads):
        part = slice(head * size, (head + 1) * size)
        attention = softmax(query[:, part] @ key[:, part].T / np.sqrt(size))
        heads.append(attention @ value[:, part])
    return linear(np.concatenate(heads, -1), weights, f"{name}.output")


def transformer_layer(x, weights, name, num_heads):
    """Post-norm encoder layer of Vaswani et al. 2017 with ReLU; x (tokens, D), all of them valid."""
    x = layer_norm(x + attend(x, weights, name, num_heads), weights, f"{name}.attention_norm")
    inner = np.maximum(linear(x, weights, f"{name}.feed_forward.0"), 0)
    return layer_norm(x + linear(inner, weights, f"{name}.feed_forward.3"), weights, f"{name}.feed_forward_norm")


def cls_head(frames, weights, num_heads):
    """Frames (n, D) of one utterance -> CLS output, frames, weights, logits, frame logits (stage 2)."""
    tokens = np.concatenate([weights["pooling.cls_token"][None], frames])
    tokens = transformer_layer(tokens, weights, "pooling.layers.0", num_heads)
    cls_output, frames = tokens[0], tokens[1:]
    a = softmax(frames @ cls_output / np.sqrt(len(cls_output)))
    return cls_output, frames, a, linear(a @ frames, weights, "classifier"), linear(frames, weights, "classifier")


def distributions(labels, num_classes):
    """Class indices or distributions as rows of a matrix."""
    return np.array([np.eye(num_classes)[label] if np.ndim(label) == 0 else np.array(label) for label in labels])


def soft_label_divergence(logits, labels, weights):
    """KL(label || prediction); a label's weight is the mean of the class weights under it."""
    each = []
    for row, target in zip(logits, distributions(labels, logits.shape[-1])):
        p = softmax(row)
        kl = sum(y * np.log(y / p[k]) for k, y in enumerate(target) if y > 0)
        each.append(kl * sum(y * w for y, w in zip(target, weights)))
    return np.mean(each)


def cosine_distance(logits, labels):
    """1 - cos(label, prediction)."""
    each = []
    for row, target in zip(logits, distributions(labels, logits.shape[-1])):
        p = softmax(row)
        each.append(1 - sum(p * target) / np.sqrt(sum(p * p) * sum(target * target)))
    return np.mean(each)


def focal(logits, labels, gamma, weights):
    each = []
    for row, target in zip(logits, distributions(labels, logits.shape[-1])):
        p = softmax(row)
        each.append(sum(-w * y * (1 - p[k]) ** gamma * np.log(p[k]) for k, (y, w) in enumerate(zip(target, weights))))
    return np.mean(each)


def center(projections, centers, labels):
    each = []
    for z, target in zip(projections, distributions(labels, len(centers))):
        each.append(sum(y * np.sum((z - c) ** 2) / 2 for y, c in zip(target, centers)))
    return np.mean(each)


def contrastive(frames, lengths, labels, temperature, samples, num_classes):
    """Supervised contrastive loss after context broadcasting, over pairs of samples."""
    vectors, targets, shares = [], [], []
    for f, n, target in zip(frames, lengths, distributions(labels, num_classes)):
        f = (f[:n] + f[:n].mean(axis=0)) / 2
        f = f / np.linalg.norm(f, axis=1, keepdims=True)
        if samples == "utterances":
            f = f.mean(axis=0, keepdims=True)
            f = f / np.linalg.norm(f)
        vectors += list(f)
        targets += [target] * len(f)
        shares += [1 / len(f) / len(lengths)] * len(f)
    total = 0
    for i, (z, target) in enumerate(zip(vectors, targets)):
        others = [j for j in range(len(vectors)) if j != i]
        alike = np.array([target @ targets[j] for j in others])
        similarity = np.array([z @ vectors[j] / temperature for j in others])
        if len(others) > 0 and alike.sum() > 0:
            total -= shares[i] * alike @ np.log(softmax(similarity)) / max(1, alike.sum())
    return total


def concordance(predictions, targets):
    """Lin's concordance correlation coefficient of each column, with population moments."""
    each = []
    for x, y in zip(np.transpose(predictions), np.transpose(targets)):
        x_mean, y_mean = sum(x) / len(x), sum(y) / len(y)
        covariance = sum((a - x_mean) * (b - y_mean) for a, b in zip(x, y)) / len(x)
        x_variance, y_variance = sum((x - x_mean) ** 2) / len(x), sum((y - y_mean) ** 2) / len(y)
        each.append(2 * covariance / (x_variance + y_variance + (x_mean - y_mean) ** 2))
    return np.array(each)


def mish(x):
    return x * np.tanh(np.log1p(np.exp(x)))


def gated_convolution(x, kernel, bias):
    """x (frames, D), kernel (2D, D, 5): each frame with two neighbours on either side, zeros beyond the ends."""
    size = x.shape[1]
    padded = np.concatenate([np.zeros((2, size)), x, np.zeros((2, size))])
    out = np.array([sum(kernel[:, :, k] @ padded[t + k] for k in range(5)) + bias for t in range(len(x))])
    return x + out[:, :size] / (1 + np.exp(-out[:, size:]))


def style_pooling(x, weights, num_heads):
    """x (frames, D) of one utterance to (D,); the attention divides by sqrt(D), not by that of a head."""
    for layer in (0, 3):
        x = mish(linear(x, weights, f"spectral.{layer}"))
    for layer in (0, 1):
        name = f"temporal.{layer}.convolution"
        x = gated_convolution(x, weights[f"{name}.weight"], weights[f"{name}.bias"])
    query = {**weights, "attention.query.weight": weights["attention.query.weight"] / np.sqrt(num_heads)}
    query["attention.query.bias"] = weights["attention.query.bias"] / np.sqrt(num_heads)
    x = x + attend(x, query, "attention", num_heads)
    return linear(x, weights, "output").mean(axis=0)


def fuse(kind, voice, frames, frame_weights, voice_logits, words, weights, num_heads):
    """Vector and logits of an utterance: voice (D,), frames (n, D), words (m, D) as projected, of `text_fusion`."""
    average = words.mean(0)
    both = np.concatenate([voice, average])
    if kind == "late":
        shares = weights["fusion.shares"]
        return both, shares[0] * voice_logits + shares[1] * linear(average, weights, "fusion.text_classifier")
    if kind == "gated":
        gate = 1 / (1 + np.exp(-linear(both, weights, "fusion.gated.gate")))
        heard, read = (
            np.tanh(linear(x, weights, f"fusion.gated.{name}")) for x, name in ((voice, "voice"), (average, "words"))
        )
        both = gate * heard + (1 - gate) * read
    elif kind == "cross_attention":
        name = "fusion.crossed"
        seen = frames + attend(frames, weights, f"{name}.frames_to_words", num_heads, words)
        read = words + attend(words, weights, f"{name}.words_to_frames", num_heads, frames)
        seen, read = layer_norm(seen, weights, f"{name}.frame_norm"), layer_norm(read, weights, f"{name}.word_norm")
        both = np.concatenate([frame_weights @ seen, read.mean(0)])
    return both, linear(both, weights, "fusion.classifier")
