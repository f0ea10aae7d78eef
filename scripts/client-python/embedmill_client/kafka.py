"""Texts to workers and embeddings from them by Kafka.

`config` is librdkafka's: at least bootstrap.servers. Both are context managers.
"""
from __future__ import annotations

import time
from typing import Any, Mapping, Optional, Sequence, Union

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition

from .wire import CORRELATION, Delivery, encode, with_correlation

SLICE = 0.2  # seconds; a poll cannot be interrupted
PAGE = 100


class KafkaProducer:
    """Puts messages on the workers' input topic, each once while it lives (idempotence).

    The topic is on a disk and holds what waits, so the workers' lag does not matter here; that
    it stays below the retention of the topic is one for alerts.
    """

    def __init__(self, config: Mapping[str, Any], topic: str = "texts", *,
                 timeout: float = 60.0) -> None:
        # The partitioner of Java's producers: equal keys meet, whoever sends them.
        self.producer = Producer({"enable.idempotence": True, "partitioner": "murmur2_random",
                                  **config})
        self.topic, self.timeout = topic, timeout
        self._failures: list[KafkaError] = []

    def send(self, texts: Union[str, Sequence[str]], *, key: Union[str, bytes, None] = None,
             headers: Optional[Mapping[str, Union[str, bytes]]] = None, **message: Any) -> str:
        """The correlation id of the message, which its output or dead letter will have, too.

        `message` is what encode takes. The message is safe only when flush has returned.
        KafkaException tells that an earlier one was not taken; TimeoutError that nothing is.
        """
        entry, body = with_correlation(headers), encode(texts, **message)
        deadline = time.monotonic() + self.timeout
        while True:
            self.producer.poll(0)
            self._check()
            try:
                self.producer.produce(self.topic, body, key=key, headers=list(entry.items()),
                                      on_delivery=self._on_delivery)
                return entry[CORRELATION].decode()
            except BufferError:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"Kafka takes nothing for {self.topic}: "
                                       f"{len(self.producer)} messages wait here") from None
                self.producer.poll(SLICE)

    def flush(self, timeout: Optional[float] = None) -> None:
        """Returns when everything sent is with the cluster."""
        deadline = time.monotonic() + (self.timeout if timeout is None else timeout)
        while self.producer.flush(SLICE) and time.monotonic() < deadline:
            pass
        self._check()
        if len(self.producer):
            raise TimeoutError(f"{len(self.producer)} messages are not confirmed by Kafka")

    def _on_delivery(self, error: Optional[KafkaError], _message: Any) -> None:
        if error is not None:
            self._failures.append(error)

    def _check(self) -> None:
        if self._failures:
            first, self._failures = self._failures[0], []
            raise KafkaException(first)

    def __enter__(self) -> KafkaProducer:
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        if kind is None:
            self.flush()


class KafkaConsumer:
    """Outputs and dead letters for a group of consumers, each at least once.

    Reads committed records only, which is what makes --delivery exactly-once hold. `dead_letters`
    None leaves those to somebody else.
    """

    def __init__(self, config: Mapping[str, Any], group: str, *,
                 outputs: str = "texts-embeddings",
                 dead_letters: Optional[str] = "texts-dlq") -> None:
        self.dead_letters = dead_letters
        self._error: Optional[KafkaError] = None
        # Offsets are committed in the background, but only of what was acked.
        self.consumer = Consumer({"auto.offset.reset": "earliest", **config, "group.id": group,
                                  "isolation.level": "read_committed", "enable.auto.commit": True,
                                  "enable.auto.offset.store": False})
        self.consumer.subscribe([outputs] + ([dead_letters] if dead_letters else []))

    def receive(self, timeout: float, count: int = PAGE) -> list[Delivery]:
        """As soon as there are any; none after the timeout. KafkaException for what needs you."""
        deadline = time.monotonic() + timeout
        found: list[Delivery] = []
        while len(found) < count and not self._error:
            left = 0.0 if found else max(0.0, min(SLICE, deadline - time.monotonic()))
            message = self.consumer.poll(left)
            if message is None:
                if found or time.monotonic() >= deadline:
                    break
            elif message.error():
                self._error = message.error()
            else:
                found.append(self._delivery(message))
        if self._error and not found:  # what came before it is not lost
            error, self._error = self._error, None
            raise KafkaException(error)
        return found

    def ack(self, *deliveries: Delivery) -> None:
        """These, and all before them in their partitions, are done with and do not come again."""
        ends: dict[tuple[str, int], int] = {}
        for topic, partition, offset in (d.place for d in deliveries):
            ends[topic, partition] = max(offset + 1, ends.get((topic, partition), 0))
        for (topic, partition), end in ends.items():
            try:
                self.consumer.store_offsets(offsets=[TopicPartition(topic, partition, end)])
            except KafkaException as error:
                # Given to another consumer meanwhile, who gets it again.
                if error.args[0].code() not in (KafkaError._STATE, KafkaError._UNKNOWN_PARTITION):
                    raise

    def close(self) -> None:
        """Commits what was acked and leaves the group."""
        self.consumer.close()

    def _delivery(self, message: Any) -> Delivery:
        return Delivery(message.value(), {k: v or b"" for k, v in message.headers() or ()},
                        message.key(), (message.topic(), message.partition(), message.offset()),
                        message.topic() == self.dead_letters)

    def __enter__(self) -> KafkaConsumer:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()
