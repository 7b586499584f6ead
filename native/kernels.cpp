// All kernels of the CPU backend, compiled once for each level of instructions: see CMakeLists.txt.
#include "cuts.hpp"
#include "survey.hpp"
