/* A stand-in for libcuda.so.1 on machines without an NVIDIA driver.
 *
 * TVM with CUDA links the driver library, so it does not even load where there is none. These
 * are the functions that its link needs; each says that there is no device. Compiling for CUDA
 * works with it, running does not. */

enum { CUDA_ERROR_NO_DEVICE = 100 };

#define NO_DEVICE(name) int name(void) { return CUDA_ERROR_NO_DEVICE; }

NO_DEVICE(cuDeviceGetName)
NO_DEVICE(cuFuncSetAttribute)
NO_DEVICE(cuGetErrorName)
NO_DEVICE(cuLaunchKernel)
NO_DEVICE(cuMemsetD32_v2)
NO_DEVICE(cuModuleGetFunction)
NO_DEVICE(cuModuleGetGlobal_v2)
NO_DEVICE(cuModuleLoadData)
NO_DEVICE(cuModuleUnload)
