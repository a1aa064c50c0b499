"""Reads W&B's offline files back: a LevelDB log (blocks of 32 KiB, records in pieces) of protobuf records."""

import json
import struct

from wandb.proto.wandb_internal_pb2 import Record

_FILE_HEADER, _PIECE_HEADER, _BLOCK = 7, 7, 32768
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4


def history(path):
    """The rows of a .wandb file, as names and values."""
    rows = []
    for record in records(path):
        if record.WhichOneof("record_type") == "history":
            rows.append(
                {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
            )
    return rows


def records(path):
    for content in _contents(path.read_bytes()):
        record = Record()
        record.ParseFromString(content)
        yield record


def _contents(data):
    assert data.startswith(b":W&B")
    position, parts = _FILE_HEADER, b""
    while position + _PIECE_HEADER <= len(data):
        left_in_block = _BLOCK - position % _BLOCK
        if left_in_block < _PIECE_HEADER:
            position += left_in_block
            continue
        _, length, kind = struct.unpack_from("<IHB", data, position)
        position += _PIECE_HEADER
        piece = data[position : position + length]
        position += length
        if kind in (_FULL, _FIRST):
            parts = b""
        parts += piece
        if kind in (_FULL, _LAST):
            yield parts
