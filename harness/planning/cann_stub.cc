// Stands for the shared libraries of CANN where there is no CANN: symbols without code.
//
// MindSpore's front end needs them to be there, not to do anything: what it compiles in a dry run never comes to a
// device. Most answer 0, which is "success" or "nothing". The few below have an answer of their own: a device that can
// be named, memory of the host, a map that initializers of static objects write to.
//
// `symbols.inc` is generated: the names that MindSpore's libraries ask for, each as one of the macros. It is compiled
// with the ABI of strings that CANN and MindSpore share, _GLIBCXX_USE_CXX11_ABI=0.

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>

namespace {
constexpr std::uint32_t kDevices = 1024;  // as many as a layout may have; none of them is there
constexpr std::size_t kMemory = std::size_t{64} << 30;
constexpr const char *kSoc = "Ascend910B2";  // of the family in an Atlas 800T A2, on which the pretraining guide trains

int Handle(void **handle) {
  static char nothing[64];
  *handle = nothing;
  return 0;
}
}  // namespace

extern "C" {
// A function.
#define ZERO(name) \
  void *name(void) { return nullptr; }
// A constructor in `ge`: its object is one or more shared pointers, and those have to be empty.
#define EMPTY(name)                           \
  void *name(void **self) {                   \
    self[0] = self[1] = nullptr;              \
    return nullptr;                           \
  }
#define EMPTY_OPERATOR(name)                  \
  void *name(void **self) {                   \
    self[0] = self[1] = self[2] = nullptr;    \
    return nullptr;                           \
  }

const char *aclrtGetSocName() { return kSoc; }
int rtGetSocVersion(char *version, std::uint32_t size) {
  std::strncpy(version, kSoc, size);
  return 0;
}
const char *aclGetRecentErrMsg() { return ""; }

int aclrtGetDeviceCount(std::uint32_t *count) {
  *count = kDevices;
  return 0;
}
int aclrtGetDevice(std::int32_t *device) {
  *device = 0;
  return 0;
}
int rtGetDeviceInfo(std::uint32_t, std::int32_t, std::int32_t, std::int64_t *value) {
  *value = 0;
  return 0;
}
int aclrtCreateContext(void **context, std::int32_t) { return Handle(context); }
int aclrtGetCurrentContext(void **context) { return Handle(context); }
int aclrtCreateStream(void **stream) { return Handle(stream); }
int aclrtCreateStreamWithConfig(void **stream, std::uint32_t, std::uint32_t) { return Handle(stream); }
int aclrtCreateEvent(void **event) { return Handle(event); }
int aclrtCreateEventExWithFlag(void **event, std::uint32_t) { return Handle(event); }

int aclrtGetMemInfo(int, std::size_t *free, std::size_t *total) {
  *free = *total = kMemory;
  return 0;
}
int aclrtMallocHost(void **memory, std::size_t size) {
  *memory = std::malloc(size);
  return *memory == nullptr;
}
int aclrtFreeHost(void *memory) {
  std::free(memory);
  return 0;
}

// `ge::StatusFactory::Instance()`
void *_ZN2ge13StatusFactory8InstanceEv() {
  static std::map<std::uint32_t, std::string> statuses;
  return &statuses;
}

#include "symbols.inc"
}
