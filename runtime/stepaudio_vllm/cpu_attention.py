"""Attention with the sqrt-ALiBi bias on CPUs: vLLM's CPU backend, with torch's SDPA for layers that ask.

score(i, j) = q_i . k_j / sqrt(d) - m_h * sqrt(i - j) for j <= i. vLLM's own CPU kernel knows the linear bias
only. Layers without `use_alibi_sqrt` (all other models) run vLLM's code unchanged.

The bias depends on i - j alone, so one table a layer group holds all of it: row h, column x is
-m_h * sqrt(n - 1 - x), and minus infinity from column n on (keys after the query). The bias of query
position p over keys 0.. is the row's slice that starts at n - 1 - p. A tile of queries in reversed order
is a view of that table with strides (1, 1): no bias matrix is ever built for a prompt.

A step runs as few SDPA calls as it can: all requests with one query token (decoding) share one, or a few
when their lengths differ much; each longer piece of a prompt runs in tiles of queries, over the keys
that the tile can see.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from vllm.config import VllmConfig, get_layers_from_vllm_config
from vllm.model_executor.layers.attention import Attention
from vllm.v1.attention.backend import CommonAttentionMetadata
from vllm.v1.attention.backends.cpu_attn import (
    CPUAttentionBackend,
    CPUAttentionBackendImpl,
    CPUAttentionMetadata,
    CPUAttentionMetadataBuilder,
)
from vllm.v1.kv_cache_interface import AttentionSpec

from stepaudio_vllm.guards import Step1ConfigError

TILE = 256  # query rows of one SDPA call in a prompt; bounds the work above the diagonal
GATHER_BYTES = 128 * 2**20  # most keys and values copied out of the cache for one decoding call


class SqrtAlibiCPUBackend(CPUAttentionBackend):
    """vLLM's CPU_ATTN plus sqrt-ALiBi; registered in its place."""

    @classmethod
    def supports_alibi_sqrt(cls) -> bool:
        """True: the impl takes `use_alibi_sqrt`."""
        return True

    @staticmethod
    def get_impl_cls() -> type["SqrtAlibiCPUImpl"]:
        """The impl, which serves layers with and without sqrt-ALiBi."""
        return SqrtAlibiCPUImpl

    @staticmethod
    def get_builder_cls() -> type["SqrtAlibiCPUBuilder"]:
        """The builder, which serves groups of layers with and without sqrt-ALiBi."""
        return SqrtAlibiCPUBuilder


@dataclass
class DecodeCall:
    """Requests with one query token each that share one SDPA call."""

    tokens: torch.Tensor | None  # (n,) their rows in the batch; None: the batch is exactly these, in order
    blocks: torch.Tensor  # (n * kv_heads * blocks,) rows of the cache seen as (blocks * kv_heads, ...)
    bias: torch.Tensor  # (n, kv_heads, group, keys)


@dataclass
class PromptPiece:
    """Consecutive query tokens of one request."""

    start: int  # first row in the batch
    stop: int  # one past the last
    context: int  # keys before the first query
    blocks: torch.Tensor  # (kv_heads * blocks,) rows of the cache seen as (blocks * kv_heads, ...)


@dataclass
class SqrtAlibiMetadata(CPUAttentionMetadata):
    """One step's plan, shared by all layers of the group."""

    table: torch.Tensor = field(
        default_factory=lambda: torch.empty(0)
    )  # (heads, columns), see the file's head
    positions: int = 0  # the table's n
    cache_rows: torch.Tensor = field(default_factory=lambda: torch.empty(0))  # (tokens * kv_heads,)
    decodes: list[DecodeCall] = field(default_factory=list)
    prompts: list[PromptPiece] = field(default_factory=list)


def bias_table(slopes: torch.Tensor, positions: int, beyond: int) -> torch.Tensor:
    """(heads,) slopes -> (heads, positions + beyond) float32 table of this file's head."""
    distance = torch.arange(positions - 1, -1, -1, dtype=torch.float32).sqrt()
    table = torch.full((slopes.shape[0], positions + beyond), float("-inf"))
    torch.mul(slopes.float()[:, None], -distance, out=table[:, :positions])
    return table


class SqrtAlibiCPUBuilder(CPUAttentionMetadataBuilder):
    """Plans each step once for all layers."""

    def __init__(
        self,
        kv_cache_spec: AttentionSpec,
        layer_names: list[str],
        vllm_config: VllmConfig,
        device: torch.device,
    ) -> None:
        super().__init__(kv_cache_spec, layer_names, vllm_config, device)
        layers = get_layers_from_vllm_config(vllm_config, Attention, layer_names)
        impls = [layer.impl for layer in layers.values()]
        self._sqrt = [impl for impl in impls if getattr(impl, "use_alibi_sqrt", False)]
        if not self._sqrt:
            return
        if len(self._sqrt) != len(impls) or any(
            not torch.equal(impl.alibi_slopes, self._sqrt[0].alibi_slopes) for impl in impls
        ):
            raise Step1ConfigError("sqrt-ALiBi on a CPU: all attention layers must have the same slopes")
        positions = vllm_config.model_config.max_model_len
        # Columns after the last position: up to one tile of queries, or the padding of a decoding call.
        self._positions = positions
        self._table = bias_table(self._sqrt[0].alibi_slopes, positions, positions + self.block_size + TILE)
        self._kv_heads = torch.arange(self.num_kv_heads)
        element = torch.empty((), dtype=kv_cache_spec.dtype).element_size()
        block_bytes = self.num_kv_heads * self.block_size * 2 * self.head_dim * element
        self._blocks_per_call = max(1, GATHER_BYTES // block_bytes)

    def build(
        self,
        common_prefix_len: int,
        common_attn_metadata: CommonAttentionMetadata,
        fast_build: bool = False,
    ) -> CPUAttentionMetadata:
        """The plan of one step."""
        if not self._sqrt:
            return super().build(common_prefix_len, common_attn_metadata, fast_build)
        common = common_attn_metadata
        plan = SqrtAlibiMetadata(
            num_actual_tokens=common.num_actual_tokens,
            max_query_len=common.max_query_len,
            query_start_loc=common.query_start_loc,
            max_seq_len=common.max_seq_len,
            seq_lens=common.seq_lens,
            block_table=common.block_table_tensor,
            slot_mapping=common.slot_mapping,
            scheduler_metadata=None,
            table=self._table,
            positions=self._positions,
            cache_rows=self._cache_rows(common.slot_mapping[: common.num_actual_tokens]),
        )
        starts = common.query_start_loc_cpu.tolist()
        lengths = common.seq_lens.tolist()
        decoding: list[int] = []
        for request in range(common.num_reqs):
            start, stop = starts[request], starts[request + 1]
            if stop - start == 1:
                decoding.append(request)
            elif stop > start:
                keys = lengths[request]
                blocks = self._block_rows(common.block_table_tensor[request : request + 1], keys)
                plan.prompts.append(PromptPiece(start, stop, keys - (stop - start), blocks))
        whole = len(decoding) == common.num_actual_tokens
        for requests in self._share_calls(decoding, lengths):
            ordered = whole and len(requests) == len(decoding)
            plan.decodes.append(
                self._decode_call(requests, starts, lengths, common.block_table_tensor, ordered)
            )
        return plan

    def _cache_rows(self, slots: torch.Tensor) -> torch.Tensor:
        """(tokens,) slots -> (tokens * kv_heads,) rows of (blocks * kv_heads * block_size, ..)."""
        slots = slots.long()
        block, offset = slots // self.block_size, slots % self.block_size
        return (
            ((block * self.num_kv_heads)[:, None] + self._kv_heads)
            .mul_(self.block_size)
            .add_(offset[:, None])
            .view(-1)
        )

    def _block_rows(self, block_table: torch.Tensor, keys: int) -> torch.Tensor:
        """(n, any) block table -> (n * kv_heads * blocks,) rows that hold the first `keys` keys."""
        blocks = block_table[:, : -(-keys // self.block_size)].long()
        return ((blocks * self.num_kv_heads)[:, None, :] + self._kv_heads[None, :, None]).view(-1)

    def _share_calls(self, requests: list[int], lengths: list[int]) -> list[list[int]]:
        """Split decoding requests so that at most half of a call's keys are padding, within GATHER_BYTES."""

        def blocks(request: int) -> int:
            return -(-lengths[request] // self.block_size)

        if not requests:
            return []
        longest = max(map(blocks, requests))
        if longest * len(requests) <= min(self._blocks_per_call, 2 * sum(map(blocks, requests))):
            return [requests]
        calls: list[list[int]] = []
        for request in sorted(requests, key=blocks, reverse=True):
            top = blocks(calls[-1][0]) if calls else 0
            if not calls or 2 * blocks(request) < top or top * (len(calls[-1]) + 1) > self._blocks_per_call:
                calls.append([])
            calls[-1].append(request)
        return calls

    def _decode_call(
        self,
        requests: list[int],
        starts: list[int],
        lengths: list[int],
        block_table: torch.Tensor,
        ordered: bool,
    ) -> DecodeCall:
        longest = max(lengths[request] for request in requests)
        keys = -(-longest // self.block_size) * self.block_size
        rows = block_table[: len(requests)] if ordered else block_table[torch.tensor(requests)]
        slices = [
            self._table[:, self._positions - lengths[request] : self._positions - lengths[request] + keys]
            for request in requests
        ]
        bias = torch.stack(slices) if len(slices) > 1 else slices[0][None]
        return DecodeCall(
            tokens=None if ordered else torch.tensor([starts[request] for request in requests]),
            blocks=self._block_rows(rows, longest),
            bias=bias.unflatten(1, (self.num_kv_heads, -1)),
        )


class SqrtAlibiCPUImpl(CPUAttentionBackendImpl):
    """One attention layer. The cache is (blocks, kv_heads, block_size, keys then values)."""

    def __init__(self, *args: Any, use_alibi_sqrt: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.use_alibi_sqrt = use_alibi_sqrt
        if use_alibi_sqrt and self.is_fp8_kv_cache:
            raise Step1ConfigError(f"kv-cache-dtype {self.kv_cache_dtype}: Step-1 on a CPU takes auto only")

    def do_kv_cache_update(
        self,
        layer: torch.nn.Module,
        key: torch.Tensor,
        value: torch.Tensor,
        kv_cache: torch.Tensor,
        slot_mapping: torch.Tensor,
    ) -> None:
        """Store keys and values; sqrt-ALiBi layers do it in `forward`, where the plan has the rows."""
        if not self.use_alibi_sqrt:
            super().do_kv_cache_update(layer, key, value, kv_cache, slot_mapping)

    def forward(  # noqa: PLR0917 - vLLM's signature
        self,
        layer: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        kv_cache: torch.Tensor,
        attn_metadata: CPUAttentionMetadata | None,
        output: torch.Tensor,
        output_scale: torch.Tensor | None = None,
        output_block_scale: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """query (tokens, heads, d), key and value (tokens, kv_heads, d) -> output, written in place."""
        if not isinstance(
            attn_metadata, SqrtAlibiMetadata
        ):  # another model's layer, or a dry run without one
            return super().forward(
                layer, query, key, value, kv_cache, attn_metadata, output, output_scale, output_block_scale
            )
        tokens, size = attn_metadata.num_actual_tokens, 2 * self.head_size
        new = torch.cat((key[:tokens], value[:tokens]), dim=-1)
        kv_cache.view(-1, size).index_copy_(0, attn_metadata.cache_rows, new.view(-1, size))
        blocks = kv_cache.view(-1, kv_cache.shape[2], size)
        grouped = (self.num_kv_heads, self.num_queries_per_kv, self.head_size)
        query = query[:tokens].view(tokens, *grouped)
        result = output[:tokens].view(tokens, *grouped)
        for call in attn_metadata.decodes:
            self._decode(call, query, blocks, result)
        for piece in attn_metadata.prompts:
            self._prompt(piece, attn_metadata, query, blocks, result)
        return output

    def _decode(
        self, call: DecodeCall, query: torch.Tensor, blocks: torch.Tensor, result: torch.Tensor
    ) -> None:
        # The heads of a group are SDPA's query rows: they share keys and have their own bias.
        picked = query if call.tokens is None else query[call.tokens]
        cached = blocks[call.blocks].view(picked.shape[0], self.num_kv_heads, -1, 2 * self.head_size)
        keys, values = cached.split(self.head_size, dim=-1)
        attended = F.scaled_dot_product_attention(picked, keys, values, attn_mask=call.bias, scale=self.scale)
        if call.tokens is None:
            result.copy_(attended)
        else:
            result[call.tokens] = attended

    def _prompt(
        self,
        piece: PromptPiece,
        plan: SqrtAlibiMetadata,
        query: torch.Tensor,
        blocks: torch.Tensor,
        result: torch.Tensor,
    ) -> None:
        cached = blocks[piece.blocks].view(self.num_kv_heads, 1, -1, 2 * self.head_size)
        keys, values = cached.expand(-1, self.num_queries_per_kv, -1, -1).split(self.head_size, dim=-1)
        width = plan.table.shape[1]
        for first in range(piece.start, piece.stop, TILE):
            stop = min(first + TILE, piece.stop)
            visible = piece.context + stop - piece.start
            bias = plan.table.as_strided(
                (self.num_kv_heads, self.num_queries_per_kv, stop - first, visible),
                (self.num_queries_per_kv * width, width, 1, 1),
                plan.positions - visible,
            )
            attended = F.scaled_dot_product_attention(
                query[first:stop].flip(0).permute(1, 2, 0, 3),
                keys[..., :visible, :],
                values[..., :visible, :],
                attn_mask=bias,
                scale=self.scale,
            )
            result[first:stop] = attended.permute(2, 0, 1, 3).flip(0)
