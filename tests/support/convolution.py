"""The convolution that kernels are compared with: numpy, in float64."""

import numpy as np


def convolve(x, w, stride, padding, dilation, groups):
    """Convolve NCHW with OIHW in float64, by sliding windows."""
    top, left, bottom, right = padding
    x = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (top, bottom), (left, right)))
    w = w.astype(np.float64)
    kh, kw = w.shape[2:]
    span = ((kh - 1) * dilation[0] + 1, (kw - 1) * dilation[1] + 1)
    windows = np.lib.stride_tricks.sliding_window_view(x, span, axis=(2, 3))
    windows = windows[:, :, :: stride[0], :: stride[1], :: dilation[0], :: dilation[1]]
    n, c, oh, ow = windows.shape[:4]
    windows = windows.reshape(n, groups, c // groups, oh, ow, kh, kw)
    grouped = w.reshape(groups, w.shape[0] // groups, *w.shape[1:])
    out = np.einsum("ngcyxhw,gochw->ngoyx", windows, grouped)
    return out.reshape(n, w.shape[0], oh, ow)
