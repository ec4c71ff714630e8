# Everyday commands; `just` lists them.

_list:
    @just --list

# Format, lint, compile: what CI does before the tests
check:
    cargo fmt --check
    cargo clippy --all-targets -- -D warnings

# The README's test command
test:
    cargo test

# GPU tests, on a machine with a GPU; fails where there is none
test-gpu:
    KVPROF_REQUIRE_GPU=1 cargo test --release --features cuda

# Speed, with ratios measured side by side in one run
bench:
    cargo bench --features cuda

# The main job at its smallest
smoke:
    cargo run -- run --output-dir target/smoke --context-lengths 512 --measure-runs 1 --warmup-runs 0 --decode-tokens 64
