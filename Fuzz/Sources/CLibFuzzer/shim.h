// libFuzzer comes with the compiler and has no header of its own. This is its entry for programs that keep their own main
// (FuzzerInterface.h of compiler-rt).
#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerRunDriver(int *argc, char ***argv, int (*callback)(const uint8_t *data, size_t size));
