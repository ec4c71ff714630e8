#!/usr/bin/env bash
# Sets up what `cargo build --features cuda` needs on a machine that has no CUDA: nvcc and the libraries from
# Python wheels, the unversioned names the linker asks for, and a stub of the driver to link against.
#
#   eval "$(tools/cuda-toolkit.sh)"          # installs on the first call, then prints the environment
#   cargo build --release --features cuda
#
# KVPROF_CUDA_DIR   where to install (default: ~/.cache/kvprof/cuda-13.0)
# CUDA_COMPUTE_CAP  80 (default) makes PTX that Ampere and newer compile; 90 is for Hopper only
#
# NVCC_APPEND_FLAGS (default: compress machine code) also reaches the kernels that candle links, half of the binary.
#
# A machine that has a CUDA toolkit (nvcc on the PATH) and a driver does not need this script.
set -euo pipefail

dir=${KVPROF_CUDA_DIR:-$HOME/.cache/kvprof/cuda-13.0}
here=$(cd "$(dirname "$0")/.." && pwd)
say() { echo "cuda-toolkit: $*" >&2; }

if [ ! -e "$dir/.complete" ]; then
  say "installing CUDA 13.0 from wheels into $dir"
  mkdir -p "$dir"
  python3 -m venv "$dir/venv"
  pip="$dir/venv/bin/python -m pip install --quiet --disable-pip-version-check"
  $pip 'nvidia-cuda-nvcc==13.0.*' 'nvidia-nvvm==13.0.*' 'nvidia-cuda-crt==13.0.*' \
    'nvidia-cuda-runtime==13.0.*' 'nvidia-cuda-cccl==13.0.*'
  # These four name each other as needs; none of the rest is wanted.
  $pip --no-deps 'nvidia-cublas==13.0.*' 'nvidia-cuda-nvrtc==13.0.*' 'nvidia-cuda-cupti==13.0.*' \
    'nvidia-curand==10.4.0.*'

  cuda=$(echo "$dir"/venv/lib/python3*/site-packages/nvidia/cu13)
  ln -sfn "$cuda" "$dir/cuda"
  ln -sfn lib "$cuda/lib64"
  for versioned in "$cuda"/lib/lib*.so.*; do
    name=$(basename "$versioned")
    ln -sfn "$name" "$cuda/lib/${name%%.so.*}.so"
  done

  # candle links the driver dynamically, so the linker wants every function that cudarc declares. The stub
  # only answers the linker: the real libcuda.so.1 comes with the driver of the machine that runs the binary.
  say "making a stub of libcuda.so.1 from cudarc's declarations"
  cargo fetch --quiet --manifest-path "$here/Cargo.toml"
  bindings=$(ls "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*/cudarc-0.19.*/src/driver/sys/mod.rs | tail -n 1)
  mkdir -p "$cuda/lib/stubs"
  grep -oE 'fn cu[A-Za-z0-9_]+' "$bindings" | sort -u | sed 's/fn \(.*\)/int \1(void) { return 999; }/' \
    > "$dir/libcuda-stub.c"
  cc -shared -fPIC -Wl,-soname,libcuda.so.1 -o "$cuda/lib/stubs/libcuda.so" "$dir/libcuda-stub.c"
  ln -sfn libcuda.so "$cuda/lib/stubs/libcuda.so.1"
  touch "$dir/.complete"
fi

cat <<ENV
export CUDA_HOME="$dir/cuda" CUDA_PATH="$dir/cuda" CUDA_ROOT="$dir/cuda" CUDA_TOOLKIT_ROOT_DIR="$dir/cuda"
export PATH="$dir/cuda/bin:\$PATH"
export CUDA_COMPUTE_CAP="\${CUDA_COMPUTE_CAP:-80}"
export NVCC_APPEND_FLAGS="\${NVCC_APPEND_FLAGS:--Xfatbin -compress-all}"
export LIBRARY_PATH="$dir/cuda/lib:$dir/cuda/lib/stubs\${LIBRARY_PATH:+:\$LIBRARY_PATH}"
ENV
