// MPI at run time: Open MPI and MPICH through dlopen, by their stable binary interfaces.
//
// Open MPI (SONAME libmpi.so.40, versions 4 and 5) exposes its predefined handles as the addresses
// of global objects; MPICH and its kin (SONAME libmpi.so.12 or libmpich.so.12, the MPICH ABI
// Compatibility Initiative) use fixed integers. Five functions are all that is needed.
#include "launch/mpi.h"

#include <dlfcn.h>

#include <initializer_list>

namespace railccl::launch {
namespace {

constexpr int kMpichCommWorld = 0x44000000;
constexpr int kMpichByte = 0x4c00010d;

void* open_first(std::initializer_list<const char*> names, std::string* error) {
  for (const char* name : names) {
    // Global: MPI's own plugins look their symbols up in the process.
    if (void* handle = dlopen(name, RTLD_NOW | RTLD_GLOBAL)) return handle;
    *error = dlerror();
  }
  return nullptr;
}

template <typename Comm>
class LoadedMpi final : public Mpi {
 public:
  bool bind(void* library, Comm world, Comm byte, std::string* error) {
    world_ = world;
    byte_ = byte;
    auto find = [&](auto& function, const char* name) {
      function =
          reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(library, name));
      if (function == nullptr) *error = std::string("the MPI library lacks ") + name;
      return function != nullptr;
    };
    int (*init)(int*, char***) = nullptr;
    int (*initialized)(int*) = nullptr;
    if (!find(init, "MPI_Init") || !find(initialized, "MPI_Initialized") ||
        !find(finalize_, "MPI_Finalize") || !find(broadcast_, "MPI_Bcast"))
      return false;
    int already = 0;
    initialized(&already);
    if (already != 0) return true;
    if (init(nullptr, nullptr) != 0) {
      *error = "MPI_Init failed";
      return false;
    }
    owner_ = true;
    return true;
  }
  ~LoadedMpi() override {
    if (owner_) finalize_();
  }
  bool broadcast(void* data, size_t bytes) override {
    return broadcast_(data, static_cast<int>(bytes), byte_, 0, world_) == 0;
  }

 private:
  Comm world_{};
  Comm byte_{};
  bool owner_ = false;
  int (*finalize_)() = nullptr;
  int (*broadcast_)(void*, int, Comm, int, Comm) = nullptr;
};

}  // namespace

std::unique_ptr<Mpi> Mpi::load(bool open_mpi, std::string* error) {
  if (open_mpi) {
    void* library = open_first({"libmpi.so.40", "libmpi.so"}, error);
    if (library == nullptr) return nullptr;
    void* world = dlsym(library, "ompi_mpi_comm_world");
    void* byte = dlsym(library, "ompi_mpi_byte");
    if (world == nullptr || byte == nullptr) {
      *error = "libmpi.so.40 is not Open MPI's";
      return nullptr;
    }
    auto mpi = std::make_unique<LoadedMpi<void*>>();
    if (!mpi->bind(library, world, byte, error)) return nullptr;
    return mpi;
  }
  void* library = open_first({"libmpich.so.12", "libmpi.so.12"}, error);
  if (library == nullptr) return nullptr;
  auto mpi = std::make_unique<LoadedMpi<int>>();
  if (!mpi->bind(library, kMpichCommWorld, kMpichByte, error)) return nullptr;
  return mpi;
}

}  // namespace railccl::launch
