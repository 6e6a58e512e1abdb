// Pack: fields in a byte string, for what ranks exchange when they meet. Reading is bounds-checked:
// a short or malformed string gives false, never a read outside.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

namespace railccl::runtime {

class Packer {
 public:
  Packer& add(uint64_t value) {
    bytes_.append(reinterpret_cast<const char*>(&value), sizeof value);
    return *this;
  }
  Packer& add(std::string_view text) {
    add(text.size());
    bytes_.append(text);
    return *this;
  }
  std::string take() && { return std::move(bytes_); }

 private:
  std::string bytes_;
};

class Unpacker {
 public:
  explicit Unpacker(std::string_view bytes) : left_(bytes) {}
  bool get(uint64_t* value) {
    if (left_.size() < sizeof *value) return false;
    std::memcpy(value, left_.data(), sizeof *value);
    left_.remove_prefix(sizeof *value);
    return true;
  }
  bool get(std::string* text) {
    uint64_t size = 0;
    if (!get(&size) || size > left_.size()) return false;
    text->assign(left_.substr(0, size));
    left_.remove_prefix(size);
    return true;
  }
  bool at_end() const { return left_.empty(); }

 private:
  std::string_view left_;
};

}  // namespace railccl::runtime
