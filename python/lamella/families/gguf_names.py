"""Names that llama.cpp's converter gives to tensors and metadata, the same for every architecture."""

from __future__ import annotations

from .family import Cut, Where

TENSORS: dict[str, Where] = {
    "token_embedding": "token_embd.weight",
    "position_embedding": "position_embd.weight",
    "type_embedding": "token_types.weight",
    "embedding_norm": "token_embd_norm.weight",
    "attention_norm": "blk.{i}.attn_norm.weight",
    "query": "blk.{i}.attn_q.weight",
    "key": "blk.{i}.attn_k.weight",
    "value": "blk.{i}.attn_v.weight",
    "attention_output": "blk.{i}.attn_output.weight",
    "mlp_norm": "blk.{i}.ffn_norm.weight",
    "mlp_gate": "blk.{i}.ffn_gate.weight",
    "mlp_up": "blk.{i}.ffn_up.weight",
    "mlp_down": "blk.{i}.ffn_down.weight",
    "final_norm": "output_norm.weight",
    "head": "output.weight",
}

FUSED_QKV: dict[str, Where] = {
    "query": Cut("blk.{i}.attn_qkv.weight", part=0, parts=3),
    "key": Cut("blk.{i}.attn_qkv.weight", part=1, parts=3),
    "value": Cut("blk.{i}.attn_qkv.weight", part=2, parts=3),
}

FIELDS = {
    "hidden_size": "embedding_length",
    "num_hidden_layers": "block_count",
    "num_attention_heads": "attention.head_count",
    "intermediate_size": "feed_forward_length",
    "max_position_embeddings": "context_length",
}
