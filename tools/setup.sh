# Sourced by ./run and ./check: the packages that railccl builds and tests with, on Debian 12.
# Installs what is missing when it may (root, or sudo without a password), else says what to type.

PACKAGES_BUILD="g++ cmake ninja-build pkg-config libhwloc-dev libhwy-dev libfmt-dev libspdlog-dev
  libcli11-dev nlohmann-json3-dev libopenblas-dev zlib1g-dev dataset-fashion-mnist libibverbs-dev
  libucx-dev"
PACKAGES_TEST="clang libclang-rt-dev clang-format libgtest-dev libgmock-dev libbenchmark-dev iproute2
  util-linux procps git python3 gcc libc6-dev binutils openmpi-bin mpich valgrind
  qemu-system-x86 seabios busybox-static kmod ibverbs-providers ibverbs-utils perftest
  python3-torch libtorch-dev python3-pip python3-setuptools pybind11-dev"

railccl_setup() {
  local missing="" package
  for package in "$@"; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q "install ok installed" ||
      missing="$missing $package"
  done
  [ -z "$missing" ] && return 0
  local as_root=""
  if [ "$(id -u)" != 0 ]; then
    if sudo -n true 2>/dev/null; then
      as_root="sudo -n"
    else
      echo "Missing Debian packages. Please run:" >&2
      echo "  sudo apt-get install$missing" >&2
      return 1
    fi
  fi
  echo "Installing:$missing"
  $as_root apt-get update -qq &&
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
      $missing >/dev/null
}
