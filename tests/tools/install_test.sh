#!/usr/bin/env bash
# Installation: `cmake --install` into a fresh prefix gives what users build with: the README's C
# example compiles and runs through pkg-config and through find_package, Python imports the module, and
# a program on railccl/mpi.h runs through mpicc where an MPI is installed.
# Usage: install_test.sh SOURCE_DIR BUILD_DIR
set -eu
source=$1
build=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cmake --install "$build" --prefix "$work/usr" >/dev/null

library_dir=$(dirname "$(find "$work/usr" -name librailccl.so | head -n 1)")
for file in "$library_dir/libnccl.so.2" "$work/usr/include/nccl.h" \
  "$work/usr/include/railccl/railccl.h" "$work/usr/bin/railccl-bench"; do
  [ -e "$file" ] || { echo "not installed: $file"; exit 1; }
done

export PKG_CONFIG_PATH=$library_dir/pkgconfig
# shellcheck disable=SC2046
cc -std=c99 -Wall -Werror "$source/tests/api/example.c" -o "$work/example" \
  $(pkg-config --cflags --libs railccl)
LD_LIBRARY_PATH=$library_dir "$work/example"
echo "ok: pkg-config"

mkdir "$work/project"
cat >"$work/project/CMakeLists.txt" <<'TEXT'
cmake_minimum_required(VERSION 3.25)
project(example C)
find_package(railccl REQUIRED)
add_executable(example example.c)
target_link_libraries(example railccl::railccl)
TEXT
cp "$source/tests/api/example.c" "$work/project/"
cmake -G Ninja -S "$work/project" -B "$work/project/build" -DCMAKE_PREFIX_PATH="$work/usr" >/dev/null
cmake --build "$work/project/build" >/dev/null
"$work/project/build/example"
echo "ok: find_package"

PYTHONPATH=$work/usr/lib/python3/dist-packages python3 -c '
import railccl
comm, = railccl.init_all(1)
data = bytearray(b"x")
comm.Allreduce(data)
assert data == b"x" and str(railccl.load()._name).startswith("'"$work"'"), railccl.load()'
echo "ok: import railccl"

if command -v mpicc >/dev/null && command -v mpirun >/dev/null &&
  echo '#include <mpi.h>' | mpicc -E - >/dev/null 2>&1; then
  cat >"$work/with_mpi.c" <<'TEXT'
#include <railccl/mpi.h>
#include <stdio.h>
int main(int argc, char** argv) {
  ncclComm_t comm;
  float one = 1, sum = 0;
  int ranks = 0;
  MPI_Init(&argc, &argv);
  MPI_Comm_size(MPI_COMM_WORLD, &ranks);
  if (railcclCommInitMpi(&comm, MPI_COMM_WORLD) != ncclSuccess) return 1;
  if (ncclAllReduce(&one, &sum, 1, ncclFloat, ncclSum, comm, NULL) != ncclSuccess) return 2;
  ncclCommDestroy(comm);
  MPI_Finalize();
  return sum == (float)ranks ? 0 : 3;
}
TEXT
  # shellcheck disable=SC2046
  mpicc "$work/with_mpi.c" -o "$work/with_mpi" $(pkg-config --cflags --libs railccl)
  options="-np 3"
  if mpirun --version 2>&1 | grep -q -i "open mpi\|open-mpi"; then
    options="$options --oversubscribe"
    [ "$(id -u)" = 0 ] && options="$options --allow-run-as-root"
  fi
  LD_LIBRARY_PATH=$library_dir mpirun $options "$work/with_mpi"
  echo "ok: railccl/mpi.h"
else
  echo "skipped: no MPI compiler"
fi
