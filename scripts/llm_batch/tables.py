"""Column names and types of the tables that pass between stages."""

from __future__ import annotations

import pyarrow as pa

ANSWERS = pa.schema(
    [
        ("key", pa.string()),
        ("max_tokens", pa.int32()),
        ("text", pa.string()),
        ("token_ids", pa.list_(pa.int32())),
        ("finish_reason", pa.string()),
        ("stop_reason", pa.string()),
        ("prompt_tokens", pa.int32()),
        ("rendered_prompt", pa.string()),
        ("truncated_prompt_tokens", pa.int32()),
        ("cumulative_logprob", pa.float64()),
        ("logprobs", pa.string()),
        ("prompt_logprobs", pa.string()),
        ("error_type", pa.string()),
        ("error_message", pa.string()),
    ]
)
"""Answers of one engine, one row a request; (key, max_tokens) is unique in a file."""

LEDGER = pa.schema(
    [
        ("row", pa.string()),
        ("line", pa.int64()),
        ("sample", pa.int32()),
        ("key", pa.string()),
        ("max_tokens", pa.int32()),
        ("seed", pa.int64()),
        ("prompt", pa.string()),
        ("reference", pa.string()),
        ("tags", pa.string()),
        ("error_type", pa.string()),
        ("error_message", pa.string()),
    ]
)
"""What a run expects: one row a completion, in prompt order; key is null for rows in error."""

COMPLETIONS = pa.schema(
    [
        ("row", pa.string()),
        ("line", pa.int64()),
        ("sample", pa.int32()),
        ("prompt", pa.string()),
        ("rendered_prompt", pa.string()),
        ("reference", pa.string()),
        ("seed", pa.int64()),
        ("text", pa.string()),
        ("token_ids", pa.list_(pa.int32())),
        ("finish_reason", pa.string()),
        ("stop_reason", pa.string()),
        ("prompt_tokens", pa.int32()),
        ("truncated_prompt_tokens", pa.int32()),
        ("completion_tokens", pa.int32()),
        ("cumulative_logprob", pa.float64()),
        ("logprobs", pa.string()),
        ("prompt_logprobs", pa.string()),
        ("tags", pa.string()),
        ("error_type", pa.string()),
        ("error_message", pa.string()),
    ]
)
"""A merged run, one row a completion, in prompt order; null text where error_type is set."""
