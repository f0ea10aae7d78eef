"""Texts to embedmill workers and embeddings from them.

encode and decode need no broker; embedmill_client.redis and embedmill_client.kafka bring one.
"""
from .wire import DeadLetter, Delivery, Output, WireError, decode, encode

__all__ = ["DeadLetter", "Delivery", "Output", "WireError", "decode", "encode"]
