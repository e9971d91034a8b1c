"""all-mpnet-base-v2 as an ONNX graph, built from its safetensors with numpy and `onnx` alone.

The graph is MPNet (Song et al. 2020, arXiv:2004.09297) with mean pooling and L2 normalisation:
token ids in, one unit vector a text out. Its attention and its feed-forward layers use ONNX
Runtime's fused operators.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from routing.quantise import BLOCK, quantise_blocks

if TYPE_CHECKING:
    import onnx

LAYERS = 12
HEADS = 12
WIDTH = 768
BUCKETS = 32
MAX_DISTANCE = 128
POSITIONS = 512
FIRST_POSITION = 2
"""Position ids start after the padding token's own id, as in RoBERTa."""
EPSILON = 1e-5
OPSET = 18
IR_VERSION = 8
FUSED = "com.microsoft"

Tensors = dict[str, NDArray[Any]]


def read_safetensors(path: Path) -> Tensors:
    """The file's float32 tensors by name, mapped from disk rather than read into memory."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    data = np.memmap(path, dtype=np.uint8, mode="r", offset=8 + length)
    tensors: Tensors = {}
    for name, entry in header.items():
        if name == "__metadata__" or entry["dtype"] != "F32":
            continue
        begin, end = entry["data_offsets"]
        tensors[name] = data[begin:end].view(np.float32).reshape(entry["shape"])
    return tensors


def distance_buckets() -> NDArray[np.int64]:
    """The bucket of every relative position -511..511 (key minus query), shape (1023,).

    T5's scheme: one half of the buckets for each direction; in a half, the near distances have
    a bucket each and the far ones share buckets on a log scale up to `MAX_DISTANCE`.
    """
    relative = np.arange(-(POSITIONS - 1), POSITIONS)
    half = BUCKETS // 2
    exact = half // 2
    distance = np.abs(relative)
    # In float32, as the reference computes it, so that distances on a bucket's edge fall alike.
    ratio = np.log(np.maximum(distance, 1).astype(np.float32) / np.float32(exact))
    far = exact + (ratio / np.float32(math.log(MAX_DISTANCE / exact)) * (half - exact)).astype(
        np.int64
    )
    within = np.where(distance < exact, distance, np.minimum(far, half - 1))
    return within + np.where(relative > 0, half, 0)


def build(weights: Tensors, *, quantised: bool) -> onnx.ModelProto:
    """Builds the graph.

    Inputs are `input_ids` (batch, length) int64, padded on the right, and `lengths` (batch,)
    int32; the output is `embeddings` (batch, 768) float32 of unit length.

    Args:
        weights: the model's tensors by their names in the safetensors file.
        quantised: 8-bit weights in blocks with int8 products; else float32 throughout.
    """
    from onnx import TensorProto, helper

    graph = _Graph(quantised)
    hidden = _embeddings(graph, weights)
    bias = _position_bias(graph, weights)
    for number in range(LAYERS):
        hidden = _layer(graph, weights, f"encoder.layer.{number}", hidden, bias)
    _pool(graph, hidden)
    return helper.make_model(
        helper.make_graph(
            graph.nodes,
            "all-mpnet-base-v2",
            [
                helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "length"]),
                helper.make_tensor_value_info("lengths", TensorProto.INT32, ["batch"]),
            ],
            [helper.make_tensor_value_info("embeddings", TensorProto.FLOAT, ["batch", WIDTH])],
            graph.initializers,
        ),
        opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid(FUSED, 1)],
        ir_version=IR_VERSION,
        producer_name="kiki",
    )


class _Graph:
    """Collects nodes and initializers; every method returns the name of the tensor it made."""

    def __init__(self, quantised: bool) -> None:
        self.quantised = quantised
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []

    def constant(self, name: str, value: NDArray[Any]) -> str:
        from onnx import numpy_helper

        self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def op(
        self, kind: str, inputs: list[str], output: str, *, domain: str = "", **attributes: Any
    ) -> str:
        from onnx import helper

        self.nodes.append(
            helper.make_node(kind, inputs, [output], name=output, domain=domain, **attributes)
        )
        return output

    def matmul(self, hidden: str, name: str, weight: NDArray[np.float32]) -> str:
        """`hidden @ weight.T` for a weight of shape (out, in)."""
        if not self.quantised:
            matrix = self.constant(f"{name}.weight", weight.T)
            return self.op("MatMul", [hidden, matrix], f"{name}.out")
        codes, scales = quantise_blocks(weight)
        return self.op(
            "MatMulNBits",
            [
                hidden,
                self.constant(f"{name}.codes", codes),
                self.constant(f"{name}.scales", scales.reshape(-1)),
            ],
            f"{name}.out",
            domain=FUSED,
            K=weight.shape[1],
            N=weight.shape[0],
            bits=8,
            block_size=BLOCK,
            accuracy_level=4,
        )

    def split(self, joined: str, outputs: list[str]) -> None:
        """Cuts the last axis into equal parts."""
        from onnx import helper

        self.nodes.append(
            helper.make_node("Split", [joined], outputs, axis=-1, num_outputs=len(outputs))
        )

    def lookup(self, indices: str, name: str, table: NDArray[np.float32]) -> str:
        """The rows of an embedding table, kept in half precision where the graph is quantised."""
        if not self.quantised:
            return self.op("Gather", [self.constant(name, table), indices], f"{name}.rows")
        from onnx import TensorProto

        half = self.constant(name, table.astype(np.float16))
        rows = self.op("Gather", [half, indices], f"{name}.half_rows")
        return self.op("Cast", [rows], f"{name}.rows", to=TensorProto.FLOAT)

    def add_and_norm(
        self, hidden: str, residual: str, name: str, weights: Tensors, bias: NDArray[np.float32]
    ) -> str:
        """Layer normalisation of `hidden + bias + residual`."""
        inputs = [
            hidden,
            residual,
            self.constant(f"{name}.gamma", weights[f"{name}.weight"]),
            self.constant(f"{name}.beta", weights[f"{name}.bias"]),
            self.constant(f"{name}.add", bias),
        ]
        return self.op(
            "SkipLayerNormalization", inputs, f"{name}.out", domain=FUSED, epsilon=EPSILON
        )


def _embeddings(graph: _Graph, weights: Tensors) -> str:
    """Word plus position embeddings, normalised: (batch, length, 768)."""
    words = graph.lookup("input_ids", "words", weights["embeddings.word_embeddings.weight"])
    table = weights["embeddings.position_embeddings.weight"][FIRST_POSITION:]
    span = graph.op("Range", ["zero", _length(graph), "one"], "span")
    places = graph.op("Gather", [graph.constant("positions", table), span], "position_rows")
    total = graph.op("Add", [words, places], "embedded")
    name = "embeddings.LayerNorm"
    return graph.op(
        "LayerNormalization",
        [
            total,
            graph.constant(f"{name}.gamma", weights[f"{name}.weight"]),
            graph.constant(f"{name}.beta", weights[f"{name}.bias"]),
        ],
        f"{name}.out",
        axis=-1,
        epsilon=EPSILON,
    )


def _length(graph: _Graph) -> str:
    graph.constant("zero", np.array(0, np.int64))
    graph.constant("one", np.array(1, np.int64))
    shape = graph.op("Shape", ["input_ids"], "shape")
    return graph.op("Gather", [shape, "one"], "length", axis=0)


def _position_bias(graph: _Graph, weights: Tensors) -> str:
    """What attention adds for the distance of key and query: (1, heads, length, length)."""
    table = weights["encoder.relative_attention_bias.weight"][distance_buckets()].T
    rows = graph.op("Unsqueeze", ["span", graph.constant("last", np.array([1]))], "queries")
    distance = graph.op("Sub", ["span", rows], "distance")
    offset = graph.constant("offset", np.array(POSITIONS - 1, np.int64))
    index = graph.op("Add", [distance, offset], "distance_index")
    data = graph.constant("distance_bias", table[None])
    return graph.op("Gather", [data, index], "attention_bias", axis=2)


def _layer(graph: _Graph, weights: Tensors, name: str, hidden: str, bias: str) -> str:
    """One post-norm transformer layer."""
    attention = f"{name}.attention.attn"
    joined = np.concatenate([weights[f"{attention}.{part}.weight"] for part in "qkv"])
    joined_bias = np.concatenate([weights[f"{attention}.{part}.bias"] for part in "qkv"])
    projected = graph.matmul(hidden, f"{name}.qkv", joined)
    parts = [f"{name}.{part}" for part in "qkv"]
    graph.split(projected, parts)
    context = graph.op(
        "MultiHeadAttention",
        [*parts, graph.constant(f"{name}.qkv.bias", joined_bias), "lengths", bias],
        f"{name}.context",
        domain=FUSED,
        num_heads=HEADS,
    )
    output = graph.matmul(context, f"{name}.o", weights[f"{attention}.o.weight"])
    hidden = graph.add_and_norm(
        output, hidden, f"{name}.attention.LayerNorm", weights, weights[f"{attention}.o.bias"]
    )
    wide = graph.matmul(hidden, f"{name}.up", weights[f"{name}.intermediate.dense.weight"])
    wide_bias = graph.constant(f"{name}.up.bias", weights[f"{name}.intermediate.dense.bias"])
    wide = graph.op("BiasGelu", [wide, wide_bias], f"{name}.gelu", domain=FUSED)
    narrow = graph.matmul(wide, f"{name}.down", weights[f"{name}.output.dense.weight"])
    return graph.add_and_norm(
        narrow, hidden, f"{name}.output.LayerNorm", weights, weights[f"{name}.output.dense.bias"]
    )


def _pool(graph: _Graph, hidden: str) -> None:
    """The real tokens' sum at unit length, which is their mean at unit length."""
    from onnx import TensorProto

    ends = graph.op("Cast", ["lengths"], "ends", to=TensorProto.INT64)
    ends = graph.op("Unsqueeze", [ends, "last"], "end_column")
    real = graph.op("Less", ["span", ends], "real")
    mask = graph.op("Cast", [real], "mask", to=TensorProto.FLOAT)
    middle = graph.constant("middle", np.array([1]))
    mask = graph.op("Unsqueeze", [mask, middle], "mask_row")
    total = graph.op("MatMul", [mask, hidden], "pooled")
    total = graph.op("Squeeze", [total, middle], "pooled_row")
    graph.op("LpNormalization", [total], "embeddings", axis=-1, p=2)
