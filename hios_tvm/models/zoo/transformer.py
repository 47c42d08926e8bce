"""Transformers: the encoder of BERT-base, and a block with a mixture of experts.

BERT-base is the encoder of Devlin et al., NAACL 2019 (12 layers, 768 features, 12 heads, 3072
hidden; normalisation behind each half as in Vaswani et al., 2017), on embedded tokens: the
embedding table is no operator worth scheduling.

The mixture of experts has the sizes of Switch-Base (Fedus et al., JMLR 2022, table 9: 768
features, 3072 hidden, 12 heads) with 8 experts. All experts run on all tokens and the softmax of
the router weighs their outputs (Jacobs et al., 1991), since a static graph cannot choose: eight
branches of two matrix products that do not depend on each other.
"""

import numpy as np

from hios_tvm.models.draft import OnnxDraft
from hios_tvm.models.weights import BIAS_STD, he_std
from hios_tvm.models.zoo.scaling import scaled

__all__ = ["bert_base", "moe_block"]

_HEADS = 12
_HEAD_SIZE = 64
_LAYERS = 12
_EXPERTS = 8


def bert_base(tokens: int = 128, batch: int = 1, width: float = 1.0) -> OnnxDraft:
    """Build the encoder of BERT-base.

    Parameters
    ----------
    tokens : int
        Length of the sequence.
    batch : int
        Sequences in one run.
    width : float
        Multiplier of the number of heads and with it of all sizes.

    Returns
    -------
    OnnxDraft
        Input ``data`` and output ``output``: (batch, tokens, features).
    """
    draft = OnnxDraft("bert_base")
    net = _Transformer(draft, scaled(_HEADS, width), tokens, batch)
    value = draft.input("data", net.shape)
    for layer in range(_LAYERS):
        name = f"layer{layer}"
        attended = net.attention(value, f"{name}.attention")
        attended = draft.op("Add", [value, attended], f"{name}.attention.residual")
        attended = net.normalise(attended, f"{name}.attention.norm")
        hidden = net.feed_forward(attended, f"{name}.mlp")
        value = draft.op("Add", [attended, hidden], f"{name}.mlp.residual")
        value = net.normalise(value, f"{name}.mlp.norm")
    draft.op("Identity", [value], "output")
    draft.output("output", net.shape)
    return draft


def moe_block(tokens: int = 128, batch: int = 1, width: float = 1.0) -> OnnxDraft:
    """Build one transformer block with a mixture of 8 experts.

    Parameters
    ----------
    tokens, batch, width
        As for `bert_base`.

    Returns
    -------
    OnnxDraft
        Input ``data`` and output ``output``: (batch, tokens, features).
    """
    draft = OnnxDraft("moe_block")
    net = _Transformer(draft, scaled(_HEADS, width), tokens, batch)
    data = draft.input("data", net.shape)
    attended = net.attention(net.normalise(data, "norm1"), "attention")
    value = draft.op("Add", [data, attended], "attention.residual")
    inner = net.normalise(value, "norm2")
    gates = draft.op("Softmax", [net.dense(inner, "router", net.size, _EXPERTS)], "gates", axis=-1)
    weighed = []
    for expert in range(_EXPERTS):
        bounds = [
            draft.constant(f"int.{number}", np.array([number], np.int64))
            for number in (expert, expert + 1, 2)
        ]
        gate = draft.op("Slice", [gates, *bounds], f"gate{expert}")
        output = net.feed_forward(inner, f"expert{expert}")
        weighed.append(draft.op("Mul", [output, gate], f"expert{expert}.weighed"))
    # A tree, so that no sum waits for all the others.
    while len(weighed) > 1:
        weighed = [
            draft.op("Add", [left, right], f"{left}.sum")
            for left, right in zip(weighed[::2], weighed[1::2], strict=True)
        ]
    draft.op("Add", [value, weighed[0]], "output")
    draft.output("output", net.shape)
    return draft


class _Transformer:
    """Layers of one size on a draft."""

    def __init__(self, draft: OnnxDraft, heads: int, tokens: int, batch: int) -> None:
        self.draft = draft
        self.heads = heads
        self.size = heads * _HEAD_SIZE
        self.shape = (batch, tokens, self.size)

    def dense(
        self, value: str, name: str, inputs: int, outputs: int, *, rectified: bool = False
    ) -> str:
        std = he_std(inputs, rectified=rectified)
        weight = self.draft.weight(f"{name}.weight", (inputs, outputs), std)
        bias = self.draft.weight(f"{name}.bias", (outputs,), BIAS_STD)
        product = self.draft.op("MatMul", [value, weight], f"{name}.product")
        return self.draft.op("Add", [product, bias], name)

    def normalise(self, value: str, name: str) -> str:
        scale = self.draft.weight(f"{name}.scale", (self.size,), BIAS_STD, mean=1.0)
        shift = self.draft.weight(f"{name}.shift", (self.size,), BIAS_STD)
        return self.draft.op(
            "LayerNormalization", [value, scale, shift], name, axis=-1, epsilon=1e-12
        )

    def feed_forward(self, value: str, name: str) -> str:
        hidden = self.dense(value, f"{name}.up", self.size, 4 * self.size)
        hidden = self._gelu(hidden, f"{name}.gelu")
        return self.dense(hidden, f"{name}.down", 4 * self.size, self.size, rectified=True)

    def attention(self, value: str, name: str) -> str:
        batch, tokens, _ = self.shape
        split = self.draft.constant(
            "shape.heads", np.array([batch, tokens, self.heads, _HEAD_SIZE], np.int64)
        )
        parts = {}
        for part, order in (
            ("query", [0, 2, 1, 3]),
            ("key", [0, 2, 3, 1]),
            ("value", [0, 2, 1, 3]),
        ):
            flat = self.dense(value, f"{name}.{part}", self.size, self.size)
            rows = self.draft.op("Reshape", [flat, split], f"{name}.{part}.split")
            parts[part] = self.draft.op("Transpose", [rows], f"{name}.{part}.heads", perm=order)
        scores = self.draft.op("MatMul", [parts["query"], parts["key"]], f"{name}.scores")
        scale = self._scalar("scale.heads", _HEAD_SIZE**-0.5)
        scores = self.draft.op("Mul", [scores, scale], f"{name}.scaled")
        shares = self.draft.op("Softmax", [scores], f"{name}.shares", axis=-1)
        mixed = self.draft.op("MatMul", [shares, parts["value"]], f"{name}.mixed")
        mixed = self.draft.op("Transpose", [mixed], f"{name}.tokens", perm=[0, 2, 1, 3])
        joined = self.draft.constant("shape.tokens", np.array(self.shape, np.int64))
        mixed = self.draft.op("Reshape", [mixed, joined], f"{name}.joined")
        return self.dense(mixed, f"{name}.out", self.size, self.size)

    def _gelu(self, value: str, name: str) -> str:
        # The exact form, x · (1 + erf(x / √2)) / 2.
        inner = self.draft.op("Mul", [value, self._scalar("half.root", 0.5**0.5)], f"{name}.inner")
        inner = self.draft.op("Erf", [inner], f"{name}.erf")
        inner = self.draft.op("Add", [inner, self._scalar("one", 1.0)], f"{name}.shifted")
        inner = self.draft.op("Mul", [value, inner], f"{name}.gated")
        return self.draft.op("Mul", [inner, self._scalar("half", 0.5)], name)

    def _scalar(self, name: str, value: float) -> str:
        return self.draft.constant(f"scalar.{name}", np.array(value, np.float32))
