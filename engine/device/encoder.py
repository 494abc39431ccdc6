"""The encoder on a GPU: token ids go up, codes, logits or embeddings come back.

Nothing else crosses the bus.

All work of an encoder is enqueued on one stream: token ids to the device, the encoder,
`pool_and_pack`, the task heads or `pool_positions`, the results back. What the stages hand on stays
where it is, in buffers that are allocated once. Two batches are in flight: while the GPU works on
one, the host fills the other's page-locked memory and enqueues it behind, so the GPU never waits
for the host.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitheads.engine import _kernels
from bitheads.engine.device.code import DeviceCode
from bitheads.engine.device.driver import Device
from bitheads.engine.device.embeddings import DeviceEmbedder
from bitheads.engine.device.graphs import Graph
from bitheads.engine.device.heads import DeviceHeads, HeadGroup
from bitheads.engine.device.session import DeviceSession
from bitheads.engine.device.slot import Slot
from bitheads.engine.errors import BackendError, DeviceMemoryError
from bitheads.engine.features.embedding import Embedder
from bitheads.engine.features.packed import PackedFeatures
from bitheads.engine.features.spec import Calibration, FeatureSpec
from bitheads.engine.heads.cpu import HeadThreads
from bitheads.engine.heads.head_file import FoldedHead
from bitheads.engine.predictions import Prediction
from bitheads.engine.process.lifetime import Lifetime, give_back_memory
from bitheads.engine.types import BatchRunner, PlacedBatch, Stats, TokenBatch

MAX_BATCH_TOKENS = 16384
"""Token budget of an encoder call; the hidden states of RoBERTa-large then take 0.5 GB."""

GRAPH_TOKENS = 2048
"""Tokens of a call up to which it takes the GPU less time than launching its kernels takes the
host: such calls are recorded as CUDA graphs, one per shape."""

CALL_TOKENS = GRAPH_TOKENS
"""Cost of a call beside its tokens, in tokens; an estimate."""

MAX_GRAPHS = 128
"""Most shapes that are kept as graphs, about as many as `round_rows` and SEQ_STEP leave of calls
of all sizes. benchmarks/LOG.md has what fewer of either would mean."""
SEQ_STEP = 16
ALIGNMENT = 256
BATCHES_IN_FLIGHT = 2

logger = logging.getLogger("bitheads")


class DeviceEncoder:
    """See engine.encoder.Encoder. Calls from several threads take turns.

    Attributes:
        cuda_graphs: whether small calls are recorded: where the session can be. Benchmarks and
            tests turn it off, between calls, to see what it is worth.
    """

    call_tokens = CALL_TOKENS

    def __init__(
        self,
        device: Device,
        code: DeviceCode,
        session: DeviceSession,
        spec: FeatureSpec,
        calibration: Calibration | None,
        stream: Any,
        embedder: Embedder | None = None,
    ) -> None:
        """Allocates all buffers. Raises DeviceMemoryError if not even one text would fit.

        Args:
            embedder: makes embeddings of the last layer; None: there are none.
        """
        self.name = f"{session.backend} {session.precision}"
        self._device = device
        self._code = code
        self._session = session
        self._spec = spec
        self._stream = stream
        self._embedder = None
        if embedder is not None:
            self._embedder = DeviceEmbedder(
                embedder, spec.dim, session.dtype, device.cuda, code, stream
            )
        self._lock = threading.Lock()
        self._lifetime = Lifetime(f"this encoder ({self.name})")
        self.cuda_graphs = session.capturable
        self._graphs: OrderedDict[tuple[int, int], Graph | None] = OrderedDict()
        self.max_batch_tokens = min(MAX_BATCH_TOKENS, session.max_tokens())
        self._pair_heads = HeadThreads()
        self._memory: list[Any] = []
        with device.current("allocating the encoder's buffers"):
            self._heads = DeviceHeads(device, code, spec, stream)
            try:
                constants = calibration or Calibration()
                self._constants = {
                    name: self._upload(array)
                    for name in ("thresholds", "inverse_scale", "zero_point")
                    if (array := getattr(constants, name)) is not None
                }
                self._allocate_buffers()
            except BaseException:
                self._free(self._memory)
                raise

    def _allocate_buffers(self) -> None:
        """For as many tokens as fit: half of them, and half of that, as long as memory is short."""
        wanted, longest = self.max_batch_tokens, self._session.max_seq()
        constants = len(self._memory)
        while True:
            try:
                self._allocate_for(self.max_batch_tokens)
                break
            except self._device.cuda.MemoryError:
                self._free(self._memory[constants:])
                del self._memory[constants:]
                if self.max_batch_tokens <= longest:
                    raise
                self.max_batch_tokens = max(longest, self.max_batch_tokens // 2)
        if self.max_batch_tokens < wanted:
            logger.warning(
                "the GPU has memory for %d tokens per call, not for more", self.max_batch_tokens
            )

    def _allocate_for(self, tokens: int) -> None:
        cuda, spec, session = self._device.cuda, self._spec, self._session
        item_bytes = np.dtype(session.dtype).itemsize
        layer_bytes = -(-tokens * spec.dim * item_bytes // ALIGNMENT) * ALIGNMENT
        hidden = self._allocate(layer_bytes * len(spec.layers))
        self._layers = [hidden + i * layer_bytes for i in range(len(spec.layers))]
        self._codes = self._allocate(tokens * spec.code_bytes)
        self._inputs = [self._allocate(tokens * 8) for _ in session.inputs]
        self._rows = self._allocate((2 * tokens + 1) * 8)  # lengths, then offsets
        if self._embedder is not None:
            self._embedder.bind(self._allocate(self._embedder.num_bytes(tokens)))
        self._slots = [
            Slot(cuda, tokens, len(session.inputs), spec.code_bytes)
            for _ in range(BATCHES_IN_FLIGHT)
        ]
        session.bind(self._inputs, self._layers)

    def _allocate(self, num_bytes: int) -> int:
        self._memory.append(self._device.cuda.mem_alloc(num_bytes))
        return int(self._memory[-1])

    def _upload(self, array: NDArray[Any]) -> int:
        address = self._allocate(array.nbytes)
        self._device.cuda.memcpy_htod(address, np.ascontiguousarray(array))
        return address

    @staticmethod
    def _free(memory: list[Any]) -> None:
        for allocation in memory:
            allocation.free()

    def pad_lengths(self, lengths: NDArray[np.int64]) -> NDArray[np.int64]:
        """The lengths as they are: shapes are rounded where they are recorded as graphs."""
        return lengths

    def encode(self, batches: Iterable[PlacedBatch]) -> Iterator[Stats]:
        """Packs each row straight to its place in its batch's codes, embeds it in its place."""
        for slot in self._run(batches, None):
            batch = slot.batch
            if batch.codes is not None:
                for row, start in enumerate(batch.token_offsets):
                    first, last = slot.offsets[row], slot.offsets[row + 1]
                    batch.codes[start : start + last - first] = slot.codes[first:last]
            if batch.embeddings is not None:
                assert self._embedder is not None, "who asks has looked whether there are any"
                self._embedder.finish(slot.pooled, batch)
            yield slot.stats()

    def encode_and_predict(
        self,
        batches: Iterable[PlacedBatch],
        heads: Sequence[FoldedHead],
        logits: Sequence[NDArray[np.float32]],
    ) -> Iterator[Stats]:
        """Fills each head's logits, float32 [texts, classes]; codes never leave the device."""
        for slot in self._run(batches, heads):
            answers = slot.group.split(slot.logits, slot.batch.texts.size)
            for out, answer in zip(logits, answers, strict=True):
                out[slot.batch.texts] = answer
            yield slot.stats()

    def open_runners(self) -> tuple[BatchRunner, list[BatchRunner]]:
        """A single runner: batches share the device by taking turns."""
        self._lifetime.check()
        return self._encode_one, []

    def _encode_one(self, batch: PlacedBatch) -> Stats:
        return sum(self.encode([batch]), Stats())

    def load_head(self, head: FoldedHead) -> FoldedHead:
        """The head as it is: heads go to the device when they are first asked, in groups."""
        if head.pair is not None:
            self._pair_heads.pair_block(head)
        return head

    def predict(
        self, features: PackedFeatures, heads: Sequence[FoldedHead]
    ) -> dict[str, Prediction]:
        """See engine.heads.cpu.predict_heads."""
        with self._lifetime, self._lock, self._device.current("running the task heads"):
            return self._heads.predict(features, heads)

    def text_vectors(
        self, features: PackedFeatures, heads: Sequence[FoldedHead]
    ) -> list[NDArray[np.float32]]:
        with self._lifetime, self._lock, self._device.current("running the task heads"):
            return self._heads.text_vectors(features, heads)

    def pair_outputs(
        self,
        vectors: Sequence[NDArray[np.float32]],
        pairs: NDArray[np.int64],
        heads: Sequence[FoldedHead],
    ) -> list[NDArray[np.float32]]:
        """On the processor's cores: what a pair takes is little beside what its texts do."""
        with self._lifetime:
            return self._pair_heads.pair_outputs(vectors, pairs, heads)

    @contextmanager
    def _current(self, doing: str) -> Iterator[None]:
        """The device, unless it was given back; `close` waits for the lock that callers have."""
        self._lifetime.check()
        with self._device.current(doing):
            yield

    def close(self) -> None:
        """Frees the device memory, when calls that run are done; later ones raise ClosedError."""
        if not self._lifetime.end():
            return
        self._pair_heads.close()
        with self._lock:
            with self._device.current("freeing the encoder's buffers"):
                # After a failed launch the driver refuses all that follows, and frees it at the end
                # of the program: the failure has been reported by the call that met it.
                with suppress(self._device.cuda.Error):
                    self._stream.synchronize()
                    for graph in self._graphs.values():
                        if graph is not None:
                            graph.close()
                    self._session.close()
                    self._heads.close()
                    self._code.close()
                    self._free(self._memory)
                self._graphs.clear()
                self._slots.clear()
                self._stream = None
            self._device.close()
        give_back_memory()

    def _run(
        self, batches: Iterable[PlacedBatch], heads: Sequence[FoldedHead] | None
    ) -> Iterator[Slot]:
        """Runs batches, and heads on them, through the stream.

        A slot is valid until the next one is asked for.
        """
        with self._lock, self._current("running the encoder"):
            group = None if heads is None else self._heads.group(heads)
            slots: list[Slot] = []  # in flight, oldest first
            idle = list(self._slots)
            try:
                for batch in batches:
                    pieces = deque(self._pieces(batch))
                    while pieces:
                        piece = pieces.popleft()
                        try:
                            self._submit(piece, idle[-1], group)
                        except (DeviceMemoryError, self._device.cuda.MemoryError):
                            if piece.texts.size == 1:
                                raise
                            self._shrink(piece)
                            rest = [piece, *pieces]  # cut for the larger calls that were
                            pieces = deque(part for one in rest for part in self._pieces(one))
                            continue
                        slots.append(idle.pop())
                        if not idle:
                            slots[0].done.synchronize()
                            yield slots[0]
                            idle.append(slots.pop(0))
                while slots:
                    slots[0].done.synchronize()
                    yield slots[0]
                    idle.append(slots.pop(0))
            finally:  # also when the caller stops early: the slots' memory is used again
                with suppress(self._device.cuda.Error):  # that of the failure is on its way
                    self._stream.synchronize()

    def _pieces(self, batch: PlacedBatch) -> Iterator[PlacedBatch]:
        """The batch in pieces that the session and the buffers can take."""
        longest = int(batch.tokens.lengths.max(initial=1))
        rows = min(self._session.max_rows(longest), self.max_batch_tokens // longest)
        if rows < 1:
            raise BackendError(
                f"a text of {longest} tokens: got room for {self.max_batch_tokens} tokens and "
                f"{self._session.max_rows(longest)} rows of that length. Build a plan with a "
                "larger profile (`bitheads plan --help`), or free device memory."
            )
        if batch.embeddings is not None:
            rows = min(rows, DeviceEmbedder.max_rows(self.max_batch_tokens))
        for start in range(0, batch.texts.size, rows):
            chosen = slice(start, start + rows)
            lengths = batch.tokens.lengths[chosen]
            seq = max(1, int(lengths.max()))
            yield PlacedBatch(
                TokenBatch(
                    batch.tokens.input_ids[chosen, :seq],
                    batch.tokens.attention_mask[chosen, :seq],
                    batch.tokens.token_type_ids[chosen, :seq],
                    lengths,
                ),
                batch.texts[chosen],
                batch.token_offsets[chosen],
                batch.codes,
                batch.embeddings,
            )

    def _shrink(self, piece: PlacedBatch) -> None:
        """Makes calls half the size of a piece for which the GPU had no memory left."""
        rows, seq = piece.tokens.input_ids.shape
        self._stream.synchronize()
        self.max_batch_tokens = -(-rows // 2) * seq
        logger.warning("the GPU is out of memory: calls of %d tokens now", self.max_batch_tokens)

    def _submit(self, batch: PlacedBatch, slot: Slot, group: HeadGroup | None) -> None:
        """Enqueues all work of one piece on the stream."""
        cuda, stream = self._device.cuda, self._stream
        rows, seq = self._recorded_shape(*batch.tokens.input_ids.shape)
        slot.fill(batch, self._session.inputs, rows, seq)
        slot.started.record(stream)
        for device, host in zip(self._inputs, slot.inputs, strict=True):
            cuda.memcpy_htod_async(device, host[: rows * seq], stream)
        cuda.memcpy_htod_async(self._rows, slot.rows[: 2 * rows + 1], stream)
        self._encode_and_pack(rows, seq, slot)
        num_rows, num_tokens = batch.texts.size, int(slot.offsets[-1])
        if batch.embeddings is not None:  # behind the graph: most calls ask for none
            assert self._embedder is not None, "who asks has looked whether there are any"
            slot.reserve_pooled(self._embedder.num_floats(num_rows))
            lengths = slot.rows[:num_rows]
            self._embedder.enqueue(self._layers[-1], seq, self._rows, lengths, slot.pooled)
        slot.packed.record(stream)
        if batch.codes is not None:
            cuda.memcpy_dtoh_async(slot.codes[:num_tokens], self._codes, stream)
        if group is not None:
            slot.group = group
            slot.reserve_logits(num_rows * group.num_classes)
            offsets = self._rows + 8 * rows
            group.enqueue(self._codes, offsets, num_rows, slot.logits)
        slot.done.record(stream)

    def _recorded_shape(self, rows: int, seq: int) -> tuple[int, int]:
        """The shape that is run: small ones are rounded up, so that few graphs serve them all."""
        if not self.cuda_graphs or rows * seq > GRAPH_TOKENS:
            return rows, seq
        rounded_rows = round_rows(rows)
        rounded_seq = -(-seq // SEQ_STEP) * SEQ_STEP
        fits = (
            rounded_rows <= self._session.max_rows(rounded_seq)
            and rounded_rows * rounded_seq <= self.max_batch_tokens
        )
        return (rounded_rows, rounded_seq) if fits else (rows, seq)

    def _encode_and_pack(self, rows: int, seq: int, slot: Slot) -> None:
        """The encoder and pool_and_pack; from a shape's second call on, as a graph."""
        shape = rows, seq
        records = self.cuda_graphs and rows * seq <= GRAPH_TOKENS
        if not records or shape not in self._graphs:
            self._session.enqueue(rows, seq, keep=records)
            slot.encoded.record(self._stream)
            self._pack(rows, seq, slot)
            if records:  # a session settles on a shape's memory in its first call
                self._graphs[shape] = None
                self._forget_old_graphs()
            return
        graph = self._graphs[shape]
        self._graphs.move_to_end(shape)
        if graph is None:

            def record() -> None:
                self._session.enqueue(rows, seq, keep=True)
                self._pack(rows, seq, slot)

            try:
                graph = self._graphs[shape] = Graph(self._stream, record)
            except BackendError as error:
                # As text: a record that a handler keeps must not keep the slot's memory.
                logger.warning("no CUDA graphs from now on: %s", str(error))
                self.cuda_graphs = False
                record()
        if graph is not None:
            graph.launch(self._stream)
        slot.encoded.record(self._stream)

    def _forget_old_graphs(self) -> None:
        if len(self._graphs) <= MAX_GRAPHS:
            return
        self._stream.synchronize()
        (rows, seq), graph = self._graphs.popitem(last=False)
        if graph is not None:
            graph.close()
        self._session.forget(rows, seq)

    def _pack(self, rows: int, seq: int, slot: Slot) -> None:
        spec = self._spec
        weights = spec.layer_weights
        launch = _kernels.plan_pool_and_pack(
            self._layers,
            self._session.dtype,
            rows,
            seq,
            spec.dim,
            slot.rows[:rows],
            slot.rows[rows : 2 * rows],
            self._rows,
            self._rows + 8 * rows,
            self._codes,
            self.max_batch_tokens,
            spec.quantization.value,
            spec.order.value,
            None if weights is None else np.array(weights, np.float32),
            **self._constants,
        )
        self._code.launch(launch, self._stream)


def round_rows(rows: int) -> int:
    """Rows of the graph that serves so many: four sizes between one power of two and the next.

    Fewer than a quarter of `rows` is added.
    """
    step = max(1, (1 << (rows - 1).bit_length()) // 8)
    return -(-rows // step) * step
