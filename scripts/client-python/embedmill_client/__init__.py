"""Texts to embedmill workers and embeddings from them.

encode and decode need no broker; embedmill_client.redis and embedmill_client.kafka bring one.
"""
from .wire import Chunk, DeadLetter, Delivery, Output, WireError, decode, encode

__all__ = ["Chunk", "DeadLetter", "Delivery", "Output", "WireError", "decode", "encode"]
