// Replaces the shared libraries of CANN on a host without CANN: symbols without code.
//
// MindSpore's front end needs these symbols to exist, not to do anything: a graph of a dry run never runs on a device.
// Most return 0, which is "success" or "nothing". The few below return something else: the name of a device, memory of
// the host, a map that initializers of static objects write to.
//
// `symbols.inc` is generated: the names that MindSpore's libraries need, each as one of the macros. Plain C, with no
// header and no library of C++, so that any compiler for C makes the same library.

typedef unsigned int uint32;
typedef unsigned long size;

void *malloc(size);
void free(void *);

enum { kDevices = 1024 };  // as many as a layout may have; none of them exists
static const size kMemory = (size)64 << 30;
static const char kSoc[] = "Ascend910B2";  // of the family in an Atlas 800T A2, on which the pretraining guide trains

static int Handle(void **handle) {
  static char nothing[64];
  *handle = nothing;
  return 0;
}

// A function.
#define ZERO(name) \
  void *name(void) { return 0; }
// A constructor in `ge`: its object is one or more shared pointers, and those have to be empty.
#define EMPTY(name)          \
  void *name(void **self) {  \
    self[0] = self[1] = 0;   \
    return 0;                \
  }
#define EMPTY_OPERATOR(name)           \
  void *name(void **self) {            \
    self[0] = self[1] = self[2] = 0;   \
    return 0;                          \
  }

const char *aclrtGetSocName(void) { return kSoc; }
int rtGetSocVersion(char *version, uint32 length) {
  for (uint32 i = 0; i < length; ++i) {
    version[i] = i < sizeof kSoc ? kSoc[i] : 0;
  }
  return 0;
}
const char *aclGetRecentErrMsg(void) { return ""; }

int aclrtGetDeviceCount(uint32 *count) {
  *count = kDevices;
  return 0;
}
int aclrtGetDevice(int *device) {
  *device = 0;
  return 0;
}
int rtGetDeviceInfo(uint32 device, int module, int kind, long *value) {
  *value = 0;
  return 0;
}
int aclrtCreateContext(void **context, int device) { return Handle(context); }
int aclrtGetCurrentContext(void **context) { return Handle(context); }
int aclrtCreateStream(void **stream) { return Handle(stream); }
int aclrtCreateStreamWithConfig(void **stream, uint32 priority, uint32 flag) { return Handle(stream); }
int aclrtCreateEvent(void **event) { return Handle(event); }
int aclrtCreateEventExWithFlag(void **event, uint32 flag) { return Handle(event); }

int aclrtGetMemInfo(int kind, size *available, size *total) {
  *available = *total = kMemory;
  return 0;
}
int aclrtMallocHost(void **memory, size length) {
  *memory = malloc(length);
  return *memory == 0;
}
int aclrtFreeHost(void *memory) {
  free(memory);
  return 0;
}

// `ge::StatusFactory::Instance()`: an empty std::map<uint32_t, std::string> as GNU's C++ library lays it out. Its ABI
// is fixed: a comparison without state, the node that is root's parent and end (color, parent, first, last), the size.
void *_ZN2ge13StatusFactory8InstanceEv(void) {
  static struct {
    void *compare;
    struct {
      size color;
      void *parent, *first, *last;
    } end;
    size length;
  } statuses;
  if (statuses.end.first == 0) {
    statuses.end.first = statuses.end.last = &statuses.end;
  }
  return &statuses;
}

#include "symbols.inc"
