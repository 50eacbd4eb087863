"""The weights in a file of ONNX Runtime's own format (`.ort`), by the names that they had in PyTorch.

Such a file is a flatbuffer (its schema is `ort.fbs` of ONNX Runtime) that holds a graph already optimised:
matrices lie transposed and in 8 bits, named after the export and not after their layers, so that the nodes
that use them have to tell whose they are.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from flatbuffers.number_types import Int32Flags, Int64Flags, UOffsetTFlags
from flatbuffers.table import Table

from pipelines.contract import FloatArray
from pipelines.errors import ModelBroken

Tensors = dict[str, npt.NDArray[Any]]
# Where the fields that are read stand in their tables.
SESSION_MODEL, MODEL_GRAPH = 6, 18
GRAPH_INITIALIZERS, GRAPH_NODES = 4, 8
NODE_NAME, NODE_INPUTS, NODE_ATTRIBUTES, ATTRIBUTE_GRAPH = 4, 20, 24, 18
TENSOR_NAME, TENSOR_DIMS, TENSOR_TYPE, TENSOR_DATA = 4, 8, 10, 12
DTYPES: dict[int, np.dtype[Any]] = {1: np.dtype("<f4"), 2: np.dtype("u1"), 3: np.dtype("i1")}
# What the exporter and the quantiser hang on to a name.
SUFFIXES = ("_merged_0", "_add_tensor")
QUANTISED = "_quantized"
# What a node does with a weight that has lost its name.
PARTS = {"MatMul_quant": "weight", "Mul": "weight", "Add": "bias"}


def weights(path: Path) -> dict[str, FloatArray]:
    """Every weight and bias fp32, matrices as PyTorch keeps them, `[out, in]`. Raises: ModelBroken."""
    try:
        data = bytearray(path.read_bytes())
        session = Table(data, int.from_bytes(data[:4], "little"))
        return dict(_found(_table(_table(session, SESSION_MODEL), MODEL_GRAPH), {}))
    except (OSError, struct.error, IndexError, KeyError, ValueError) as error:
        raise ModelBroken(f"{path}: no weights can be read: {error}") from error


def _found(graph: Table, outer: Tensors) -> Iterator[tuple[str, FloatArray]]:
    """Of a graph and the graphs in it, which see its tensors."""
    own = dict(_tensors(graph))
    tensors = outer | own
    for name in own:
        plain = _plain(name)
        if plain.endswith((".weight", ".bias")):
            yield plain, _float(name, own)
    for node in _tables(graph, GRAPH_NODES):
        layer, _, operation = _string(node, NODE_NAME).strip("/").rpartition("/")
        part = PARTS.get(operation)
        used = next((name for name in _strings(node, NODE_INPUTS) if _unnamed(name, tensors)), None)
        if part and used:
            yield f"{layer.replace('/', '.')}.{part}", _float(used, tensors).T.squeeze()
        for attribute in _tables(node, NODE_ATTRIBUTES):
            if attribute.Offset(ATTRIBUTE_GRAPH):
                yield from _found(_table(attribute, ATTRIBUTE_GRAPH), tensors)


def _unnamed(name: str, tensors: Tensors) -> bool:
    """A weight that the exporter folded, so that only the node tells its layer."""
    return name.startswith("onnx::") and name in tensors


def _plain(name: str) -> str:
    for suffix in (QUANTISED, *SUFFIXES):
        name = name.removesuffix(suffix)
    return name


def _float(name: str, tensors: Tensors) -> FloatArray:
    """fp32; of 8 bits (q - zero point) * scale, a scale for the whole or one a column."""
    values = np.asarray(tensors[name], np.float32)
    if not name.endswith(QUANTISED):
        return values
    stem = name.removesuffix(QUANTISED)
    zero, scale = (np.asarray(tensors[stem + part], np.float32) for part in ("_zero_point", "_scale"))
    return (values - zero) * scale


def _tensors(graph: Table) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    for tensor in _tables(graph, GRAPH_INITIALIZERS):
        place = tensor.Offset(TENSOR_TYPE)
        dtype = DTYPES.get(tensor.Get(Int32Flags, place + tensor.Pos)) if place else None
        if dtype is None or not tensor.Offset(TENSOR_DATA):
            continue
        vector, length = _vector(tensor, TENSOR_DATA)
        start, count = (_vector(tensor, TENSOR_DIMS)) if tensor.Offset(TENSOR_DIMS) else (0, 0)
        shape = [int(tensor.Get(Int64Flags, start + 8 * index)) for index in range(count)]
        flat = np.frombuffer(tensor.Bytes, dtype, length // dtype.itemsize, vector)
        yield _string(tensor, TENSOR_NAME), flat.reshape(shape)


def _table(table: Table, field: int) -> Table:
    place = table.Offset(field)
    if not place:
        raise ValueError(f"the field at {field} is missing")
    return Table(table.Bytes, table.Indirect(table.Pos + place))


def _vector(table: Table, field: int) -> tuple[int, int]:
    place = table.Offset(field)
    return table.Vector(place), table.VectorLen(place)


def _tables(table: Table, field: int) -> Iterator[Table]:
    if table.Offset(field):
        start, count = _vector(table, field)
        for index in range(count):
            yield Table(table.Bytes, table.Indirect(start + index * UOffsetTFlags.bytewidth))


def _strings(table: Table, field: int) -> Iterator[str]:
    if table.Offset(field):
        start, count = _vector(table, field)
        for index in range(count):
            yield table.String(start + index * UOffsetTFlags.bytewidth).decode()


def _string(table: Table, field: int) -> str:
    place = table.Offset(field)
    return table.String(table.Pos + place).decode() if place else ""
