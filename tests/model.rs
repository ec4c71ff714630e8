//! Models against references made elsewhere: transformers' logits, llama2.c's text, tokenizers' golden files.

#![allow(clippy::unwrap_used, reason = "a test that panics fails, as it should")]

mod support;

mod model {
    mod checkpoints;
    mod families;
    mod gguf;
    mod gguf_parts;
    mod stories;
    mod tokenizers;
}
