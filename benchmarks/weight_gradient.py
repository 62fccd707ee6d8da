"""Whether the gradient of a convolution's weights, the slowest part of a training step, can be had faster on
this processor: python -m benchmarks.weight_gradient

For each 3 x 3 convolution of the preset `best`, alternately: torch's own; one matrix product of all patches;
nine products, one for each place in the window. Prints a table in Markdown.
"""

from __future__ import annotations

import argparse
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.timing import matrix_rate, take_turns
from fer_utils.learning.augment import channels_last

CPU = torch.device("cpu")
# Channels in and out, stride, and pixels of the input, of `medium` at width 0.75 and 48 pixels.
CONVOLUTIONS = ((48, 48, 1, 24), (48, 96, 2, 24), (96, 96, 1, 12), (96, 192, 2, 12), (192, 192, 1, 6))


def main() -> None:
    """Time all of them, in float32 and in bfloat16."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.weight_gradient", description=__doc__.split("\n\n")[0]
    )
    parser.add_argument("--batch", type=int, default=256, help="images")
    parser.add_argument("--seconds", type=float, default=2, help="for each comparison")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print("| type | convolution | torch's, GFLOP/s | patches: times as fast | nine products: times as fast |")
    print("|---|---|---|---|---|")
    for dtype in (torch.float32, torch.bfloat16):
        name = str(dtype).removeprefix("torch.")
        for inputs, outputs, stride, size in CONVOLUTIONS:
            images = channels_last(torch.randn(options.batch, inputs, size, size).to(dtype))
            grads = channels_last(
                torch.randn(options.batch, outputs, size // stride, size // stride).to(dtype)
            )
            ways = [partial(way, images, grads, stride) for way in (by_torch, by_patches, by_places)]
            turns = [take_turns(ways[0], way, options.seconds, CPU) for way in ways[1:]]
            rate = 2 * 9 * inputs * grads.numel() / turns[0][0] / 1e9
            ratios = " | ".join(f"{1 / ratio:.2f}" for _, _, ratio, _ in turns)
            layer = f"{inputs} to {outputs}, {size} x {size}, stride {stride}"
            print(f"| {name} | {layer} | {rate:.0f} | {ratios} |", flush=True)
        print(f"| {name} | a large matrix product | {matrix_rate(dtype, CPU) / 1e9:.0f} | | |", flush=True)


def by_torch(images: Tensor, grads: Tensor, stride: int) -> Tensor:
    """The gradient [O, I, 3, 3] of a 3 x 3 convolution's weights (padding 1) from its input [N, I, H, W] and
    the gradient of its output [N, O, H / stride, W / stride]."""
    weights = channels_last(images.new_zeros(grads.shape[1], images.shape[1], 3, 3))
    return torch.ops.aten.convolution_backward(
        grads, images, weights, None, [stride] * 2, [1, 1], [1, 1], False, [0, 0], 1, [False, True, False]
    )[1]


def by_patches(images: Tensor, grads: Tensor, stride: int) -> Tensor:
    """The same by one product with all patches, nine times the input."""
    padded = F.pad(images, (1, 1, 1, 1)).permute(0, 2, 3, 1).contiguous()  # [N, H + 2, W + 2, I]
    n, outputs, height, width = grads.shape
    rows, columns, inputs = padded.stride()[1:3] + padded.shape[3:]
    shape = (n, height, width, 3, 3, inputs)
    strides = (padded.stride(0), rows * stride, columns * stride, rows, columns, 1)
    patches = padded.as_strided(shape, strides).reshape(n * height * width, 9 * inputs)
    found = _flat(grads).t() @ patches
    return found.view(outputs, 3, 3, inputs).permute(0, 3, 1, 2)


def by_places(images: Tensor, grads: Tensor, stride: int) -> Tensor:
    """The same by nine products, one for each place in the window."""
    padded = F.pad(images, (1, 1, 1, 1))
    height, width = grads.shape[2:]
    found = images.new_empty(3, 3, grads.shape[1], images.shape[1])
    for y in range(3):
        for x in range(3):
            part = padded[:, :, y : y + stride * height : stride, x : x + stride * width : stride]
            found[y, x] = _flat(grads).t() @ _flat(part)
    return found.permute(2, 3, 0, 1)


def _flat(images: Tensor) -> Tensor:
    """[N, C, H, W] as [N H W, C]."""
    return images.permute(0, 2, 3, 1).flatten(0, 2)


if __name__ == "__main__":
    main()
