//! Models against references made elsewhere: transformers' logits, llama2.c's text, tokenizers' golden files.

mod support;

mod model {
    mod checkpoints;
    mod families;
    mod gguf;
    mod stories;
    mod tokenizers;
}
