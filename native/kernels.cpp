// All kernels of the CPU backend, compiled once for each level of instructions: see CMakeLists.txt.
#include "refined.hpp"
